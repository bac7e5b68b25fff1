"""What operations mean on numpy's arrays, where no function of numpy's says just that.

Decides what has no value in Python: what divides by 0 is 0, and so is the whole number of what is none or too large.
Whole numbers may be Python's own, in arrays of objects.
"""

from __future__ import annotations

import numpy as np

from clearhead.arrays import Array


def least(a: Array, b: Array) -> Array:
    """The smaller of two; not a number if either is none."""
    return np.where((a < b) | (a != a), a, b)


def largest(a: Array, b: Array) -> Array:
    """The larger of two; not a number if either is none."""
    return np.where((a > b) | (a != a), a, b)


def floor_divide(a: Array, b: Array) -> Array:
    """Python's //, and 0 where b is 0."""
    safe = np.where(b == 0, 1, b)
    return np.where(b == 0, 0, a // safe)


def modulo(a: Array, b: Array) -> Array:
    """Python's %, and 0 where b is 0."""
    safe = np.where(b == 0, 1, b)
    return np.where(b == 0, 0, a % safe)


def whole(a: Array) -> Array:
    """Truth as 0 and 1."""
    return np.asarray(a).astype(np.int64)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(−x)) without overflow."""
    e = np.exp(-np.abs(x))
    result: Array = np.where(x >= 0, 1, e) / (1 + e)
    return result
