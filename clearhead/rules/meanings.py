"""Operations on numpy arrays for which numpy has no function of exactly this meaning.

Decides the results that Python leaves undefined: an integer divided by 0 is 0, and so is the integer of a float that is
NaN or too large. Integers may be Python's own, in object arrays.
"""

from __future__ import annotations

import math

import numpy as np

from clearhead.arrays import Array


def nan_minimum(a: Array, b: Array) -> Array:
    """The smaller of two; NaN if either is NaN."""
    return np.where((a < b) | (a != a), a, b)


def nan_maximum(a: Array, b: Array) -> Array:
    """The larger of two; NaN if either is NaN."""
    return np.where((a > b) | (a != a), a, b)


def integer_quotient(a: Array, b: Array) -> Array:
    """Python's // of integers, and 0 where b is 0."""
    return np.where(b == 0, 0, a // np.where(b == 0, 1, b))


def floor_divide(a: Array, b: Array) -> Array:
    """Python's //; division by 0 gives numpy's ±∞ or NaN for floats, 0 for integers."""
    return np.floor_divide(a, b) if holds_floats(a) else integer_quotient(a, b)


def modulo(a: Array, b: Array) -> Array:
    """Python's %; modulo 0 gives NaN for floats, 0 for integers."""
    return np.remainder(a, b) if holds_floats(a) else np.where(b == 0, 0, a % np.where(b == 0, 1, b))


def holds_floats(a: Array) -> bool:
    """Whether an array holds floats rather than integers."""
    return bool(np.issubdtype(a.dtype, np.inexact))


def truncate_to_int(a: Array) -> Array:
    """Booleans as 0 and 1, floats truncated; 0 for a float that 64 bits cannot hold."""
    held = np.where(np.abs(a) < 2.0**63, a, 0) if holds_floats(a) else a
    return held.astype(np.int64)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(−x)) without overflow."""
    e = np.exp(-np.abs(x))
    result: Array = np.where(x >= 0, 1, e) / (1 + e)
    return result


def softplus(x: Array) -> Array:
    """log(1 + exp(x)) without overflow."""
    return np.logaddexp(x, np.zeros_like(x))


def erf(x: Array) -> Array:
    """The error function."""
    result: Array = np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype)
    return result


def erfc(x: Array) -> Array:
    """1 − erf, accurate where the result is near 0."""
    result: Array = np.vectorize(math.erfc, otypes=[np.float64])(x).astype(x.dtype)
    return result
