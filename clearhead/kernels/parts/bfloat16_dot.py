"""bfloat16 multiplied as it is: `precision="native"`, by a processor's own dot product of pairs (`vdpbf16ps`).

Decides how operands pair up: two neighbouring dims of queries and keys, two neighbouring keys of weights and values.
Products are exact and summed in float32; scaled queries and weights are rounded to bfloat16 before they are multiplied,
which the exact path does not do. Letters: q k v p s o as in `forward`; a pair is one lane of 32 bits.
"""

from typing import NamedTuple

import llvmlite.ir as ir

from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.code import Code, Emitted, Function
from clearhead.kernels.ir.storage import load_vector, narrow
from clearhead.kernels.ir.transpose import columns
from clearhead.kernels.ir.values import Int, Lanes, Pointer, Vector, call_intrinsic, i32, larger, least
from clearhead.kernels.parts.packing import PackQuery
from clearhead.kernels.parts.scores import Score, hide, tree_max
from clearhead.kernels.parts.tile import vectors_of
from clearhead.kernels.parts.weighted_values import Values, add_sums

STORED = 2  # bytes of a bfloat16
PAIR = 4
HALF = 0x8000  # half a unit of a bfloat16, in float32's bits
UPPER = -0x10000


class Bfloat(ir.Type):  # type: ignore[misc]  # llvmlite carries no types
    """LLVM's bfloat, which llvmlite does not name."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bfloat)

    def __hash__(self) -> int:
        return hash(Bfloat)


def dot(f: Code, sums: Vector, a: Lanes, b: Lanes) -> Vector:
    """Sums + each lane's two products."""
    pairs = ir.VectorType(Bfloat(), 2 * f.lanes)
    operands = [sums.ir, f.build.bitcast(a.ir, pairs), f.build.bitcast(b.ir, pairs)]
    return Vector(f.build, call_intrinsic(f.build, "llvm.x86.avx512bf16.dpbf16ps.512", f.vector, operands))


def broadcast_pair(f: Code, address: Pointer) -> Lanes:
    """One pair in every lane."""
    return Lanes(f.build, f.spread(f.read(address, i32)))


def load_halves(f: Code, address: Pointer) -> Lanes:
    """A vector of bfloat16 numbers, each in the lower half of its lane."""
    bits = ir.VectorType(ir.IntType(16), f.lanes)
    return Lanes(f.build, f.build.zext(f.read(address, bits), f.integers))


def rounded_bits(f: Code, x: Vector) -> Lanes:
    """A vector rounded to bfloat16, each number in the lower half of its lane."""
    return Lanes(f.build, narrow(f, "bfloat16", x).resized(32).ir)


