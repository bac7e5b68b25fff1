"""bfloat16 multiplied as it is: `precision="native"`, by a processor's own dot product of pairs (`vdpbf16ps`).

Decides how operands pair up: two neighbouring dims of queries and keys, two neighbouring keys of weights and values.
Products are exact and summed in float32; scaled queries and weights are rounded to bfloat16 before they are multiplied,
which the exact path does not do. Letters: q k v p s o as in `forward`; a pair is one lane of 32 bits.
"""

import llvmlite.ir as ir

from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.ir.simd import Function, Value, i32, internal_function
from clearhead.kernels.ir.storage import load_vector, narrow
from clearhead.kernels.parts.packing import field, scale
from clearhead.kernels.parts.scores import hide, tree_max
from clearhead.kernels.parts.weighted_values import add_sums

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


def dot(f: Function, acc: Value, a: Value, b: Value) -> Value:
    """acc + the sum of each lane's two products."""
    pairs = ir.VectorType(Bfloat(), 2 * f.lanes)
    operands = (acc, f.block.bitcast(a, pairs), f.block.bitcast(b, pairs))
    return f.intrinsic("llvm.x86.avx512bf16.dpbf16ps.512", f.vector, *operands)


def load_pairs(f: Function, address: Value) -> Value:
    """A vector of pairs."""
    return f.block.load(address, typ=f.integers, align=1)


def broadcast_pair(f: Function, address: Value) -> Value:
    """One pair in every lane."""
    return f.splat(f.block.load(address, typ=i32, align=1))


def write_pack_query(module: ir.Module, tile: Tile) -> ir.Function:
    """Qᵀ[pair of dims, query] = scale · q, rounded; the lanes beyond the last query repeat it."""
    f = internal_function(module, tile, "pack_query", "table_p", "q_p", "rows", "qt_p")
    table, q, rows, qt = f.arguments
    row, dims = field(f, table, "query_row"), field(f, table, "query_dim")
    factor, last = f.splat(scale(f, table)), f.sub(rows, 1)

    def vector(x: Value, _: list[Value]) -> None:
        first = f.mul(x, f.lanes)
        at = [f.at(q, f.mul(f.least(f.add(first, y), last), row)) for y in range(f.lanes)]

        def square(d: Value, _: list[Value]) -> None:
            loaded = [load_vector(f, "bfloat16", f.at(a, f.mul(d, STORED))) for a in at]
            bits = [
                f.block.zext(narrow(f, "bfloat16", f.block.fmul(column, factor)), f.integers)
                for column in f.columns(loaded)
            ]
            for y in range(0, f.lanes, 2):
                pair = f.block.or_(bits[y], f.block.shl(bits[y + 1], f.integer(16)))
                f.block.store(pair, f.in_row(qt, f.block.sdiv(f.add(d, y), f.i64(2)), x), align=1)

        f.loop(0, dims, f.lanes, square)

    f.loop(0, f.block.sdiv(f.add(rows, f.lanes - 1), f.i64(f.lanes)), 1, vector)
    return f.finish()


def write_pair_values(module: ir.Module, tile: Tile) -> ir.Function:
    """Rows of values in pairs: [pair of keys][dim][2]; an odd last row is paired with zeros."""
    f = internal_function(module, tile, "pair_values", "from_p", "row", "rows", "dims", "to_p")
    source, row, rows, dims, target = f.arguments
    whole = f.block.sdiv(rows, f.i64(2))

    def pair(i: Value, single: bool) -> None:
        first = f.at(source, f.mul(i, f.mul(row, 2)))
        to = f.at(target, f.mul(i, f.mul(dims, PAIR)))
        bits = ir.VectorType(ir.IntType(16), f.lanes)

        def vector(d: Value, _: list[Value]) -> None:
            offset = f.mul(d, STORED)
            low = f.block.load(f.at(first, offset), typ=bits, align=1)
            both = f.block.zext(low, f.integers)
            if not single:
                high = f.block.load(f.at(f.at(first, row), offset), typ=bits, align=1)
                both = f.block.or_(both, f.block.shl(f.block.zext(high, f.integers), f.integer(16)))
            f.block.store(both, f.at(to, f.mul(d, PAIR)), align=1)

        f.loop(0, dims, f.lanes, vector)

    f.loop(0, whole, 1, lambda i, _: pair(i, False))
    with f.when(f.less(f.mul(whole, 2), rows)):
        pair(whole, True)
    return f.finish()


