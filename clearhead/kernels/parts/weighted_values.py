"""Weighted values: O[query, dim] with dims in the lanes and values read in place; hidden values are never visited.

Letters: p v o weight, value, output. `n` is the number of vectors of dims.
"""

from collections.abc import Sequence
from typing import NamedTuple

import llvmlite.ir as ir

from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.code import Code, Emitted, Function
from clearhead.kernels.ir.values import Int, Pointer, Truth, Vector, fma, least, most


class Values(NamedTuple):
    """O = α·O + P·V for one block of keys, the block's own sum starting from zero.

    Query i of the tile sees the block's rows up to `diagonal` + i, with a window those from `left` + i on.
    """

    p: Pointer
    v: Pointer
    stride: Int
    rows: Int
    diagonal: Int
    queries: Int
    o: Pointer
    o_stride: Int
    alpha: Pointer
    fresh: Int  # not 0: O was nothing yet
    left: Int | None = None


def write_values(module: ir.Module, tile: Tile, n: int, variant: Variant) -> Emitted[Values]:
    """n vectors of dims, for as many queries at once as the registers hold sums of."""
    f = Function(module, tile, f"values_{n}", Values, present=variant.window_edge)
    a = f.arguments
    count, size = tile.rows[n - 1], f.element.bytes
    fresh = a.fresh != 0

    for q in f.range(0, a.queries, count):
        ends = [(a.diagonal + (q + (r + 1))).clamp(0, a.rows) for r in range(count)]
        weights = a.p + q * size

        def key(i: Int, sums: list[Vector]) -> list[Vector]:
            p_row, v_row = weights + i * tile.row, a.v + i * a.stride
            vs = [f.load(f.at(v_row, 0, x)) for x in range(n)]
            ps = [f.broadcast(p_row + r * size) for r in range(count)]
            return [fma(ps[r], vs[x], sums[r * n + x]) for r in range(count) for x in range(n)]

        starts = [(a.left + (q + r)).clamp(0, a.rows) for r in range(count)] if a.left is not None else []

        def key_on_edge(i: Int, sums: list[Vector]) -> list[Vector]:
            """A key that some of the queries do not see: theirs keep their sums."""
            added, seen = key(i, sums), [i < end for end in ends]
            if starts:
                seen = [here & (start - 1 < i) for here, start in zip(seen, starts, strict=True)]
            return [seen[at // n].choose(added[at], sums[at]) for at in range(count * n)]

        sums = [f.constant(0.0)] * (count * n)
        if starts:  # rows that some of the queries see only from their own start on
            first_row = least(starts[-1], ends[-1])
            sums = f.loop(starts[0], first_row, 1, key_on_edge, sums)
            middle_end = most(first_row, ends[0])
            sums = f.unrolled(first_row, middle_end, 4, key, sums)
            sums = f.loop(most(first_row, ends[0]), ends[-1], 1, key_on_edge, sums)
        else:
            sums = f.unrolled(0, ends[0], 4, key, sums)
            sums = f.loop(ends[0], ends[-1], 1, key_on_edge, sums)
        for r in range(count):
            add_sums(f, a, q + r, sums[r * n : (r + 1) * n], fresh)
    return f.finish()


def add_sums(f: Code, a: Values, q: Int, sums: Sequence[Vector], fresh: Truth) -> None:
    """O = α·O + a block's own sums, for one query and some vectors of dims; `fresh`: O was nothing yet."""
    at = a.o + q * a.o_stride
    factor = f.broadcast(a.alpha + q * f.element.bytes)
    for x, block_sum in enumerate(sums):
        before = fresh.choose(f.constant(0.0), f.load(f.at(at, 0, x)))
        f.store(fma(before, factor, block_sum), f.at(at, 0, x))
