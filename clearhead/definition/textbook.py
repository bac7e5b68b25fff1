"""The textbook's self-attention, line by line.

    score(q_i, k_j) = scale · q_i·k_j
    α_ij            = exp(score_ij) / Σ exp(score_ik)      over the keys k that i may see
    y_i             = Σ α_ij v_j

This module decides what attention *means*; everything else in the package is held against it. It computes in the
dtype it is given (float64 is the reference) and builds every matrix in full, so it is for reading and for checking.
Letters: q query, k key, v value, s score, a weight (α), y output, n queries, m keys, d dim.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from clearhead.rules.masks import Mask, causal, visible

Array = npt.NDArray[np.floating]


def scores(q: Array, k: Array, scale: float = 1.0) -> Array:
    """How alike each query and each key are: their dot product, times `scale`.

    >>> scores(np.array([[1.0, 2.0]]), np.array([[3.0, 1.0], [2.0, -1.0]]))
    array([[5., 0.]])
    """
    with np.errstate(invalid="ignore", over="ignore"):
        s: Array = (q @ np.swapaxes(k, -1, -2)) * q.dtype.type(scale)  # (..., n, d) @ (..., d, m) -> (..., n, m)
    return s


def exponentials(s: Array, seen: npt.NDArray[np.bool_]) -> Array:
    """exp(score − the row's largest score) for what is seen, 0 for what is not.

    Subtracting the largest score changes no weight and keeps exp from overflowing.

    >>> exponentials(np.array([[0.0, 0.0, 9.0]]), np.array([[True, True, False]]))
    array([[1., 1., 0.]])
    """
    s = np.where(seen, s, -np.inf)  # (..., n, m)
    top = s.max(axis=-1, keepdims=True, initial=-np.inf)  # (..., n, 1)
    top = np.where(top == -np.inf, 0, top)  # a row that sees nothing has no largest score
    with np.errstate(invalid="ignore", over="ignore"):
        e: Array = np.exp(s - top)  # (..., n, m)
    return e


def softmax(s: Array, seen: npt.NDArray[np.bool_]) -> Array:
    """Weights: each row's exponentials over their sum. A row that sees nothing has no weights at all, only zeros.

    >>> softmax(np.zeros((1, 3)), np.array([[True, True, False]]))
    array([[0.5, 0.5, 0. ]])
    """
    e = exponentials(s, seen)
    total = e.sum(axis=-1, keepdims=True)  # (..., n, 1)
    a: Array = e / np.where(total == 0, 1, total)  # (..., n, m)
    return a


def weighted_sum(a: Array, v: Array, seen: npt.NDArray[np.bool_]) -> Array:
    """Each output: the values it may see, each times its weight. Hidden values are never touched, not even by 0 ×.

    >>> weighted_sum(np.array([[0.5, 0.5, 0.0]]), np.array([[2.0], [4.0], [np.nan]]), np.array([[True, True, False]]))
    array([[3.]])
    """
    lead = np.broadcast_shapes(a.shape[:-2], v.shape[:-2])
    y = np.zeros((*lead, a.shape[-2], v.shape[-1]), a.dtype)  # (..., n, dv)
    with np.errstate(invalid="ignore", over="ignore"):
        for i, row in enumerate(np.broadcast_to(seen, a.shape[-2:])):
            y[..., i, :] = (a[..., i : i + 1, row] @ v[..., row, :])[..., 0, :]  # (..., 1, m') @ (..., m', dv)
    return y


def attention(q: Array, k: Array, v: Array, *, mask: Mask | None = None, scale: float | None = None) -> Array:
    """Attention of queries over keys and values; `mask` defaults to causal(), `scale` to 1/√d.

    Shapes: q (..., n, d), k (..., m, d), v (..., m, dv), the result (..., n, dv), leading axes broadcast. Where q
    has more heads (axis −3) than k and v, consecutive query heads share one key head.

    >>> x = np.eye(2)
    >>> attention(x, x, x, scale=1.0).round(3)
    array([[1.   , 0.   ],
           [0.269, 0.731]])
    """
    k, v = share_heads(k, q), share_heads(v, q)  # (..., heads, m, d), (..., heads, m, dv)
    seen = visible(causal() if mask is None else mask, q.shape[-2], k.shape[-2])  # (n, m)
    s = scores(q, k, q.shape[-1] ** -0.5 if scale is None else scale)  # (..., n, m)
    a = softmax(s, seen)  # (..., n, m)
    return weighted_sum(a, v, seen)  # (..., n, dv)


def self_attention(x: Array) -> Array:
    """The first approach: items attend to themselves and earlier items, with no parameters and no scale.

    >>> self_attention(np.array([[0.0], [1.0]])).round(3)   # the zero vector keeps weight exp(0) / (exp(0) + exp(1))
    array([[0.   ],
           [0.731]])
    """
    return attention(x, x, x, mask=causal(), scale=1.0)


def weights_of_rows(
    q: Array, k: Array, rows: Sequence[int] | npt.NDArray[np.integer], mask: Mask, scale: float
) -> Array:
    """The weights of some positions only, which may be counted back from −1: shape (..., rows, m).

    >>> weights_of_rows(np.zeros((3, 1)), np.zeros((3, 1)), (1, -1), causal(), 1.0).round(2)
    array([[0.5 , 0.5 , 0.  ],
           [0.33, 0.33, 0.33]])
    """
    position = np.arange(q.shape[-2])[np.asarray(rows)]  # (r,)
    s = scores(q[..., position, :], share_heads(k, q), scale)  # (..., r, m)
    return softmax(s, visible(mask, q.shape[-2], k.shape[-2], position))  # (..., r, m)


def log_sum_exp(s: Array, seen: npt.NDArray[np.bool_]) -> Array:
    """The natural logarithm of each row's Σ exp(score); −∞ where nothing is seen.

    >>> log_sum_exp(np.zeros((1, 2)), np.array([[True, True]])).round(3)
    array([0.693])
    """
    s = np.where(seen, s, -np.inf)  # (..., n, m)
    top = s.max(axis=-1, initial=-np.inf)  # (..., n)
    with np.errstate(divide="ignore", invalid="ignore"):
        lse: Array = np.where(top == -np.inf, 0, top) + np.log(exponentials(s, seen).sum(axis=-1))
    return lse


def share_heads(x: Array, q: Array) -> Array:
    """Repeat key or value heads (axis −3) so that each query head has its own: grouped-query attention.

    >>> share_heads(np.ones((2, 4, 8)), np.ones((6, 5, 8))).shape
    (6, 4, 8)
    """
    if min(q.ndim, x.ndim) < 3 or x.shape[-3] in (1, q.shape[-3]) or q.shape[-3] == 1:
        return x
    return np.repeat(x, q.shape[-3] // x.shape[-3], axis=-3)  # (..., heads, m, d)
