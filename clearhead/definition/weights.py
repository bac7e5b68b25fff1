"""The meaning of each question about weights, on the full matrix: for reading, and for checking `clearhead.weights`.

    α_ij = exp(score_ij − LSE_i)      LSE_i = log Σ exp(score_ik) over the keys k visible to i, and the sink

All functions take the full weights a (..., n, m) and compute in their dtype (float64 is the reference).
Letters: a weights (α), n queries, m keys, i query, j key.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from clearhead.arrays import Array
from clearhead.definition.textbook import ruled_scores, share_heads, sinks, softmax
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.masks import causal
from clearhead.rules.placement import split_documents


def weights(
    q: Array, k: Array, *, mask: Mask | None = None, score: Any = (), sink: Any = None, scale: float | None = None
) -> Array:
    """All weights: the share of each value in each output. Rows sum to 1 minus the sink's share; hidden pairs are 0.

    >>> weights(np.eye(2), np.eye(2), scale=1.0).round(3)
    array([[1.   , 0.   ],
           [0.269, 0.731]])
    """
    k = share_heads(k, q)  # (..., m, d)
    s, seen = ruled_scores(q, k, k.shape[:-2], mask, score, scale)  # (..., n, m)
    return softmax(s, seen, sinks(sink, s))  # (..., n, m)


def scores(q: Array, k: Array, *, mask: Mask | None = None, score: Any = (), scale: float | None = None) -> Array:
    """The scores that the softmax makes weights of: after scale and score rules; hidden pairs are −∞.

    >>> scores(np.array([[1.0], [2.0]]), np.array([[3.0], [4.0]]))
    array([[  3., -inf],
           [  6.,   8.]])
    """
    k = share_heads(k, q)  # (..., m, d)
    s, seen = ruled_scores(q, k, k.shape[:-2], mask, score, scale)  # (..., n, m)
    return np.where(seen, s, -np.inf)


def distances(n: int, m: int, mask: Mask | None = None, shift: int = 0) -> Array:
    """The distance in items between query i, or the item `shift` behind it, and key j: (n, m)."""
    spans, _ = split_documents(causal() if mask is None else mask, n, m)
    position = np.concatenate([np.arange(s.first_query, s.first_query + s.queries) + s.offset for s in spans])
    return np.abs(position[:, None] + shift - np.arange(m))


def entropy(a: Array) -> Array:
    """−Σ α log α of each row, in nats: 0 if all weight is on one key, log m if it is even over m keys.

    >>> entropy(np.array([[1.0, 0.0], [0.5, 0.5]])).round(3)
    array([0.   , 0.693])
    """
    logs = np.log(a, where=a > 0, out=np.zeros_like(a))  # (..., n, m)
    return 0 - (a * logs).sum(axis=-1)  # type: ignore[no-any-return]


def effective(a: Array) -> Array:
    """e^entropy: the number of keys with even weights that would have the same entropy.

    >>> effective(np.array([[1.0, 0.0], [0.5, 0.5]])).round(3)
    array([1., 2.])
    """
    return np.exp(entropy(a))


def received_sum(a: Array, v: Array | None = None, factors: Any = 1) -> Array:
    """The total weight that each key receives from all queries: (..., m); with values v, times ‖v_j‖, or times factors.

    >>> received_sum(np.array([[1.0, 0.0], [0.5, 0.5]]))
    array([1.5, 0.5])
    """
    return a.sum(axis=-2) * norms(a, v) * factors  # type: ignore[no-any-return]


def received_max(a: Array, v: Array | None = None) -> Array:
    """The largest weight that each key receives, of queries whose weights are numbers: (..., m)."""
    return np.fmax.reduce(a, axis=-2, initial=0) * norms(a, v)  # type: ignore[no-any-return]


def received_mean(a: Array, v: Array | None = None) -> Array:
    """The mean weight that each key receives, over all queries including those that do not see it: (..., m)."""
    return received_sum(a, v) / max(1, a.shape[-2])  # type: ignore[no-any-return]


def norms(a: Array, v: Array | None) -> Any:
    """‖v_j‖ of each value, (..., m), or 1."""
    return 1 if v is None else np.linalg.norm(v, axis=-1)


def distance(a: Array, apart: Array) -> Array:
    """The mean distance of a row's weight: Σ α_ij |i − j|."""
    return (a * apart).sum(axis=-1)  # type: ignore[no-any-return]


