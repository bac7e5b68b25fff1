"""Expressions as machine code: a formula over score and positions, written where a kernel has a vector of scores.

Decides what is calculated once a call, once a lane, once a row and for each score, and how arrays are read; leaves
single operations to `kernels.ir.operations`. One of query and key varies along the lanes, the other is one number for
a vector. Integers are 64 bits wide where they are one number, and in lanes as wide as the floats, or `long`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import Any, Protocol, TypeVar

import llvmlite.ir as ir

from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.code import Code
from clearhead.kernels.ir.operations import EMITTERS, Numbers
from clearhead.kernels.ir.storage import widen
from clearhead.kernels.ir.values import (
    Bits,
    Float,
    Int,
    Lanes,
    Truth,
    Value,
    Vector,
    Whole,
    constant,
    i1,
    shaped,
)
from clearhead.rules.expression import Expression, depends, parts, rewrite

W = TypeVar("W", bound=Whole)
LEAVES = ("score", "batch", "head", "query", "row", "key")


class Parameters(Protocol):
    """The constants and arrays of a call, in the order of `Variant.at_array`."""

    def entry(self, index: int) -> Int:
        """One of them."""


@dataclass(frozen=True)
class Positions:
    """Where a vector of scores stands: what has been calculated from its positions so far, and what it starts from."""

    leaves: dict[str, Value]
    known: dict[Expression, Value] = field(default_factory=dict)


class EmittedRule:
    """One expression, written into one function.

    `fixed` gives batch and head; `lane` names the leaves that vary along the lanes ("query", "row") or ("key",).
    """

    def __init__(
        self,
        f: Code,
        expression: Expression,
        variant: Variant,
        parameters: Parameters,
        fixed: dict[str, Int],
        lane: tuple[str, ...],
    ) -> None:
        self.f, self.expression, self.variant, self.parameters = f, with_offsets(expression), variant, parameters
        self.fixed, self.lane = Positions({**fixed}), frozenset(lane)
        self.numbers = Numbers(f, 64 if variant.long else 8 * f.element.bytes)
        self.hoist(self.expression, self.fixed, frozenset(fixed))

    def lanes(self, **leaves: Lanes) -> Positions:
        """Calculate what depends on the lanes' own positions alone, here, before any loop."""
        at = Positions({name: x.resized(self.numbers.width, signed=True) for name, x in leaves.items()})
        self.hoist(self.expression, at, self.lane | frozenset(self.fixed.leaves))
        return at

    def hoist(self, e: Expression, at: Positions, known: frozenset[str]) -> None:
        """Write every part of an expression that needs no other leaves than the known."""
        for part in parts(e):
            if depends(part) <= known:
                self.write(part, (at,), None)

    def score(self, lanes: Positions, row: Positions, score: Vector) -> Vector:
        """What a rule makes of a vector of scores: lanes as `lanes` gave them, `row` for all vectors of one row."""
        result = self.write(self.expression, (lanes, row), Positions({"score": score}))
        vector: Vector = self.numbers.vector(result)
        return vector

    def seen(self, lanes: Positions, row: Positions) -> Truth:
        """What a mask shows of one vector."""
        truths: Truth = self.numbers.vector(self.write(self.expression, (lanes, row), Positions({})))
        return truths

    def write(self, e: Expression, at: tuple[Positions, ...], pair: Positions | None) -> Value:
        """The value of an expression, kept at the least of the levels that it depends on."""
        places = [self.fixed, *at, *([pair] if pair else [])]
        for place in places:
            if e in place.known:
                return place.known[e]
        if not e.args and e.op in LEAVES:
            return next(place.leaves[e.op] for place in places if e.op in place.leaves)
        args = [self.write(a, at, pair) for a in e.args]
        value = self.operation(e, args)
        home = next((p for p in places if depends(e) <= self.reach(places, p)), places[-1])
        home.known[e] = value
        return value

    def reach(self, places: list[Positions], place: Positions) -> frozenset[str]:
        """The leaves that are known at a level: its own and the call's."""
        if place is places[-1] and "score" in place.leaves:
            return frozenset().union(*(p.leaves for p in places))
        return frozenset(self.fixed.leaves) | frozenset(place.leaves)

    # Operations

    def operation(self, e: Expression, args: Sequence[Any]) -> Value:
        """One operation on values that are numbers or vectors."""
        f, number = self.f, int(e.array or 0)
        if e.op == "constant":
            return self.constant(e)
        if e.op == "parameter":
            bits = f.build.bitcast(self.parameters.entry(number).ir, ir.DoubleType())
            return Float(f.build, bits if f.element.bytes == 8 else f.build.fptrunc(bits, f.scalar))
        if e.op == "offset":
            return self.offset(number, int(e.value or 0), args[0])
        if e.op == "size":
            return self.parameters.entry(self.variant.at_array(number) + 1 + 2 * int(e.value or 0))
        if e.op == "load":
            return self.load(number, args)
        value: Value = EMITTERS[e.op](self.numbers, e, args)
        return value

    def constant(self, e: Expression) -> Value:
        """A number that is part of the code."""
        if e.kind == "float":
            return self.f.number(float(e.value or 0.0))
        if e.kind == "bool":
            return Truth(self.f.build, constant(i1, int(bool(e.value))))
        return self.f.i64(int(e.value or 0))

    # Arrays

    def offset(self, number: int, axis: int, index: Int | Lanes) -> Value:
        """How many bytes an index moves along an axis; below 0 it counts from the end, and none leaves the array."""
        f = self.f
        entry = self.variant.at_array(number) + 1 + 2 * axis
        size, stride = (self.parameters.entry(entry + n) for n in (0, 1))
        if isinstance(index, Int):
            return in_array(index, size) * stride
        sizes, strides = (Lanes(f.build, f.spread(x.ir)) for x in (size, stride))
        return in_array(index.resized(64, signed=True), sizes) * strides

    def load(self, number: int, offsets: Sequence[Int | Lanes]) -> Value:
        """An array's element, or one for each lane."""
        f = self.f
        dtype = self.variant.arrays[number][0]
        kind, place = memory_type(dtype), self.parameters.entry(self.variant.at_array(number))
        for offset in offsets:
            if isinstance(offset, Int):
                place = place + offset
        apart = [offset for offset in offsets if isinstance(offset, Lanes)]
        if not apart:
            return self.converted(f.read_element(place, kind), dtype)
        addresses = reduce(add, apart, Lanes(f.build, f.spread(place.ir)))
        return self.converted(f.read_elements(addresses, kind), dtype)

    def converted(self, x: ir.Value, dtype: str) -> Value:
        """What was read as the computation's float, an integer, or truth."""
        f = self.f
        lanes = isinstance(x.type, ir.VectorType)
        if dtype == "bool":
            return Truth(f.build, f.build.icmp_unsigned("!=", x, ir.Constant(x.type, None)))
        if "float" in dtype:
            size = int(dtype.partition("float")[2]) // 8
            if size == 2:
                x, size = widen(f, dtype, Bits(f.build, x)).ir, 4
            if size != f.element.bytes:
                change = f.build.fptrunc if size > f.element.bytes else f.build.fpext
                x = change(x, shaped(x, f.scalar))
            return (Vector if lanes else Float)(f.build, x)
        bits = Bits(f.build, x).resized(self.numbers.width if lanes else 64, signed=not dtype.startswith("u"))
        return (Lanes if lanes else Int)(f.build, bits.ir)


def in_array(index: W, size: W) -> W:
    """An index that counts from the end below 0, cut to the array."""
    index = (index < 0).choose(index + size, index)
    last = size - 1
    index = (index < last).choose(index, last)
    return (index < 0).choose(index.like(0), index)


def with_offsets(e: Expression) -> Expression:
    """The same with each index as the bytes it moves, so that they too are calculated only as often as they change."""

    def moved(part: Expression) -> Expression | None:
        if part.op != "load":
            return None
        args = (Expression("offset", "int", (a,), axis, part.array) for axis, a in enumerate(part.args))
        return replace(part, args=tuple(args))

    return rewrite(e, moved)


def memory_type(dtype: str) -> ir.Type:
    """How an array's elements lie in memory; half floats as integers."""
    match dtype:
        case "float32":
            return ir.FloatType()
        case "float64":
            return ir.DoubleType()
        case "float16" | "bfloat16":
            return ir.IntType(16)
        case "bool":
            return ir.IntType(8)
    return ir.IntType(int(dtype.lstrip("uint")))
