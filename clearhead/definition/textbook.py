"""The textbook's self-attention, line by line.

    score(q_i, k_j) = scale · q_i·k_j                     then the score rules, in order
    α_ij            = exp(score_ij) / Σ exp(score_ik)      over the keys k visible to i, and the sink if there is one
    y_i             = Σ α_ij v_j

This module defines what attention *means*; everything else in the package is tested against it. It computes in the
dtype of its arguments (float64 is the reference) and builds every matrix in full, so it is for reading and checking.
Letters: q query, k key, v value, s score, a weight (α), y output, n queries, m keys, d dim.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array
from clearhead.rules.evaluation import evaluate
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.masks import causal, visible
from clearhead.rules.placement import check_fits, check_placed, split_documents
from clearhead.rules.scores import Score, as_rules
from clearhead.rules.spans import Span


def scores(q: Array, k: Array, scale: float = 1.0) -> Array:
    """Similarity of each query and key: their dot product times `scale`.

    >>> scores(np.array([[1.0, 2.0]]), np.array([[3.0, 1.0], [2.0, -1.0]]))
    array([[5., 0.]])
    """
    with np.errstate(invalid="ignore", over="ignore"):
        s: Array = (q @ np.swapaxes(k, -1, -2)) * q.dtype.type(scale)  # (..., n, d) @ (..., d, m) -> (..., n, m)
    return s


def exponentials(s: Array, seen: npt.NDArray[np.bool_]) -> Array:
    """exp(score − the row's largest score) for visible pairs, 0 for hidden ones.

    Subtracting the largest score does not change the weights, and keeps exp from overflowing.

    >>> exponentials(np.array([[0.0, 0.0, 9.0]]), np.array([[True, True, False]]))
    array([[1., 1., 0.]])
    """
    s = np.where(seen, s, -np.inf)  # (..., n, m)
    top = s.max(axis=-1, keepdims=True, initial=-np.inf)  # (..., n, 1)
    top = np.where(top == -np.inf, 0, top)  # a row that sees nothing has no largest score
    with np.errstate(invalid="ignore", over="ignore"):
        e: Array = np.exp(s - top)  # (..., n, m)
    return e


def softmax(s: Array, seen: npt.NDArray[np.bool_], sink: Array | None = None) -> Array:
    """Weights: each row's exponentials divided by their sum. A row that sees nothing has only zeros.

    A `sink` (..., 1) adds to the sum like the score of a key without a value.

    >>> softmax(np.zeros((1, 3)), np.array([[True, True, False]]))
    array([[0.5, 0.5, 0. ]])
    """
    if sink is not None:
        lone = np.broadcast_to(sink[..., None, :], (*s.shape[:-1], 1))  # (..., n, 1)
        s, seen = np.concatenate([s, lone], -1), with_sink(seen)
        return softmax(s, seen)[..., :-1]
    e = exponentials(s, seen)
    total = e.sum(axis=-1, keepdims=True)  # (..., n, 1)
    a: Array = e / np.where(total == 0, 1, total)  # (..., n, m)
    return a


def with_sink(seen: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Add a key that every query sees."""
    return np.concatenate([seen, np.ones((*seen.shape[:-1], 1), bool)], -1)


def weighted_sum(a: Array, v: Array, seen: npt.NDArray[np.bool_]) -> Array:
    """Each output: the visible values times their weights. Hidden values are never used, not even times 0.

    >>> weighted_sum(np.array([[0.5, 0.5, 0.0]]), np.array([[2.0], [4.0], [np.nan]]), np.array([[True, True, False]]))
    array([[3.]])
    """
    lead = np.broadcast_shapes(a.shape[:-2], v.shape[:-2])
    y = np.zeros((*lead, a.shape[-2], v.shape[-1]), a.dtype)  # (..., n, dv)
    a, v = np.broadcast_to(a, lead + a.shape[-2:]), np.broadcast_to(v, lead + v.shape[-2:])
    seen = np.broadcast_to(seen, a.shape)
    with np.errstate(invalid="ignore", over="ignore"):
        for at in np.ndindex(a.shape[:-1]):
            row = seen[at]  # (m,)
            y[at] = a[at][row] @ v[at[:-1]][row]  # (m',) @ (m', dv)
    return y


def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Mask | None = None,
    score: Any = (),
    sink: Any = None,
    scale: float | None = None,
) -> Array:
    """Attention of queries over keys and values; `mask` defaults to causal(), `scale` to 1/√d.

    Shapes: q (..., n, d), k (..., m, d), v (..., m, dv), the result (..., n, dv), leading axes broadcast. Where q
    has more heads (axis −3) than k and v, consecutive query heads share one key head. `score` holds rules that change
    the scores in order; `sink` has shape (heads,) or broadcasts to the leading axes.

    >>> x = np.eye(2)
    >>> attention(x, x, x, scale=1.0).round(3)
    array([[1.   , 0.   ],
           [0.269, 0.731]])
    """
    k, v = share_heads(k, q), share_heads(v, q)  # (..., heads, m, d), (..., heads, m, dv)
    s, seen = ruled_scores(q, k, v.shape[:-2], mask, score, scale)  # (..., n, m)
    a = softmax(s, seen, sinks(sink, s))  # (..., n, m)
    return weighted_sum(a, v, seen)  # (..., n, dv)


