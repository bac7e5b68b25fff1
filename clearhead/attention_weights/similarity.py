"""How alike heads attend: the cosine of their matrices of weights, without building one.

Responsible for walking all heads together, in parts of the matrix that take little memory. Small matrix products give
the heads' dot products in the dtype of the weights; their sums are float64.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from clearhead.arrays import Array, ceil_div
from clearhead.attention_weights.weights_like import WatchLike, as_weights, numbered_layers
from clearhead.definition.canonical import BLOCK
from clearhead.errors import DtypeError, InputError, ShapeError

ROWS = 64  # queries in a part: no fewer than a tile of the kernel has
MOST_BYTES = 1 << 22  # of all heads' weights in a part, unless one block of keys takes more
TOGETHER, PAIRS = 16, 1024  # heads and pairs in one product: too few to be split among threads, which changes bits


def similarity(weights_a: Any, weights_b: Any = None) -> Array:
    """The cosine similarity of every head of some weights to every head of others, or to each other: from 0 to 1.

    Weights of shape (..., queries, keys), a list of equal ones, one for each layer, or a watch; the result has the
    leading axes of both, (heads, heads) or (layers, heads, layers, heads). Each matrix counts as one long vector; one
    without any weight is similar to nothing, 0. Holds 8 MiB of weights at a time, more for hundreds of heads. Raises
    ShapeError or InputError.
    Definition: `clearhead.definition.weights.similarity`.

    >>> from clearhead import weights
    >>> w = weights([[[0.0], [0.0]], [[0.0], [9.0]]], [[[0.0], [0.0]], [[0.0], [9.0]]], scale=1.0)
    >>> similarity(w).round(3)
    array([[1.   , 0.866],
           [0.866, 1.   ]])
    """
    layers, lead = layers_of(weights_a)
    others, other_lead = ([], lead) if weights_b is None else layers_of(weights_b)
    walked = [*layers, *others]
    shapes = {w.shape[-2:] for w in walked}
    if len(shapes) > 1:
        raise ShapeError(f"weights of {sorted(shapes)} queries and keys have no similarity: give some of one length.")
    dtypes = {w.dtype.name for w in walked}
    if len(dtypes) > 1:
        raise DtypeError(f"weights of {' and '.join(sorted(dtypes))} are not compared: give q and k of one dtype.")
    dots = dot_products(walked)
    lengths = np.sqrt(np.outer(dots.diagonal(), dots.diagonal()))
    cosines = np.divide(dots, lengths, where=lengths != 0, out=np.zeros_like(dots)).astype(layers[0].dtype)
    count = int(np.prod(lead))
    wanted: Array = cosines if weights_b is None else cosines[:count, count:]
    return wanted.reshape((*lead, *other_lead))


def layers_of(weights: Any) -> tuple[list[Any], tuple[int, ...]]:
    """Weights, a list of equal ones, or a watch, as a list, and their leading axes: of several layers, theirs first."""
    if isinstance(weights, WatchLike):
        weights = [layer.weights for layer in numbered_layers(weights)]
    if not isinstance(weights, Sequence):
        w = as_weights(weights)
        return [w], w.shape[:-2]
    layers = [as_weights(w) for w in weights]
    if not layers:
        raise InputError("similarity() got an empty list: give the weights of each layer.")
    shapes = [w.shape for w in layers]
    if len(set(shapes)) > 1:
        raise ShapeError(f"layers of shapes {shapes} do not fit together: give weights of equal shape.")
    return layers, (len(layers), *shapes[0][:-2])


def dot_products(layers: Sequence[Any]) -> Array:
    """Of each head with each, (heads of all layers, the same)."""
    heads, dtype = sum(w.heads.size for w in layers), layers[0].dtype
    dots = np.zeros((heads, heads))
    for rows, keys in rectangles(layers, heads * dtype.itemsize):
        add_products(dots, side_by_side(layers, rows, keys))
    return np.triu(dots) + np.triu(dots, 1).T


def add_products(dots: Array, x: Array) -> None:
    """Add the heads' products over some stretches, on the diagonal and above it."""
    copied = x.copy()  # of one array with itself, numpy would ask for another product, which threads may share
    for first in range(0, len(dots), TOGETHER):
        some = x[:, first : first + TOGETHER]
        for other in range(first, len(dots), TOGETHER):
            products = some @ copied[:, other : other + TOGETHER].swapaxes(1, 2)
            dots[first : first + TOGETHER, other : other + TOGETHER] += products.sum(axis=0, dtype=np.float64)


def side_by_side(layers: Sequence[Any], rows: slice, keys: slice) -> Array:
    """A rectangle of each head's weights as (stretches, heads of all layers, PAIRS); zeros fill the last stretch."""
    height, width = rows.stop - rows.start, keys.stop - keys.start
    count = ceil_div(height * width, PAIRS)
    x = np.zeros((sum(w.heads.size for w in layers), count * PAIRS), layers[0].dtype)
    first = 0
    for w in layers:
        heads = np.ascontiguousarray(w.heads.reshape(-1))
        of_layer = x[first : first + len(heads), : height * width].reshape(len(heads), height, width)
        w.sweep(heads, np.arange(rows.start, rows.stop), keys.start, keys.stop).array(of_layer, w.consumer)
        first += len(heads)
    return x.reshape(len(x), count, PAIRS).swapaxes(0, 1)


def rectangles(layers: Sequence[Any], size: int) -> Iterator[tuple[slice, slice]]:
    """Parts of the matrix that take little memory, if all heads take `size` bytes a pair; without what nobody sees."""
    step = max(1, MOST_BYTES // max(1, ROWS * size) // BLOCK) * BLOCK
    queries = layers[0].shape[-2]
    for first in range(0, queries, ROWS):
        rows = slice(first, min(first + ROWS, queries))
        seen = [w.source.keys_of(rows) for w in layers]
        begin, end = min(keys.start for keys in seen), max(keys.stop for keys in seen)
        for key in range(begin, end, step):
            yield rows, slice(key, min(key + step, end))