def within(a: Array, apart: Array, window: int) -> Array:
    """The share of a row on keys fewer than `window` items away."""
    return np.where(apart < window, a, 0).sum(axis=-1)  # type: ignore[no-any-return]


def distance_edges(n: int, m: int) -> list[int]:
    """The edges of the ranges of distances: 0, 1, 2, 4, 8 … until no query and key are farther apart."""
    edges = [0, 1]
    while edges[-1] < max(n, m):
        edges.append(2 * edges[-1])
    return edges


def by_distance(a: Array, apart: Array, edges: Sequence[int]) -> Array:
    """The share of a row in each range of distances, edges[r] ≤ |i − j| < edges[r + 1]: (..., n, ranges).

    >>> by_distance(np.array([[0.2, 0.3, 0.5]]), np.array([[2, 1, 0]]), [0, 1, 2, 4])
    array([[0.5, 0.3, 0.2]])
    """
    ranges = [(apart >= start) & (apart < stop) for start, stop in pairwise(edges)]
    return np.stack([np.where(inside, a, 0).sum(axis=-1) for inside in ranges], axis=-1)


def groups(a: Array, members: Array) -> Array:
    """The share of a row on each group of keys: (..., n, groups); `members` says what is in each, (..., groups, m).

    >>> groups(np.array([[0.2, 0.3, 0.5]]), np.array([[True, False, False], [True, False, True]]))
    array([[0.2, 0.7]])
    """
    return np.where(members[..., None, :, :], a[..., None, :], 0).sum(axis=-1)  # type: ignore[no-any-return]


def matches(a: Array, query_labels: Array, key_labels: Array, apart: Array | None = None) -> Array:
    """The share of a row on keys that have the query's own label, if it is not negative: (..., n).

    With `apart`, keys at distance 0 do not count: the query's own, or for induction the one behind it (`shift` 1).

    >>> matches(np.array([[1.0, 0.0], [0.4, 0.6]]), np.array([7, 7]), np.array([7, 8]))
    array([1. , 0.4])
    """
    equal = (query_labels[..., :, None] == key_labels[..., None, :]) & (query_labels >= 0)[..., None]  # (..., n, m)
    return np.where(equal if apart is None else equal & (apart > 0), a, 0).sum(axis=-1)  # type: ignore[no-any-return]


def sink_share(a: Array) -> Array:
    """The share of a row that goes to the sink: what its sum lacks to 1. Without a sink it is 0.

    >>> sink_share(np.array([[0.25, 0.5]]))
    array([0.25])
    """
    return 1 - a.sum(axis=-1)  # type: ignore[no-any-return]


def first(a: Array, first_keys: Array | int = 0) -> Array:
    """The weight of the first key (of each query's document), where many models put unneeded attention."""
    is_first = (
        np.arange(a.shape[-1]) == np.asarray(first_keys)[..., None]
    )  # (n, m); all False if a document has no keys
    return np.where(is_first, a, 0).sum(axis=-1)  # type: ignore[no-any-return]


def off_first(a: Array, first_keys: Array | int = 0) -> Array:
    """The largest weight on any key but the first."""
    others = np.arange(a.shape[-1]) != np.asarray(first_keys)[..., None]  # (n, m)
    return np.fmax.reduce(np.where(others, a, 0), axis=-1, initial=0)  # type: ignore[no-any-return]


def top(a: Array, count: int) -> tuple[Array, Array]:
    """The keys with the largest weights, in descending order, and the weights: (..., n, count).

    Among equal weights, earlier keys come first. If fewer keys have weight, the rest are −1.
    """
    keys = np.argsort(-a, axis=-1, kind="stable")[..., :count]  # (..., n, count)
    weight = np.take_along_axis(a, keys, -1)
    missing = [(0, 0)] * (a.ndim - 1) + [(0, count - keys.shape[-1])]
    keys = np.where(weight > 0, keys, -1)
    return np.pad(keys, missing, constant_values=-1), np.pad(weight, missing)


