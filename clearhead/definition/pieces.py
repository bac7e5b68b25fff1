"""Attention in pieces: the scalar program stopped after some segments of keys, and taken up again.

    state(keys 0 … s)  = merge(… merge(merge(nothing, segment 0), segment 1) …)      ascending, as in `canonical`
    finish(state)      = o · (1/l) + 0,  m + log l

A state is all that the program knows between two segments, so that a stretch of keys may be added by whoever holds it.
Merging nothing and a segment gives the segment, so that no first one needs a rule of its own.
"""

from typing import Any

import numpy as np

from clearhead.arrays import Array
from clearhead.definition import canonical
from clearhead.definition.canonical import SEGMENT, State
from clearhead.definition.textbook import share_heads
from clearhead.rules.mask_kinds import Mask


def partial(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Mask,
    first_key: int = 0,
    before: State | None = None,
    score: Any = (),
    scale: float | None = None,
) -> State:
    """The state of queries after the keys of a stretch, of which the first is `first_key`, and those `before`.

    Shapes as in `canonical.attention`: the state's m and l are (..., n), its o is (..., n, dv).

    >>> from clearhead.rules.masks import full
    >>> partial(np.ones((1, 1)), np.ones((2, 1)), np.array([[1.0], [3.0]]), mask=full()).o
    array([[4.]])
    """
    q, k, v = (x.astype(np.float32) if x.dtype.itemsize == 2 else x for x in (q, k, v))
    k, v = share_heads(k, q), share_heads(v, q)
    lead = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    earlier = [np.zeros((*x.shape[:-2], first_key, x.shape[-1]), x.dtype) for x in (k, v)]  # never looked at
    k, v = (np.concatenate(both, axis=-2) for both in zip(earlier, (k, v), strict=True))
    q, k, v = (np.broadcast_to(x, lead + x.shape[-2:]) for x in (q, k, v))
    m, l, o = nothing(q, v) if before is None else (x.copy() for x in before)
    with np.errstate(all="ignore"):
        for head, rows, keys, part in canonical.parts(q, k, mask, score, scale):
            state = State(m[head][rows], l[head][rows], o[head][rows])
            for start in range(max(0, first_key - keys.start), len(part.k), SEGMENT):
                state = canonical.merge(state, canonical.segment(part, v[head][keys], start))
            m[head][rows], l[head][rows], o[head][rows] = state
    return State(m, l, o)


def nothing(q: Array, v: Array) -> State:
    """The state of queries (..., n, d) before any key, for values (..., m, dv)."""
    m = np.full(q.shape[:-1], np.finfo(q.dtype).min, q.dtype)
    return State(m, np.zeros_like(m), np.zeros((*m.shape, v.shape[-1]), q.dtype))


def join(total: State, part: State) -> State:
    """The state of the keys before a segment and of the segment itself, whose own state is `part`."""
    with np.errstate(all="ignore"):
        rows = [canonical.merge(*pair) for pair in zip(by_row(total), by_row(part), strict=True)]
    m, l, o = (np.reshape([row[n] for row in rows], x.shape) for n, x in enumerate(total))
    return State(m, l, o)


def finish(total: State, sink: Any = None) -> tuple[Array, Array]:
    """Output and log-sum-exp; a sink, one number a head, joins last.

    >>> y, lse = finish(State(np.zeros((1, 1)), np.full((1, 1), 2.0), np.full((1, 1, 1), 4.0)))
    >>> y.item(), lse.round(3).item()
    (2.0, 0.693)
    """
    y, lse = np.zeros_like(total.o), np.zeros_like(total.m)
    sinks = None if sink is None else np.broadcast_to(np.asarray(sink, total.m.dtype), total.m.shape[:-1])
    with np.errstate(all="ignore"):
        for head in np.ndindex(total.m.shape[:-1]):
            state = State(*(x[head] for x in total))
            y[head], lse[head] = canonical.divided(state, None if sinks is None else sinks[head])
    return y, lse


def by_row(state: State) -> list[State]:
    """The states of single queries."""
    m, l, o = state
    dims = o.shape[-1]
    return [State(*row) for row in zip(m.reshape(-1, 1), l.reshape(-1, 1), o.reshape(-1, 1, dims), strict=True)]