def ruled_scores(
    q: Array, k: Array, lead: tuple[int, ...], mask: Mask | None, score: Any, scale: float | None
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Scores after their rules, and which pairs are visible: scale → score rules in order → mask."""
    mask, rules = causal() if mask is None else mask, as_rules(score)
    s = scores(q, k, q.shape[-1] ** -0.5 if scale is None else scale)  # (..., n, m)
    lead = np.broadcast_shapes(s.shape[:-2], lead)
    s = np.broadcast_to(s, lead + s.shape[-2:]) if rules else s
    at = check_fits(mask, lead, *s.shape[-2:])
    for rule in rules:
        check_placed(rule, mask, at)
    s = ruled(s, np.arange(s.shape[-2]), split_documents(mask, *s.shape[-2:])[0], rules)
    return s, visible(mask, s.shape[-2], s.shape[-1], lead=lead)


def ruled(s: Array, rows: npt.NDArray[Any], spans: tuple[Span, ...], rules: tuple[Score, ...]) -> Array:
    """Scores (..., r, m) of the queries with indices `rows` after the score rules."""
    for rule in rules:
        s = s.copy()
        for span in spans:
            at = (rows >= span.first_query) & (rows < span.first_query + span.queries)
            s[..., at, :] = evaluate(rule.formula, formula_leaves(s[..., at, :], rows[at], span), dtype=s.dtype)
    return s


def formula_leaves(s: Array, rows: npt.NDArray[Any], span: Span) -> dict[str, Any]:
    """The leaves of a formula for scores (..., r, m); batch counts over all leading axes except heads."""
    lead = s.shape[:-2]
    flat = np.arange(int(np.prod(lead))).reshape(lead)[..., None, None]
    heads = lead[-1] if lead else 1
    leaves: dict[str, Any] = {"batch": flat // heads, "head": flat % heads, "row": rows[:, None] + span.row, "score": s}
    return leaves | {"query": rows[:, None] + span.offset, "key": np.arange(s.shape[-1])}


def sinks(sink: Any, s: Array) -> Array | None:
    """Broadcast the sink to all heads, (..., 1)."""
    return None if sink is None else np.broadcast_to(np.asarray(sink, s.dtype), s.shape[:-2])[..., None]


def self_attention(x: Array) -> Array:
    """The first approach: items attend to themselves and earlier items, with no parameters and no scale.

    >>> self_attention(np.array([[0.0], [1.0]])).round(3)   # the zero vector keeps weight exp(0) / (exp(0) + exp(1))
    array([[0.   ],
           [0.731]])
    """
    return attention(x, x, x, mask=causal(), scale=1.0)


def weights_of_rows(
    q: Array,
    k: Array,
    rows: Sequence[int] | npt.NDArray[np.integer],
    mask: Mask,
    scale: float,
    score: Any = (),
) -> Array:
    """The weights of some positions only, negative ones counted from the end: shape (..., rows, m).

    >>> weights_of_rows(np.zeros((3, 1)), np.zeros((3, 1)), (1, -1), causal(), 1.0).round(2)
    array([[0.5 , 0.5 , 0.  ],
           [0.33, 0.33, 0.33]])
    """
    n, m = q.shape[-2], k.shape[-2]
    position = np.arange(n)[np.asarray(rows)]  # (r,)
    s = scores(q[..., position, :], share_heads(k, q), scale)  # (..., r, m)
    s = ruled(s, position, split_documents(mask, n, m)[0], as_rules(score))  # (..., r, m)
    return softmax(s, visible(mask, n, m, position, lead=s.shape[:-2]))  # (..., r, m)


def log_sum_exp(s: Array, seen: npt.NDArray[np.bool_]) -> Array:
    """The natural logarithm of each row's Σ exp(score), −∞ for a row that sees nothing.

    >>> log_sum_exp(np.zeros((1, 2)), np.array([[True, True]])).round(3)
    array([0.693])
    """
    s = np.where(seen, s, -np.inf)  # (..., n, m)
    top = s.max(axis=-1, initial=-np.inf)  # (..., n)
    with np.errstate(divide="ignore", invalid="ignore"):
        lse: Array = np.where(top == -np.inf, 0, top) + np.log(exponentials(s, seen).sum(axis=-1))
    return lse


def share_heads(x: Array, q: Array) -> Array:
    """Repeat key or value heads (axis −3) to match the query heads: grouped-query attention.

    >>> share_heads(np.ones((2, 4, 8)), np.ones((6, 5, 8))).shape
    (6, 4, 8)
    """
    if min(q.ndim, x.ndim) < 3 or x.shape[-3] in (1, q.shape[-3]) or q.shape[-3] == 1:
        return x
    return np.repeat(x, q.shape[-3] // x.shape[-3], axis=-3)  # (..., heads, m, d)
