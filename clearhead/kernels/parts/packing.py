"""Into tiles and out of them: queries transposed and scaled, odd rows made dense, outputs divided by their sums.

These are the only places that know strides; whatever a user's layout, no more than one tile is ever copied.
"""

import llvmlite.ir as ir

from clearhead.definition.canonical import BLOCK
from clearhead.kernels.abi.call import FIELDS, PANEL_LINE
from clearhead.kernels.abi.softmax_state import ALPHA, SUM, TOTAL_L, TOTAL_M
from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir import math
from clearhead.kernels.ir.simd import Function, Value, float_type, i64, internal_function
from clearhead.kernels.ir.storage import load_number, load_vector, store_number, store_vector, stored_bytes


def field(f: Function, table: Value, name: str) -> Value:
    """Read one field of the call's table."""
    return f.load_int(table, FIELDS.index(name))


def scale(f: Function, table: Value) -> Value:
    """The scale, rounded to the element type."""
    bits = f.block.bitcast(field(f, table, "scale"), ir.DoubleType())
    return bits if f.element.bytes == 8 else f.block.fptrunc(bits, float_type(f.element))


def whole_vectors(f: Function, element: Value, dims: Value, size: int) -> Value:
    """How many dims can be moved by vectors: none if a row's elements, of `size` bytes, lie apart."""
    dense = f.block.icmp_signed("==", element, f.i64(size))
    return f.block.select(dense, f.sub(dims, f.block.srem(dims, f.i64(f.lanes))), f.i64(0))


def write_pack_query(module: ir.Module, tile: Tile, variant: Variant) -> ir.Function:
    """Qᵀ[dim, query] = scale · q; the lanes beyond the last query repeat it."""
    f = internal_function(module, tile, "pack_query", "table_p", "q_p", "rows", "qt_p")
    table, q, rows, qt = f.arguments
    row, element, dims = (field(f, table, name) for name in ("query_row", "query_element", "query_dim"))
    size, factor, last, storage = f.element.bytes, scale(f, table), f.sub(rows, 1), variant.storage
    stored = stored_bytes(f, storage)
    whole = whole_vectors(f, element, dims, stored)

    def vector(x: Value, _: list[Value]) -> None:
        first = f.mul(x, f.lanes)
        at = [f.at(q, f.mul(f.least(f.add(first, y), last), row)) for y in range(f.lanes)]

        def square(d: Value, _: list[Value]) -> None:
            rows = [load_vector(f, storage, f.at(a, f.mul(d, stored))) for a in at]
            for y, column in enumerate(f.columns(rows)):
                f.store(f.block.fmul(column, f.splat(factor)), f.in_row(qt, f.add(d, y), x))

        def single(d: Value, _: list[Value]) -> None:
            def lane(y: Value, _: list[Value]) -> None:
                source = f.at(q, f.add(f.mul(f.least(f.add(first, y), last), row), f.mul(d, element)))
                x_d = f.block.fmul(load_number(f, storage, source), factor)
                f.store_scalar(x_d, f.at(f.in_row(qt, d, x), f.mul(y, size)))

            f.loop(0, f.lanes, 1, lane)

        f.loop(0, whole, f.lanes, square)
        f.loop(whole, dims, 1, single)

    f.loop(0, f.block.sdiv(f.add(rows, f.lanes - 1), f.i64(f.lanes)), 1, vector)
    return f.finish()


def write_pack_rows(module: ir.Module, tile: Tile, variant: Variant, name: str = "pack_rows") -> ir.Function:
    """Dense copies of rows of keys or values that lie apart, are stored narrower, or must be padded with zeros."""
    more = ("scales_p",) if variant.int8 else ()
    f = internal_function(module, tile, name, "from_p", "row", "element", "rows", "dims", "padded", "to_p", *more)
    source, row, element, rows, dims, padded, target, *scales = f.arguments
    size, zero, storage = f.element.bytes, ir.Constant(float_type(f.element), 0.0), variant.kept
    stored = stored_bytes(f, storage)
    whole = whole_vectors(f, element, dims, stored)

    def copy(i: Value, _: list[Value]) -> None:
        a, b = f.at(source, f.mul(i, row)), f.at(target, f.mul(i, f.mul(padded, size)))
        own = f.load_scalar(f.at(scales[0], f.mul(i, size))) if scales else None

        def vector(d: Value, _: list[Value]) -> None:
            x = load_vector(f, storage, f.at(a, f.mul(d, stored)))
            f.store(x if own is None else f.block.fmul(x, f.splat(own)), f.at(b, f.mul(d, size)))

        def single(d: Value, _: list[Value]) -> None:
            x = load_number(f, storage, f.at(a, f.mul(d, element)))
            f.store_scalar(x if own is None else f.block.fmul(x, own), f.at(b, f.mul(d, size)))

        def padding(d: Value, _: list[Value]) -> None:
            f.store_scalar(zero, f.at(b, f.mul(d, size)))

        f.loop(0, whole, f.lanes, vector)
        f.loop(whole, dims, 1, single)
        f.loop(dims, padded, 1, padding)

    f.loop(0, rows, 1, copy)
    return f.finish()


