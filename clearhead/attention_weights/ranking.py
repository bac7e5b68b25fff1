"""Rank heads by answers of a summary, and find the largest weights over all layers and heads.

Responsible for the order: largest first, of equals the earlier layer, head and item first. Holds no more than one
layer's answers for one query or key.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array
from clearhead.attention_weights.weights_like import numbered_layers
from clearhead.errors import InputError, ShapeError

How = Literal["mean", "last", "max"]
REDUCTIONS: dict[str, Callable[[Array], Array]] = {
    "mean": lambda x: x.mean(axis=-1),
    "last": lambda x: x[..., -1],
    "max": lambda x: x.max(axis=-1),
}


class RankedHead(NamedTuple):
    """A head and what it was ranked by."""

    layer: int
    head: int
    value: float


class HeavyWeight(NamedTuple):
    """One weight, and where it is."""

    layer: int
    head: int
    query: int
    key: int
    weight: float


def rank_heads(
    answers: npt.ArrayLike,
    how: How = "mean",
    most: int = 10,
    *,
    smallest: bool = False,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> list[RankedHead]:
    """The heads with the largest answers (or the `smallest`), at most `most` of them, in order.

    `answers` (layers, heads, queries or keys), as a watch's summary gives them, or (layers, heads); `how` makes one
    number of all queries: their "mean", the "last" or the "max". `layers` and `heads` are the numbers to return instead
    of 0, 1, 2 … Not-a-numbers come last. Raises InputError or ShapeError. Definition:
    `clearhead.definition.weights.rank_heads`.

    >>> for head in rank_heads([[[0.0, 1.0], [0.5, 0.2]]], "last"):
    ...     print(head)
    RankedHead(layer=0, head=0, value=1.0)
    RankedHead(layer=0, head=1, value=0.2)
    """
    x = np.asarray(answers)
    if x.ndim not in (2, 3) or 0 in x.shape[2:]:
        raise ShapeError(
            f"answers of shape {x.shape} do not rank heads: give (layers, heads, queries) with some queries, or "
            "(layers, heads)."
        )
    if how not in REDUCTIONS:
        raise InputError(f"how={how!r} is unknown: use {', '.join(map(repr, REDUCTIONS))}.")
    checked_most(most)
    values = (REDUCTIONS[how](x) if x.ndim == 3 else x).astype(np.float64)
    names = [range(size) if given is None else given for given, size in zip((layers, heads), values.shape, strict=True)]
    for name, numbers, size in zip(("layers", "heads"), names, values.shape, strict=True):
        if len(numbers) != size:
            raise ShapeError(f"{len(numbers)} {name} do not fit answers of {size}: give one number for each.")
    flat = values.ravel()
    order = np.argsort(flat if smallest else -flat, kind="stable")[:most]
    at = zip(*np.unravel_index(order, values.shape), strict=True)
    return [RankedHead(int(names[0][n]), int(names[1][h]), float(values[n, h])) for n, h in at]


def heaviest_rows(layers: Any, key: int, most: int = 10) -> list[HeavyWeight]:
    """The queries that give a key most weight, over all layers and heads: at most `most`, largest first.

    `layers` from first to last, each (heads, queries, keys), or a watch. Of equals, the earlier layer, head and query
    comes first; queries that give it nothing are left out. Raises ShapeError or InputError. Definition:
    `clearhead.definition.weights.heaviest`.

    >>> from clearhead import weights
    >>> layer = weights(np.zeros((1, 3, 1)), np.zeros((1, 3, 1)))
    >>> [(found.query, round(found.weight, 3)) for found in heaviest_rows([layer], key=1)]
    [(1, 0.5), (2, 0.333)]
    """
    return heaviest(layers, key, "key", most)


def heaviest_keys(layers: Any, query: int, most: int = 10) -> list[HeavyWeight]:
    """The keys that a query gives most weight to, over all layers and heads: at most `most`, largest first.

    `layers` and the order as for `heaviest_rows`. Raises ShapeError or InputError. Definition:
    `clearhead.definition.weights.heaviest`.

    >>> from clearhead import weights
    >>> layer = weights([[[0.0], [1.0]]], [[[0.0], [1.0]]], scale=1.0)
    >>> [(found.key, round(found.weight, 3)) for found in heaviest_keys([layer], query=-1)]
    [(1, 0.731), (0, 0.269)]
    """
    return heaviest(layers, query, "query", most)


def heaviest(layers: Any, item: int, axis: Literal["query", "key"], most: int) -> list[HeavyWeight]:
    """The largest weights of one query or key."""
    checked_most(most)
    best: list[HeavyWeight] = []
    for layer in numbered_layers(layers):
        w = layer.weights
        if w.ndim != 3:
            raise ShapeError(f"weights of shape {w.shape} are not of one sequence: give (heads, queries, keys).")
        count = w.shape[1 if axis == "query" else 2]
        if not isinstance(item, int | np.integer) or not -count <= item < count:
            raise InputError(f"{axis} {item!r} is not one of the {count}: give 0 to {count - 1}, or -1 to {-count}.")
        at = int(item) % count
        line = w.row(at) if axis == "query" else w.column(at)  # (heads, keys or queries)
        for flat in np.argsort(-line, axis=None, kind="stable")[:most]:
            n, other = (int(k) for k in np.unravel_index(flat, line.shape))
            if line[n, other] > 0:
                query, key = (at, other) if axis == "query" else (other, at)
                best.append(HeavyWeight(layer.number, layer.heads[n], query, key, float(line[n, other])))
        best = sorted(best, key=lambda found: -found.weight)[:most]  # stable: of equals, earlier layers stay first
    return best


def checked_most(most: Any) -> None:
    """Check a number of results."""
    if isinstance(most, bool) or not isinstance(most, int | np.integer) or most < 1:
        raise InputError(f"most={most!r} must be a positive integer: use 1, 2, 3 …")
