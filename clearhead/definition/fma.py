"""Fused multiply-add in plain numpy: a·b + c with a single rounding.

It defines the result of the processor's instruction. Follows Boldo & Melquiond 2008, "Emulation of FMA and correctly
rounded sums": exact products and sums by error-free transformations, then rounding to odd.
"""

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[Any]


def fma(a: Floats, b: Floats, c: Floats) -> Floats:
    """a·b + c with one rounding; float32 or float64 arrays of one dtype, broadcast against each other.

    >>> x = np.float32(1 + 2**-12)
    >>> float(fma(x, x, np.float32(-1))), float(x * x - np.float32(1))   # only fma keeps the product's last bits
    (0.0004883408546447754, 0.00048828125)
    """
    shape = np.broadcast_shapes(np.shape(a), np.shape(b), np.shape(c))
    a, b, c = np.broadcast_arrays(*np.atleast_1d(a, b, c))
    with np.errstate(all="ignore"):
        result = fma32(a, b, c) if a.dtype == np.float32 else fma64(a, b, c)
    return result.reshape(shape)


def fma32(a: Floats, b: Floats, c: Floats) -> Floats:
    """The product of two float32 is exact in float64; the sum is rounded to odd before it becomes float32."""
    product = a.astype(np.float64) * b.astype(np.float64)
    narrowed: Floats = odd_sum(product, c.astype(np.float64)).astype(np.float32)
    return narrowed


def fma64(a: Floats, b: Floats, c: Floats) -> Floats:
    """The product as two float64, then the sum of three terms with its tail rounded to odd; extremes by fractions."""
    high, low = two_product(a, b)
    tail_high, tail_low = two_sum(c, low)
    sum_high, sum_low = two_sum(high, tail_high)
    result: Floats = sum_high + odd_sum(tail_low, sum_low)
    naive = a * b + c
    sizes = [np.abs(np.where(x == 0, 1.0, x)) for x in (a, b, c)]
    safe = np.logical_and.reduce([(size > 2.0**-400) & (size < 2.0**400) for size in sizes])
    result = np.where(safe & (result != 0), result, naive)
    extreme = ~safe & np.isfinite(a) & np.isfinite(b) & np.isfinite(c) & (a != 0) & (b != 0)
    for at in zip(*np.nonzero(extreme), strict=True):
        result[at] = exact(float(a[at]), float(b[at]), float(c[at]), float(naive[at]))
    return result


def exact(a: float, b: float, c: float, naive: float) -> float:
    """One a·b + c in rational numbers; an exact 0 takes its sign from the naive sum."""
    total = Fraction(a) * Fraction(b) + Fraction(c)
    if total == 0:
        return naive
    try:
        return float(total)
    except OverflowError:
        return float("inf") if total > 0 else float("-inf")


def two_sum(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """a + b as the rounded sum and its exact error (Knuth)."""
    total = a + b
    from_b = total - a
    return total, (a - (total - from_b)) + (b - from_b)


def two_product(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """a·b as the rounded product and its exact error (Dekker, with Veltkamp's splitting)."""
    product = a * b
    (a_high, a_low), (b_high, b_low) = split_float(a), split_float(b)
    return product, a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)


def split_float(a: Floats) -> tuple[Floats, Floats]:
    """A float64 as the sum of two with at most 26 bits each."""
    scaled = a * 134217729.0  # 2²⁷ + 1
    high = scaled - (scaled - a)
    return high, a - high


def odd_sum(a: Floats, b: Floats) -> Floats:
    """a + b rounded to odd: if inexact, the neighbour whose last bit is 1."""
    total, error = two_sum(a, b)
    bits = total.view(np.int64)
    inexact_and_even = np.isfinite(total) & (error != 0) & (bits & 1 == 0)
    outward = (error > 0) == (total > 0)
    result: Floats = np.where(inexact_and_even, np.where(outward, bits + 1, bits - 1), bits).view(np.float64)
    return result
