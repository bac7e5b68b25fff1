"""Into tiles and out of them: queries transposed and scaled, odd rows made dense, outputs divided by their sums.

These are the only places that know strides; whatever a user's layout, no more than one tile is ever copied.
"""

from typing import NamedTuple

import llvmlite.ir as ir

from clearhead.definition.canonical import BLOCK
from clearhead.kernels.abi.call import PANEL_LINE
from clearhead.kernels.abi.softmax_state import ALPHA, SUM, TOTAL_L, TOTAL_M
from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.code import Code, Emitted, Function
from clearhead.kernels.ir.math import log
from clearhead.kernels.ir.storage import load_number, load_vector, store_rounded, stored_bytes
from clearhead.kernels.ir.transpose import columns
from clearhead.kernels.ir.values import Int, Pointer, Vector, fma, least
from clearhead.kernels.parts.frame import CallTable
from clearhead.kernels.parts.merge import join_maxima
from clearhead.kernels.parts.tile import vectors_of


def whole_vectors(f: Code, element: Int, dims: Int, size: int) -> Int:
    """How many dims can be moved by vectors: none if a row's elements, of `size` bytes, lie apart."""
    dense = element == size
    return dense.choose(dims - dims % f.lanes, f.i64(0))


class PackQuery(NamedTuple):
    """Transpose and scale a tile's queries."""

    table: CallTable
    q: Pointer
    rows: Int
    qt: Pointer


def write_pack_query(module: ir.Module, tile: Tile, variant: Variant) -> Emitted[PackQuery]:
    """Qᵀ[dim, query] = scale · q; the lanes beyond the last query repeat it."""
    f = Function(module, tile, "pack_query", PackQuery)
    table, q, rows, qt = f.arguments
    row, element, dims = table.field("query_row"), table.field("query_element"), table.field("query_dim")
    size, factor, last, storage = f.element.bytes, table.scale(f), rows - 1, variant.storage
    stored = stored_bytes(f, storage)
    whole = whole_vectors(f, element, dims, stored)

    for x in f.range(0, vectors_of(f, rows)):
        first = x * f.lanes
        starts = [q + least(first + y, last) * row for y in range(f.lanes)]

        # As many dims as there are lanes, of as many queries: a square, transposed in registers.
        for d in f.range(0, whole, f.lanes):
            square = [load_vector(f, storage, start + d * stored) for start in starts]
            for y, column in enumerate(columns(f, square)):
                f.store(column * f.splat(factor), f.at(qt, d + y, x))

        for d in f.range(whole, dims):
            for lane in f.range(0, f.lanes):
                source = q + (least(first + lane, last) * row + d * element)
                scaled = load_number(f, storage, source) * factor
                f.store(scaled, f.at(qt, d, x) + lane * size)
    return f.finish()


class PackRows(NamedTuple):
    """Copy rows of `dims` numbers to dense rows of `padded` ones."""

    source: Pointer
    row: Int
    element: Int
    rows: Int
    dims: Int
    padded: Int
    to: Pointer
    scales: Pointer | None = None


def write_pack_rows(module: ir.Module, tile: Tile, variant: Variant, name: str = "pack_rows") -> Emitted[PackRows]:
    """Rows of keys or values that lie apart, are stored narrower, or must be padded with zeros."""
    f = Function(module, tile, name, PackRows, present=("scales",) if variant.int8 else ())
    source, row, element, rows, dims, padded, target, scales = f.arguments
    size, zero, storage = f.element.bytes, f.number(0.0), variant.kept
    stored = stored_bytes(f, storage)
    whole = whole_vectors(f, element, dims, stored)

    for i in f.range(0, rows):
        from_row, to_row = source + i * row, target + i * (padded * size)
        scale = None if scales is None else f.load_number(scales + i * size)
        for d in f.range(0, whole, f.lanes):
            numbers = load_vector(f, storage, from_row + d * stored)
            f.store(numbers if scale is None else numbers * f.splat(scale), to_row + d * size)
        for d in f.range(whole, dims):
            number = load_number(f, storage, from_row + d * element)
            f.store(number if scale is None else number * scale, to_row + d * size)
        for d in f.range(dims, padded):
            f.store(zero, to_row + d * size)
    return f.finish()


