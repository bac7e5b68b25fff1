"""Gradients in pieces, line by line: what some queries and some keys give of a call's gradients.

    P  = exp(S − LSE)                          the weights over all keys, as far as they belong to these
    δ  = rowsum(dO ∘ O) − dLSE
    dS = P ∘ (dO Vᵀ − δ)                       for the scores after their rules
    dQ = scale · dS₀ K                         what these keys add to the gradient of the queries
    dV = Pᵀ dO,  dK = scale · dS₀ᵀ Q           what these queries add to the gradients of the keys

O and LSE are those over all keys. A stretch of keys from `first_key` on stands behind so many keys that nobody sees.
Queries stand where the mask says, `causal(at=…)`. Added up over all pieces, these are the gradients of
`definition.gradient`; letters as there.
"""

from typing import Any

import numpy as np

from clearhead.arrays import Array
from clearhead.definition import textbook
from clearhead.definition.gradient import products, reduced, row_products, through_rules
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.placement import split_documents
from clearhead.rules.scores import as_rules


def query_gradient(*of_piece: Array, **rules: Any) -> Array:
    """What a stretch of keys adds to dQ (..., n, d); arguments as for `pieces`.

    >>> from clearhead.rules.masks import full
    >>> x, lse = np.ones((2, 1)), np.log(np.full(2, 2.0)) + 1
    >>> query_gradient(x, x, x, x, lse, x, mask=full()).tolist()
    [[0.0], [0.0]]
    """
    return pieces(*of_piece, **rules)[0]


def key_gradients(*of_piece: Array, **rules: Any) -> tuple[Array, Array]:
    """What a stretch of queries adds to dK (..., m, d) and dV (..., m, dv); arguments as for `pieces`.

    >>> from clearhead.rules.masks import full
    >>> x, lse = np.ones((2, 1)), np.log(np.full(2, 2.0)) + 1
    >>> key_gradients(x, x, x, x, lse, x, mask=full())[1].round(6).tolist()
    [[1.0], [1.0]]
    """
    return pieces(*of_piece, **rules)[1:]


def pieces(
    q: Array,
    k: Array,
    v: Array,
    out: Array,
    lse: Array,
    d_out: Array,
    d_lse: Array | None = None,
    *,
    first_key: int = 0,
    mask: Mask,
    score: Any = (),
    scale: float | None = None,
) -> tuple[Array, Array, Array]:
    """What these queries and keys add to dQ, dK and dV; `out`, `lse`, `d_out` and `d_lse` belong to the queries."""
    rules, factor = as_rules(score), q.shape[-1] ** -0.5 if scale is None else scale
    shapes = q.shape, k.shape, v.shape
    k, v = (textbook.share_heads(behind_others(x, first_key), q) for x in (k, v))  # (..., heads, first_key + m, ·)
    s, seen = textbook.ruled_scores(q, k, v.shape[:-2], mask, score, scale)  # (..., n, first_key + m)
    lead = out.shape[:-2]
    s, seen = (np.broadcast_to(x, lead + s.shape[-2:]) for x in (s, seen))
    seen = seen & (np.arange(s.shape[-1]) >= first_key)
    q, k, v = (np.broadcast_to(x, lead + x.shape[-2:]) for x in (q, k, v))
    sees = np.any(seen, -1)[..., None]  # (..., n, 1)
    with np.errstate(invalid="ignore", over="ignore"):
        p = np.where(seen, np.exp(s - np.where(sees, lse[..., None], 0)), 0)  # (..., n, first_key + m)
        delta = row_products(d_out, out, seen) - (0 if d_lse is None else d_lse)  # (..., n)
        d_s = np.where(seen, p * (products(d_out, v, seen) - delta[..., None]), 0)
    plain = np.broadcast_to(textbook.scores(q, k, factor), p.shape)
    d_s, _ = through_rules(d_s, plain, seen, split_documents(mask, *p.shape[-2:])[0], rules)
    d_q = textbook.weighted_sum(d_s, k, seen) * factor
    d_k = textbook.weighted_sum(d_s.swapaxes(-1, -2), q, seen.swapaxes(-1, -2)) * factor
    d_v = textbook.weighted_sum(p.swapaxes(-1, -2), d_out, seen.swapaxes(-1, -2))
    d_k, d_v = d_k[..., first_key:, :], d_v[..., first_key:, :]
    d_q, d_k, d_v = (reduced(x, shape) for x, shape in zip((d_q, d_k, d_v), shapes, strict=True))
    return d_q, d_k, d_v


def behind_others(x: Array, first_key: int) -> Array:
    """Keys or values at their places, behind zeros for those that are elsewhere."""
    return np.concatenate([np.zeros((*x.shape[:-2], first_key, x.shape[-1]), x.dtype), x], -2)
