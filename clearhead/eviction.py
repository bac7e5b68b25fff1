"""Which keys a cache can do without: scores from attention weights, and the keys of the largest scores.

Responsible for the scores that practitioners evict by, in one pass over the weights and memory linear in the length.
`KeyValueCache.keep` evicts, `definition.eviction` defines the scores on full matrices, and docs/eviction.md measures
them.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array, Integers, is_integer
from clearhead.attention_weights.matrix import Weights
from clearhead.attention_weights.weights_like import as_weights
from clearhead.engine.problem import Problem
from clearhead.errors import InputError, ShapeError

__all__ = ["h2o", "most", "snapkv", "tova"]


def h2o(weights: Weights, *, v: npt.ArrayLike | None = None, key_heads: int | None = None) -> Array:
    """The weight that each key gets from all queries, (..., key heads, keys): heavy hitters (Zhang et al. 2023).

    Query heads that share a key head are added: as many as k has, or `key_heads` of consecutive ones. With values `v`
    (..., key heads, keys, dim), each weight counts times ‖v_j‖, since a large weight on a value of nothing moves
    nothing (Guo et al. 2024, who take Σ|v|). Raises InputError.

    >>> import numpy as np
    >>> from clearhead import weights
    >>> x = np.zeros((2, 4, 1))
    >>> h2o(weights(x, x[:1])).round(3)
    array([[4.167, 2.167, 1.167, 0.5  ]])
    """
    return received(weights, slice(None), v, key_heads)


def tova(weights: Weights, *, v: npt.ArrayLike | None = None, key_heads: int | None = None) -> Array:
    """The weight that each key gets from the last query, (..., key heads, keys) (TOVA, Oren et al. 2024).

    `v` and `key_heads` as for `h2o`; the paper gives all heads of a layer the same keys, as `key_heads=1` does.

    >>> import numpy as np
    >>> from clearhead import weights
    >>> x = np.zeros((2, 4, 1))
    >>> tova(weights(x, x[:1]))
    array([[0.5, 0.5, 0.5, 0.5]])
    """
    return received(weights, slice(-1, None), v, key_heads)


def snapkv(
    weights: Weights,
    *,
    window: int = 32,
    kernel: int = 7,
    pool: Literal["max", "mean"] = "max",
    v: npt.ArrayLike | None = None,
    key_heads: int | None = None,
) -> Array:
    """The weight that each key gets from the last `window` queries, smoothed: (..., key heads, keys) (Li et al. 2024).

    A key before the window has the largest or mean score of `kernel` neighbours (0 beyond the ends), so that chosen
    keys come with their surroundings. The window's own keys have the score ∞: they are kept. `v` and `key_heads` as
    for `h2o`.

    >>> import numpy as np
    >>> from clearhead import weights
    >>> x = np.zeros((2, 4, 1))
    >>> snapkv(weights(x, x[:1]), window=1, kernel=3)
    array([[0.5, 0.5, 0.5, inf]])
    """
    for name, number in (("window", window), ("kernel", kernel)):
        if not is_integer(number) or number < 1:
            raise InputError(f"snapkv's {name}={number!r} must be a positive number of keys: use 1, 2, 3 …")
    if kernel % 2 == 0:
        raise InputError(f"snapkv's kernel={kernel} has no middle: use an odd number, such as {kernel + 1}.")
    if pool not in ("max", "mean"):
        raise InputError(f"snapkv's pool={pool!r} is unknown: use 'max' or 'mean'.")
    weights = as_weights(weights)
    window = min(window, *weights.shape[-2:])
    scores = received(weights, slice(weights.shape[-2] - window, None), v, key_heads)
    before = scores[..., : scores.shape[-1] - window]
    scores[..., scores.shape[-1] - window :] = np.inf
    before[...] = pooled(before, kernel // 2, np.maximum) if pool == "max" else mean_pooled(before, kernel // 2)
    return scores


def most(
    scores: npt.ArrayLike, *, share: float | None = None, count: int | None = None, recent: int = 0, first: int = 0
) -> Integers:
    """The keys of the largest scores (..., keys) in ascending order, (..., kept), for `KeyValueCache.keep`.

    Keeps a `share` of the keys, or `count`. The `first` and the last `recent` keys are among them whatever their score;
    of equal scores, the later key is kept. Raises InputError.

    >>> most([[0.1, 0.5, 0.5, 0.4, 0.0]], count=3, recent=1)
    array([[1, 2, 4]])
    """
    numbers = np.asarray(scores, np.float64)
    if not numbers.ndim:
        raise ShapeError(f"scores is the single number {numbers}: give (..., keys).")
    keys = numbers.shape[-1]
    if (share is None) == (count is None):
        raise InputError(f"most() got share={share!r} and count={count!r}: give one of them.")
    if share is not None and not 0 < share <= 1:
        raise InputError(f"share={share!r} is not a part of the keys: use more than 0 and at most 1.")
    count = count if share is None else max(1, round(share * keys))
    for name, number in (("count", count), ("recent", recent), ("first", first)):
        if number is None or not is_integer(number) or not 0 <= number <= keys:
            raise InputError(f"most's {name}={number!r} is not a number of {keys} keys: use 0 to {keys}.")
    if first + recent > count:  # type: ignore[operator]
        raise InputError(f"first={first} and recent={recent} are more than the {count} keys to keep: lower them.")
    order = keys - 1 - np.argsort(-numbers[..., ::-1], axis=-1, kind="stable")  # falling; of equals, the later first
    rank = np.argsort(order, axis=-1)
    rank[..., :first] = rank[..., keys - recent :] = -1
    return np.sort(np.argsort(rank, axis=-1, kind="stable")[..., :count], axis=-1)


def received(weights: Weights, queries: slice, v: npt.ArrayLike | None, key_heads: int | None) -> Array:
    """What some queries give each key, summed over the query heads of each key head: (..., key heads, keys)."""
    weights = as_weights(weights)
    given: Array = weights.summary("received_sum", queries=queries, v=v).received_sum
    group = group_of(weights, key_heads)
    return given if given.ndim == 1 else given.reshape(*given.shape[:-2], -1, group, given.shape[-1]).sum(axis=-2)


def group_of(weights: Weights, key_heads: int | None) -> int:
    """How many consecutive query heads share a key head; raises InputError where heads are a part of a group."""
    heads = weights.shape[-3] if weights.ndim > 2 else 1
    if key_heads is not None:
        if not is_integer(key_heads) or key_heads < 1 or heads % key_heads:
            raise InputError(f"key_heads={key_heads!r} do not share {heads} query heads evenly: use a divisor.")
        return heads // key_heads
    problem = weights.source.problem
    group = given_group(problem)
    if group == 1 or weights.ndim == 2:
        return 1
    owners = weights.heads // group
    if heads % group or (np.diff(owners.reshape(*owners.shape[:-1], -1, group), axis=-1) != 0).any():
        raise InputError(
            f"{heads} of {problem.lead[-1]} query heads are not whole groups of {group}, which share a key head: take "
            "all heads of a group, or say key_heads=…"
        )
    return group


def given_group(problem: Problem) -> int:
    """How many query heads share a key head in the call that the weights are of."""
    if len(problem.axes) > len(problem.lead):
        return problem.axes[-1]
    shared = bool(problem.lead) and problem.key.lead[-1] == 0
    return problem.lead[-1] if shared else 1


def pooled(scores: Array, reach: int, join: np.ufunc) -> Array:
    """Each score joined with those up to `reach` keys away."""
    result = scores.copy()
    for step in range(1, min(reach, scores.shape[-1] - 1) + 1):
        join(result[..., step:], scores[..., :-step], out=result[..., step:])
        join(result[..., :-step], scores[..., step:], out=result[..., :-step])
    return result


def mean_pooled(scores: Array, reach: int) -> Array:
    """The mean of each score and those up to `reach` keys away, which are 0 beyond the ends."""
    means: Array = pooled(scores, reach, np.add) / (2 * reach + 1)
    return means
