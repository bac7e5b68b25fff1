"""Scores with keys in the lanes: vectors of pairs, each an even and an odd dim of one key.

A score is two chains, over even and over odd dims; side by side they are one pair of lanes. Keys lie as plain rows, and
are transposed pair by pair in registers, or in a cache's pages, already so. Letters: q k s query, key, score.
"""

from collections.abc import Sequence

import llvmlite.ir as ir

from clearhead.kernels.ir.simd import Function, Value


def load_pair(f: Function, address: Value) -> Value:
    """Two neighbouring dims of a query, in every pair of lanes."""
    kind = ir.VectorType(f.vector.element, 2)
    pair = f.block.load(address, typ=kind, align=f.element.bytes)
    return f.shuffle(pair, ir.Constant(kind, ir.Undefined), [lane % 2 for lane in range(f.lanes)])


def pairs_of_rows(f: Function, rows: Sequence[Value]) -> list[Value]:
    """As many dims as a vector has lanes, of half as many keys, from rows: a vector for each pair of dims."""
    vectors = list(rows)
    step = 1
    while step < len(vectors):
        vectors = [exchanged(f, vectors, i, step) for i in range(len(vectors))]
        step *= 2
    return vectors


def exchanged(f: Function, vectors: list[Value], i: int, step: int) -> Value:
    """One vector after a step of the transposition: pairs change places between vectors that are `step` apart."""
    low, high = vectors[i & ~step], vectors[i | step]
    order = []
    for pair in range(f.lanes // 2):
        source = pair | step if i & step else pair & ~step
        lane = 2 * source + (f.lanes if pair & step else 0)
        order += [lane, lane + 1]
    return f.shuffle(low, high, order)


def sum_of_pairs(f: Function, a: Value, b: Value) -> Value:
    """Even plus odd of two vectors of pairs: the scores of one vector of keys."""
    even, odd = (f.shuffle(a, b, range(first, 2 * f.lanes, 2)) for first in (0, 1))
    return f.block.fadd(even, odd)
