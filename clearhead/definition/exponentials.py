"""exp2, expm1, sinh, cosh and sigmoid, and the exponential of a number in two parts that others are made of."""

from typing import Any

from clearhead.definition.arithmetic import (
    SHIFT,
    Arithmetic,
    Fit,
    nearest,
    polynomial,
    product,
    quick_sum,
    scale,
    two_sum,
    two_to,
)  # fmt: skip

LOG2E = 1.4426950408889634
LN2, LN2_REST = float.fromhex("0x1.62e42fefap-1"), float.fromhex("0x1.cf79abc9e3b3ap-40")  # n·LN2 is exact
LN2_ROUNDED, LN2_LOST = 0.6931471805599453, 2.3190468138462996e-17

# exp(r) = 1 + r + r²/2 + r³·EXP(r) for |r| ≤ ln 2 / 2
EXP = Fit(
    (0.16666666666666669, 0.041666666666666664, 0.008333333333330062, 0.0013888888888886552,
     0.00019841269863053618, 2.4801587317144498e-05, 2.7557268459997064e-06, 2.755728296954995e-07,
     2.510038549551032e-08, 2.0911236630261545e-09),
    (0.16666666681623232, 0.04166666668161915, 0.0083333109254809, 0.0013888866486927423,
     0.00019890990824673654, 2.4851298101976023e-05),
)  # fmt: skip
# sinh(x) = x + x³·SINH(x²) for |x| ≤ 1
SINH = Fit(
    (0.16666666666666666, 0.008333333333333333, 0.00019841269841269773, 2.755731922404034e-06,
     2.505210836405804e-08, 1.6059048396350562e-10, 7.646625361656657e-13, 2.8445264169895285e-15),
    (0.16666666666698407, 0.008333333317464362, 0.0001984128253011599, 2.755377026364149e-06,
     2.545670657152382e-08),
)  # fmt: skip
OVERFLOW = 710.6  # sinh and cosh are ∞ from here on, exp(x) from 710


def reduce(a: Arithmetic, x: Any, lost: Any = 0.0) -> tuple[Any, Any, Any]:
    """x + lost as n·ln 2 + r + r_lost with |r| ≤ ln 2 / 2: n, an integer, r and r_lost."""
    n, whole = nearest(a, a.fma(x, LOG2E, SHIFT))
    return whole, *two_sum(a, a.fma(n, -LN2, x), a.fma(n, -LN2_REST, lost))


def exp_beyond(a: Arithmetic, r: Any, lost: Any) -> Any:
    """exp(r + lost) − 1 − r for |r| ≤ ln 2 / 2."""
    return a.fma(r * r, a.fma(r, polynomial(a, r, EXP), 0.5), a.fma(lost, r, lost))


def exp_near_zero(a: Arithmetic, r: Any, lost: Any) -> tuple[Any, Any]:
    """exp(r + lost) in two parts for |r| ≤ ln 2 / 2."""
    total, rest = quick_sum(a, 1.0, r)
    return total, rest + exp_beyond(a, r, lost)


def exp_in_two(a: Arithmetic, x: Any, lost: Any = 0.0) -> tuple[Any, Any, Any]:
    """exp(x + lost) as 2ⁿ times the sum of two parts: both parts, and n."""
    n, r, r_lost = reduce(a, x, lost)
    return *exp_near_zero(a, r, r_lost), n


def exp2(a: Arithmetic, x: Any) -> Any:
    """2ˣ as 2ⁿ·exp(r·ln 2) with n = round(x) and r = x − n; exact for whole x."""
    x = a.select(x > 1100.0, 1100.0, a.select(x < -1100.0, -1100.0, x))
    n, whole = nearest(a, x + SHIFT)
    r = x - n
    high, low = product(a, r, LN2_ROUNDED)
    total, rest = exp_near_zero(a, high, a.fma(r, LN2_LOST, low))
    return scale(a, total + rest, whole)


def expm1(a: Arithmetic, x: Any) -> Any:
    """exp(x) − 1 as 2ⁿ·(exp(r) − 1) + (2ⁿ − 1), and x where it is so small that nothing else is left."""
    inside = a.select(x > 710.0, 710.0, a.select(x < -40.0, -40.0, x))
    n, r, lost = reduce(a, inside)
    half = two_to(a, n - 1)  # for n = 1024
    y = a.fma(half, exp_beyond(a, r, lost), a.fma(half, r, half - 0.5))
    return a.select(a.size(x) < 2.0**-54, x, y + y)


def half_sum(a: Arithmetic, size: Any, sign: float) -> Any:
    """(exp(size) ± exp(−size))/2 for size ≥ 0."""
    high, low, n = exp_in_two(a, a.select(size > OVERFLOW, OVERFLOW, size))
    quarter = two_to(a, n - 2)
    least = a.select(n < 100, n, a.integer(100))  # beyond, exp(−size) is not felt
    inverse = two_to(a, -2 - least) / (high + low)
    total, rest = quick_sum(a, quarter * high, sign * inverse)
    y = total + a.fma(quarter, low, rest)
    return y + y


def cosh(a: Arithmetic, x: Any) -> Any:
    """(eˣ + e⁻ˣ)/2."""
    return half_sum(a, a.size(x), 1.0)


def sinh(a: Arithmetic, x: Any) -> Any:
    """(eˣ − e⁻ˣ)/2, and its series where the two are close."""
    size = a.size(x)
    square = size * size
    near = a.fma(size * square, polynomial(a, square, SINH), size)
    return a.signed(a.select(size < 1.0, near, half_sum(a, size, -1.0)), x)


def sigmoid(a: Arithmetic, x: Any) -> Any:
    """1/(1 + e⁻ˣ), or eˣ/(1 + eˣ) below 0, with what sum and quotient lost put back."""
    size = a.size(x)
    high, low, n = exp_in_two(a, -a.select(size > 746.0, 746.0, size))
    power = scale(a, high + low, n)
    total, rest = quick_sum(a, 1.0, power)
    over, inverse = a.select(x < 0.0, power, 1.0), 1.0 / total
    y = over * inverse
    return y if a.narrow else a.fma(a.fma(-y, rest, a.fma(-y, total, over)), inverse, y)
