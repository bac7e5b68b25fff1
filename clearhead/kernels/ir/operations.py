"""Operations of rules as instructions: each on single numbers, on vectors, or on both, with the table's own bits.

Decides which instructions an operation comes to. EMITTERS has one function for every row of `rules.operations`, and
leaves those that are rounded more than once to `kernels.ir.math`. What is one number for all lanes stays one as long as
no vector meets it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import llvmlite.ir as ir

from clearhead.kernels.ir import math, rounding
from clearhead.kernels.ir.code import Code
from clearhead.kernels.ir.values import (
    Bits,
    Float,
    Int,
    Lanes,
    Real,
    Truth,
    Value,
    Vector,
    Whole,
    constant,
    i32,
    shaped,
)
from clearhead.rules.expression import Expression
from clearhead.rules.threefry import BITS, threefry


class Numbers:
    """How numbers and vectors of one function meet; whole numbers in lanes have `width` bits, and 64 alone."""

    def __init__(self, f: Code, width: int) -> None:
        self.f, self.width = f, width

    def vector(self, x: Value) -> Any:
        """x in every lane, if it is one number."""
        if has_lanes(x):
            return x
        if isinstance(x, Int):
            return Lanes(self.f.build, self.f.spread(x.resized(self.width).ir))
        return (Vector if isinstance(x, Float) else Truth)(self.f.build, self.f.spread(x.ir))

    def alike(self, args: Sequence[Value]) -> Sequence[Any]:
        """All as vectors if one is."""
        return [self.vector(x) for x in args] if any(map(has_lanes, args)) else args


def has_lanes(x: Value) -> bool:
    """Whether a value is a vector; a GPU's thread has one lane, whose numbers are vectors by their kind alone."""
    return isinstance(x, Vector | Lanes) or isinstance(x.ir.type, ir.VectorType)


Emitter = Callable[[Numbers, Expression, Sequence[Any]], Any]


def operators(apply: Callable[..., Value]) -> Emitter:
    """One of the values' own operators."""
    return lambda n, e, args: apply(*n.alike(args))


def extreme(than: str) -> Emitter:
    """The smaller or larger of two; not a number if either is none, of which constants never are."""

    def emit(n: Numbers, e: Expression, args: Sequence[Any]) -> Any:
        a, b = n.alike(args)
        if e.kind == "int":
            return Whole.compare(a, than, b).choose(a, b)
        first, second = (x.op in ("constant", "parameter", "float") for x in e.args)
        if first:
            return Real.compare(a, than, b).choose(a, b)
        taken = Real.compare_or_nan(a, than, b)
        if not second:
            taken = Real.compare(a, than, b) | a.is_nan()
        return taken.choose(a, b)

    return emit


def size(n: Numbers, e: Expression, args: Sequence[Any]) -> Any:
    """|a|."""
    (a,) = args
    if isinstance(a, Real):
        return a.size()
    return (a < 0).choose(-a, a)


def division(*, rest: bool) -> Emitter:
    """Floor division as Python's; of whole numbers it is 0 where the divisor is 0.

    The divisors 0 and −1, which processors stop at, are taken out first.
    """

    def emit(n: Numbers, e: Expression, args: Sequence[Any]) -> Any:
        if e.kind == "float":
            return (rounding.remainder if rest else rounding.floor_division)(n.f, *map(n.vector, args))
        a, d = n.alike(args)
        zero, one = a.like(0), a.like(1)
        nothing, negated = d == 0, d == -1
        safe = (nothing | negated).choose(one, d)
        quotient, left = a // safe, a % safe
        below = (left != 0) & ((left < 0) ^ (safe < 0))
        if rest:
            left = below.choose(left + safe, left)
            return (nothing | negated).choose(zero, left)
        quotient = below.choose(quotient - 1, quotient)
        return nothing.choose(zero, negated.choose(-a, quotient))

    return emit


