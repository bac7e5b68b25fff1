"""A tile's rows of queries and of the output's gradient made ready: transposed, and δ = rowsum(dO ∘ O) − dLSE."""

import math
from typing import NamedTuple

import llvmlite.ir as ir

from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.code import Emitted, Function
from clearhead.kernels.ir.storage import store_rounded, stored_bytes
from clearhead.kernels.ir.transpose import columns
from clearhead.kernels.ir.values import Int, Pointer, Vector, fma, least
from clearhead.kernels.parts.frame import CallTable
from clearhead.kernels.parts.score_gradients import DELTA_ROW, LSE_ROW, total_of


class Columns(NamedTuple):
    """Xᵀ[dim, query] of dense, padded rows, times the scale if `scaled` is not 0."""

    table: CallTable
    x: Pointer
    stride: Int
    rows: Int
    dims: Int
    scaled: Int
    to: Pointer


def write_columns(module: ir.Module, tile: Tile) -> Emitted[Columns]:
    """Lanes beyond the last row repeat it."""
    f = Function(module, tile, "columns", Columns)
    table, x, stride, rows, dims, scaled, target = f.arguments
    one, last = f.number(1.0), rows - 1
    factor = f.splat((scaled != 0).choose(table.scale(f), one))

    for v in f.range(0, tile.vectors):
        first = v * f.lanes
        starts = [x + least(first + y, last) * stride for y in range(f.lanes)]
        for d in f.range(0, dims, f.lanes):
            square = [f.load(start + d * f.element.bytes) for start in starts]
            for y, column in enumerate(columns(f, square)):
                f.store(column * factor, f.at(target, d + y, v))
    return f.finish()


class State(NamedTuple):
    """Each query's LSE and δ as rows of the state; `d_lse` may be null."""

    o: Pointer
    o_stride: Int
    do: Pointer
    do_stride: Int
    rows: Int
    vectors: Int
    lse: Pointer
    d_lse: Pointer
    state: Pointer


def write_state(module: ir.Module, tile: Tile) -> Emitted[State]:
    """δ = rowsum(dO ∘ O) − dLSE. An LSE of −∞ becomes ∞, so that every weight is 0."""
    f = Function(module, tile, "state", State)
    o, o_stride, do, do_stride, rows, vectors, lse, d_lse, state = f.arguments
    given = d_lse.given()
    d_lse = given.choose(d_lse, lse)  # some address to read from

    for y in f.range(0, tile.queries):
        row = least(y, rows - 1)
        o_row, do_row = o + row * o_stride, do + row * do_stride

        def dims(x: Int, sums: list[Vector]) -> list[Vector]:
            return [fma(f.load(f.at(o_row, 0, x)), f.load(f.at(do_row, 0, x)), sums[0])]

        delta = total_of(f, f.loop(0, vectors, 1, dims, [f.constant(0.0)])[0])
        place = row * f.element.bytes
        more = given.choose(f.load_number(d_lse + place), f.number(0.0))
        known = f.load_number(lse + place)
        known = (known == -math.inf).choose(f.number(math.inf), known)
        for which, value in ((LSE_ROW, known), (DELTA_ROW, delta - more)):
            f.store(value, f.at(state, which, 0) + y * f.element.bytes)
    return f.finish()


class UnpackRows(NamedTuple):
    """Padded rows of sums as rows of the result."""

    x: Pointer
    stride: Int
    rows: Int
    dims: Int
    to: Pointer
    row: Int


def write_unpack_rows(module: ir.Module, tile: Tile, variant: Variant) -> Emitted[UnpackRows]:
    """Rounded once, if the result is stored narrower."""
    f = Function(module, tile, "unpack_rows", UnpackRows)
    x, stride, rows, dims, target, row = f.arguments
    size, stored = f.element.bytes, stored_bytes(f, variant.written)
    whole = dims - dims % f.lanes

    for i in f.range(0, rows):
        from_row, to_row = x + i * stride, target + i * row
        for d in f.range(0, whole, f.lanes):
            store_rounded(f, variant.written, f.load(from_row + d * size), to_row + d * stored)
        for d in f.range(whole, dims):
            store_rounded(f, variant.written, f.load_number(from_row + d * size), to_row + d * stored)
    return f.finish()
