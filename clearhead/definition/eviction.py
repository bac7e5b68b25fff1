"""The meaning of each score that cache eviction goes by, on the full matrix: for reading, and for checking.

All functions take the full weights a (..., heads, n, m) and compute in their dtype (float64 is the reference). `group`
query heads share a key head, whose score is their sum: (..., key heads, m). With values v (..., key heads, m, d), each
weight counts times ‖v_j‖. Letters: a weights (α), n queries, m keys, j key.
"""

import numpy as np

from clearhead.arrays import Array


def received(a: Array, group: int, v: Array | None = None) -> Array:
    """What the queries give each key, together.

    >>> a = np.array([[[1.0, 0.0], [0.5, 0.5]], [[1.0, 0.0], [0.0, 1.0]]])
    >>> received(a, 2), received(a, 2, np.array([[[1.0], [4.0]]]))
    (array([[2.5, 1.5]]), array([[2.5, 6. ]]))
    """
    given = a.sum(axis=-2)  # (..., heads, m)
    given = given.reshape(*given.shape[:-2], -1, group, given.shape[-1]).sum(axis=-2)  # (..., key heads, m)
    return given if v is None else given * np.linalg.norm(v, axis=-1)  # type: ignore[no-any-return]


def h2o(a: Array, group: int, v: Array | None = None) -> Array:
    """The weight of all queries (Zhang et al. 2023)."""
    return received(a, group, v)


def tova(a: Array, group: int, v: Array | None = None) -> Array:
    """The weight of the last query (Oren et al. 2024)."""
    return received(a[..., -1:, :], group, v)


def snapkv(a: Array, group: int, v: Array | None = None, *, window: int, kernel: int, pool: str) -> Array:
    """The weight of the last queries, the largest or mean among `kernel` neighbours (Li et al. 2024).

    The window's own keys are kept whatever they weigh, and are nobody's neighbours.

    >>> a = np.full((1, 2, 6), [0.0, 0.3, 0.1, 0.0, 0.2, 0.4])
    >>> snapkv(a, 1, window=2, kernel=3, pool="max")
    array([[0.6, 0.6, 0.6, 0.2, inf, inf]])
    """
    window = min(window, *a.shape[-2:])
    score = received(a[..., a.shape[-2] - window :, :], group, v)
    before, reach = score[..., : score.shape[-1] - window], kernel // 2
    how = np.max if pool == "max" else np.mean
    near = [how(before[..., max(0, j - reach) : j + reach + 1], axis=-1) for j in range(before.shape[-1])]
    always = np.full((*score.shape[:-1], window), np.inf)
    return np.concatenate([*(x[..., None] for x in near), always], axis=-1)


def most(scores: Array, count: int, *, recent: int = 0, first: int = 0) -> Array:
    """The keys of the largest scores, in order of position: (..., count); of equals, the later.

    The `first` and the last `recent` keys are among them whatever their score.

    >>> most(np.array([0.1, 0.5, 0.5, 0.4, 0.0]), 3, recent=1)
    array([1, 2, 4])
    """
    m = scores.shape[-1]
    always = (np.arange(m) < first) | (np.arange(m) >= m - recent)
    worth = [
        sorted(range(m), key=lambda j: (always[j], row[j], j), reverse=True)[:count] for row in scores.reshape(-1, m)
    ]
    return np.sort(worth, axis=-1).reshape(*scores.shape[:-1], count)