def rows_of(a: Array, key: int, count: int) -> tuple[Array, Array]:
    """The queries that give a key most, in descending order, and their weights: (..., count), as `top` has keys."""
    queries, weight = top(a[..., None, :, key], count)
    return queries[..., 0, :], weight[..., 0, :]


def carriers(a: Array, shares: Sequence[float]) -> Array:
    """The fewest keys that together carry each share of a row's weight: (..., n, shares).

    >>> carriers(np.array([[0.7, 0.2, 0.1]]), (0.5, 0.9)).tolist()
    [[1, 2]]
    """
    falling = -np.sort(-a, axis=-1)  # (..., n, m)
    total = falling.cumsum(axis=-1)
    wanted = np.asarray(shares, a.dtype) * total[..., -1:]  # (..., n, shares)
    return (total[..., None, :] < wanted[..., None] * (1 - 1e-6)).sum(axis=-1) + (wanted > 0)  # type: ignore[no-any-return]


def similarity(a: Array, b: Array) -> Array:
    """The cosine of each head's matrix with each of the others', as long vectors: (heads, heads); 0 for a matrix of 0.

    >>> similarity(np.eye(2)[None], np.array([[[1.0, 0.0], [0.5, 0.5]]])).round(3)
    array([[0.866]])
    """
    x, y = (matrix.reshape(len(matrix), -1) for matrix in (a, b))  # (heads, n · m)
    lengths = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(y, axis=1)
    return np.divide(x @ y.T, lengths, where=lengths > 0, out=np.zeros_like(lengths))  # type: ignore[no-any-return]


