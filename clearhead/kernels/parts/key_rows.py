"""Arrays whose rows lie along the keys, as a dense bias does, where a tile's lanes are queries.

An element for each lane would be gathered from as many cache lines. Instead, squares of as many keys and queries as a
vector has lanes are read along the keys and transposed in registers; keys that are left over are gathered.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import NamedTuple

import llvmlite.ir as ir

from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.code import Code, Emitted, Function
from clearhead.kernels.ir.expressions import EmittedRule, Positions, with_offsets
from clearhead.kernels.ir.operations import has_lanes
from clearhead.kernels.ir.transpose import columns
from clearhead.kernels.ir.values import Int, Lanes, Pointer, Value, Vector, i64
from clearhead.kernels.parts.frame import CallTable, TilePosition
from clearhead.kernels.parts.tile_position import queries_in_lanes, rule_of_queries
from clearhead.rules.expression import Expression

SQUARES_AHEAD = 2  # a tile's queries are more rows than the processor follows by itself

Row = Callable[[Int, dict[Expression, Value], list[Vector]], list[Vector]]


class Addresses(Lanes):
    """An address in each lane."""

    __slots__ = ()

    def lane(self, number: int) -> Int:
        """One of them."""
        return Int(self.build, self.build.extract_element(self.ir, ir.Constant(i64, number)))


def element_addresses(
    f: Code, rule: EmittedRule, base: Int, offsets: Sequence[Expression], at: Positions, key: Int
) -> Addresses:
    """The elements' addresses, one for each lane."""
    values = [rule.write(e, (at, Positions({"key": key})), None) for e in offsets]
    in_lanes = [x.ir if has_lanes(x) else f.spread(x.ir) for x in values]
    return Addresses(f.build, reduce(f.build.add, in_lanes, f.spread(base.ir)))


class ReadSquares(NamedTuple):
    """As many keys as a vector has lanes, from `key` on, by `vectors` vectors of queries: to rows of a tile."""

    table: CallTable
    position: TilePosition
    key: Int
    query: Int  # the first vector's first query of the tile
    vectors: Int
    to: Pointer


def write_read_squares(module: ir.Module, tile: Tile, variant: Variant) -> list[Emitted[ReadSquares]]:
    """A function for each of the variant's loads that read along the keys."""
    return [write_read(module, tile, variant, n, load) for n, load in enumerate(variant.key_rows)]


def write_read(module: ir.Module, tile: Tile, variant: Variant, number: int, load: Expression) -> Emitted[ReadSquares]:
    """The elements that one load reads, transposed."""
    f = Function(module, tile, f"read_squares_{number}", ReadSquares)
    a = f.arguments
    *offsets, along = with_offsets(load).args
    rule = rule_of_queries(f, along, variant, a.table, a.position)
    base = rule.parameters.entry(variant.at_array(load.array or 0)) + a.key * f.element.bytes
    for x in f.range(0, a.vectors):
        at = queries_in_lanes(f, rule, a.position, a.query + x * f.lanes)
        rows = element_addresses(f, rule, base, offsets, at, a.key)
        starts = [rows.lane(y).pointer() for y in range(f.lanes)]
        for start in starts:
            f.prefetch_line(start + SQUARES_AHEAD * f.lanes * f.element.bytes)
        square = [f.load(start) for start in starts]
        for y, column in enumerate(columns(f, square)):
            f.store(column, f.at(a.to, y, x))
    return f.finish()


def each_key(
    f: Code, variant: Variant, read: Sequence[Emitted[ReadSquares]], first: ReadSquares, rows: Int, row: Row,
    carried: Sequence[Vector],
) -> list[Vector]:  # fmt: skip
    """`carried = row(r, known, carried)` for every row, `known` being what squares tell of loads; `first`: row 0's."""
    start: Int | int = 0
    results = list(carried)
    if read:
        lanes = f.tile.lanes
        start = rows - rows % lanes
        loads = [with_offsets(load) for load in variant.key_rows]
        places = [first.to + n * lanes * f.tile.row for n in range(len(loads))]

        def squares(r: Int, carried: list[Vector]) -> list[Vector]:
            for function, place in zip(read, places, strict=True):
                f.call(function, first._replace(key=first.key + r, to=place))

            def inside(y: Int, carried: list[Vector]) -> list[Vector]:
                known = {load: f.load(f.at(place, y, 0)) for load, place in zip(loads, places, strict=True)}
                return row(r + y, dict(known), carried)

            return f.loop(0, lanes, 1, inside, carried)

        results = f.loop(0, start, lanes, squares, results)
    return f.loop(start, rows, 1, lambda r, carried: row(r, {}, carried), results)
