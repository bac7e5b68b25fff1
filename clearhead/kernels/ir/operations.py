"""Operations of rules as instructions: each on single numbers, on vectors, or on both, with the table's own bits.

Decides which instructions an operation comes to. EMITTERS has one function for every row of `rules.operations`, and
leaves those that are rounded more than once to `kernels.ir.math`. What is one number for all lanes stays one as long as
no vector meets it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llvmlite.ir as ir

from clearhead.kernels.ir import exact, math
from clearhead.kernels.ir.simd import Function, Value, float_type, i32, i64
from clearhead.rules.expression import Expression
from clearhead.rules.threefry import BITS, threefry


class Numbers:
    """How numbers and vectors of one function meet; whole numbers are `integers` in lanes, and 64 bits wide alone."""

    def __init__(self, f: Function, integers: ir.VectorType) -> None:
        self.f, self.integers = f, integers

    def wide(self, x: Value, scalar: ir.Type, vector: ir.Type) -> ir.Type:
        """The vector type if x is one."""
        return vector if is_vector(x) else scalar

    def vector(self, x: Value, kind: Any = None) -> Value:
        """x in every lane, if it is one number."""
        if is_vector(x):
            return x
        if x.type == i64 and self.integers.element != i64:
            x = self.f.block.trunc(x, self.integers.element)
        return self.f.splat(x)

    def as_wide(self, x: Value) -> Value:
        """Positions as wide as the rule's whole numbers."""
        narrow = is_vector(x) and x.type != self.integers
        return self.f.block.sext(x, self.integers) if narrow else x

    def alike(self, args: list[Value]) -> list[Value]:
        """All as vectors if one is."""
        return [self.vector(x) for x in args] if any(is_vector(x) for x in args) else args

    def like(self, x: Value, number: int) -> Value:
        """A constant of x's type."""
        return ir.Constant(x.type, [number] * self.f.lanes if is_vector(x) else number)


def is_vector(x: Value) -> bool:
    """Whether a value has lanes."""
    return isinstance(x.type, ir.VectorType)


Emitter = Callable[[Numbers, Expression, list[Value]], Value]


def arithmetic(floats: str, wholes: str) -> Emitter:
    """Two of the builder's own instructions, for floats and for whole numbers."""

    def emit(n: Numbers, e: Expression, args: list[Value]) -> Value:
        return getattr(n.f.block, floats if e.kind == "float" else wholes)(*n.alike(args))

    return emit


def comparison(sign: str) -> Emitter:
    """A comparison; what is not a number differs from everything."""

    def emit(n: Numbers, e: Expression, args: list[Value]) -> Value:
        b, args = n.f.block, n.alike(args)
        if e.args[0].kind == "float":
            return (b.fcmp_unordered if sign == "!=" else b.fcmp_ordered)(sign, *args)
        return (b.icmp_unsigned if e.args[0].kind == "bool" else b.icmp_signed)(sign, *args)

    return emit


def extreme(than: str) -> Emitter:
    """The smaller or larger of two; not a number if either is none, of which constants never are."""

    def emit(n: Numbers, e: Expression, args: list[Value]) -> Value:
        b, args = n.f.block, n.alike(args)
        if e.kind == "int":
            return b.select(b.icmp_signed(than, *args), *args)
        first, second = (a.op in ("constant", "parameter", "float") for a in e.args)
        if first:
            return b.select(b.fcmp_ordered(than, *args), *args)
        taken = b.fcmp_unordered(than, *args)
        if not second:
            taken = b.or_(b.fcmp_ordered(than, *args), b.fcmp_unordered("uno", args[0], args[0]))
        return b.select(taken, *args)

    return emit


def negative(n: Numbers, e: Expression, args: list[Value]) -> Value:
    """−a."""
    (a,), b = args, n.f.block
    return b.fneg(a) if e.kind == "float" else b.sub(ir.Constant(a.type, None), a)


def size(n: Numbers, e: Expression, args: list[Value]) -> Value:
    """|a|."""
    (a,), b = args, n.f.block
    if e.kind == "float":
        shape = f"v{n.f.lanes}" if is_vector(a) else ""
        return n.f.intrinsic(f"llvm.fabs.{shape}{n.f.element.name}", a.type, a)
    zero = ir.Constant(a.type, None)
    return b.select(b.icmp_signed("<", a, zero), b.sub(zero, a), a)


