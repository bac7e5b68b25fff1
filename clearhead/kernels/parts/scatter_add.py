"""From a tile of gains [key][query] to the gradient of an array that a rule reads, without asking for each pair.

Where keys lie one after the other, as in a bias, squares are transposed and added as vectors. Where all pairs of one
distance read one element, as in a table of relative positions, diagonals are summed first.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import llvmlite.ir as ir

from clearhead.kernels.abi.gradient_call import GRADIENT_BLOCK
from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.code import Code, Emitted, Function
from clearhead.kernels.ir.expressions import EmittedRule, Positions, with_offsets
from clearhead.kernels.ir.transpose import columns
from clearhead.kernels.ir.values import Int, Pointer
from clearhead.kernels.parts.frame import CallTable, TilePosition
from clearhead.kernels.parts.key_rows import SQUARES_AHEAD, Addresses, element_addresses
from clearhead.kernels.parts.tile import vectors_of
from clearhead.kernels.parts.tile_position import queries_in_lanes, rule_of_queries


class ScatterAdd(NamedTuple):
    """Add the gains of `rows` keys from `key` on by some queries to the gradient of the array that they read."""

    table: CallTable
    position: TilePosition
    g: Pointer
    rows: Int
    key: Int
    queries: Int
    diagonals: Pointer


def write_scatter_add(module: ir.Module, tile: Tile, variant: Variant, number: int) -> Emitted[ScatterAdd]:
    """The array is that of the variant's buffered contribution of this number."""
    f = Function(module, tile, f"scatter_add_{number}", ScatterAdd)
    a = f.arguments
    contribution = variant.buffered[number]
    assert contribution.target is not None
    target = with_offsets(replace(contribution.load, array=contribution.target))
    rule = rule_of_queries(f, target.args[-1], variant, a.table, a.position)
    base = rule.parameters.entry(variant.at_array(contribution.target))
    if contribution.scatter == "row":
        offsets = target.args[:-1]
        add_rows(f, rule, a, lambda at: element_addresses(f, rule, base, offsets, at, a.key))
    else:
        add_diagonals(f, rule, a, lambda at: element_addresses(f, rule, base, target.args, at, a.key))
    return f.finish()


def add_rows(f: Code, rule: EmittedRule, a: ScatterAdd, find: Callable[[Positions], Addresses]) -> None:
    """Squares of as many keys and queries as there are lanes, transposed; keys that are left one by one."""
    size = f.element.bytes

    for x in f.range(0, vectors_of(f, a.queries)):
        addresses = find(queries_in_lanes(f, rule, a.position, x * f.lanes))
        whole = a.rows - a.rows % f.lanes
        starts = [addresses.lane(lane) for lane in range(f.lanes)]

        def to(lane: int, r: Int) -> Pointer:
            return (starts[lane] + (a.key + r) * size).pointer()

        for r in f.range(0, whole, f.lanes):
            for lane in range(f.lanes):
                f.prefetch_line(to(lane, r + SQUARES_AHEAD * f.lanes), to_write=True)
            square = columns(f, [f.load(f.at(a.g, r + y, x)) for y in range(f.lanes)])
            for lane, column in enumerate(square):
                f.store(f.load(to(lane, r)) + column, to(lane, r))
        for r in f.range(whole, a.rows):
            gains = f.load(f.at(a.g, r, x))
            for lane in range(f.lanes):
                gain = gains.lane(lane)
                f.store(f.load_number(to(lane, r)) + gain, to(lane, r))


def add_diagonals(f: Code, rule: EmittedRule, a: ScatterAdd, find: Callable[[Positions], Addresses]) -> None:
    """Diagonal j holds the pairs with key − query = j − (queries of a tile − 1), counted from the first of both."""
    size, last = f.element.bytes, f.tile.queries - 1
    count, sums = f.tile.queries + GRADIENT_BLOCK, a.diagonals
    backwards = list(range(f.lanes))[::-1]
    for j in f.range(0, count, f.lanes):
        f.store(f.constant(0.0), sums + j * size)

    for r in f.range(0, a.rows):
        for x in f.range(0, vectors_of(f, a.queries)):
            gains = f.load(f.at(a.g, r, x))
            first = r + (last + 1) - (x + 1) * f.lanes
            at = sums + first * size
            f.store(f.load(at) + f.shuffle(gains, gains, backwards), at)

    shift = a.position.read("row") + a.position.read("shift") + last
    for j in f.range(0, count, f.lanes):
        # One key with a query at each distance stands for all pairs of a diagonal.
        query = f.splat_int(shift - j) - f.lane()
        addresses = find(rule.lanes(query=query, row=query))
        gains = f.load(sums + j * size)
        for lane in range(f.lanes):
            at = addresses.lane(lane).pointer()
            f.store(f.load_number(at) + gains.lane(lane), at)
