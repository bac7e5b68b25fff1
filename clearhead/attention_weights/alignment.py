"""Align queries with keys along a monotonic path through the weights, for example for time stamps in speech.

Responsible for making weights comparable (normalise each key's weights over queries, smooth each row over keys, average
over heads) and for finding the best path by dynamic programming, one row of weights at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from clearhead.arrays import Array
from clearhead.attention_weights.lazy import check_memory
from clearhead.attention_weights.matrix import Weights
from clearhead.attention_weights.weights_like import as_weights
from clearhead.displayed import Brief
from clearhead.errors import InputError, ShapeError

DIAGONAL, DOWN, RIGHT = 0, 1, 2  # a step of the path: to the next query and key, query, or key


@dataclass(frozen=True, eq=False, repr=False)
class Alignment(Brief):
    """A path from the first query and key to the last: `queries` and `keys` (steps,), neither ever decreasing."""

    queries: Array
    keys: Array

    @property
    def starts(self) -> Array:
        """The first key of each query, (queries,)."""
        firsts = np.concatenate([[True], np.diff(self.queries) > 0])
        starts: Array = self.keys[firsts]
        return starts


def alignment(*weights: Weights, normalise: bool = True, smooth: int = 7) -> Alignment:
    """Align queries with keys along the weights of selected heads, by dynamic time warping.

    Pass heads that follow the text, from one or more layers: `alignment(layer3[[1, 5]], layer4[0])`, all over the same
    queries and keys. `normalise` scales each key's weights to mean 0 and deviation 1 over the queries; `smooth` is the
    width of a median filter over neighbouring keys, 1 for none. Uses queries × keys bytes and a few rows, at most
    CLEARHEAD_MEMORY. Raises ShapeError or InputError. Sources: Sakoe & Chiba 1978; Radford et al. 2022.

    >>> import numpy as np
    >>> from clearhead import full, weights
    >>> q, k = np.eye(3) * 9, np.repeat(np.eye(3), 2, axis=0)
    >>> alignment(weights(q, k, mask=full()), smooth=1).starts
    array([0, 2, 4])
    """
    if not weights:
        raise InputError("alignment() got no weights: pass heads of one layer or of several.")
    weights = tuple(as_weights(w) for w in weights)
    queries, keys = weights[0].shape[-2:]
    for w in weights:
        if w.shape[-2:] != (queries, keys):
            raise ShapeError(
                f"weights of shapes {[w.shape for w in weights]} have different queries and keys: give "
                "weights of one text."
            )
    if not queries or not keys:
        raise ShapeError(f"{queries} queries and {keys} keys cannot be aligned: give at least one of each.")
    if not isinstance(smooth, int | np.integer) or smooth < 1 or smooth % 2 == 0:
        raise InputError(f"alignment's smooth={smooth!r} must be a positive odd number: use 7, or 1 for no smoothing.")
    check_memory((queries, keys), np.dtype(np.uint8))
    return best_path(comparable_rows(weights, normalise, int(smooth)), queries, keys)


def comparable_rows(weights: tuple[Weights, ...], normalise: bool, smooth: int) -> Iterator[Array]:
    """Mean of the comparable weights over heads, row by row: (keys,)."""
    heads = [Weights(w.source, np.asarray(number)) for w in weights for number in w.heads.ravel()]
    moments = [key_moments(head) if normalise else (0.0, 1.0) for head in heads]
    for part in heads[0].slices():
        total = np.zeros((part.stop - part.start, heads[0].shape[-1]))
        for head, (mean, deviation) in zip(heads, moments, strict=True):
            total += median((head[part] - mean) / deviation, smooth)
        yield from total / len(heads)


def key_moments(head: Weights) -> tuple[Array, Array]:
    """Mean and standard deviation over queries of the weights of each key, (keys,)."""
    mean = head.summary("received_mean").received_mean.astype(np.float64)
    square = sum(((head[part] - mean) ** 2).sum(axis=0) for part in head.slices())
    deviation = np.sqrt(square / head.shape[-2])
    return mean, np.where(deviation > 0, deviation, 1)


def median(rows: Array, width: int) -> Array:
    """The median over `width` neighbouring keys; mirrored at the ends."""
    if width == 1 or rows.shape[-1] <= width // 2:
        return rows
    padded = np.pad(rows, [(0, 0), (width // 2, width // 2)], mode="reflect")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1), axis=-1)  # type: ignore[no-any-return]


def best_path(rows: Iterator[Array], queries: int, keys: int) -> Alignment:
    """The path that maximises the sum of `rows`.

    cost[i, j] = −row[i, j] + min(cost[i − 1, j − 1], cost[i − 1, j], cost[i, j − 1]). With c the cumulative sum of
    −row, the third term needs no loop over j: cost[j] = c[j] + min over j' ≤ j of (from above[j'] − c[j' − 1]).
    """
    steps_in = np.empty((queries, keys), np.uint8)
    before = np.full(keys, np.inf)
    for i, row in enumerate(rows):
        c = np.concatenate([[0.0], np.cumsum(-row, dtype=np.float64)])
        corner = np.concatenate([[0.0 if i == 0 else np.inf], before[:-1]])
        above = np.minimum(corner, before) - c[:-1]
        least = np.minimum.accumulate(above)
        steps_in[i] = np.where(least < above, RIGHT, np.where(corner <= before, DIAGONAL, DOWN))
        before = c[1:] + least
    i, j, steps = queries - 1, keys - 1, []
    while i >= 0 and j >= 0:
        steps.append((i, j))
        step = steps_in[i, j]
        i, j = i - (step != RIGHT), j - (step != DOWN)
    numbers = np.array(steps[::-1], np.int64)
    return Alignment(numbers[:, 0], numbers[:, 1])