def choice(n: Numbers, e: Expression, args: Sequence[Any]) -> Any:
    """a where the condition holds, else the other."""
    condition, *sides = args
    a, other = n.alike(sides)
    if has_lanes(condition):
        a, other = n.vector(a), n.vector(other)
    return condition.choose(a, other)


def to_float(n: Numbers, e: Expression, args: Sequence[Any]) -> Any:
    """A whole number or truth as a float."""
    (x,), build = args, n.f.build
    convert = build.uitofp if isinstance(x, Truth) else build.sitofp
    return (Vector if has_lanes(x) else Float)(build, convert(x.ir, shaped(x.ir, n.f.scalar)))


def to_whole(n: Numbers, e: Expression, args: Sequence[Any]) -> Any:
    """Truth as 0 and 1, a float cut to a whole number; 0 for what its 64 bits, or 32, do not hold."""
    (x,), build = args, n.f.build
    if isinstance(x, Truth):
        if not has_lanes(x):
            return x.number()
        return Lanes(build, build.zext(x.ir, shaped(x.ir, ir.IntType(n.width))))
    x = n.vector(x)
    held = (x.size() < 2.0 ** (n.width - 1)).choose(x, n.f.constant(0.0))
    return Lanes(build, build.fptosi(held.ir, shaped(x.ir, ir.IntType(n.width))))


def draw(n: Numbers, e: Expression, args: Sequence[Any]) -> Any:
    """A number below 2³⁰ from key and counter: lanes of 32 bits, whatever the floats'."""
    alike = n.alike(args)
    key0, key1, counter0, counter1 = (Bits(x.build, x.resized(32).ir) for x in alike)
    word, _ = threefry(WordInstructions(n.f, has_lanes(alike[0])), (key0, key1), (counter0, counter1))
    word = word.logical_right(32 - BITS)
    return Lanes(n.f.build, word.resized(n.width).ir) if has_lanes(word) else Int(n.f.build, word.resized(64).ir)


def on_vectors(emit: Callable[..., Value]) -> Emitter:
    """A function of vectors alone, such as those of `kernels.ir.math`."""
    return lambda n, e, args: emit(n.f, *map(n.vector, args))


@dataclass(frozen=True)
class WordInstructions:
    """Threefry's arithmetic as instructions, on one word or one in each lane."""

    f: Code
    in_lanes: bool

    def word(self, number: int) -> Bits:
        """A constant."""
        return Bits(self.f.build, constant(self.f.in_lanes(i32) if self.in_lanes else i32, number))

    def add(self, a: Bits, b: Bits) -> Bits:
        """a + b."""
        return a + b

    def xor(self, a: Bits, b: Bits) -> Bits:
        """Bits that differ."""
        return a ^ b

    def rotate(self, a: Bits, by: int) -> Bits:
        """Bits moved to the left."""
        return a.rotated(by)


EMITTERS: dict[str, Emitter] = {
    "add": operators(operator.add),
    "sub": operators(operator.sub),
    "mul": operators(operator.mul),
    "div": operators(operator.truediv),
    "floordiv": division(rest=False),
    "mod": division(rest=True),
    "neg": operators(operator.neg),
    "abs": size,
    "min": extreme("<"),
    "max": extreme(">"),
    "lt": operators(operator.lt),
    "le": operators(operator.le),
    "gt": operators(operator.gt),
    "ge": operators(operator.ge),
    "eq": operators(operator.eq),
    "ne": operators(operator.ne),
    "and": operators(operator.and_),
    "or": operators(operator.or_),
    "xor": operators(operator.xor),
    "not": operators(operator.invert),
    "where": choice,
    "int": to_whole,
    "float": to_float,
    "threefry": draw,
    **{name: on_vectors(emit) for name, emit in math.FUNCTION_EMITTERS.items()},
    **{name: on_vectors(emit) for name, emit in rounding.ROUNDING_EMITTERS.items()},
}
