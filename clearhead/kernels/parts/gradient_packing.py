"""A tile's rows of queries and of the output's gradient made ready: transposed, and δ = rowsum(dO ∘ O) − dLSE."""

import math

import llvmlite.ir as ir

from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.simd import Value, float_type, i64, internal_function
from clearhead.kernels.ir.storage import store_number, store_vector, stored_bytes
from clearhead.kernels.parts.packing import scale
from clearhead.kernels.parts.score_gradients import DELTA, LSE, total_of


def write_columns(module: ir.Module, tile: Tile) -> ir.Function:
    """Xᵀ[dim, query] of dense, padded rows, times the scale if `scaled`; lanes beyond the last row repeat it."""
    f = internal_function(module, tile, "columns", "table_p", "x_p", "stride", "rows", "dims", "scaled", "to_p")
    table, x, stride, rows, dims, scaled, target = f.arguments
    one, last = ir.Constant(float_type(f.element), 1.0), f.sub(rows, 1)
    factor = f.splat(f.block.select(f.block.icmp_signed("!=", scaled, f.i64(0)), scale(f, table), one))

    def vector(v: Value, _: list[Value]) -> None:
        first = f.mul(v, f.lanes)
        at = [f.at(x, f.mul(f.least(f.add(first, y), last), stride)) for y in range(f.lanes)]

        def square(d: Value, _: list[Value]) -> None:
            for y, column in enumerate(f.columns([f.load(f.at(a, f.mul(d, f.element.bytes))) for a in at])):
                f.store(f.block.fmul(column, factor), f.in_row(target, f.add(d, y), v))

        f.loop(0, dims, f.lanes, square)

    f.loop(0, tile.vectors, 1, vector)
    return f.finish()


def write_state(module: ir.Module, tile: Tile) -> ir.Function:
    """Each query's LSE and δ as rows of the state; an LSE of −∞ becomes ∞, so that every weight is 0."""
    f = internal_function(
        module, tile, "state", "o_p", "o_stride", "do_p", "do_stride", "rows", "vectors", "lse_p", "d_lse_p", "state_p"
    )
    o, o_stride, d, d_stride, rows, vectors, lse, d_lse, state = f.arguments
    b, kind = f.block, float_type(f.element)
    given = b.icmp_unsigned("!=", b.ptrtoint(d_lse, i64), f.i64(0))
    d_lse = b.select(given, d_lse, lse)  # some address to read from

    def query(y: Value, _: list[Value]) -> None:
        row = f.least(y, f.sub(rows, 1))
        a, c = f.at(o, f.mul(row, o_stride)), f.at(d, f.mul(row, d_stride))

        def dims(x: Value, acc: list[Value]) -> list[Value]:
            return [f.fma(f.load(f.in_row(a, 0, x)), f.load(f.in_row(c, 0, x)), acc[0])]

        delta = total_of(f, f.loop(0, vectors, 1, dims, [f.constant(0.0)])[0])
        place = f.mul(row, f.element.bytes)
        more = b.select(given, f.load_scalar(f.at(d_lse, place)), ir.Constant(kind, 0.0))
        own = f.load_scalar(f.at(lse, place))
        nothing = b.fcmp_ordered("==", own, ir.Constant(kind, -math.inf))
        own = b.select(nothing, ir.Constant(kind, math.inf), own)
        for which, value in ((LSE, own), (DELTA, b.fsub(delta, more))):
            f.store_scalar(value, f.at(f.in_row(state, which, 0), f.mul(y, f.element.bytes)))

    f.loop(0, tile.queries, 1, query)
    return f.finish()


def write_unpack_rows(module: ir.Module, tile: Tile, variant: Variant) -> ir.Function:
    """Padded rows of sums as rows of the result: rounded once, if it is stored narrower."""
    f = internal_function(module, tile, "unpack_rows", "x_p", "stride", "rows", "dims", "to_p", "row")
    x, stride, rows, dims, target, row = f.arguments
    size, stored = f.element.bytes, stored_bytes(f, variant.written)
    whole = f.sub(dims, f.block.srem(dims, f.i64(f.lanes)))

    def copy(i: Value, _: list[Value]) -> None:
        a, to = f.at(x, f.mul(i, stride)), f.at(target, f.mul(i, row))

        def vector(d: Value, _: list[Value]) -> None:
            store_vector(f, variant.written, f.load(f.at(a, f.mul(d, size))), f.at(to, f.mul(d, stored)))

        def single(d: Value, _: list[Value]) -> None:
            store_number(f, variant.written, f.load_scalar(f.at(a, f.mul(d, size))), f.at(to, f.mul(d, stored)))

        f.loop(0, whole, f.lanes, vector)
        f.loop(whole, dims, 1, single)

    f.loop(0, rows, 1, copy)
    return f.finish()