def write_score(module: ir.Module, tile: Tile, w: int) -> ir.Function:
    """Sᵀ of `rows` keys by w vectors of queries, as `scores.write_score`, from pairs of dims and in one chain."""
    f = internal_function(
        module, tile, f"score_{w}", "q_p", "k_p", "stride", "dims", "s_p", "rows", "hidden", "m_p", "v_p", "v_stride",
        "v_size",
    )  # fmt: skip
    q, k, stride, dims, s, rows, hidden, m, *_ = f.arguments
    count, last = 2 * tile.keys[w - 1], f.sub(rows, 1)

    def keys(i: Value, _: list[Value]) -> None:
        row = [f.least(f.add(i, r), last) for r in range(count)]
        k_row = [f.at(k, f.mul(index, stride)) for index in row]

        def pair(t: Value, acc: list[Value]) -> list[Value]:
            qs = [load_pairs(f, f.in_row(q, t, x)) for x in range(w)]
            ks = [broadcast_pair(f, f.at(at, f.mul(t, PAIR))) for at in k_row]
            return [dot(f, acc[r * w + x], qs[x], ks[r]) for r in range(count) for x in range(w)]

        acc = f.unrolled(0, f.block.sdiv(dims, f.i64(2)), 2, pair, [f.constant(0.0)] * (count * w))
        for r in range(count):
            acc[r * w] = hide(f, acc[r * w], row[r], hidden)
            for x in range(w):
                f.store(acc[r * w + x], f.in_row(s, f.add(i, r), x))
        for x in range(w):
            f.store(f.larger(tree_max(f, acc[x::w]), f.load(f.in_row(m, 0, x))), f.in_row(m, 0, x))

    f.loop(0, rows, count, keys)
    return f.finish()


def write_pair_weights(module: ir.Module, tile: Tile) -> ir.Function:
    """P of one vector of queries in pairs of keys, in its own place; rows from `stop` to `rows` weigh 0."""
    f = internal_function(module, tile, "pair_weights", "p_p", "stop", "rows")
    p, stop, rows = f.arguments

    def rounded(row: Value) -> Value:
        bits = f.block.bitcast(f.load(f.in_row(p, row, 0)), f.integers)
        seen = f.less(row, stop)
        return f.block.select(seen, f.block.add(bits, f.integer(HALF)), f.integer(0))

    def pair(i: Value, _: list[Value]) -> None:
        low, high = rounded(f.mul(i, 2)), rounded(f.add(f.mul(i, 2), 1))
        both = f.block.or_(f.block.lshr(low, f.integer(16)), f.block.and_(high, f.integer(UPPER)))
        f.block.store(both, f.in_row(p, i, 0), align=1)

    f.loop(0, f.block.sdiv(f.add(rows, 1), f.i64(2)), 1, pair)
    return f.finish()


def write_values(module: ir.Module, tile: Tile, n: int) -> ir.Function:
    """O = α·O + P·V for n vectors of dims, as `values.write_values`, from pairs of keys; hidden values are cut off."""
    f = internal_function(
        module, tile, f"values_{n}", "p_p", "v_p", "stride", "rows", "diagonal", "queries", "o_p", "o_stride",
        "alpha_p", "first",
    )  # fmt: skip
    p, v, stride, rows, diagonal, queries, o, o_stride, alpha, first = f.arguments
    count, size = tile.rows[n - 1], f.element.bytes
    fresh = f.block.icmp_signed("!=", first, f.i64(0))

    def group(q: Value, _: list[Value]) -> None:
        ends = [f.clamp(f.add(diagonal, f.add(q, r + 1)), 0, rows) for r in range(count)]
        columns = f.at(p, f.mul(q, size))

        def key(i: Value, acc: list[Value], edge: bool) -> list[Value]:
            p_row, v_row = f.at(columns, f.mul(i, tile.row)), f.at(v, f.mul(i, stride))
            vs = [load_pairs(f, f.in_row(v_row, 0, x)) for x in range(n)]
            ps = [broadcast_pair(f, f.at(p_row, r * size)) for r in range(count)]
            if not edge:
                return [dot(f, acc[r * n + x], ps[r], vs[x]) for r in range(count) for x in range(n)]
            firsts = [f.block.and_(x, f.integer(0xFFFF)) for x in vs]
            sums = []
            for r in range(count):
                half, whole = f.less(f.mul(i, 2), ends[r]), f.less(f.add(f.mul(i, 2), 1), ends[r])
                for x in range(n):
                    values = f.block.select(whole, vs[x], firsts[x])
                    sums.append(f.block.select(half, dot(f, acc[r * n + x], ps[r], values), acc[r * n + x]))
            return sums

        middle = f.block.sdiv(ends[0], f.i64(2))
        zeros = [f.constant(0.0)] * (count * n)
        acc = f.unrolled(0, middle, 4, lambda i, acc: key(i, acc, False), zeros)
        acc = f.loop(middle, f.block.sdiv(f.add(ends[-1], 1), f.i64(2)), 1, lambda i, acc: key(i, acc, True), acc)
        for r in range(count):
            add_sums(f, f.add(q, r), acc[r * n : (r + 1) * n], (o, o_stride), alpha, fresh)

    f.loop(0, queries, count, group)
    return f.finish()
