"""Scores and softmax of one block of keys: Sᵀ[key, query] with queries in the lanes, so softmax never crosses lanes.

Letters: q k query, key; s score; m maximum; p exp(s − m); l sum of p. `w` is the number of vectors of queries.
"""

import llvmlite.ir as ir

from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir import math
from clearhead.kernels.ir.expressions import Positions
from clearhead.kernels.ir.simd import Function, Value, internal_function
from clearhead.kernels.parts.tile_position import queries_in_lanes, rule_of_queries

KEYS_AHEAD = 16  # how many keys early a full tile asks for the next ones


def write_score(module: ir.Module, tile: Tile, w: int, variant: Variant) -> ir.Function:
    """Sᵀ of `rows` keys by w vectors of queries, and each query's running maximum (unless a sweep knows the LSE).

    Meanwhile the same rows of values, which are wanted next, are fetched into the cache.
    Each score is two chains, over even and over odd dims, then added. Vector 0 sees row r only in its lanes from
    r − `hidden` on, and with a window only up to lane r − `left`; hidden = rows and left = −lanes hide nothing.
    """
    more = ("left",) if variant.windowed else ()
    f = internal_function(
        module, tile, f"score_{w}", "q_p", "k_p", "stride", "dims", "s_p", "rows", "hidden", "m_p", "v_p", "v_stride",
        "v_size", *more,
    )  # fmt: skip
    q, k, stride, dims, s, rows, hidden, m, v, v_stride, v_size, *left = f.arguments
    count, last = tile.keys[w - 1], f.sub(rows, 1)

    def keys(i: Value, _: list[Value]) -> None:
        # The last group repeats the last key instead of reading beyond it; those rows of S are never used.
        row = [f.least(f.add(i, r), last) for r in range(count)]
        k_row = [f.at(k, f.mul(index, stride)) for index in row]

        if w == tile.vectors:
            for r in range(count):
                f.prefetch(f.at(v, f.mul(row[r], v_stride)), v_size)
                f.prefetch(f.at(k_row[r], f.mul(stride, KEYS_AHEAD)), f.mul(dims, f.element.bytes))

        def dim(d: Value, acc: list[Value]) -> list[Value]:
            qs = [f.load(f.in_row(q, d, x)) for x in range(w)]
            ks = [f.broadcast(f.at(at, f.mul(d, f.element.bytes))) for at in k_row]
            return [f.fma(ks[r], qs[x], acc[r * w + x]) for r in range(count) for x in range(w)]

        def two_dims(i: Value, acc: list[Value]) -> list[Value]:
            d = f.mul(i, 2)
            return dim(d, acc[: count * w]) + dim(f.add(d, 1), acc[count * w :])

        twos = f.block.sdiv(dims, f.i64(2))
        acc = f.unrolled(0, twos, 2, two_dims, [f.constant(0.0)] * (2 * count * w))
        even, odd = f.loop(f.mul(twos, 2), dims, 1, dim, acc[: count * w]), acc[count * w :]
        acc = [f.block.fadd(a, b) for a, b in zip(even, odd, strict=True)]
        for r in range(count):
            acc[r * w] = hide(f, acc[r * w], row[r], hidden, *left)
            for x in range(w):
                f.store(acc[r * w + x], f.in_row(s, f.add(i, r), x))
        for x in range(0 if variant.consumers else w):  # kept in memory: the sums above need every register
            f.store(f.larger(tree_max(f, acc[x::w]), f.load(f.in_row(m, 0, x))), f.in_row(m, 0, x))

    f.loop(0, rows, count, keys)
    return f.finish()


def hide(f: Function, s: Value, row: Value, hidden: Value, left: Value | None = None) -> Value:
    """Scores of one vector of queries, −∞ in the lanes that do not see the row."""
    seen = f.block.icmp_signed(">=", f.lane(), f.splat_int(f.sub(row, hidden)))
    if left is not None:
        seen = f.block.and_(seen, f.block.icmp_signed("<=", f.lane(), f.splat_int(f.sub(row, left))))
    return f.block.select(seen, s, f.constant(-float("inf")))


def write_rules(module: ir.Module, tile: Tile, w: int, variant: Variant) -> ir.Function:
    """The score rules in place of Sᵀ, and each query's running maximum; parameters as `write_score` has them.

    `key` is row 0's key, `query` the first vector's first query of the tile. A pass of its own: behind the
    multiply-adds, a function's long chain would keep the next ones waiting.
    """
    assert variant.score is not None  # noqa: S101
    more = ("left",) if variant.windowed else ()
    f = internal_function(
        module,
        tile,
        f"rules_{w}",
        "table_p",
        "place_p",
        "s_p",
        "rows",
        "hidden",
        "m_p",
        "key",
        "query",
        *more,
        together=w,
    )
    table, place, s, rows, hidden, m, first_key, first_query, *left = f.arguments
    rule = rule_of_queries(f, variant.score, variant, table, place)
    lanes = queries_in_lanes(f, rule, place, first_query)

    def row(r: Value, tops: list[Value]) -> list[Value]:
        at = f.in_row(s, r, 0)
        score = rule.apply(lanes, Positions({"key": f.add(first_key, r)}), f.load(at))
        score = hide(f, score, r, hidden, *left)
        f.store(score, at)
        return [f.larger(score, tops[0])]

    f.store(f.loop(0, rows, 1, row, [f.load(m)])[0], m)
    return f.finish()


def write_exponentials(module: ir.Module, tile: Tile, w: int) -> ir.Function:
    """P = exp(S − m) in place of S for the rows from start to stop, added to each query's running sum."""
    f = internal_function(module, tile, f"exponentials_{w}", "p_p", "start", "stop", "m_p", "l_p")
    p, start, stop, m, l = f.arguments
    ms = [f.load(f.in_row(m, 0, x)) for x in range(w)]

    def row(i: Value, sums: list[Value]) -> list[Value]:
        at = [f.in_row(p, i, x) for x in range(w)]
        es = [math.exp(f, f.block.fsub(f.load(at[x]), ms[x])) for x in range(w)]
        for x in range(w):
            f.store(es[x], at[x])
        return [f.block.fadd(sums[x], es[x]) for x in range(w)]

    sums = f.unrolled(start, stop, max(1, 2 // w), row, [f.load(f.in_row(l, 0, x)) for x in range(w)])
    for x in range(w):
        f.store(sums[x], f.in_row(l, 0, x))
    return f.finish()


def tree_max(f: Function, vectors: list[Value]) -> Value:
    """The lane-wise maximum of several vectors, in pairs."""
    while len(vectors) > 1:
        pairs = [vectors[i : i + 2] for i in range(0, len(vectors), 2)]
        vectors = [f.larger(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return vectors[0]
