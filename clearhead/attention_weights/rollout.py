"""Combine the weights of stacked layers: how much of each input reaches an output through all of them.

Responsible for what one layer passes on (its weights averaged over heads, plus a residual share). Layers are walked
from the output down, which needs memory only for the requested outputs.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array
from clearhead.attention_weights.lazy import ALL_ITEMS, axis_indices, check_memory
from clearhead.attention_weights.matrix import Weights
from clearhead.attention_weights.weights_like import as_layers
from clearhead.errors import InputError, ShapeError

NEGLIGIBLE = 1e-9  # a smaller capacity counts as 0


def rollout(layers: Any, queries: slice | npt.ArrayLike = ALL_ITEMS, *, residual: float = 0.5) -> Array:
    """The share of each input in each of the outputs `queries`, if every layer only mixes: (..., queries, keys).

    `layers` from first to last, each (..., heads, n, n) and averaged over its heads, or a watch, of which the first
    sequence of the latest run is taken; the share `residual` bypasses the weights of a layer. Needs twice the memory of
    the result and a few MiB. Raises ShapeError or InputError. Source: Abnar & Zuidema 2020, section 3. Definition:
    `clearhead.definition.weights.rollout`.

    >>> import numpy as np
    >>> from clearhead import weights
    >>> layer = weights(np.zeros((1, 2, 1)), np.zeros((1, 2, 1)))
    >>> rollout([layer, layer])
    array([[1.    , 0.    ],
           [0.4375, 0.5625]])
    """
    layers = as_layers(layers)
    n = checked_layers(layers, residual)
    rows, at = axis_indices(queries, n)
    batch = layers[0].shape[:-3]
    check_memory((*batch, len(rows), n), layers[0].dtype)
    shares = np.zeros((*batch, len(rows), n), layers[0].dtype)
    shares[..., np.arange(len(rows)), rows] = 1
    for layer in reversed(layers):
        for number in np.ndindex(*batch):
            passed = passed_on(shares[number], mean_rows(layer[number]))
            shares[number] = (1 - residual) * passed + residual * shares[number]
    return shares[..., at, :]


def flow(layers: Any, query: int, keys: npt.ArrayLike, *, residual: float = 0.5) -> Array:
    """The maximum flow from each of the inputs `keys` to the output `query`, with weights as capacities.

    `layers` as for `rollout`, without batches. Holds all weights, 16 · layers · n² bytes, at most CLEARHEAD_MEMORY; the
    time grows with n³ per key. Source: Abnar & Zuidema 2020, section 3.

    >>> import numpy as np
    >>> from clearhead import weights
    >>> layer = weights(np.zeros((1, 2, 1)), np.zeros((1, 2, 1)))
    >>> flow([layer, layer], 1, [0, 1])
    array([0.5 , 0.75])
    """
    layers = as_layers(layers)
    n = checked_layers(layers, residual)
    if layers[0].ndim > 3:
        raise ShapeError(f"flow needs a single sequence: weights of shape {layers[0].shape} have batches, choose one.")
    check_memory((2, len(layers), n, n), np.dtype(np.float64))
    capacities = (1 - residual) * np.stack([np.concatenate(list(mean_rows(layer))) for layer in layers]).astype(
        np.float64
    )
    capacities += residual * np.eye(n)
    start = int(np.arange(n)[query])
    wanted = np.arange(n)[np.asarray(keys)]
    return np.array([largest_flow(capacities.copy(), start, int(key)) for key in wanted.ravel()]).reshape(wanted.shape)


def checked_layers(layers: Sequence[Weights], residual: float) -> int:
    """Check that layers fit together; returns their common length."""
    if not layers:
        raise InputError("no layers given: pass the weights of each layer, from the first to the last.")
    shapes = [w.shape for w in layers]
    if len({(*s[:-3], *s[-2:]) for s in shapes}) > 1 or shapes[0][-1] != shapes[0][-2] or len(shapes[0]) < 3:
        raise ShapeError(f"layers of shapes {shapes} do not fit together: give (..., heads, n, n) with equal n.")
    if not 0 <= residual <= 1:
        raise InputError(f"residual={residual!r} must be a share: use a number from 0 to 1.")
    return shapes[0][-1]


def passed_on(shares: Array, rows: Iterator[Array]) -> Array:
    """Shares (queries, n) times the rows of a matrix, a few at a time; rows without a share are not touched."""
    passed, start = np.zeros_like(shares), 0
    for part in rows:
        own = shares[:, start : start + len(part)]
        used = own.any(axis=0)
        passed += own[:, used] @ part[used]
        start += len(part)
    return passed


def mean_rows(layer: Weights) -> Iterator[Array]:
    """A layer's weights averaged over heads, a few rows at a time."""
    for part in layer.slices():
        total: Array = sum(layer[n, part] for n in range(len(layer)))
        yield total / len(layer)


def largest_flow(left: Array, start: int, key: int) -> float:
    """The largest flow from the output `start` down to the input `key`; changes the capacities `left` (layers, n, n).

    Fills the widest augmenting paths one after another; flow may be sent back (Ford & Fulkerson 1956).
    """
    count = len(left)
    back, total = np.zeros_like(left), 0.0
    while True:
        widths, previous = widest(left, back, start)
        if widths[0, key] <= NEGLIGIBLE:
            return total
        level, node, width = 0, key, widths[0, key]
        total += width
        while (level, node) != (count, start):
            source, other = map(int, previous[level, node])
            if source > level:  # down from the layer above
                left[level, other, node] -= width
                back[level, other, node] += width
            else:  # sent back from the layer below
                left[source, node, other] += width
                back[source, node, other] -= width
            level, node = source, other


def widest(left: Array, back: Array, start: int) -> tuple[Array, Array]:
    """Width of the widest path from the top to each node (layers + 1, n), and its previous node: (level, number)."""
    count, n, _ = left.shape
    widths = np.zeros((count + 1, n))
    previous = np.zeros((count + 1, n, 2), np.int64)
    widths[count, start] = np.inf

    def improve(level: int, source: int, capacity: Array) -> bool:
        """Extend paths from one level to another, with capacities (from, to); returns whether any got wider."""
        through = np.minimum(widths[source][:, None], capacity)
        best = through.argmax(axis=0)
        width = through[best, np.arange(n)]
        better = width > np.maximum(widths[level], NEGLIGIBLE)
        widths[level, better] = width[better]
        previous[level, better, 0], previous[level, better, 1] = source, best[better]
        return bool(better.any())

    changed = True
    while changed:
        for level in range(count - 1, -1, -1):
            improve(level, level + 1, left[level])
        up = [improve(level + 1, level, back[level].T) for level in range(count)]
        changed = any(up)
    return widths, previous
