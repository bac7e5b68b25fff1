"""Factors of keys: what the weights that a key receives, and those in lists, are multiplied by."""

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array
from clearhead.attention_weights.lazy import LazyMatrix
from clearhead.engine.problem import as_array, broadcast_heads
from clearhead.errors import InputError, ShapeError
from clearhead.kernels.abi.tiles import STORED


def key_factors(w: LazyMatrix, v: npt.ArrayLike | None, factors: npt.ArrayLike | None) -> Array | None:
    """A factor for each key of each head, (..., keys): the values' norms, or those given, or None."""
    if v is not None and factors is not None:
        raise InputError("summary got v and factors: give v for the norms of values, or factors of your own.")
    if v is not None:
        return value_norms(w, as_array(v, "v"))
    return None if factors is None else given_factors(w, as_array(factors, "factors"))


def given_factors(w: LazyMatrix, factors: Array) -> Array:
    """Factors in the shape and dtype of the weights' heads and keys."""
    shape = (*w.shape[:-2], w.shape[-1])
    try:
        real = factors.dtype.kind in "iufb" or factors.dtype.name in STORED
        fits = real and np.broadcast_shapes(factors.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(
            f"factors of shape {factors.shape} and dtype {factors.dtype} do not fit weights of shape {w.shape}: give "
            f"numbers that broadcast to {shape}."
        )
    if (factors < 0).any():
        raise InputError(f"factors include {factors.min():.6g}: give sizes, 0 or more, as ‖v_j W_O‖ is.")
    return np.broadcast_to(factors.astype(w.dtype), shape)


def value_norms(w: LazyMatrix, v: Array) -> Array:
    """‖v_j‖ for each head, (..., keys)."""
    problem, keys = w.source.problem, w.shape[-1]
    if v.ndim < 2 or v.shape[-2] != keys:
        raise ShapeError(f"v of shape {v.shape} does not fit {keys} keys: give (..., {keys}, dim).")
    lead = broadcast_heads((*problem.lead,), v.shape[:-2], v.shape[:-2])
    if lead != problem.lead:
        raise ShapeError(
            f"v of shape {v.shape} does not fit weights of {problem.lead} heads: give one that broadcasts to "
            f"{(*problem.lead, keys)} and its dim."
        )
    with np.errstate(over="ignore", invalid="ignore"):
        sizes = np.linalg.norm(v.astype(w.dtype), axis=-1)
    if sizes.ndim > 1 and 1 < sizes.shape[-2] < lead[-1]:
        sizes = np.repeat(sizes, lead[-1] // sizes.shape[-2], axis=-2)
    return np.broadcast_to(sizes, (*lead, keys)).reshape(-1, keys)[w.heads]
