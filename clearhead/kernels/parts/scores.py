"""Scores and weights of one block of keys: Sᵀ[key, query] with queries in the lanes, so softmax never crosses lanes.

Letters: q k query, key; s score; m maximum; p exp(s − m); l sum of p. `w` is the number of vectors of queries.
"""

from collections.abc import Sequence
from typing import NamedTuple

import llvmlite.ir as ir

from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.code import Code, Emitted, Function
from clearhead.kernels.ir.expressions import Positions
from clearhead.kernels.ir.math import exp
from clearhead.kernels.ir.values import Int, Pointer, Value, Vector, fma, larger, least
from clearhead.kernels.parts.ahead import Ahead, ask_ahead
from clearhead.kernels.parts.frame import CallTable, TilePosition
from clearhead.kernels.parts.key_rows import ReadSquares, each_key
from clearhead.kernels.parts.tile_position import queries_in_lanes, rule_of_queries
from clearhead.rules.expression import Expression

KEYS_AHEAD = 16  # how many keys early a full tile asks for the next ones


class Score(NamedTuple):
    """Sᵀ of `rows` keys by some vectors of queries, and each query's running maximum.

    Vector 0 sees row r only in its lanes from r − `hidden` on, and with a window only up to lane r − `left`;
    hidden = rows and left = −lanes hide nothing. The same rows of values, which are wanted next, are prefetched.
    """

    q: Pointer
    k: Pointer
    stride: Int
    dims: Int
    s: Pointer
    rows: Int
    hidden: Int
    m: Pointer
    v: Pointer
    v_stride: Int
    v_size: Int
    left: Int | None = None
    ahead: Ahead | None = None


def write_score(module: ir.Module, tile: Tile, w: int, variant: Variant, ahead: Sequence[str] = ()) -> Emitted[Score]:
    """Each score is two chains, over even and over odd dims, then added; sweeps need no maximum: they know the LSE."""
    f = Function(module, tile, f"score_{w}", Score, present=(*variant.window_edge, *ahead))
    a = f.arguments
    count, last = tile.keys[w - 1], a.rows - 1

    for i in f.range(0, a.rows, count):
        # The last group repeats the last key instead of reading beyond it; those rows of S are never used.
        row = [least(i + r, last) for r in range(count)]
        k_row = [a.k + index * a.stride for index in row]

        if w == tile.vectors:
            for r in range(count):
                f.prefetch(a.v + row[r] * a.v_stride, a.v_size)
                f.prefetch(k_row[r] + a.stride * KEYS_AHEAD, a.dims * f.element.bytes)
        if a.ahead is not None:
            for r in range(count):
                ask_ahead(f, a.ahead, i + r, variant)

        def dim(d: Int, sums: list[Vector]) -> list[Vector]:
            qs = [f.load(f.at(a.q, d, x)) for x in range(w)]
            ks = [f.broadcast(at + d * f.element.bytes) for at in k_row]
            return [fma(ks[r], qs[x], sums[r * w + x]) for r in range(count) for x in range(w)]

        def two_dims(i: Int, sums: list[Vector]) -> list[Vector]:
            d = i * 2
            return dim(d, sums[: count * w]) + dim(d + 1, sums[count * w :])

        pairs = a.dims // 2
        sums = f.unrolled(0, pairs, 2, two_dims, [f.constant(0.0)] * (2 * count * w))
        even, odd = f.loop(pairs * 2, a.dims, 1, dim, sums[: count * w]), sums[count * w :]
        s = [x + y for x, y in zip(even, odd, strict=True)]
        for r in range(count):
            s[r * w] = hide(f, s[r * w], row[r], a.hidden, a.left)
            for x in range(w):
                f.store(s[r * w + x], f.at(a.s, i + r, x))
        for x in range(0 if variant.consumers else w):  # kept in memory: the sums above need every register
            f.store(larger(tree_max(s[x::w]), f.load(f.at(a.m, 0, x))), f.at(a.m, 0, x))
    return f.finish()


def hide(f: Code, s: Vector, row: Int, hidden: Int, left: Int | None = None) -> Vector:
    """Scores of one vector of queries, −∞ in the lanes that do not see the row."""
    seen = f.lane() >= f.splat_int(row - hidden)
    if left is not None:
        seen = seen & (f.lane() <= f.splat_int(row - left))
    return seen.choose(s, f.constant(-float("inf")))


class ApplyRules(NamedTuple):
    """The score rules in place of Sᵀ, and each query's running maximum; fields as `Score` has them."""

    table: CallTable
    position: TilePosition
    s: Pointer
    rows: Int
    hidden: Int
    m: Pointer
    key: Int  # row 0's
    query: Int  # the first vector's first query of the tile
    left: Int | None = None
    key_rows: Pointer | None = None  # room for what is read along the keys


def write_rules(
    module: ir.Module, tile: Tile, w: int, variant: Variant, read: Sequence[Emitted[ReadSquares]]
) -> Emitted[ApplyRules]:
    """A pass of its own: after the multiply-adds, a function's long chain would keep the next ones waiting."""
    assert variant.score is not None
    present = (*variant.window_edge, *(("key_rows",) if read else ()))
    f = Function(module, tile, f"rules_{w}", ApplyRules, present=present, together=w)
    a = f.arguments
    rule = rule_of_queries(f, variant.score, variant, a.table, a.position)
    lanes = queries_in_lanes(f, rule, a.position, a.query)

    def row(r: Int, known: dict[Expression, Value], tops: list[Vector]) -> list[Vector]:
        at = f.at(a.s, r, 0)
        position = Positions({"key": a.key + r}, known)
        score = rule.score(lanes, position, f.load(at))
        score = hide(f, score, r, a.hidden, a.left)
        f.store(score, at)
        return [larger(score, tops[0])]

    squares = ReadSquares(a.table, a.position, a.key, a.query, f.i64(w), f.null() if a.key_rows is None else a.key_rows)
    f.store(each_key(f, variant, read, squares, a.rows, row, [f.load(a.m)])[0], a.m)
    return f.finish()


class Exponentials(NamedTuple):
    """P = exp(S − m) in place of S for the rows from `start` to `stop`, added to each query's running sum."""

    p: Pointer
    start: Int
    stop: Int
    m: Pointer
    l: Pointer


def write_exponentials(module: ir.Module, tile: Tile, w: int) -> Emitted[Exponentials]:
    """Rows in ascending order, each added to the sums as soon as it is known."""
    f = Function(module, tile, f"exponentials_{w}", Exponentials)
    p, start, stop, m, l = f.arguments
    ms = [f.load(f.at(m, 0, x)) for x in range(w)]

    def row(i: Int, sums: list[Vector]) -> list[Vector]:
        at = [f.at(p, i, x) for x in range(w)]
        weights = [exp(f, f.load(at[x]) - ms[x]) for x in range(w)]
        for x in range(w):
            f.store(weights[x], at[x])
        return [sums[x] + weights[x] for x in range(w)]

    sums = f.unrolled(start, stop, max(1, 2 // w), row, [f.load(f.at(l, 0, x)) for x in range(w)])
    for x in range(w):
        f.store(sums[x], f.at(l, 0, x))
    return f.finish()


def tree_max(vectors: Sequence[Vector]) -> Vector:
    """The lane-wise maximum of several vectors, in pairs."""
    while len(vectors) > 1:
        pairs = [vectors[i : i + 2] for i in range(0, len(vectors), 2)]
        vectors = [larger(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return vectors[0]
