"""Scores with keys in the lanes: vectors of pairs, each an even and an odd dim of one key.

A score is two chains, over even and over odd dims; side by side they are one pair of lanes. Keys lie as plain rows, and
are transposed pair by pair in registers, or in a cache's pages, already so. Letters: q k s query, key, score.
"""

from collections.abc import Sequence

import llvmlite.ir as ir

from clearhead.kernels.ir.code import Code
from clearhead.kernels.ir.values import Pointer, Vector, larger


def load_pair(f: Code, address: Pointer) -> Vector:
    """Two neighbouring dims of a query, in every pair of lanes."""
    kind = ir.VectorType(f.scalar, 2)
    pair = f.read(address, kind, align=f.element.bytes)
    return Vector(f.build, f.shuffled(pair, ir.Constant(kind, ir.Undefined), [lane % 2 for lane in range(f.lanes)]))


def load_doubled(f: Code, address: Pointer) -> Vector:
    """Half a vector of numbers, each in both lanes of its pair."""
    kind = ir.VectorType(f.scalar, f.lanes // 2)
    half = f.read(address, kind, align=f.element.bytes)
    return Vector(f.build, f.shuffled(half, ir.Constant(kind, ir.Undefined), [lane // 2 for lane in range(f.lanes)]))


def pairs_of_rows(f: Code, rows: Sequence[Vector]) -> list[Vector]:
    """As many dims as a vector has lanes, of half as many keys, from rows: a vector for each pair of dims."""
    vectors = list(rows)
    step = 1
    while step < len(vectors):
        vectors = [exchanged(f, vectors, i, step) for i in range(len(vectors))]
        step *= 2
    return vectors


def exchanged(f: Code, vectors: Sequence[Vector], i: int, step: int) -> Vector:
    """One vector after a step of the transposition: pairs change places between vectors that are `step` apart."""
    low, high = vectors[i & ~step], vectors[i | step]
    order = []
    for pair in range(f.lanes // 2):
        source = pair | step if i & step else pair & ~step
        lane = 2 * source + (f.lanes if pair & step else 0)
        order += [lane, lane + 1]
    return f.shuffle(low, high, order)


def sum_of_pairs(f: Code, a: Vector, b: Vector) -> Vector:
    """Even plus odd of two vectors of pairs: the scores of one vector of keys."""
    even, odd = (f.shuffle(a, b, range(first, 2 * f.lanes, 2)) for first in (0, 1))
    return even + odd


def largest_lane(f: Code, x: Vector) -> Vector:
    """The largest number of a vector, in every lane."""
    step = 1
    while step < f.lanes:
        x = larger(x, f.shuffle(x, x, [lane ^ step for lane in range(f.lanes)]))
        step *= 2
    return x
