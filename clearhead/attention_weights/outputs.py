"""What heads write: their outputs after the output matrix W_O, and the size of what each key could contribute.

Responsible for going through weights in parts and for values that several heads share. The matrices come from a model:
`adapters.transformers.projections` finds them.
"""

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array
from clearhead.attention_weights.lazy import ALL_ITEMS, axis_indices, check_memory
from clearhead.attention_weights.matrix import Weights
from clearhead.attention_weights.weights_like import as_weights
from clearhead.errors import ShapeError


def head_outputs(
    w: Weights, values: npt.ArrayLike, W_O: npt.ArrayLike, queries: slice | npt.ArrayLike = ALL_ITEMS
) -> Array:
    """What each head writes for each query, Σ_j α_ij v_j W_O: (heads, queries, model dim).

    `w` (heads, n, m), `values` (heads or key heads, m, dv), `W_O` (heads, dv, model dim). The heads' outputs add up to
    the attention layer's output, less the bias of its output projection. Without `queries`, all are returned. Raises
    ShapeError, or InputError if the result would take more than CLEARHEAD_MEMORY. Definition:
    `clearhead.definition.weights.head_outputs`.

    >>> from clearhead import weights
    >>> w = weights(np.zeros((1, 2, 1)), np.zeros((1, 2, 1)))
    >>> head_outputs(w, [[[2.0], [4.0]]], [[[1.0, -1.0]]], queries=-1)
    array([[ 3., -3.]])
    """
    w = as_weights(w)
    v = values_of_heads(w, values)
    matrices = checked_matrices(W_O, v)
    rows, at = axis_indices(queries, w.shape[-2])
    check_memory((len(v), len(rows), matrices.shape[-1]), w.dtype)
    out = np.empty((len(v), len(rows), matrices.shape[-1]), w.dtype)
    for head, start, part in w.parts(w.heads, rows, 0, w.shape[-1]):
        out[head, start : start + len(part)] = weighted_values(part, v[head]) @ matrices[head]
    return out[:, at]


def key_contributions(w: Weights, values: npt.ArrayLike, directions: npt.ArrayLike, query: int = -1) -> Array:
    """What each key adds to a query's output along one direction for each head, α_ij (v_j · direction): (heads, keys).

    `w` (heads, n, m), `values` (heads or key heads, m, dv), `directions` (heads, dv), as the `directions` of
    `logit_attribution` for one layer: then the sum over keys is the head's contribution to the logit. A key without
    weight adds 0. Raises ShapeError. Definition: `clearhead.definition.weights.key_contributions`.

    >>> from clearhead import weights
    >>> w = weights(np.zeros((1, 2, 1)), np.zeros((1, 2, 1)))
    >>> key_contributions(w, [[[2.0], [4.0]]], [[1.0]])
    array([[1., 2.]])
    """
    w = as_weights(w)
    v, along = values_of_heads(w, values), np.asarray(directions)
    if along.shape != (len(v), v.shape[-1]):
        raise ShapeError(f"directions of shape {along.shape} do not fit: give {(len(v), v.shape[-1])}, (heads, dv).")
    row = w.row(query)
    with np.errstate(invalid="ignore"):
        return np.where(row > 0, row * np.einsum("hkd,hd->hk", v, along), 0)


def output_norms(values: npt.ArrayLike, W_O: npt.ArrayLike) -> Array:
    """‖v_j W_O‖ for each head and key, the length of what a key's value becomes in the model: (heads, keys).

    `values` (heads or key heads, m, dv), `W_O` (heads, dv, model dim). Weights times these norms say how much of an
    output comes from a key (Kobayashi et al. 2020). v_j W_O is not formed: with W_Oᵀ = QR, it is as long as v_j Rᵀ.
    Raises ShapeError. Definition: `clearhead.definition.weights.output_norms`.

    >>> output_norms([[[2.0], [4.0]]], [[[3.0, 4.0]]])
    array([[10., 20.]])
    """
    v, matrices = np.asarray(values), np.asarray(W_O)
    heads = len(matrices) if matrices.ndim == 3 else 0
    if v.ndim != 3 or not heads or not len(v) or heads % len(v):
        raise ShapeError(
            f"values of shape {v.shape} and W_O of shape {matrices.shape} do not fit: give (heads or key heads, keys, "
            "dv) and (heads, dv, model dim)."
        )
    matrices = checked_matrices(matrices, np.broadcast_to(v[:1], (heads, *v.shape[1:])))
    norms = np.empty((heads, v.shape[1]), np.result_type(v, matrices))
    for head, matrix in enumerate(matrices):
        r: Array = np.linalg.qr(matrix.T, mode="r")  # type: ignore[assignment]  # (at most dv, dv)
        norms[head] = np.linalg.norm(v[head * len(v) // heads] @ r.T, axis=-1)
    return norms


def values_of_heads(w: Weights, values: npt.ArrayLike) -> Array:
    """Check values against weights (heads, n, m); returns one for each head."""
    v = np.asarray(values)
    if w.ndim != 3:
        raise ShapeError(f"weights of shape {w.shape} are not of one sequence: give (heads, queries, keys).")
    heads, _, keys = w.shape
    if v.ndim != 3 or not len(v) or heads % len(v) or v.shape[1] != keys:
        raise ShapeError(
            f"values of shape {v.shape} do not fit weights of shape {w.shape}: give (heads or key heads, {keys}, dv)."
        )
    v = v.astype(np.result_type(v, w.dtype), copy=False)  # 16-bit values are widened, as attention widens them
    shared = np.broadcast_to(v[:, None], (len(v), heads // len(v), *v.shape[1:]))
    return shared.reshape(heads, *v.shape[1:]) if len(v) < heads else v


def checked_matrices(W_O: npt.ArrayLike, v: Array) -> Array:
    """Check output matrices against the values of each head."""
    matrices = np.asarray(W_O)
    if matrices.ndim != 3 or matrices.shape[:2] != (len(v), v.shape[-1]):
        raise ShapeError(
            f"W_O of shape {matrices.shape} does not fit {len(v)} heads with values of dim {v.shape[-1]}: give "
            f"({len(v)}, {v.shape[-1]}, model dim)."
        )
    return matrices


def weighted_values(part: Array, v: Array) -> Array:
    """Σ_j α_ij v_j for some rows of weights; keys without weight are not touched, even if their values are infinite."""
    if np.isfinite(v).all():
        return part @ v
    return np.stack([row[row > 0] @ v[row > 0] for row in part])
