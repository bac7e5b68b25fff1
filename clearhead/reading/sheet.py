"""The head sheet: each head's thumbnail, the measures that name what it does, and how wide it is along the text."""

from typing import Any

import numpy as np

from clearhead.arrays import Array, ceil_div
from clearhead.attention_weights.labels import token_matches
from clearhead.errors import InputError
from clearhead.reading.lines import shortened
from clearhead.reading.readings import Stack, StackLayer

THUMBNAIL = 28  # pixels
MOST_POINTS = 40  # of a head's width along the text
ROUNDING = 1e-6  # of sums of float32 numbers
NEAR = 64  # fewer items away than this is near
MEASURES = ("entropy", "effective", "first", "within", "distance", "off_first")
MATCHES = ("previous", "duplicate", "induction")


def thumbnails(layer: StackLayer, heads: list[int]) -> Array:
    """The heads' matrices in small, (heads, rows, columns): each pixel is the largest weight that it covers."""
    chosen = layer.weights[np.array(layer.places(heads))]
    picture: Array = chosen.map(size=THUMBNAIL)
    return picture


def measured(stack: Stack, layer: StackLayer, heads: list[int]) -> list[dict[str, Any]]:
    """Each head's measures, means over queries, but the largest weight `off_first`.

    `previous`, `duplicate` and `induction` need tokens that are queries and keys alike, and are None without them.
    """
    chosen = layer.weights[np.array(layer.places(heads))]
    ids = stack.ids if stack.ids is not None and layer.queries == layer.keys == len(stack.ids) else None
    matches = None if ids is None else token_matches(ids)
    asked = (*MEASURES, *(("matches",) if matches else ()))
    summary = chosen.summary(*asked, window=NEAR, matches=matches)
    found = []
    for n, head in enumerate(heads):
        numbers = {name: float(summary[name][n].mean(dtype=np.float64)) for name in MEASURES}
        numbers["within"] = whole_share(numbers["within"])
        numbers["off_first"] = float(summary["off_first"][n].max(initial=0))
        shares = dict.fromkeys(MATCHES)
        if matches:
            means = summary["matches"][n].mean(axis=0, dtype=np.float64)
            shares = {name: float(means[m]) for m, name in enumerate(summary.names["match_names"])}
        found.append({"head": head, **numbers, **shares, "spark": along(summary["effective"][n])})
    return found


def whole_share(share: float) -> float:
    """A share that is 1 but for the rounding of its sum is 1.

    >>> whole_share(0.9999999), whole_share(0.999)
    (1.0, 0.999)
    """
    return 1.0 if abs(share - 1) < ROUNDING else share


def along(x: Array) -> list[float]:
    """The means of at most 40 equal stretches of a number for each query."""
    size = max(1, ceil_div(len(x), MOST_POINTS))
    starts = np.arange(0, len(x), size)
    sums = np.add.reduceat(x.astype(np.float64), starts)
    return shortened(sums / (np.minimum(starts + size, len(x)) - starts))


def pair_over_heads(stack: Stack, row: int, column: int) -> list[tuple[int, int, float]]:
    """What a query gives a key in every head, as (layer, head, weight), the heaviest first."""
    found = []
    for layer in stack.layers.values():
        check_place(layer, row, column)
        weights = layer.weights[:, row, column]
        found += [(layer.number, head, float(w)) for head, w in zip(layer.heads, weights, strict=True)]
    return sorted(found, key=lambda one: -one[2])


def heaviest_over_heads(stack: Stack, by: str, at: int, most: int) -> list[tuple[int, int, int, int, float]]:
    """The heaviest weights of a query (by "row") or a key in all heads: layer, head, row, column, weight."""
    best: list[tuple[int, int, int, int, float]] = []
    for layer in stack.layers.values():
        check_place(layer, at if by == "row" else 0, at if by == "column" else 0)
        lines = layer.weights.row(at) if by == "row" else layer.weights.column(at)
        for n, line in enumerate(lines):
            for other in np.argsort(-line, kind="stable")[:most]:
                row, column = (at, int(other)) if by == "row" else (int(other), at)
                best.append((layer.number, layer.heads[n], row, column, float(line[other])))
        best = sorted(best, key=lambda one: -one[4])[:most]
    return [one for one in best if one[4] > 0]


def check_place(layer: StackLayer, row: int, column: int) -> None:
    """Check that a query and a key exist."""
    for name, at, size in (("query", row, layer.queries), ("key", column, layer.keys)):
        if not 0 <= at < size:
            raise InputError(f"{name} {at} is not one of the {size} of layer {layer.number}: give 0 to {size - 1}.")
