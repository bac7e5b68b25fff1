"""Fused masks: what a tile sees of a block, one bit for each pair, and what is done with it.

Bits are stored as [key][vector of queries], 16 for each vector. Where a block is seen in part, hidden scores become −∞
before the maximum is taken, so that their weights are 0. A weight of 0 times a value adds nothing unless the value is
infinite or not a number: such blocks are summed query by query, with hidden values left out.
"""

from typing import NamedTuple

import llvmlite.ir as ir

from clearhead.kernels.abi.call import SEEN_BYTES
from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.code import Code, Emitted, Function
from clearhead.kernels.ir.expressions import Positions
from clearhead.kernels.ir.values import Bits, Int, Pointer, Truth, Vector, fma, larger, least
from clearhead.kernels.parts.frame import CallTable, TilePosition
from clearhead.kernels.parts.tile_position import queries_in_lanes, rule_of_queries
from clearhead.kernels.parts.weighted_values import Values


def seen_at(f: Code, seen: Pointer, row: Int, vector: Int | int) -> Pointer:
    """The address of one vector's bits."""
    return seen + (row * f.tile.vectors + vector) * SEEN_BYTES


def load_seen(f: Code, address: Pointer) -> Truth:
    """One vector's bits as truth in each lane."""
    return f.load_bits(address, 16, align=2).resized(f.lanes).truths()


class See(NamedTuple):
    """Find what a tile sees of `rows` keys from `key` on."""

    table: CallTable
    position: TilePosition
    key: Int
    rows: Int
    seen: Pointer


def write_see(module: ir.Module, tile: Tile, variant: Variant) -> Emitted[See]:
    """The bits, and in the tile's position: the first row with any, the one after the last, and whether all are set."""
    assert variant.mask is not None
    f = Function(module, tile, "see", See)
    table, position, key, rows, seen = f.arguments
    rule = rule_of_queries(f, variant.mask, variant, table, position)
    lanes = [queries_in_lanes(f, rule, position, x * f.lanes) for x in range(tile.vectors)]

    def row(r: Int, carried: list[Int]) -> list[Int]:
        first, last, every = carried
        at = Positions({"key": key + r})
        some: Bits | None = None
        whole: Bits | None = None
        for x in range(tile.vectors):
            bits = rule.seen(lanes[x], at).bits().resized(16)
            f.store(bits, seen_at(f, seen, r, x), align=2)
            some = bits if some is None else some | bits
            whole = bits if whole is None else whole & bits
        assert some is not None
        assert whole is not None
        any_here, all_here = some != 0, whole == (1 << f.lanes) - 1
        first = any_here.choose(least(first, r), first)
        last = any_here.choose(r + 1, last)
        return [first, last, every & all_here.number()]

    first, stop, every = f.loop(0, rows, 1, row, [rows, f.i64(0), f.i64(1)])
    position.write(seen_first=first, seen_stop=stop, seen_all=every)
    return f.finish()


class Hide(NamedTuple):
    """Hide what one vector of queries does not see of the rows from `start` to `stop`."""

    s: Pointer
    start: Int
    stop: Int
    m: Pointer
    seen: Pointer


def write_hide(module: ir.Module, tile: Tile) -> Emitted[Hide]:
    """−∞ for hidden scores, and the maximum of the others."""
    f = Function(module, tile, "hide", Hide)
    s, start, stop, m, seen = f.arguments

    def row(r: Int, top: list[Vector]) -> list[Vector]:
        place = f.at(s, r, 0)
        x = load_seen(f, seen_at(f, seen, r, 0)).choose(f.load(place), f.constant(-float("inf")))
        f.store(x, place)
        return [larger(x, top[0])]

    f.store(f.loop(start, stop, 1, row, [f.load(m)])[0], m)
    return f.finish()


class Finite(NamedTuple):
    """Whether all numbers of some rows of whole vectors are finite: 1 or 0."""

    v: Pointer
    stride: Int
    rows: Int
    vectors: Int


def write_finite(module: ir.Module, tile: Tile) -> Emitted[Finite]:
    """x − x is 0 for finite x and not a number for others, and a sum with one that is not a number is none either."""
    f = Function(module, tile, "finite", Finite, result=True)
    v, stride, rows, vectors = f.arguments

    def row(r: Int, sums: list[Vector]) -> list[Vector]:
        at = v + r * stride

        def vector(x: Int, sums: list[Vector]) -> list[Vector]:
            y = f.load(f.at(at, 0, x))
            return [sums[0] + (y - y)]

        return f.loop(0, vectors, 1, vector, sums)

    total = f.loop(0, rows, 1, row, [f.constant(0.0)])[0]
    return f.finish((total.is_nan().bits() == 0).number())


class ValuesSeen(NamedTuple):
    """O = α·O + P·V over seen pairs alone."""

    values: Values
    seen: Pointer
    vectors: Int


def write_values_seen(module: ir.Module, tile: Tile, variant: Variant) -> Emitted[ValuesSeen]:
    """A query and a vector of dims at a time, each pair's bit looked at: for values that are not finite."""
    f = Function(module, tile, "values_seen", ValuesSeen, present=variant.window_edge)
    a, seen, vectors = f.arguments
    size = f.element.bytes
    fresh = a.fresh != 0

    for q in f.range(0, a.queries):
        start = (a.left + q).clamp(0, a.rows) if a.left is not None else f.i64(0)
        stop = (a.diagonal + (q + 1)).clamp(0, a.rows)
        vector = q // f.lanes
        bit = Bits(f.build, (q % f.lanes).ir).resized(16)
        alpha = f.broadcast(a.alpha + q * size)

        for x in f.range(0, vectors):

            def key(i: Int, acc: list[Vector]) -> list[Vector]:
                here = f.load_bits(seen_at(f, seen, i, vector), 16, align=2).logical_right(bit).truth()
                weight = f.broadcast(f.at(a.p, i, 0) + q * size)
                value = f.load(f.at(a.v + i * a.stride, 0, x))
                return [here.choose(fma(weight, value, acc[0]), acc[0])]

            acc = f.loop(start, stop, 1, key, [f.constant(0.0)])[0]
            place = f.at(a.o + q * a.o_stride, 0, x)
            before = fresh.choose(f.constant(0.0), f.load(place))
            f.store(fma(before, alpha, acc), place)
    return f.finish()
