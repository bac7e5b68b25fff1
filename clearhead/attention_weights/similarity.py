"""How alike heads attend: the cosine of their matrices of weights, without building one.

Responsible for walking all heads in equal parts of the matrix, small enough to hold side by side; one matrix product a
part sums their dot products.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clearhead.arrays import Array
from clearhead.attention_weights.weights_like import as_weights
from clearhead.definition.canonical import BLOCK
from clearhead.errors import InputError, ShapeError

ROWS = 64  # queries in a part: no fewer than a tile of the kernel has
MOST_BYTES = 1 << 23  # of all heads' weights in a part, unless one block of keys takes more


@dataclass(frozen=True)
class Heads:
    """Heads of one layer, or of several alike."""

    layers: list[Any]
    lead: tuple[int, ...]  # leading axes, with one for layers in front if they came as a list

    @property
    def count(self) -> int:
        """How many heads."""
        return int(np.prod(self.lead))

    def part(self, rows: slice, keys: slice) -> Array:
        """A rectangle of each head's weights, (heads, rows × keys)."""
        parts = [np.asarray(layer.block(rows, keys)) for layer in self.layers]
        return np.concatenate([part.reshape(-1, part.shape[-2] * part.shape[-1]) for part in parts])


def similarity(weights_a: Any, weights_b: Any = None) -> Array:
    """The cosine similarity of every head of some weights to every head of others, or to each other: from 0 to 1.

    Weights of shape (..., queries, keys), or a list of equal ones, one for each layer; the result has the leading axes of
    both, (heads, heads) or (layers, heads, layers, heads). Each matrix counts as one long vector; one without any weight
    is similar to nothing, 0. Takes 8 MiB at a time, more with very many heads. Raises ShapeError or InputError.
    Definition: `clearhead.definition.weights.similarity`.

    >>> from clearhead import weights
    >>> w = weights([[[0.0], [0.0]], [[0.0], [9.0]]], [[[0.0], [0.0]], [[0.0], [9.0]]], scale=1.0)
    >>> similarity(w).round(3)
    array([[1.   , 0.943],
           [0.943, 1.   ]])
    """
    a = heads_of(weights_a)
    b = a if weights_b is None else heads_of(weights_b)
    shapes = {w.shape[-2:] for w in (*a.layers, *b.layers)}
    if len(shapes) > 1:
        raise ShapeError(f"weights of {sorted(shapes)} queries and keys are not similar: give weights of one length.")
    sums = [np.zeros((a.count, b.count)), np.zeros(a.count), np.zeros(b.count)]
    size = a.layers[0].dtype.itemsize * (a.count + (0 if b is a else b.count))
    for rows, keys in rectangles(*shapes.pop(), size):
        of_a = a.part(rows, keys)
        of_b = of_a if b is a else b.part(rows, keys)
        sums[0] += of_a @ of_b.T
        for total, part in zip(sums[1:], (of_a, of_b), strict=True):
            total += np.einsum("hi,hi->h", part, part)
    lengths = np.sqrt(sums[1])[:, None] * np.sqrt(sums[2])
    cosines = np.divide(sums[0], lengths, where=lengths != 0, out=np.zeros_like(lengths))
    return cosines.astype(a.layers[0].dtype).reshape(*a.lead, *b.lead)


def heads_of(weights: Any) -> Heads:
    """The heads of weights, or of a list of weights of equal shape."""
    if not isinstance(weights, Sequence):
        w = as_weights(weights)
        return Heads([w], w.shape[:-2])
    layers = [as_weights(w) for w in weights]
    if not layers:
        raise InputError("similarity() got an empty list: give the weights of each layer.")
    shapes = [w.shape for w in layers]
    if len(set(shapes)) > 1:
        raise ShapeError(f"layers of shapes {shapes} do not fit together: give weights of equal shape.")
    return Heads(layers, (len(layers), *shapes[0][:-2]))


def rectangles(queries: int, keys: int, size: int) -> Iterator[tuple[slice, slice]]:
    """Parts of the matrix, of all heads' `size` bytes a pair; whole blocks of keys, for those have one order of sums."""
    step = max(1, MOST_BYTES // max(1, ROWS * size) // BLOCK) * BLOCK
    for row in range(0, queries, ROWS):
        for key in range(0, keys, step):
            yield slice(row, row + ROWS), slice(key, key + step)
