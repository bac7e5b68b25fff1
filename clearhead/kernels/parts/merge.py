"""Joining two partial softmaxes: each knows its maximum m, its sum l of exp(s − m), and o, its sum of exp(s − m)·v.

With top = max(m, m′) the whole has l·exp(m − top) + l′·exp(m′ − top), and o likewise. A sink is a partial softmax of
one score without a value.
"""

from typing import NamedTuple

import llvmlite.ir as ir

from clearhead.kernels.abi.softmax_state import ALPHA, BETA, TOTAL_L, TOTAL_M, L, M
from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.ir.code import Code, Emitted, Function
from clearhead.kernels.ir.math import exp
from clearhead.kernels.ir.values import Int, Pointer, Vector, fma, larger


def join_maxima(f: Code, old: Vector, new: Vector) -> tuple[Vector, Vector, Vector]:
    """top, and what the sums of each side are multiplied by: exp(old − top) and exp(new − top)."""
    top = larger(new, old)
    return top, exp(f, old - top), exp(f, new - top)


class Merge(NamedTuple):
    """Join a finished segment (m, l, o) into the total (M, L, O)."""

    state: Pointer
    o: Pointer
    total: Pointer
    o_stride: Int
    queries: Int
    vectors: Int


def write_merge(module: ir.Module, tile: Tile) -> Emitted[Merge]:
    """M and L for all queries of the tile, then O query by query."""
    f = Function(module, tile, "merge", Merge)
    state, o, total, o_stride, queries, vectors = f.arguments

    for x in f.range(0, tile.vectors):
        top, a, b = join_maxima(f, f.load(f.at(state, TOTAL_M, x)), f.load(f.at(state, M, x)))
        part = f.load(f.at(state, L, x)) * b
        f.store(fma(f.load(f.at(state, TOTAL_L, x)), a, part), f.at(state, TOTAL_L, x))
        for which, value in ((TOTAL_M, top), (ALPHA, a), (BETA, b)):
            f.store(value, f.at(state, which, x))

    for q in f.range(0, queries):
        place = q * f.element.bytes
        a, b = (f.broadcast(f.at(state, which, 0) + place) for which in (ALPHA, BETA))
        row = q * o_stride
        for x in f.range(0, vectors):
            whole, part_at = (f.at(base + row, 0, x) for base in (total, o))
            f.store(fma(f.load(whole), a, f.load(part_at) * b), whole)
    return f.finish()