def pooled(a: Array, size: tuple[int, int], how: str) -> Array:
    """A picture of a matrix: each pixel is the maximum, sum or mean of rows from ⌊r·n/rows⌋ on, and columns likewise.

    >>> pooled(np.arange(16.0).reshape(4, 4), (2, 2), "max")
    array([[ 5.,  7.],
           [13., 15.]])
    """
    rows, columns = (np.arange(bins) * length // bins for bins, length in zip(size, a.shape[-2:], strict=True))
    join = np.maximum if how == "max" else np.add
    picture = join.reduceat(join.reduceat(a, rows, axis=-2), columns, axis=-1)
    if how != "mean":
        return picture
    heights, widths = np.diff(rows, append=a.shape[-2]), np.diff(columns, append=a.shape[-1])
    return picture / (heights[:, None] * widths)  # type: ignore[no-any-return]


def rollout(layers: Sequence[Array], residual: float = 0.5) -> Array:
    """The share of each input that reaches each output through all layers: Π ((1 − residual)·A + residual·I), (n, n).

    A is a layer's weights averaged over heads. Source: Abnar & Zuidema 2020, section 3.
    """
    total = np.eye(layers[0].shape[-1], dtype=layers[0].dtype)
    for a in layers:
        mean = a.reshape(-1, *a.shape[-2:]).mean(axis=0)
        total = ((1 - residual) * mean + residual * np.eye(len(mean), dtype=a.dtype)) @ total
    return total


def flow(layers: Sequence[Array], query: int, key: int, residual: float = 0.5) -> float:
    """The maximum flow from one input to one output with weights as capacities: the minimum cut between them.

    Tries every cut, so it is for a handful of nodes only. Source: Abnar & Zuidema 2020, section 3.
    """
    means = [a.reshape(-1, *a.shape[-2:]).mean(axis=0) for a in layers]
    edges = [(1 - residual) * a + residual * np.eye(len(a)) for a in means]  # (n, n): from an output to an input
    n, least = len(edges[0]), np.inf
    for number in range(2 ** (n * (len(edges) + 1))):
        side = (number >> np.arange(n * (len(edges) + 1)) & 1).reshape(-1, n).astype(bool)  # (layers + 1, n)
        if side[-1, query] and not side[0, key]:
            cut = sum(a[side[level + 1]][:, ~side[level]].sum() for level, a in enumerate(edges))
            least = min(least, cut)
    return least


def head_outputs(a: Array, v: Array, W_O: Array) -> Array:
    """What each head writes for each query, Σ_j α_ij v_j W_O: (heads, n, model dim), from values (heads, m, dv)."""
    return a @ v @ W_O


def key_contributions(a: Array, v: Array, directions: Array) -> Array:
    """What each key adds to each query's output along one direction (heads, dv), α_ij (v_j · direction): (heads, n, m).

    >>> key_contributions(np.array([[[0.5, 0.5]]]), np.array([[[2.0], [4.0]]]), np.array([[1.0]]))
    array([[[1., 2.]]])
    """
    return a * (v @ directions[:, :, None]).swapaxes(-1, -2)  # type: ignore[no-any-return]


def output_norms(v: Array, W_O: Array) -> Array:
    """‖v_j W_O‖, (heads, m): the length of what a key's value becomes. Source: Kobayashi et al. 2020, section 3."""
    return np.linalg.norm(v @ W_O, axis=-1)  # type: ignore[no-any-return]


def gradients(d_outputs: Array, v: Array) -> Array:
    """The gradients of a loss by weights, dL/dα_ij = dL/dy_i · v_j: (heads, n, m), from dL/dy (heads, n, dv)."""
    return d_outputs @ v.swapaxes(-1, -2)


def relevance(layers: Sequence[Array], gradients: Sequence[Array]) -> Array:
    """The relevance of each input to a loss through each output: R ← R + mean over heads of (∇A ∘ A)⁺ · R, (n, n).

    Source: Chefer, Gur & Wolf 2021, equations 5 and 6.
    """
    R = np.eye(layers[0].shape[-1], dtype=layers[0].dtype)
    for a, gradient in zip(layers, gradients, strict=True):  # (heads, n, n) each
        R = R + np.maximum(gradient * a, 0).mean(axis=0) @ R
    return R


def weights_times_gradients(a: Array, gradient: Array) -> Array:
    """Gradient times weight of each head and key, summed over queries: Σ_i α_ij dL/dα_ij, (heads, m)."""
    return (a * gradient).sum(axis=-2)  # type: ignore[no-any-return]


def rank_heads(values: Array, most: int) -> list[tuple[int, int, float]]:
    """The heads with the largest values (layers, heads): (layer, head, value), of equals the earlier first.

    >>> rank_heads(np.array([[1.0, 3.0], [3.0, 2.0]]), 3)
    [(0, 1, 3.0), (1, 0, 3.0), (1, 1, 2.0)]
    """
    each = [(int(layer), int(head), float(values[layer, head])) for layer, head in np.ndindex(values.shape)]
    return sorted(each, key=lambda found: -found[2])[:most]


def heaviest(layers: Sequence[Array], most: int) -> list[tuple[int, int, int, int, float]]:
    """The largest weights above 0 of layers (heads, n, m): (layer, head, query, key, weight), of equals the earlier."""
    each = [
        (number, head, query, key, float(a[head, query, key]))
        for number, a in enumerate(layers)
        for head, query, key in np.ndindex(a.shape)
        if a[head, query, key] > 0
    ]
    return sorted(each, key=lambda found: -found[-1])[:most]


def alignment(fit: Array) -> list[tuple[int, int]]:
    """The path (query, key) from first to last, in steps of one, that maximises the sum of `fit` (n, m)."""
    n, m = fit.shape
    cost = np.full((n + 1, m + 1), np.inf)
    cost[0, 0] = 0
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            cost[i, j] = -fit[i - 1, j - 1] + min(cost[i - 1, j - 1], cost[i - 1, j], cost[i, j - 1])
    i, j, path = n, m, []
    while i and j:
        path.append((i - 1, j - 1))
        i, j = min(((i - 1, j - 1), (i - 1, j), (i, j - 1)), key=lambda at: cost[at])
    return path[::-1]