def write_unpack_keys(module: ir.Module, tile: Tile, variant: Variant) -> ir.Function:
    """Dense rows of some keys of a cache's page, from the key `inside` it on (laid out in `clearhead.cache.pages`)."""
    f = internal_function(module, tile, "unpack_keys", "page_p", "inside", "rows", "dims", "to_p")
    page, inside, rows, dims, target = f.arguments
    size, stored = f.element.bytes, stored_bytes(f, variant.kept)
    keys, pairs = PANEL_LINE // (2 * size), f.block.sdiv(f.add(dims, 1), f.i64(2))
    line = 2 * keys * stored
    scales = f.at(page, f.mul(pairs, 2 * BLOCK))

    def row(i: Value, _: list[Value]) -> None:
        key = f.add(inside, i)
        panel = f.mul(f.block.sdiv(key, f.i64(keys)), f.mul(pairs, line))
        source = f.at(page, f.add(panel, f.mul(f.block.srem(key, f.i64(keys)), 2 * stored)))
        to = f.at(target, f.mul(i, f.mul(dims, size)))
        own = f.load_scalar(f.at(scales, f.mul(key, size))) if variant.int8 else None

        def dim(d: Value, _: list[Value]) -> None:
            at = f.add(f.mul(f.block.sdiv(d, f.i64(2)), line), f.mul(f.block.srem(d, f.i64(2)), stored))
            x = load_number(f, variant.kept, f.at(source, at))
            f.store_scalar(x if own is None else f.block.fmul(x, own), f.at(to, f.mul(d, size)))

        f.unrolled(0, dims, 8, dim)

    f.loop(0, rows, 1, row)
    return f.finish()


def write_unpack_output(module: ir.Module, tile: Tile, variant: Variant) -> ir.Function:
    """y = O / l, and LSE = m + log l where it is wanted; a query that sees nothing gets 0 and −∞.

    A sink joins l like one more key without a value.
    """
    more = ("sink_p",) if variant.sink else ()
    f = internal_function(
        module, tile, "unpack_output", "table_p", "o_p", "o_stride", "state_p", "rows", "y_p", "lse_p", *more
    )
    table, o, o_stride, state, rows, y, lse, *sink = f.arguments
    row, element, dims = (field(f, table, name) for name in ("output_row", "output_element", "value_dim"))
    size, zero, storage = f.element.bytes, f.constant(0.0), variant.written
    stored = stored_bytes(f, storage)
    whole = whole_vectors(f, element, dims, stored)
    wanted = f.block.icmp_unsigned("!=", f.block.ptrtoint(lse, i64), f.i64(0))

    def with_sink(x: Value, l: Value) -> Value:
        m, s = f.load(f.in_row(state, TOTAL_M, x)), f.broadcast(sink[0])
        top = f.larger(s, m)
        a, b = math.exp(f, f.block.fsub(m, top)), math.exp(f, f.block.fsub(s, top))
        f.store(top, f.in_row(state, TOTAL_M, x))
        f.store(a, f.in_row(state, ALPHA, x))
        return f.fma(l, a, b)

    def sums(x: Value, _: list[Value]) -> None:
        l = f.load(f.in_row(state, TOTAL_L, x))
        if sink:
            l = with_sink(x, l)
        with f.when(wanted):
            f.store(f.block.fadd(f.load(f.in_row(state, TOTAL_M, x)), math.log(f, l)), f.in_row(state, TOTAL_M, x))
        inverse = f.block.fdiv(f.constant(1.0), l)
        inverse = f.block.select(f.block.fcmp_ordered("==", l, zero), zero, inverse)
        if sink:
            inverse = f.block.fmul(f.load(f.in_row(state, ALPHA, x)), inverse)
        f.store(inverse, f.in_row(state, SUM, x))

    def query(q: Value, _: list[Value]) -> None:
        inverse = f.broadcast(f.at(f.in_row(state, SUM, 0), f.mul(q, size)))
        source, target = f.at(o, f.mul(q, o_stride)), f.at(y, f.mul(q, row))

        # + 0 makes every zero +0: which one a sum of nothing is would depend on the tiling.
        def divided(d: Value) -> Value:
            return f.fma(f.load(f.at(source, f.mul(d, size))), inverse, zero)

        def single(d: Value, _: list[Value]) -> None:
            value = f.block.extract_element(divided(d), f.i64(0))
            store_number(f, storage, value, f.at(target, f.mul(d, element)))

        def vector(x: Value, _: list[Value]) -> None:
            store_vector(f, storage, divided(f.mul(x, f.lanes)), f.at(target, f.mul(x, f.lanes * stored)))

        f.unrolled(0, f.block.sdiv(whole, f.i64(f.lanes)), 4, vector)
        f.loop(whole, dims, 1, single)
        with f.when(wanted):
            place = f.mul(q, size)
            f.store_scalar(f.load_scalar(f.at(f.in_row(state, TOTAL_M, 0), place)), f.at(lse, place))

    f.loop(0, tile.vectors, 1, sums)
    f.loop(0, rows, 1, query)
    return f.finish()
