"""Weighted values: O[query, dim] with dims in the lanes and values read in place; hidden values are never visited.

Letters: p v o weight, value, output; m l maximum and sum. `n` is the number of vectors of dims.
"""

import llvmlite.ir as ir

from clearhead.kernels.abi.softmax_state import ALPHA, BETA, TOTAL_L, TOTAL_M, L, M
from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir import math
from clearhead.kernels.ir.simd import Function, Value, internal_function


def write_values(module: ir.Module, tile: Tile, n: int, variant: Variant) -> ir.Function:
    """O = α·O + P·V for n vectors of dims, the block's own sum starting from zero; `first`: O was nothing yet.

    Query i of the tile sees the block's rows up to `diagonal` + i, with a window those from `left` + i on.
    """
    more = ("left",) if variant.windowed else ()
    f = internal_function(
        module, tile, f"values_{n}", "p_p", "v_p", "stride", "rows", "diagonal", "queries", "o_p", "o_stride",
        "alpha_p", "first", *more,
    )  # fmt: skip
    p, v, stride, rows, diagonal, queries, o, o_stride, alpha, first, *left = f.arguments
    count, size = tile.rows[n - 1], f.element.bytes
    fresh = f.block.icmp_signed("!=", first, f.i64(0))

    def group(q: Value, _: list[Value]) -> None:
        ends = [f.clamp(f.add(diagonal, f.add(q, r + 1)), 0, rows) for r in range(count)]
        columns = f.at(p, f.mul(q, size))

        def key(i: Value, acc: list[Value]) -> list[Value]:
            p_row, v_row = f.at(columns, f.mul(i, tile.row)), f.at(v, f.mul(i, stride))
            vs = [f.load(f.in_row(v_row, 0, x)) for x in range(n)]
            ps = [f.broadcast(f.at(p_row, r * size)) for r in range(count)]
            return [f.fma(ps[r], vs[x], acc[r * n + x]) for r in range(count) for x in range(n)]

        starts = [f.clamp(f.add(left[0], f.add(q, r)), 0, rows) for r in range(count)] if left else []

        def key_on_edge(i: Value, acc: list[Value]) -> list[Value]:
            sums, seen = key(i, acc), [f.less(i, end) for end in ends]
            if starts:
                seen = [f.block.and_(a, f.less(f.sub(start, 1), i)) for a, start in zip(seen, starts, strict=True)]
            return [f.block.select(seen[at // n], sums[at], acc[at]) for at in range(count * n)]

        acc = [f.constant(0.0)] * (count * n)
        first_row: Value = f.i64(0)
        if starts:  # rows that some of the queries see only from their own start on
            first_row = f.least(starts[-1], ends[-1])
            acc = f.loop(starts[0], first_row, 1, key_on_edge, acc)
        acc = f.unrolled(first_row, f.most(first_row, ends[0]) if starts else ends[0], 4, key, acc)
        acc = f.loop(f.most(first_row, ends[0]) if starts else ends[0], ends[-1], 1, key_on_edge, acc)
        for r in range(count):
            add_sums(f, f.add(q, r), acc[r * n : (r + 1) * n], (o, o_stride), alpha, fresh)

    f.loop(0, queries, count, group)
    return f.finish()


def add_sums(f: Function, q: Value, sums: list[Value], output: tuple[Value, Value], alpha: Value, fresh: Value) -> None:
    """O = α·O + a block's own sums, for one query and some vectors of dims; `fresh`: O was nothing yet."""
    o, stride = output
    at = f.at(o, f.mul(q, stride))
    a = f.broadcast(f.at(alpha, f.mul(q, f.element.bytes)))
    for x, own in enumerate(sums):
        before = f.block.select(fresh, f.constant(0.0), f.load(f.in_row(at, 0, x)))
        f.store(f.fma(before, a, own), f.in_row(at, 0, x))


def write_merge(module: ir.Module, tile: Tile) -> ir.Function:
    """Join a finished segment (m, l, o) into the total (M, L, O)."""
    f = internal_function(module, tile, "merge", "state_p", "o_p", "total_p", "o_stride", "queries", "vectors")
    state, o, total, o_stride, queries, vectors = f.arguments

    def factors(x: Value, _: list[Value]) -> None:
        old, new = f.load(f.in_row(state, TOTAL_M, x)), f.load(f.in_row(state, M, x))
        top = f.larger(new, old)
        a, b = math.exp(f, f.block.fsub(old, top)), math.exp(f, f.block.fsub(new, top))
        part = f.block.fmul(f.load(f.in_row(state, L, x)), b)
        f.store(f.fma(f.load(f.in_row(state, TOTAL_L, x)), a, part), f.in_row(state, TOTAL_L, x))
        for which, value in ((TOTAL_M, top), (ALPHA, a), (BETA, b)):
            f.store(value, f.in_row(state, which, x))

    def query(q: Value, _: list[Value]) -> None:
        place = f.mul(q, f.element.bytes)
        a, b = (f.broadcast(f.at(f.in_row(state, which, 0), place)) for which in (ALPHA, BETA))
        row = f.mul(q, o_stride)

        def dim(x: Value, _: list[Value]) -> None:
            whole, part = (f.in_row(f.at(base, row), 0, x) for base in (total, o))
            f.store(f.fma(f.load(whole), a, f.block.fmul(f.load(part), b)), whole)

        f.loop(0, vectors, 1, dim)

    f.loop(0, tile.vectors, 1, factors)
    f.loop(0, queries, 1, query)
    return f.finish()
