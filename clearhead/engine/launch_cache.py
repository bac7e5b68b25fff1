"""Preparations of earlier calls, looked up by all that a later one has in common with them.

Decides what makes two calls alike, and how many preparations are kept. The look-up is a large part of what a small call
costs; what is done where it finds nothing is `problem`'s and `plan`'s. Any number of threads may ask.
"""

from typing import Any, TypeAlias

import numpy as np

from clearhead.engine.launch import Prepared, prepare
from clearhead.engine.problem import Array, check_apart, over_pages, problem
from clearhead.rules.current import current
from clearhead.rules.masks import Mask
from clearhead.rules.scores import Rules, Score, as_rules

MOST_PREPARED = 1024
MOST_HOLDING = 8  # of them, how many may hold more than a little memory
LITTLE = 1 << 16  # bytes

Recalled: TypeAlias = tuple[Prepared, tuple[Score, ...]]

prepared: dict[tuple[Any, ...], Recalled] = {}


def recall(
    q: Array,
    k: Array,
    v: Array,
    mask: Mask,
    score: Rules,
    sinks: Array | None,
    scale: float | None,
    precision: str,
    out: Array | None,
    first_key: int | None = None,
    int8: bool = False,
    wide: bool = False,
) -> Recalled:
    """The preparation of a call like this one, made at the first, and the score rules as they were traced for it.

    With a `first_key`, k and v stand for a cache.
    """
    score = current(score)
    key: tuple[Any, ...] = (
        q.shape, q.strides, q.dtype, k.shape, k.strides, k.dtype, v.shape, v.strides, v.dtype, mask, score, scale,
        None if out is None else layout_of(out),
        None if sinks is None else (sinks.shape, sinks.dtype), precision, first_key, int8, wide,
    )  # fmt: skip
    try:
        known = prepared.get(key)
    except TypeError:  # a rule or scale without a hash is prepared each time; a mask is explained by `problem`
        key, known = (), None
    if known is None:
        rules = as_rules(score)
        asked = problem(
            q, k, v, mask=mask, score=rules, sink=sinks, scale=scale, precision=precision, out=out, wide=wide
        )
        known = prepare(asked if first_key is None else over_pages(asked, mask, first_key, int8)), rules
        if key:
            remember(key, known)
    if out is not None:  # it may overlap an input anew in every call
        check_apart(out, {"q": q, "k": k, "v": v} if first_key is None else {"q": q})
    return known


def remember(key: tuple[Any, ...], made: Recalled) -> None:
    """Keep a preparation; of those that hold arrays only the newest, for their memory's sake.

    Each step leaves the table whole: another thread, or a signal handler in this one, may come between any two.
    """
    if len(prepared) >= MOST_PREPARED:
        prepared.clear()
    if made[0].kept_bytes > LITTLE:
        holding = [old for old, (its, _) in prepared.copy().items() if its.kept_bytes > LITTLE]
        for old in holding[: 1 - MOST_HOLDING or None]:
            prepared.pop(old, None)
    prepared[key] = made


def layout_of(out: Array) -> tuple[Any, ...]:
    """All that is checked of an `out` but where it lies."""
    if not isinstance(out, np.ndarray):
        return (type(out),)
    return out.shape, out.strides, out.dtype, out.flags.writeable
