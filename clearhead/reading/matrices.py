"""A matrix of weights that somebody else computed, as weights to read: exp(log α − 0) is α again."""

from typing import Any

import numpy as np

from clearhead.attention_weights.matrix import Weights, weights
from clearhead.errors import InputError
from clearhead.rules.masks import causal, full
from clearhead.rules.scores import bias


def given_weights(source: Any) -> Weights:
    """Weights (heads, queries, keys) or (queries, keys), an array or a tensor, as `Weights`. Raises InputError.

    They stay as they are, whether rows sum to 1 or not. Where nothing later is seen, the mask is causal.

    >>> given_weights(np.array([[1.0, 0.0], [0.25, 0.75]])).row(1).tolist()
    [0.25, 0.75]
    """
    x = as_floats(source)
    if x.ndim == 4 and len(x) == 1:
        x = x[0]
    if x.ndim not in (2, 3) or not x.size:
        raise InputError(f"an array of shape {x.shape} is not weights: give (heads, queries, keys) of one sequence.")
    if not (np.isfinite(x).all() and (x >= 0).all()):
        raise InputError("this array has negative or infinite numbers or NaNs, and weights have none: give weights.")
    queries, keys = x.shape[-2:]
    later = np.triu(np.ones((queries, keys), bool), keys - queries + 1)
    mask = causal(align="end") if keys >= queries and not (x * later).any() else full()
    with np.errstate(divide="ignore"):
        scores = np.log(x)
    nothing = np.zeros((*x.shape[:-1], 1), x.dtype), np.zeros((*x.shape[:-2], keys, 1), x.dtype)
    return weights(*nothing, mask=mask, score=bias(scores), lse=np.zeros(x.shape[:-1], x.dtype))


def as_floats(source: Any) -> Any:
    """An array or a tensor of any library as float32 or float64."""
    if hasattr(source, "detach"):  # a tensor
        source = source.detach().cpu()
        source = source.float() if "float16" in str(source.dtype) else source
    x = np.asarray(source)
    if x.dtype.kind not in "fiub":
        raise InputError(f"an array of {x.dtype} is not weights: give floats.")
    return x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)