class UnpackKeys(NamedTuple):
    """Copy `rows` keys of a cache's page, from the key `inside` it on, to dense rows."""

    page: Pointer
    inside: Int
    rows: Int
    dims: Int
    to: Pointer


def write_unpack_keys(module: ir.Module, tile: Tile, variant: Variant) -> Emitted[UnpackKeys]:
    """Pages are laid out in `clearhead.cache.pages`: panels of a few keys, with a line for each pair of dims."""
    f = Function(module, tile, "unpack_keys", UnpackKeys)
    page, inside, rows, dims, target = f.arguments
    size, stored = f.element.bytes, stored_bytes(f, variant.kept)
    keys, pairs = PANEL_LINE // (2 * size), (dims + 1) // 2
    line = 2 * keys * stored
    scales = page + pairs * (2 * BLOCK)

    for i in f.range(0, rows):
        key = inside + i
        panel = key // keys * (pairs * line)
        source = page + (panel + key % keys * (2 * stored))
        to = target + i * (dims * size)
        scale = f.load_number(scales + key * size) if variant.int8 else None
        for d in f.unrolled_range(0, dims, 8):
            number = load_number(f, variant.kept, source + (d // 2 * line + d % 2 * stored))
            f.store(number if scale is None else number * scale, to + d * size)
    return f.finish()


class UnpackOutput(NamedTuple):
    """Write a tile's outputs and, unless `lse` is null, its log-sum-exps."""

    table: CallTable
    o: Pointer
    o_stride: Int
    state: Pointer
    rows: Int
    y: Pointer
    lse: Pointer
    sink: Pointer | None = None


def write_unpack_output(module: ir.Module, tile: Tile, variant: Variant) -> Emitted[UnpackOutput]:
    """y = O / l and LSE = m + log l; a query that sees nothing gets 0 and −∞.

    A sink joins l like one more key without a value.
    """
    f = Function(module, tile, "unpack_output", UnpackOutput, present=("sink",) if variant.sink else ())
    table, o, o_stride, state, rows, y, lse, sink = f.arguments
    row, element, dims = table.field("output_row"), table.field("output_element"), table.field("value_dim")
    size, zero, storage = f.element.bytes, f.constant(0.0), variant.written
    stored = stored_bytes(f, storage)
    whole = whole_vectors(f, element, dims, stored)
    wanted = lse.given()

    def with_sink(x: Int, l: Vector, sink: Pointer) -> Vector:
        """The sink joins as one more score without a value."""
        top, a, b = join_maxima(f, f.load(f.at(state, TOTAL_M, x)), f.broadcast(sink))
        f.store(top, f.at(state, TOTAL_M, x))
        f.store(a, f.at(state, ALPHA, x))
        return fma(l, a, b)

    # Each query's LSE, in place of M, and what its sums are multiplied by.
    for x in f.range(0, tile.vectors):
        l = f.load(f.at(state, TOTAL_L, x))
        if sink is not None:
            l = with_sink(x, l, sink)
        with f.when(wanted):
            f.store(f.load(f.at(state, TOTAL_M, x)) + log(f, l), f.at(state, TOTAL_M, x))
        inverse = 1.0 / l
        inverse = (l == zero).choose(zero, inverse)
        if sink is not None:
            inverse = f.load(f.at(state, ALPHA, x)) * inverse
        f.store(inverse, f.at(state, SUM, x))

    for q in f.range(0, rows):
        inverse = f.broadcast(f.at(state, SUM, 0) + q * size)
        source, target = o + q * o_stride, y + q * row

        # + 0 makes every zero +0: which one a sum of nothing is would depend on the tiling.
        def divided(d: Int) -> Vector:
            return fma(f.load(source + d * size), inverse, zero)

        for x in f.unrolled_range(0, whole // f.lanes, 4):
            store_rounded(f, storage, divided(x * f.lanes), target + x * (f.lanes * stored))
        for d in f.range(whole, dims):
            store_rounded(f, storage, divided(d).first(), target + d * element)
        with f.when(wanted):
            place = q * size
            f.store(f.load_number(f.at(state, TOTAL_M, 0) + place), lse + place)
    return f.finish()
