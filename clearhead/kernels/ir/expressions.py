"""Expressions as machine code: a formula over score and positions, written where a kernel has a vector of scores.

Decides what is calculated once a call, once a lane, once a row and for each score, and how arrays are read; leaves
single operations to `kernels.ir.operations`. One of query and key varies along the lanes, the other is one number for
a vector. Integers are 64 bits wide where they are one number, and in lanes as wide as the floats, or `long`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import reduce

import llvmlite.ir as ir

from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.operations import EMITTERS, Numbers, is_vector
from clearhead.kernels.ir.simd import Function, Value, float_type, i1, i64, pointer
from clearhead.kernels.ir.storage import widen
from clearhead.kernels.ir.values import Bits
from clearhead.rules.expression import Expression, depends, parts, rewrite

Memo = dict[Expression, Value]


class Shim:
    """Temporary."""

    def __init__(self, f: Function) -> None:
        self.build, self.tile = f.block, f.tile


@dataclass(frozen=True)
class Positions:
    """Where a vector of scores stands: what has been calculated from its positions so far, and what it starts from."""

    leaves: dict[str, Value]
    known: Memo = field(default_factory=dict)


class Rule:
    """One expression, written into one function.

    `fixed` gives batch and head; `lane` names the leaves that vary along the lanes ("query", "row") or ("key",).
    """

    def __init__(
        self,
        f: Function,
        expression: Expression,
        variant: Variant,
        parameters: Value,
        fixed: dict[str, Value],
        lane: tuple[str, ...],
    ) -> None:
        self.f, self.expression, self.variant, self.parameters = f, with_offsets(expression), variant, parameters
        self.fixed, self.lane = Positions(fixed), frozenset(lane)
        self.numbers = Numbers(f, ir.VectorType(i64, f.lanes) if variant.long else f.integers)
        self.hoist(self.expression, self.fixed, frozenset(fixed))

    def lanes(self, **leaves: Value) -> Positions:
        """Calculate what depends on the lanes' own positions alone, here, before any loop."""
        at = Positions({name: self.numbers.as_wide(x) for name, x in leaves.items()})
        self.hoist(self.expression, at, self.lane | frozenset(self.fixed.leaves))
        return at

    def hoist(self, e: Expression, at: Positions, known: frozenset[str]) -> None:
        """Write every part of an expression that needs no other leaves than the known."""
        for part in parts(e):
            if depends(part) <= known:
                self.write(part, (at,), None)

    def apply(self, lanes: Positions, row: Positions, score: Value | None) -> Value:
        """The expression for one vector: lanes as `lanes` gave them, `row` for all vectors of one row."""
        result = self.write(self.expression, (lanes, row), Positions({} if score is None else {"score": score}))
        if self.expression.kind == "bool":
            return self.numbers.vector(result, ir.VectorType(i1, self.f.lanes))
        return self.numbers.vector(result)

    def write(self, e: Expression, at: tuple[Positions, ...], pair: Positions | None) -> Value:
        """The value of an expression, kept at the least of the levels that it depends on."""
        places = [self.fixed, *at, *([pair] if pair else [])]
        for place in places:
            if e in place.known:
                return place.known[e]
        if not e.args and e.op in ("score", "batch", "head", "query", "row", "key"):
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

    def operation(self, e: Expression, args: list[Value]) -> Value:
        """One operation on values that are numbers or vectors."""
        f, b = self.f, self.f.block
        if e.op == "constant":
            return self.constant(e)
        if e.op == "parameter":
            bits = b.bitcast(f.load_int(self.parameters, int(e.array or 0)), ir.DoubleType())
            return bits if f.element.bytes == 8 else b.fptrunc(bits, float_type(f.element))
        if e.op == "offset":
            return self.offset(int(e.array or 0), int(e.value or 0), args[0])
        if e.op == "size":
            return f.load_int(self.parameters, self.variant.at_array(int(e.array or 0)) + 1 + 2 * int(e.value or 0))
        if e.op == "load":
            return self.load(int(e.array or 0), args)
        return EMITTERS[e.op](self.numbers, e, args)

    def constant(self, e: Expression) -> Value:
        """A number that is part of the code."""
        if e.kind == "float":
            return ir.Constant(float_type(self.f.element), e.value)
        return ir.Constant(i1, int(bool(e.value))) if e.kind == "bool" else ir.Constant(i64, e.value)

    # Arrays

    def offset(self, number: int, axis: int, x: Value) -> Value:
        """How many bytes an index moves along an axis; below 0 it counts from the end, and none leaves the array."""
        f, b = self.f, self.f.block
        entry = self.variant.at_array(number) + 1 + 2 * axis
        size, stride = (f.load_int(self.parameters, entry + n) for n in (0, 1))
        if is_vector(x):
            x = x if x.type.element == i64 else b.sext(x, ir.VectorType(i64, f.lanes))
            size, stride = f.splat(size), f.splat(stride)
        zero = ir.Constant(x.type, None)
        x = b.select(b.icmp_signed("<", x, zero), b.add(x, size), x)
        last = b.sub(size, self.numbers.like(x, 1))
        x = b.select(b.icmp_signed("<", x, last), x, last)
        return b.mul(b.select(b.icmp_signed("<", x, zero), zero, x), stride)

    def load(self, number: int, offsets: list[Value]) -> Value:
        """An array's element, or one for each lane."""
        f, b = self.f, self.f.block
        dtype = self.variant.arrays[number][0]
        kind, place = memory_type(dtype), f.load_int(self.parameters, self.variant.at_array(number))
        for offset in offsets:
            if not is_vector(offset):
                place = b.add(place, offset)
        apart = [offset for offset in offsets if is_vector(offset)]
        if not apart:
            return self.converted(b.load(b.inttoptr(place, pointer), typ=kind, align=1), dtype)
        places = b.inttoptr(reduce(b.add, apart, f.splat(place)), ir.VectorType(pointer, f.lanes))
        return self.converted(self.gather(places, kind), dtype)

    def gather(self, places: Value, kind: ir.Type) -> Value:
        """The elements at as many addresses as there are lanes."""
        n, f = self.f.lanes, self.f
        name = {"half": "f16", "float": "f32", "double": "f64"}.get(str(kind), str(kind))
        result = ir.VectorType(kind, n)
        all_lanes = ir.Constant(ir.VectorType(i1, n), [1] * n)
        known = f.module.globals.get(f"llvm.masked.gather.v{n}{name}.v{n}p0")
        signature = ir.FunctionType(result, [places.type, ir.IntType(32), all_lanes.type, result])
        known = known or ir.Function(f.module, signature, f"llvm.masked.gather.v{n}{name}.v{n}p0")
        return f.block.call(known, [places, ir.Constant(ir.IntType(32), 1), all_lanes, ir.Constant(result, None)])

    def converted(self, x: Value, dtype: str) -> Value:
        """What was read as the computation's float, an integer, or truth."""
        f, b = self.f, self.f.block
        if dtype == "bool":
            return b.icmp_unsigned("!=", x, ir.Constant(x.type, None))
        if "float" in dtype:
            to, size = self.numbers.wide(x, float_type(f.element), f.vector), int(dtype.partition("float")[2]) // 8
            if size == 2:
                x, size = widen(Shim(f), dtype, Bits(f.block, x)).ir, 4  # type: ignore[arg-type]
            if size == f.element.bytes:
                return x
            return b.fptrunc(x, to) if size > f.element.bytes else b.fpext(x, to)
        to, size = self.numbers.wide(x, i64, self.numbers.integers), int(dtype.lstrip("uint"))
        width = (to.element if is_vector(x) else to).width
        if size == width:
            return x
        if size > width:
            return b.trunc(x, to)
        return b.zext(x, to) if dtype.startswith("u") else b.sext(x, to)


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