def write_native_pack_query(module: ir.Module, tile: Tile, _: Variant) -> Emitted[PackQuery]:
    """Qᵀ[pair of dims, query] = scale · q, rounded; the lanes beyond the last query repeat it."""
    f = Function(module, tile, "pack_query", PackQuery)
    table, q, rows, qt = f.arguments
    row, dims = table.field("query_row"), table.field("query_dim")
    factor, last = f.splat(table.scale(f)), rows - 1

    for x in f.range(0, vectors_of(f, rows)):
        first = x * f.lanes
        starts = [q + least(first + y, last) * row for y in range(f.lanes)]
        for d in f.range(0, dims, f.lanes):
            loaded = [load_vector(f, "bfloat16", start + d * STORED) for start in starts]
            bits = [rounded_bits(f, column * factor) for column in columns(f, loaded)]
            for y in range(0, f.lanes, 2):
                f.store(bits[y] | bits[y + 1] << 16, f.at(qt, (d + y) // 2, x))
    return f.finish()


class PairValues(NamedTuple):
    """Rows of values in pairs: [pair of keys][dim][2]; an odd last row is paired with zeros."""

    source: Pointer
    row: Int
    rows: Int
    dims: Int
    to: Pointer


def write_pair_values(module: ir.Module, tile: Tile) -> Emitted[PairValues]:
    """Two rows of 16 bits become one of 32."""
    f = Function(module, tile, "pair_values", PairValues)
    source, row, rows, dims, target = f.arguments
    pairs = rows // 2

    def pair(i: Int, *, single: bool) -> None:
        first = source + i * (row * 2)
        to = target + i * (dims * PAIR)
        for d in f.range(0, dims, f.lanes):
            offset = d * STORED
            numbers = load_halves(f, first + offset)
            if not single:
                numbers = numbers | load_halves(f, first + row + offset) << 16
            f.store(numbers, to + d * PAIR)

    for i in f.range(0, pairs):
        pair(i, single=False)
    with f.when(pairs * 2 < rows):
        pair(pairs, single=True)
    return f.finish()


def write_native_score(module: ir.Module, tile: Tile, w: int, _: Variant) -> Emitted[Score]:
    """As `scores.write_score`, from pairs of dims and in one chain."""
    f = Function(module, tile, f"score_{w}", Score)
    a = f.arguments
    count, last = 2 * tile.keys[w - 1], a.rows - 1

    for i in f.range(0, a.rows, count):
        row = [least(i + r, last) for r in range(count)]
        k_row = [a.k + index * a.stride for index in row]

        def pair(t: Int, sums: list[Vector]) -> list[Vector]:
            qs = [f.load_lanes(f.at(a.q, t, x)) for x in range(w)]
            ks = [broadcast_pair(f, at + t * PAIR) for at in k_row]
            return [dot(f, sums[r * w + x], qs[x], ks[r]) for r in range(count) for x in range(w)]

        s = f.unrolled(0, a.dims // 2, 2, pair, [f.constant(0.0)] * (count * w))
        for r in range(count):
            s[r * w] = hide(f, s[r * w], row[r], a.hidden)
            for x in range(w):
                f.store(s[r * w + x], f.at(a.s, i + r, x))
        for x in range(w):
            f.store(larger(tree_max(s[x::w]), f.load(f.at(a.m, 0, x))), f.at(a.m, 0, x))
    return f.finish()


class PairWeights(NamedTuple):
    """P of one vector of queries in pairs of keys, in its own place; rows from `stop` to `rows` weigh 0."""

    p: Pointer
    stop: Int
    rows: Int


def write_pair_weights(module: ir.Module, tile: Tile) -> Emitted[PairWeights]:
    """Weights are rounded to bfloat16, half up: they are not negative."""
    f = Function(module, tile, "pair_weights", PairWeights)
    p, stop, rows = f.arguments

    def rounded(row: Int) -> Lanes:
        bits = f.load(f.at(p, row, 0)).bits()
        return (row < stop).choose(bits + HALF, f.integer(0))

    for i in f.range(0, (rows + 1) // 2):
        low, high = rounded(i * 2), rounded(i * 2 + 1)
        f.store(low.logical_right(16) | high & UPPER, f.at(p, i, 0))
    return f.finish()


def write_native_values(module: ir.Module, tile: Tile, n: int, _: Variant) -> Emitted[Values]:
    """As `weighted_values.write_values`, from pairs of keys; of a pair whose second key is hidden, it counts as 0."""
    f = Function(module, tile, f"values_{n}", Values)
    a = f.arguments
    count, size = tile.rows[n - 1], f.element.bytes
    fresh = a.fresh != 0

    for q in f.range(0, a.queries, count):
        ends = [(a.diagonal + (q + (r + 1))).clamp(0, a.rows) for r in range(count)]
        weights = a.p + q * size

        def operands(i: Int) -> tuple[list[Lanes], list[Lanes]]:
            p_row, v_row = weights + i * tile.row, a.v + i * a.stride
            vs = [f.load_lanes(f.at(v_row, 0, x)) for x in range(n)]
            return vs, [broadcast_pair(f, p_row + r * size) for r in range(count)]

        def pair(i: Int, sums: list[Vector]) -> list[Vector]:
            vs, ps = operands(i)
            return [dot(f, sums[r * n + x], ps[r], vs[x]) for r in range(count) for x in range(n)]

        def pair_on_edge(i: Int, sums: list[Vector]) -> list[Vector]:
            vs, ps = operands(i)
            firsts = [x & 0xFFFF for x in vs]
            result = []
            for r in range(count):
                half, whole = i * 2 < ends[r], i * 2 + 1 < ends[r]
                for x in range(n):
                    values = whole.choose(vs[x], firsts[x])
                    result.append(half.choose(dot(f, sums[r * n + x], ps[r], values), sums[r * n + x]))
            return result

        middle = ends[0] // 2
        sums = f.unrolled(0, middle, 4, pair, [f.constant(0.0)] * (count * n))
        sums = f.loop(middle, (ends[-1] + 1) // 2, 1, pair_on_edge, sums)
        for r in range(count):
            add_sums(f, a, q + r, sums[r * n : (r + 1) * n], fresh)
    return f.finish()
