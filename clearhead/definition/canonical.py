"""The scalar program behind every kernel: attention with each rounding in its place.

`textbook` says what attention means; this module says in which order it is computed, so that every tile size, vector
width, thread count, batch and chunking gives the same bits. All queries are walked side by side here, but no query's
numbers ever meet another's: each row is a program over its own query and the keys it may see.
Letters: q k v query, key, value; s score; m running maximum; l running sum; o running Σ p·v; p exp(s − m).
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from clearhead.definition.elementary import exp, log
from clearhead.definition.fma import fma
from clearhead.definition.textbook import share_heads
from clearhead.rules.masks import Mask, causal, visible

Array = npt.NDArray[Any]
Seen = npt.NDArray[np.bool_]

BLOCK = 128  # keys that share one maximum
SEGMENT = 2048  # keys after which the running sums start afresh


class State(NamedTuple):
    """What a row knows of the keys it has met so far."""

    m: Array  # (n,)      largest score
    l: Array  # (n,)      Σ exp(s − m)
    o: Array  # (n, dv)   Σ exp(s − m) · v


def attention(
    q: Array, k: Array, v: Array, *, mask: Mask | None = None, scale: float | None = None
) -> tuple[Array, Array]:
    """Output and log-sum-exp, bit for bit as the kernels give them; shapes and defaults as `textbook.attention`.

    >>> y, lse = attention(np.ones((2, 1)), np.zeros((2, 1)), np.array([[1.0], [3.0]]))
    >>> y.ravel().tolist(), lse.round(3).tolist()
    ([1.0, 2.0], [0.0, 0.693])
    """
    k, v = share_heads(k, q), share_heads(v, q)
    lead = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    q, k, v = (np.broadcast_to(x, lead + x.shape[-2:]) for x in (q, k, v))
    seen = visible(causal() if mask is None else mask, q.shape[-2], k.shape[-2])
    factor = q.dtype.type(q.shape[-1] ** -0.5 if scale is None else scale)
    y, lse = np.empty((*q.shape[:-1], v.shape[-1]), q.dtype), np.empty(q.shape[:-1], q.dtype)
    with np.errstate(all="ignore"):
        for head in np.ndindex(lead):
            y[head], lse[head] = one_head(q[head] * factor, k[head], v[head], seen)
    return y, lse


def one_head(q: Array, k: Array, v: Array, seen: Seen) -> tuple[Array, Array]:
    """All keys in segments of blocks, then the division by the sum."""
    total = nothing(q, v)
    for start in range(0, len(k), SEGMENT):
        part = nothing(q, v)
        for b in range(start, min(start + SEGMENT, len(k)), BLOCK):
            here = slice(b, min(b + BLOCK, start + SEGMENT))
            part = add_block(part, q, k[here], v[here], seen[:, here])
        total = part if start == 0 else merge(total, part)
    inverse = np.where(total.l == 0, 0, 1 / total.l)
    y = fma(total.o, inverse[:, None], zeros(total.o))  # + 0: a zero is +0, whatever the order of its terms
    return y, total.m + log(total.l)


def nothing(q: Array, v: Array) -> State:
    """The state before any key: a finite maximum, so that a score of −∞ weighs 0 and no ∞ − ∞ arises."""
    m = np.full(len(q), np.finfo(q.dtype).min, q.dtype)
    return State(m, zeros(m), np.zeros((len(q), v.shape[-1]), q.dtype))


def add_block(state: State, q: Array, k: Array, v: Array, seen: Seen) -> State:
    """One block of keys: scores, their maximum, exponentials, sums from zero, and one merge into the state."""
    chains = np.zeros((2, len(q), len(k)), q.dtype)  # (2, n, b): over even dims and over odd dims, ascending
    for d in range(q.shape[-1]):
        chains[d % 2] = fma(k[None, :, d], q[:, None, d], chains[d % 2])
    s = np.where(seen, chains[0] + chains[1], -np.inf)  # (n, b)
    m = np.fmax(state.m, np.fmax.reduce(s, axis=1, initial=-np.inf)).astype(q.dtype)  # (n,)
    p = exp(s - m[:, None])  # (n, b)
    l, o = zeros(state.l), zeros(state.o)
    for j in range(len(k)):  # ascending keys, one chain; a hidden value is not even multiplied by 0
        l = l + p[:, j]
        o = np.where(seen[:, j, None], fma(v[None, j], p[:, j, None], o), o)
    alpha = exp(state.m - m)
    return State(m, fma(state.l, alpha, l), fma(state.o, alpha[:, None], o))


def merge(total: State, part: State) -> State:
    """Join a finished segment into the total."""
    m = np.fmax(total.m, part.m)
    a, b = exp(total.m - m), exp(part.m - m)
    return State(m, fma(total.l, a, part.l * b), fma(total.o, a[:, None], part.o * b[:, None]))


def zeros(like: Array) -> Array:
    """Zeros of a shape and dtype."""
    return np.zeros_like(like)
