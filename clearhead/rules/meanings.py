"""What operations mean on numpy's arrays, where no function of numpy's says just that.

Decides what has no value in Python: a whole number divided by 0 is 0, and so is the whole number of a float that is
none or too large. Whole numbers may be Python's own, in arrays of objects.
"""

from __future__ import annotations

import math

import numpy as np

from clearhead.arrays import Array


def least(a: Array, b: Array) -> Array:
    """The smaller of two; not a number if either is none."""
    return np.where((a < b) | (a != a), a, b)


def largest(a: Array, b: Array) -> Array:
    """The larger of two; not a number if either is none."""
    return np.where((a > b) | (a != a), a, b)


def quotient(a: Array, b: Array) -> Array:
    """Python's // of whole numbers, and 0 where b is 0."""
    return np.where(b == 0, 0, a // np.where(b == 0, 1, b))


def floor_divide(a: Array, b: Array) -> Array:
    """Python's //; of floats by 0 it is numpy's ±∞ or not a number, of whole numbers 0."""
    return np.floor_divide(a, b) if is_float(a) else quotient(a, b)


def modulo(a: Array, b: Array) -> Array:
    """Python's %; of floats by 0 it is not a number, of whole numbers 0."""
    return np.remainder(a, b) if is_float(a) else np.where(b == 0, 0, a % np.where(b == 0, 1, b))


def is_float(a: Array) -> bool:
    """Whether an array holds floats, and not whole numbers."""
    return bool(np.issubdtype(a.dtype, np.inexact))


def whole(a: Array) -> Array:
    """Truth as 0 and 1, a float cut to a whole number; 0 for what 64 bits do not hold."""
    held = np.where(np.abs(a) < 2.0**63, a, 0) if is_float(a) else a
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
    """1 − erf, and accurate where that is next to 0."""
    result: Array = np.vectorize(math.erfc, otypes=[np.float64])(x).astype(x.dtype)
    return result
