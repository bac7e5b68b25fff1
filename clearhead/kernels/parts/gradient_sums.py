"""Sums over the pairs of one tile and block: O[r] += Σᵢ A(r, i) · B[i], with dims in the lanes and rows of B in place.

A is the weights' or the scores' gradient tile [key][query]. Summed over keys it gives queries' gradients (r query,
i key), `across` it, over queries, those of keys and values (r key, i query).
"""

import llvmlite.ir as ir

from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.ir.simd import Function, Value, internal_function


def write_sums(module: ir.Module, tile: Tile, n: int, across: bool) -> ir.Function:
    """n vectors of dims. Row r sums i from `low` + r to `high` + r, and some i around it, where A must be zero."""
    name = f"sums_{'across_' if across else ''}{n}"
    f = internal_function(
        module, tile, name, "a_p", "b_p", "stride", "length", "low", "high", "rows", "o_p", "o_stride"
    )
    a, b, stride, length, low, high, rows, o, o_stride = f.arguments

    def group(count: int, r: Value) -> None:
        start = f.clamp(f.add(low, r), 0, length)
        stop = f.clamp(f.add(high, f.add(r, count)), start, length)
        first = f.at(a, f.mul(r, tile.row if across else f.element.bytes))

        def one(i: Value, acc: list[Value]) -> list[Value]:
            column, row = f.at(first, f.mul(i, f.element.bytes if across else tile.row)), f.at(b, f.mul(i, stride))
            bs = [f.load(f.in_row(row, 0, x)) for x in range(n)]
            step = tile.row if across else f.element.bytes
            scalars = [f.broadcast(f.at(column, k * step)) for k in range(count)]
            return [f.fma(scalars[k], bs[x], acc[k * n + x]) for k in range(count) for x in range(n)]

        acc = f.unrolled(start, stop, 4, one, [f.constant(0.0)] * (count * n))
        for k in range(count):
            for x in range(n):
                place = f.in_row(f.at(o, f.mul(f.add(r, k), o_stride)), 0, x)
                f.store(f.block.fadd(f.load(place), acc[k * n + x]), place)

    count = tile.rows[n - 1]
    whole = f.sub(rows, f.block.srem(rows, f.i64(count)))
    f.loop(0, whole, count, lambda r, _: group(count, r))
    f.loop(whole, rows, 1, lambda r, _: group(1, r))
    return f.finish()


def write_sums_seen(module: ir.Module, tile: Tile, across: bool) -> ir.Function:
    """The same over seen pairs alone, where B is not finite: hidden pairs have the weight −0, which no seen one has."""
    name = f"sums_seen_{'across' if across else 'down'}"
    f = internal_function(
        module, tile, name, "a_p", "p_p", "b_p", "stride", "length", "rows", "o_p", "o_stride", "vectors"
    )
    a, p, b, stride, length, rows, o, o_stride, vectors = f.arguments
    hidden = ir.Constant(f.integers.element, 1 << (8 * f.element.bytes - 1))

    def row(r: Value, _: list[Value]) -> None:
        def dims(x: Value, _: list[Value]) -> None:
            def one(i: Value, acc: list[Value]) -> list[Value]:
                key, query = (r, i) if across else (i, r)
                offset = f.add(f.mul(key, tile.row), f.mul(query, f.element.bytes))
                bits = f.block.bitcast(f.load_scalar(f.at(p, offset)), f.integers.element)
                seen = f.block.icmp_unsigned("!=", bits, hidden)
                value = f.load(f.in_row(f.at(b, f.mul(i, stride)), 0, x))
                return [f.block.select(seen, f.fma(f.broadcast(f.at(a, offset)), value, acc[0]), acc[0])]

            acc = f.loop(0, length, 1, one, [f.constant(0.0)])[0]
            place = f.in_row(f.at(o, f.mul(r, o_stride)), 0, x)
            f.store(f.block.fadd(f.load(place), acc), place)

        f.loop(0, vectors, 1, dims)

    f.loop(0, rows, 1, row)
    return f.finish()


class Sums:
    """Both functions for every number of dims, one direction."""

    def __init__(self, module: ir.Module, tile: Tile, across: bool) -> None:
        self.plain = {n: write_sums(module, tile, n, across) for n in range(1, len(tile.rows) + 1)}
        self.seen = write_sums_seen(module, tile, across)

    def write(
        self, f: Function, safe: Value, a: Value, p: Value, b: tuple[Value, Value, Value], length: Value,
        band: tuple[Value, Value], rows: Value, o: Value, o_stride: Value,
    ) -> None:  # fmt: skip
        """O += A·B; b is address, stride and padded dims, `safe` whether products with hidden rows are harmless."""
        base, stride, dims = b
        vectors = f.block.sdiv(dims, f.i64(f.lanes))

        def part(n: int, d: Value) -> None:
            offset = f.mul(d, f.element.bytes)
            f.call(self.plain[n], a, f.at(base, offset), stride, length, *band, rows, f.at(o, offset), o_stride)

        with f.block.if_else(safe) as (then, otherwise):
            with then:  # few dims are summed at once, of many as many as fit
                most = len(self.plain)
                whole = f.sub(vectors, f.block.srem(vectors, f.i64(most)))
                f.loop(0, f.mul(whole, f.lanes), most * f.lanes, lambda d, _: part(most, d))
                rest = f.sub(vectors, whole)
                for n in range(1, most):
                    with f.when(f.block.icmp_signed("==", rest, f.i64(n))):
                        part(n, f.mul(whole, f.lanes))
            with otherwise:
                f.call(self.seen, a, p, base, stride, length, rows, o, o_stride, vectors)
