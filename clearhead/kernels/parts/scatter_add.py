"""From a tile of gains [key][query] to the gradient of an array that a rule reads, without asking for each pair.

Where keys lie one behind the other, as in a bias, squares are transposed and added as vectors. Where all pairs of one
distance read one element, as in a table of relative positions, diagonals are summed first.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import reduce

import llvmlite.ir as ir

from clearhead.kernels.abi.gradient_call import BLOCK
from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.expressions import Positions, Rule, with_offsets
from clearhead.kernels.ir.operations import is_vector
from clearhead.kernels.ir.simd import Function, Value, i64, internal_function, pointer
from clearhead.kernels.parts.tile_position import queries_in_lanes, read_place, rule_of_queries


def write_spread(module: ir.Module, tile: Tile, variant: Variant, number: int) -> ir.Function:
    """Add the gains of `rows` keys from `key` on by some queries to the gradient of the array that they read."""
    f = internal_function(
        module, tile, f"spread_{number}", "table_p", "place_p", "g_p", "rows", "key", "queries", "diagonals_p"
    )
    table, place, g, rows, key, queries, diagonals = f.arguments
    share = variant.staged[number]
    assert share.target is not None  # noqa: S101
    target = with_offsets(replace(share.load, array=share.target))
    rule = rule_of_queries(f, target.args[-1], variant, table, place)
    base = f.load_int(rule.parameters, variant.at_array(share.target))
    if share.way == "keys":
        offsets = target.args[:-1]
        write_keys(f, rule, place, g, rows, queries, lambda at: places(f, rule, base, offsets, at, key), key)
    else:
        write_diagonals(
            f, rule, place, g, rows, queries, diagonals, lambda at: places(f, rule, base, target.args, at, key)
        )
    return f.finish()


def places(f: Function, rule: Rule, base: Value, offsets: tuple, at: Positions, key: Value) -> Value:  # type: ignore[type-arg]
    """The elements' addresses, one for each lane."""
    values = [rule.write(e, (at, Positions({"key": key})), None) for e in offsets]
    wide = [x if is_vector(x) else f.splat(x) for x in values]
    return reduce(f.block.add, wide, f.splat(base))


def write_keys(
    f: Function, rule: Rule, place: Value, g: Value, rows: Value, queries: Value, find: Callable[[Positions], Value],
    key: Value,
) -> None:  # fmt: skip
    """Squares of as many keys and queries as there are lanes, transposed; keys that are left one by one."""
    b, size = f.block, f.element.bytes

    def vector(x: Value, _: list[Value]) -> None:
        addresses = find(queries_in_lanes(f, rule, place, f.mul(x, f.lanes)))
        whole = f.sub(rows, b.srem(rows, f.i64(f.lanes)))
        starts = [b.extract_element(addresses, ir.Constant(i64, lane)) for lane in range(f.lanes)]

        def to(lane: int, r: Value) -> Value:
            return b.inttoptr(f.add(starts[lane], f.mul(f.add(key, r), size)), pointer)

        def square(r: Value, _: list[Value]) -> None:
            columns = f.columns([f.load(f.in_row(g, f.add(r, y), x)) for y in range(f.lanes)])
            for lane, column in enumerate(columns):
                f.store(b.fadd(f.load(to(lane, r)), column), to(lane, r))

        def single(r: Value, _: list[Value]) -> None:
            gains = f.load(f.in_row(g, r, x))
            for lane in range(f.lanes):
                gain = b.extract_element(gains, ir.Constant(i64, lane))
                f.store_scalar(b.fadd(f.load_scalar(to(lane, r)), gain), to(lane, r))

        f.loop(0, whole, f.lanes, square)
        f.loop(whole, rows, 1, single)

    f.loop(0, vectors_of(f, queries), 1, vector)


def write_diagonals(
    f: Function, rule: Rule, place: Value, g: Value, rows: Value, queries: Value, sums: Value,
    find: Callable[[Positions], Value],
) -> None:  # fmt: skip
    """Diagonal j holds the pairs with key − query = j − (queries of a tile − 1), counted from the first of both."""
    b, size, last = f.block, f.element.bytes, f.tile.queries - 1
    count = f.tile.queries + BLOCK
    backwards = list(range(f.lanes))[::-1]
    f.loop(0, count, f.lanes, lambda j, _: f.store(f.constant(0.0), f.at(sums, f.mul(j, size))))

    def row(r: Value, _: list[Value]) -> None:
        def vector(x: Value, _: list[Value]) -> None:
            gains = f.load(f.in_row(g, r, x))
            first = f.sub(f.add(r, last + 1), f.mul(f.add(x, 1), f.lanes))
            at = f.at(sums, f.mul(first, size))
            f.store(b.fadd(f.load(at), f.shuffle(gains, gains, backwards)), at)

        f.loop(0, vectors_of(f, queries), 1, vector)

    f.loop(0, rows, 1, row)
    shift = f.add(f.add(read_place(f, place, "row"), read_place(f, place, "shift")), last)

    def spread(j: Value, _: list[Value]) -> None:
        # One key with a query at each distance stands for all pairs of a diagonal.
        query = b.sub(f.splat_int(f.sub(shift, j)), f.lane())
        addresses = find(rule.lanes(query=query, row=query))
        gains = f.load(f.at(sums, f.mul(j, size)))
        for lane in range(f.lanes):
            at = b.inttoptr(b.extract_element(addresses, ir.Constant(i64, lane)), pointer)
            f.store_scalar(b.fadd(f.load_scalar(at), b.extract_element(gains, ir.Constant(i64, lane))), at)

    f.loop(0, count, f.lanes, spread)


def vectors_of(f: Function, queries: Value) -> Value:
    """How many vectors hold the queries."""
    return f.block.sdiv(f.add(queries, f.lanes - 1), f.i64(f.lanes))
