"""Sums that are carried from one stretch of keys to the next: a tile's m, l and o, not divided, into it and out of it.

In memory they are dense: one m and one l for each query, and a row of o without padding.
"""

from typing import NamedTuple

import llvmlite.ir as ir

from clearhead.kernels.abi.softmax_state import TOTAL_L, TOTAL_M
from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.ir.code import Emitted, Function
from clearhead.kernels.ir.values import Int, Pointer
from clearhead.kernels.parts.frame import CallTable


class SumArrays(NamedTuple):
    """Where the sums of a tile's first query lie in memory."""

    o: Pointer
    m: Pointer
    l: Pointer


class Stretch(NamedTuple):
    """A stretch of keys for one tile."""

    first: Int  # the first key that there is
    resumed: Int  # not 0: there are sums of earlier keys
    before: SumArrays
    after: SumArrays


class CarriedSums(NamedTuple):
    """A tile's sums in scratch memory, and in the arrays that carry them."""

    table: CallTable
    total: Pointer
    o_stride: Int
    state: Pointer
    rows: Int
    arrays: SumArrays


def write_load_sums(module: ir.Module, tile: Tile) -> Emitted[CarriedSums]:
    """The sums as they were left; the dims that pad a row are 0."""
    f = Function(module, tile, "load_sums", CarriedSums)
    a = f.arguments
    size, row, dims = f.element.bytes, a.table.field("output_row"), a.table.field("value_dim")
    vectors = dims // f.lanes

    for q in f.range(0, a.rows):
        for which, carried in ((TOTAL_M, a.arrays.m), (TOTAL_L, a.arrays.l)):
            f.store(f.load_number(carried + q * size), f.at(a.state, which, 0) + q * size)
        source, target = a.arrays.o + q * row, a.total + q * a.o_stride
        for x in f.range(0, vectors):
            f.store(f.load(f.at(source, 0, x)), f.at(target, 0, x))
        for d in f.range(vectors * f.lanes, dims):
            f.store(f.load_number(source + d * size), target + d * size)
        for d in f.range(dims, a.o_stride // size):
            f.store(f.number(0.0), target + d * size)
    return f.finish()


def write_store_sums(module: ir.Module, tile: Tile) -> Emitted[CarriedSums]:
    """The sums as they are."""
    f = Function(module, tile, "store_sums", CarriedSums)
    a = f.arguments
    size, row, dims = f.element.bytes, a.table.field("output_row"), a.table.field("value_dim")
    vectors = dims // f.lanes

    for q in f.range(0, a.rows):
        for which, carried in ((TOTAL_M, a.arrays.m), (TOTAL_L, a.arrays.l)):
            f.store(f.load_number(f.at(a.state, which, 0) + q * size), carried + q * size)
        source, target = a.total + q * a.o_stride, a.arrays.o + q * row
        for x in f.range(0, vectors):
            f.store(f.load(f.at(source, 0, x)), f.at(target, 0, x))
        for d in f.range(vectors * f.lanes, dims):
            f.store(f.load_number(source + d * size), target + d * size)
    return f.finish()
