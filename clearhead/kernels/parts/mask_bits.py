"""Fused masks: what a tile sees of a block, one bit for each pair, and what is done with it.

Bits lie as [key][vector of queries], each vector's in 16 bits. Where a block is seen in part, hidden scores become −∞
before the maximum is taken; their weights are then 0, and 0 times a value is nothing, unless the value is infinite or
not a number: such blocks are summed one by one, hidden values left out.
"""

import llvmlite.ir as ir

from clearhead.kernels.abi.call import SEEN_BYTES
from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.expressions import Positions
from clearhead.kernels.ir.simd import Function, Value, i1, i16, i64, internal_function
from clearhead.kernels.parts.tile_position import queries_in_lanes, rule_of_queries, write_place


def seen_at(f: Function, seen: Value, row: Value, vector: Value) -> Value:
    """The address of one vector's bits."""
    return f.at(seen, f.mul(f.add(f.mul(row, f.tile.vectors), vector), SEEN_BYTES))


def load_seen(f: Function, address: Value) -> Value:
    """One vector's bits as truth in each lane."""
    bits = f.block.load(address, typ=i16, align=2)
    narrow = bits if f.lanes == 16 else f.block.trunc(bits, ir.IntType(f.lanes))
    return f.block.bitcast(narrow, ir.VectorType(i1, f.lanes))


def write_see(module: ir.Module, tile: Tile, variant: Variant) -> ir.Function:
    """Find what the tile sees of `rows` keys from `key` on: the bits, the rows with any, and whether all."""
    assert variant.mask is not None  # noqa: S101
    f = internal_function(module, tile, "see", "table_p", "place_p", "key", "rows", "seen_p")
    table, place, key, rows, seen = f.arguments
    rule = rule_of_queries(f, variant.mask, variant, table, place)
    lanes = [queries_in_lanes(f, rule, place, f.i64(x * f.lanes)) for x in range(tile.vectors)]
    b = f.block

    def row(r: Value, carried: list[Value]) -> list[Value]:
        first, last, every = carried
        at, some, whole = Positions({"key": f.add(key, r)}), None, None
        for x in range(tile.vectors):
            bits = b.bitcast(rule.apply(lanes[x], at, None), ir.IntType(f.lanes))
            bits = bits if f.lanes == 16 else b.zext(bits, i16)
            b.store(bits, seen_at(f, seen, r, f.i64(x)), align=2)
            some = bits if some is None else b.or_(some, bits)
            whole = bits if whole is None else b.and_(whole, bits)
        any_here = b.icmp_unsigned("!=", some, ir.Constant(i16, 0))
        all_here = b.icmp_unsigned("==", whole, ir.Constant(i16, (1 << f.lanes) - 1))
        first = b.select(any_here, f.least(first, r), first)
        last = b.select(any_here, f.add(r, 1), last)
        return [first, last, b.and_(every, b.zext(all_here, i64))]

    first, stop, every = f.loop(0, rows, 1, row, [rows, f.i64(0), f.i64(1)])
    write_place(f, place, seen_first=first, seen_stop=stop, seen_all=every)
    return f.finish()


def write_hide(module: ir.Module, tile: Tile) -> ir.Function:
    """−∞ for what one vector of queries does not see of the rows from start to stop, and the others' maximum."""
    f = internal_function(module, tile, "hide", "s_p", "start", "stop", "m_p", "seen_p")
    s, start, stop, m, seen = f.arguments

    def row(r: Value, top: list[Value]) -> list[Value]:
        place = f.in_row(s, r, 0)
        x = f.block.select(load_seen(f, seen_at(f, seen, r, f.i64(0))), f.load(place), f.constant(-float("inf")))
        f.store(x, place)
        return [f.larger(x, top[0])]

    f.store(f.loop(start, stop, 1, row, [f.load(m)])[0], m)
    return f.finish()


def write_finite(module: ir.Module, tile: Tile) -> ir.Function:
    """Whether all numbers of the rows are finite: 1 or 0. What a number minus itself is tells it."""
    f = internal_function(module, tile, "finite", "v_p", "stride", "rows", "vectors", result=i64)
    v, stride, rows, vectors = f.arguments

    def row(r: Value, sums: list[Value]) -> list[Value]:
        at = f.at(v, f.mul(r, stride))

        def vector(x: Value, sums: list[Value]) -> list[Value]:
            y = f.load(f.in_row(at, 0, x))
            return [f.block.fadd(sums[0], f.block.fsub(y, y))]

        return f.loop(0, vectors, 1, vector, sums)

    total = f.loop(0, rows, 1, row, [f.constant(0.0)])[0]
    lost = f.block.bitcast(f.block.fcmp_unordered("uno", total, total), ir.IntType(f.lanes))
    return f.finish(f.block.zext(f.block.icmp_unsigned("==", lost, ir.Constant(lost.type, 0)), i64))


def write_values_seen(module: ir.Module, tile: Tile, variant: Variant) -> ir.Function:
    """O = α·O + P·V over seen pairs alone, a query and a vector of dims at a time: for values that are not finite."""
    more = ("left",) if variant.windowed else ()
    f = internal_function(
        module, tile, "values_seen", "p_p", "v_p", "stride", "rows", "diagonal", "queries", "o_p", "o_stride",
        "alpha_p", "first", "seen_p", "vectors", *more,
    )  # fmt: skip
    p, v, stride, rows, diagonal, queries, o, o_stride, alpha, first, seen, vectors, *left = f.arguments
    b, size = f.block, f.element.bytes
    fresh = b.icmp_signed("!=", first, f.i64(0))

    def query(q: Value, _: list[Value]) -> None:
        start = f.clamp(f.add(left[0], q), 0, rows) if left else f.i64(0)
        stop = f.clamp(f.add(diagonal, f.add(q, 1)), 0, rows)
        vector, bit = b.sdiv(q, f.i64(f.lanes)), b.trunc(b.srem(q, f.i64(f.lanes)), i16)
        a = f.broadcast(f.at(alpha, f.mul(q, size)))

        def dims(x: Value, _: list[Value]) -> None:
            def key(i: Value, acc: list[Value]) -> list[Value]:
                bits = b.load(seen_at(f, seen, i, vector), typ=i16, align=2)
                here = b.trunc(b.lshr(bits, bit), i1)
                weight = f.broadcast(f.at(f.in_row(p, i, 0), f.mul(q, size)))
                value = f.load(f.in_row(f.at(v, f.mul(i, stride)), 0, x))
                return [b.select(here, f.fma(weight, value, acc[0]), acc[0])]

            acc = f.loop(start, stop, 1, key, [f.constant(0.0)])[0]
            place = f.in_row(f.at(o, f.mul(q, o_stride)), 0, x)
            before = b.select(fresh, f.constant(0.0), f.load(place))
            f.store(f.fma(before, a, acc), place)

        f.loop(0, vectors, 1, dims)

    f.loop(0, queries, 1, query)
    return f.finish()
