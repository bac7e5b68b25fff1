"""Align queries with keys along a monotonic path through the weights, for example for time stamps in speech.

Responsible for making weights comparable (normalise each key's weights over queries, smooth each row over keys, average
over heads) and for finding the best path by dynamic programming, one row of weights at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from clearhead.arrays import Array
from clearhead.attention_weights.lazy import ALL_ITEMS, check_memory
from clearhead.attention_weights.matrix import Weights, slice_bounds
from clearhead.attention_weights.weights_like import as_weights
from clearhead.displayed import Brief
from clearhead.errors import InputError, ShapeError

DIAGONAL, DOWN, RIGHT = 0, 1, 2  # a step of the path: to the next query and key, query, or key


@dataclass(frozen=True, eq=False, repr=False)
class Alignment(Brief):
    """A path from the first query and key to the last: `queries` and `keys` (steps,), neither ever decreasing.

    Both are numbered as in the weights, whichever of them were aligned.
    """

    queries: Array
    keys: Array

    @property
    def starts(self) -> Array:
        """The first key of each query that was aligned, (queries,)."""
        firsts = np.concatenate([[True], np.diff(self.queries) > 0])
        starts: Array = self.keys[firsts]
        return starts


def alignment(
    *weights: Weights,
    queries: slice = ALL_ITEMS,
    keys: slice = ALL_ITEMS,
    normalise: bool = True,
    smooth: int = 7,
) -> Alignment:
    """Align queries with keys along the weights of selected heads, by dynamic time warping.

    Pass heads that follow the text, from one or more layers: `alignment(layer3[[1, 5]], layer4[0])`, all over the same
    queries and keys. `queries` and `keys` leave out what does not take part, as a prompt's tokens and the padding
    behind a recording. `normalise` scales each key's weights to mean 0 and deviation 1 over the queries; `smooth` is
    the width of a median filter over neighbouring keys, 1 for none. Uses queries × keys bytes and a few rows, at most
    CLEARHEAD_MEMORY. Raises ShapeError or InputError. Sources: Sakoe & Chiba 1978; Radford et al. 2022.

    >>> import numpy as np
    >>> from clearhead import full, weights
    >>> q, k = np.eye(3) * 9, np.repeat(np.eye(3), 2, axis=0)
    >>> alignment(weights(q, k, mask=full()), smooth=1).starts
    array([0, 2, 4])
    >>> alignment(weights(q, k, mask=full()), smooth=1, queries=slice(1, None), keys=slice(2, None)).starts
    array([2, 4])
    """
    weights = tuple(as_weights(w) for w in weights)
    if not any(w.heads.size for w in weights):
        raise InputError("alignment() got no weights: pass heads of one layer or of several.")
    for w in weights:
        if w.shape[-2:] != weights[0].shape[-2:]:
            raise ShapeError(
                f"weights of shapes {[w.shape for w in weights]} have different queries and keys: give "
                "weights of one text."
            )
    rows, columns = (
        range(*slice_bounds(part, length, name))
        for part, length, name in zip((queries, keys), weights[0].shape[-2:], ("queries", "keys"), strict=True)
    )
    if not rows or not columns:
        raise ShapeError(f"{len(rows)} queries and {len(columns)} keys cannot be aligned: give at least one of each.")
    if not isinstance(smooth, int | np.integer) or smooth < 1 or smooth % 2 == 0:
        raise InputError(f"alignment's smooth={smooth!r} must be a positive odd number: use 7, or 1 for no smoothing.")
    check_memory((len(rows), len(columns)), np.dtype(np.uint8))
    path = best_path(comparable_rows(weights, rows, columns, normalise, int(smooth)), len(rows), len(columns))
    return Alignment(path.queries + rows.start, path.keys + columns.start)


def comparable_rows(
    weights: tuple[Weights, ...], rows: range, columns: range, normalise: bool, smooth: int
) -> Iterator[Array]:
    """Mean of the comparable weights over heads, row by row: (columns,)."""
    heads = [Weights(w.source, np.asarray(number)) for w in weights for number in w.heads.ravel()]
    among = slice(columns.start, columns.stop)
    moments = [key_moments(head, rows, among) if normalise else (0.0, 1.0) for head in heads]
    for part in parts(heads[0], rows):
        total = np.zeros((part.stop - part.start, len(columns)))
        for head, (mean, deviation) in zip(heads, moments, strict=True):
            total += median((head[part, among] - mean) / deviation, smooth)
        yield from total / len(heads)


def key_moments(head: Weights, rows: range, among: slice) -> tuple[Array, Array]:
    """Mean and standard deviation over queries of the weights of each key, (keys,)."""
    mean = sum(head[part, among].sum(axis=0, dtype=np.float64) for part in parts(head, rows)) / len(rows)
    square = sum(((head[part, among] - mean) ** 2).sum(axis=0) for part in parts(head, rows))
    deviation = np.sqrt(square / len(rows))
    return mean, np.where(deviation > 0, deviation, 1)


def parts(head: Weights, rows: range) -> Iterator[slice]:
    """Successive slices of the rows chosen, each with little memory for the weights of one head."""
    for part in head.slices():
        first, stop = max(part.start, rows.start), min(part.stop, rows.stop)
        if first < stop:
            yield slice(first, stop)


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
