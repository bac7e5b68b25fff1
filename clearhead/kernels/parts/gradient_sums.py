"""Sums over the pairs of one tile and block: O[r] += Σᵢ A(r, i) · B[i], with dims in the lanes and rows of B in place.

A is the weights' or the scores' gradient tile [key][query]. Summed over keys it gives queries' gradients (r query,
i key), `across` it, over queries, those of keys and values (r key, i query).
"""

from typing import NamedTuple

import llvmlite.ir as ir

from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.ir.code import Code, Emitted, Function
from clearhead.kernels.ir.values import Bits, Int, Pointer, Truth, Vector, fma


class SumRows(NamedTuple):
    """Row r sums i from `low` + r to `high` + r, and some i around it, where A must be zero."""

    a: Pointer
    b: Pointer
    stride: Int
    length: Int
    low: Int
    high: Int
    rows: Int
    o: Pointer
    o_stride: Int


def write_sums(module: ir.Module, tile: Tile, n: int, *, across: bool) -> Emitted[SumRows]:
    """n vectors of dims, for as many rows at once as the registers hold sums of."""
    f = Function(module, tile, f"sums_{'across_' if across else ''}{n}", SumRows)
    a, b, stride, length, low, high, rows, o, o_stride = f.arguments
    size = f.element.bytes

    def group(count: int, r: Int) -> None:
        start = (low + r).clamp(0, length)
        stop = (high + (r + count)).clamp(start, length)
        first = a + r * (tile.row if across else size)

        def one(i: Int, sums: list[Vector]) -> list[Vector]:
            column, row = first + i * (size if across else tile.row), b + i * stride
            bs = [f.load(f.at(row, 0, x)) for x in range(n)]
            step = tile.row if across else size
            scalars = [f.broadcast(column + k * step) for k in range(count)]
            return [fma(scalars[k], bs[x], sums[k * n + x]) for k in range(count) for x in range(n)]

        sums = f.unrolled(start, stop, 4, one, [f.constant(0.0)] * (count * n))
        for k in range(count):
            for x in range(n):
                place = f.at(o + (r + k) * o_stride, 0, x)
                f.store(f.load(place) + sums[k * n + x], place)

    count = tile.rows[n - 1]
    whole = rows - rows % count
    for r in f.range(0, whole, count):
        group(count, r)
    for r in f.range(whole, rows):
        group(1, r)
    return f.finish()


class SumSeen(NamedTuple):
    """The same over seen pairs alone, as the weights `p` tell them."""

    a: Pointer
    p: Pointer
    b: Pointer
    stride: Int
    length: Int
    rows: Int
    o: Pointer
    o_stride: Int
    vectors: Int


def write_sums_seen(module: ir.Module, tile: Tile, *, across: bool) -> Emitted[SumSeen]:
    """For a B that is not finite: hidden pairs have the weight −0, which no seen one has."""
    f = Function(module, tile, f"sums_seen_{'across' if across else 'down'}", SumSeen)
    a, p, b, stride, length, rows, o, o_stride, vectors = f.arguments
    width = 8 * f.element.bytes
    minus_zero = 1 << (width - 1)

    for r in f.range(0, rows):
        for x in f.range(0, vectors):

            def one(i: Int, sums: list[Vector]) -> list[Vector]:
                key, query = (r, i) if across else (i, r)
                offset = key * tile.row + query * f.element.bytes
                weight = Bits(f.build, f.build.bitcast(f.load_number(p + offset).ir, ir.IntType(width)))
                seen = weight != minus_zero
                value = f.load(f.at(b + i * stride, 0, x))
                return [seen.choose(fma(f.broadcast(a + offset), value, sums[0]), sums[0])]

            total = f.loop(0, length, 1, one, [f.constant(0.0)])[0]
            place = f.at(o + r * o_stride, 0, x)
            f.store(f.load(place) + total, place)
    return f.finish()


class Sums:
    """Both functions for every number of dims, one direction."""

    def __init__(self, module: ir.Module, tile: Tile, *, across: bool) -> None:
        self.plain = {n: write_sums(module, tile, n, across=across) for n in range(1, len(tile.rows) + 1)}
        self.seen = write_sums_seen(module, tile, across=across)

    def write(self, f: Code, product: SumRows, p: Pointer, dims: Int, safe: Truth) -> None:
        """O += A·B for all `dims`, padded to whole vectors; `safe`: products with hidden rows are harmless.

        Else the weights `p` tell which pairs are seen.
        """
        vectors = dims // f.lanes

        def part(n: int, d: Int) -> None:
            offset = d * f.element.bytes
            f.call(self.plain[n], product._replace(b=product.b + offset, o=product.o + offset))

        with f.either(safe) as (then, otherwise):
            with then:  # few dims are summed at once, of many as many as fit
                most = len(self.plain)
                whole = vectors - vectors % most
                for d in f.range(0, whole * f.lanes, most * f.lanes):
                    part(most, d)
                rest = vectors - whole
                for n in range(1, most):
                    with f.when(rest == n):
                        part(n, whole * f.lanes)
            with otherwise:
                a, b, stride, length, _, _, rows, o, o_stride = product
                f.call(self.seen, SumSeen(a, p, b, stride, length, rows, o, o_stride, vectors))
