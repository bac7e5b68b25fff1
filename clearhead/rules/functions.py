"""Elementwise functions for rules; they accept traced scores and positions, arrays, and plain numbers.

numpy's equivalents (np.exp, np.where …) and Python's arithmetic work in rules too.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from clearhead.errors import InputError
from clearhead.rules import compositions
from clearhead.rules.compositions import call

ROOT_HALF = math.sqrt(0.5)


def apply_operation(op: str, x: Any) -> Any:
    """Apply an operation that numpy lacks; integers become floats."""
    if hasattr(x, "expression"):
        return call(op, x)
    x = np.asarray(x)
    return call(op, x.astype(np.result_type(x.dtype, np.float16)))


def exp(x: Any) -> Any:
    """eˣ.

    >>> float(exp(0.0))
    1.0
    """
    return np.exp(x)


def exp2(x: Any) -> Any:
    """2ˣ.

    >>> float(exp2(3.0))
    8.0
    """
    return np.exp2(x)


def expm1(x: Any) -> Any:
    """eˣ − 1, accurate near 0.

    >>> float(expm1(0.0))
    0.0
    """
    return np.expm1(x)


def log(x: Any) -> Any:
    """The natural logarithm.

    >>> float(log(1.0))
    0.0
    """
    return np.log(x)


def log2(x: Any) -> Any:
    """The logarithm to base 2.

    >>> float(log2(8.0))
    3.0
    """
    return np.log2(x)


def log10(x: Any) -> Any:
    """The logarithm to base 10.

    >>> float(log10(100.0))
    2.0
    """
    return np.log10(x)


def log1p(x: Any) -> Any:
    """log(1 + x), accurate near 0.

    >>> float(log1p(0.0))
    0.0
    """
    return np.log1p(x)


def power(x: Any, y: Any) -> Any:
    """xʸ.

    >>> float(power(2.0, -1))
    0.5
    """
    return np.power(x, y)


def sqrt(x: Any) -> Any:
    """The square root.

    >>> float(sqrt(4.0))
    2.0
    """
    return np.sqrt(x)


def cbrt(x: Any) -> Any:
    """The cube root, with the sign of x.

    >>> float(cbrt(-8.0))
    -2.0
    """
    return np.cbrt(x)


def rsqrt(x: Any) -> Any:
    """1 / √x.

    >>> float(rsqrt(4.0))
    0.5
    """
    return 1.0 / np.sqrt(x)


def square(x: Any) -> Any:
    """x · x.

    >>> float(square(3.0))
    9.0
    """
    return np.square(x)


def reciprocal(x: Any) -> Any:
    """1 / x.

    >>> reciprocal(4)
    0.25
    """
    return 1.0 / x


def sin(x: Any) -> Any:
    """The sine of an angle in radians.

    >>> float(sin(0.0))
    0.0
    """
    return np.sin(x)


def cos(x: Any) -> Any:
    """The cosine of an angle in radians.

    >>> float(cos(0.0))
    1.0
    """
    return np.cos(x)


def tan(x: Any) -> Any:
    """The tangent of an angle in radians.

    >>> float(tan(0.0))
    0.0
    """
    return np.tan(x)


def sinc(x: Any) -> Any:
    """sin(πx) / (πx), and 1 at 0.

    >>> float(sinc(0.0)), f"{sinc(0.5):.4f}"
    (1.0, '0.6366')
    """
    return np.sinc(x)


def asin(x: Any) -> Any:
    """The angle from −π/2 to π/2 whose sine is x.

    >>> f"{asin(1.0):.4f}"
    '1.5708'
    """
    return np.arcsin(x)


def acos(x: Any) -> Any:
    """The angle from 0 to π whose cosine is x.

    >>> float(acos(1.0))
    0.0
    """
    return np.arccos(x)


def atan(x: Any) -> Any:
    """The angle from −π/2 to π/2 whose tangent is x.

    >>> f"{atan(1.0):.4f}"
    '0.7854'
    """
    return np.arctan(x)


def atan2(y: Any, x: Any) -> Any:
    """The angle from −π to π of the point (x, y).

    >>> f"{atan2(1.0, -1.0):.4f}"
    '2.3562'
    """
    return np.arctan2(y, x)


def sinh(x: Any) -> Any:
    """The hyperbolic sine.

    >>> float(sinh(0.0))
    0.0
    """
    return np.sinh(x)


def cosh(x: Any) -> Any:
    """The hyperbolic cosine.

    >>> float(cosh(0.0))
    1.0
    """
    return np.cosh(x)


def tanh(x: Any) -> Any:
    """The hyperbolic tangent.

    >>> float(tanh(0.0))
    0.0
    """
    return np.tanh(x)


def erf(x: Any) -> Any:
    """The error function: 2/√π times the integral of exp(−t²) from 0 to x.

    >>> f"{erf(0.5):.4f}"
    '0.5205'
    """
    return apply_operation("erf", x)


def erfc(x: Any) -> Any:
    """1 − erf(x), accurate where the result is near 0.

    >>> float(erfc(0.0))
    1.0
    """
    return apply_operation("erfc", x)


def sigmoid(x: Any) -> Any:
    """1 / (1 + e⁻ˣ), without overflow.

    >>> float(sigmoid(0.0))
    0.5
    """
    return apply_operation("sigmoid", x)


def softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """log(1 + exp(beta · x)) / beta, a smooth relu; x itself where beta · x exceeds the threshold.

    >>> f"{softplus(0.0):.4f}"
    '0.6931'
    """
    scaled = x * beta
    return np.where(scaled > threshold, x, apply_operation("softplus", scaled) / beta)


def relu(x: Any) -> Any:
    """max(x, 0).

    >>> relu(np.array([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """
    return np.maximum(x, 0)


def silu(x: Any) -> Any:
    """x · sigmoid(x), also called swish.

    >>> float(silu(0.0))
    0.0
    """
    return x * sigmoid(x)


def gelu(x: Any, approximate: str = "none") -> Any:
    """x · Φ(x), with Φ the normal distribution function; approximate="tanh" gives GPT-2's formula.

    Raises InputError for another approximation.

    >>> f"{gelu(1.0):.4f}", f"{gelu(1.0, approximate='tanh'):.4f}"
    ('0.8413', '0.8412')
    """
    if approximate == "none":
        return x * (0.5 * erfc(x * -ROOT_HALF))
    if approximate == "tanh":  # (1 + tanh u) / 2 is sigmoid(2u), which is accurate where both cancel
        return x * sigmoid(math.sqrt(8 / math.pi) * (x + 0.044715 * (x * x * x)))
    raise InputError(f'approximate={approximate!r} is not a formula of gelu: use "none" or "tanh".')


def floor(x: Any) -> Any:
    """The largest integer ≤ x, as a float.

    >>> float(floor(-1.5))
    -2.0
    """
    return np.floor(x)


def ceil(x: Any) -> Any:
    """The smallest integer ≥ x, as a float.

    >>> float(ceil(-1.5))
    -1.0
    """
    return np.ceil(x)


def trunc(x: Any) -> Any:
    """x truncated toward 0, as a float.

    >>> float(trunc(-1.5))
    -1.0
    """
    return np.trunc(x)


def round(x: Any, decimals: int = 0) -> Any:
    """x rounded to `decimals` decimals, halves to even.

    >>> float(round(2.5)), float(round(1.26, 1))
    (2.0, 1.3)
    """
    return np.round(x, decimals)


def integer(x: Any) -> Any:
    """x truncated toward 0, as an integer that can index arrays.

    >>> int(integer(-1.5))
    -1
    """
    return compositions.as_int(x) if hasattr(x, "expression") else np.asarray(x).astype(np.int64)


def sign(x: Any) -> Any:
    """−1, 0 or 1.

    >>> float(sign(-3.0))
    -1.0
    """
    return np.sign(x)


def copysign(x: Any, sign: Any) -> Any:
    """|x| with the sign of another number.

    >>> float(copysign(2.0, -0.0))
    -2.0
    """
    return np.copysign(x, sign)


def fmod(x: Any, y: Any) -> Any:
    """The remainder of division toward 0, with the sign of x, as in C.

    >>> int(fmod(-7, 3))
    -1
    """
    return np.fmod(x, y)


def remainder(x: Any, y: Any) -> Any:
    """The remainder of floor division, with the sign of y: Python's %.

    >>> int(remainder(-7, 3))
    2
    """
    return np.remainder(x, y)


def floor_divide(x: Any, y: Any) -> Any:
    """The quotient rounded down: Python's //.

    >>> int(floor_divide(-7, 2))
    -4
    """
    return np.floor_divide(x, y)


def clip(x: Any, low: Any = None, high: Any = None) -> Any:
    """x limited to [low, high]; None means no limit.

    >>> clip(np.array([-2.0, 0.5, 2.0]), -1, 1).tolist()
    [-1.0, 0.5, 1.0]
    """
    return compositions.clip(x, low, high)


def minimum(a: Any, b: Any) -> Any:
    """The smaller of two numbers.

    >>> int(minimum(1, 2))
    1
    """
    return np.minimum(a, b)


def maximum(a: Any, b: Any) -> Any:
    """The larger of two numbers.

    >>> int(maximum(1, 2))
    2
    """
    return np.maximum(a, b)


def where(condition: Any, a: Any, b: Any) -> Any:
    """a where the condition holds, else b.

    >>> where(np.array([True, False]), 1, 2).tolist()
    [1, 2]
    """
    return np.where(condition, a, b)


def logical_and(a: Any, b: Any) -> Any:
    """Whether both are true or nonzero.

    >>> bool(logical_and(2, 0))
    False
    """
    return np.logical_and(a, b)


def logical_or(a: Any, b: Any) -> Any:
    """Whether at least one is true or nonzero.

    >>> bool(logical_or(2, 0))
    True
    """
    return np.logical_or(a, b)


def logical_xor(a: Any, b: Any) -> Any:
    """Whether exactly one is true or nonzero.

    >>> bool(logical_xor(2, 3))
    False
    """
    return np.logical_xor(a, b)


def logical_not(a: Any) -> Any:
    """Whether a is false or 0.

    >>> bool(logical_not(2))
    False
    """
    return np.logical_not(a)


def isnan(x: Any) -> Any:
    """Whether x is NaN.

    >>> bool(isnan(float("nan")))
    True
    """
    return np.isnan(x)


def isinf(x: Any) -> Any:
    """Whether x is ∞ or −∞.

    >>> bool(isinf(-float("inf")))
    True
    """
    return np.isinf(x)


def isfinite(x: Any) -> Any:
    """Whether x is neither infinite nor NaN.

    >>> bool(isfinite(float("inf")))
    False
    """
    return np.isfinite(x)