def division(rest: bool) -> Emitter:
    """Floor division as Python's; of whole numbers it is 0 where the divisor is 0.

    The divisors 0 and −1, which processors stop at, are taken out first.
    """

    def emit(n: Numbers, e: Expression, args: list[Value]) -> Value:
        if e.kind == "float":
            return (exact.remainder if rest else exact.floor_division)(n.f, *map(n.vector, args))
        b, (a, d) = n.f.block, n.alike(args)
        zero, one, minus = ir.Constant(a.type, None), n.like(a, 1), n.like(a, -1)
        nothing, turned = b.icmp_signed("==", d, zero), b.icmp_signed("==", d, minus)
        safe = b.select(b.or_(nothing, turned), one, d)
        quotient, left = b.sdiv(a, safe), b.srem(a, safe)
        below = b.and_(
            b.icmp_signed("!=", left, zero),
            b.xor(b.icmp_signed("<", left, zero), b.icmp_signed("<", safe, zero)),
        )
        if rest:
            left = b.select(below, b.add(left, safe), left)
            return b.select(b.or_(nothing, turned), zero, left)
        quotient = b.select(below, b.sub(quotient, one), quotient)
        return b.select(nothing, zero, b.select(turned, b.sub(zero, a), quotient))

    return emit


def choice(n: Numbers, e: Expression, args: list[Value]) -> Value:
    """a where the condition holds, else the other."""
    condition, *sides = args
    a, other = n.alike(sides)
    if is_vector(condition):
        a, other = n.vector(a), n.vector(other)
    return n.f.block.select(condition, a, other)


def to_float(n: Numbers, e: Expression, args: list[Value]) -> Value:
    """A whole number or truth as a float."""
    (x,) = args
    to = n.wide(x, float_type(n.f.element), n.f.vector)
    return n.f.block.uitofp(x, to) if e.args[0].kind == "bool" else n.f.block.sitofp(x, to)


def to_whole(n: Numbers, e: Expression, args: list[Value]) -> Value:
    """Truth as 0 and 1, a float cut to a whole number; 0 for what its 64 bits, or 32, do not hold."""
    (x,), b = args, n.f.block
    if e.args[0].kind == "bool":
        return b.zext(x, n.wide(x, i64, n.integers))
    x = n.vector(x)
    held = b.fcmp_ordered("<", exact.size(n.f, x), n.f.constant(2.0 ** (n.integers.element.width - 1)))
    return b.fptosi(b.select(held, x, n.f.constant(0.0)), n.integers)


def draw(n: Numbers, e: Expression, args: list[Value]) -> Value:
    """A number below 2³⁰ from key and counter: lanes of 32 bits, whatever the floats'."""
    f, b = n.f, n.f.block
    args = n.alike(args)
    lanes = is_vector(args[0])
    kind, own = (ir.VectorType(i32, f.lanes), n.integers) if lanes else (i32, i64)
    key0, key1, counter0, counter1 = (x if x.type == kind else b.trunc(x, kind) for x in args)
    word, _ = threefry(Words(f, kind), (key0, key1), (counter0, counter1))
    word = b.lshr(word, Words(f, kind).word(32 - BITS))
    return word if own == kind else b.zext(word, own)


def on_vectors(emit: Callable[..., Value]) -> Emitter:
    """A function of vectors alone, such as those of `kernels.ir.math`."""
    return lambda n, e, args: emit(n.f, *map(n.vector, args))


@dataclass(frozen=True)
class Words:
    """Threefry's arithmetic as instructions, on one word or one in each lane."""

    f: Function
    kind: Any

    def word(self, number: int) -> Value:
        """A constant."""
        return ir.Constant(self.kind, [number] * self.f.lanes if self.kind != i32 else number)

    def add(self, a: Value, b: Value) -> Value:
        """a + b."""
        return self.f.block.add(a, b)

    def xor(self, a: Value, b: Value) -> Value:
        """Bits that differ."""
        return self.f.block.xor(a, b)

    def rotate(self, a: Value, by: int) -> Value:
        """Bits moved to the left."""
        shape = "i32" if self.kind == i32 else f"v{self.f.lanes}i32"
        return self.f.intrinsic(f"llvm.fshl.{shape}", self.kind, a, a, self.word(by))


EMITTERS: dict[str, Emitter] = {
    "add": arithmetic("fadd", "add"),
    "sub": arithmetic("fsub", "sub"),
    "mul": arithmetic("fmul", "mul"),
    "div": arithmetic("fdiv", ""),
    "floordiv": division(rest=False),
    "mod": division(rest=True),
    "neg": negative,
    "abs": size,
    "min": extreme("<"),
    "max": extreme(">"),
    "lt": comparison("<"),
    "le": comparison("<="),
    "gt": comparison(">"),
    "ge": comparison(">="),
    "eq": comparison("=="),
    "ne": comparison("!="),
    "and": arithmetic("", "and_"),
    "or": arithmetic("", "or_"),
    "xor": arithmetic("", "xor"),
    "not": arithmetic("", "not_"),
    "where": choice,
    "int": to_whole,
    "float": to_float,
    "threefry": draw,
    **{name: on_vectors(emit) for name, emit in math.FUNCTIONS.items()},
    **{name: on_vectors(emit) for name, emit in exact.FUNCTIONS.items()},
}
