"""log, log2, log10, log1p and softplus, all from the logarithm of a mantissa."""

from typing import Any

from clearhead.definition.arithmetic import (
    Arithmetic,
    Fit,
    as_float,
    polynomial,
    product,
    quick_sum,
    scale,
)  # fmt: skip
from clearhead.definition.exponentials import LN2, LN2_REST, exp_in_two

INFINITY, NAN = float("inf"), float("nan")
SQRT_HALF = 0x3FE6A09E667F3BCD  # the bits of √½: mantissas are from [√½, √2)
# 1/ln 2, 1/ln 10 and log₁₀ 2, each as two numbers; log₁₀ 2 so that e times the first is exact
LOG2E = 1.4426950408889634, 2.0355273740931033e-17
LOG10E = 0.4342944819032518, 1.098319650216765e-17
LOG10_2 = float.fromhex("0x1.34413509f7000p-2"), 1.42050232272661e-13

# ln((1 + s)/(1 − s)) = 2s + ⅔s³ + s⁵·LOG(s²) for |s| ≤ 3 − 2√2
LOG = Fit(
    (0.4, 0.28571428571428564, 0.2222222222222843, 0.18181818179656925, 0.15384615761170173,
     0.13333296534432942, 0.11766813121034213, 0.10456327269484514, 0.107624244195648),
    (0.39999999904932737, 0.285715318222563, 0.22204762092538063, 0.1912045481050038),
)  # fmt: skip


def fraction(a: Arithmetic, x: Any) -> tuple[Any, Any, Any]:
    """x = 2ᵉ·m for 0 < x < ∞ with √½ ≤ m < √2: e, and (m − 1)/(m + 1) in two parts."""
    subnormal = x < 2.0**-1022
    above = a.bits(a.select(subnormal, x * 2.0**54, x)) - SQRT_HALF
    e = as_float(a, above >> 52) - a.select(subnormal, 54.0, 0.0)
    m = a.of_bits((above & ((1 << 52) - 1)) + SQRT_HALF)
    less, more = m - 1.0, m + 1.0
    inverse = 1.0 / more
    s = less * inverse
    if a.narrow:
        return e, s, a.number(0.0)
    # What s lacks: the rests of the sum m + 1 and of the quotient.
    return e, s, a.fma(-s, m - (more - 1.0), a.fma(-s, more, less)) * inverse


def log_of_fraction(a: Arithmetic, s: Any, s_low: Any) -> tuple[Any, Any]:
    """ln m = ln((1 + s)/(1 − s)) in two parts, to about 58 bits."""
    square = s * s
    rest = a.fma(s * square, a.fma(square, polynomial(a, square, LOG), 2 / 3), s_low + s_low)
    return quick_sum(a, s + s, rest)


def edges(a: Arithmetic, x: Any, y: Any) -> Any:
    """The logarithm y where 0 < x < ∞; elsewhere −∞, ∞ or not a number."""
    y = a.select(x < INFINITY, y, x)
    return a.select(x > 0.0, y, a.select(x == 0.0, -INFINITY, a.select(x < 0.0, NAN, y)))


def to_base(a: Arithmetic, x: Any, of_two: tuple[float, float], of_e: tuple[float, float]) -> Any:
    """The logarithm to a base, of which those of 2 and e are given."""
    e, *s = fraction(a, x)
    high, low = log_of_fraction(a, *s)
    p, p_low = product(a, high, of_e[0])
    total, rest = quick_sum(a, e * of_two[0], p)
    rest = rest + a.fma(e, of_two[1], a.fma(high, of_e[1], a.fma(low, of_e[0], p_low)))
    return edges(a, x, total + rest)


def natural(a: Arithmetic, x: Any, more: Any = 0.0) -> Any:
    """ln x + more for 0 < x < ∞, where `more` is small beside 1."""
    e, *s = fraction(a, x)
    high, low = log_of_fraction(a, *s)
    total, rest = quick_sum(a, e * LN2, high)
    return total + (rest + a.fma(e, LN2_REST, low + more))


def log(a: Arithmetic, x: Any) -> Any:
    """ln x."""
    return edges(a, x, natural(a, x))


def log2(a: Arithmetic, x: Any) -> Any:
    """log₂ x, exact for powers of 2."""
    return to_base(a, x, (1.0, 0.0), LOG2E)


def log10(a: Arithmetic, x: Any) -> Any:
    """log₁₀ x, exact for powers of 10."""
    return to_base(a, x, LOG10_2, LOG10E)


def log_of_one_plus(a: Arithmetic, x: Any, lost: Any = 0.0) -> Any:
    """ln(1 + x + lost) for −1 < x < ∞ as ln u + c/u, with u the rounded sum and c what that lost."""
    u = 1.0 + x
    from_x = u - 1.0  # not `two_sum`: what this sum loses, float32 feels too
    c = (1.0 - (u - from_x)) + (x - from_x)
    return natural(a, u, (c + lost) / u)


def log1p(a: Arithmetic, x: Any) -> Any:
    """ln(1 + x), and x where it is so small that nothing else is left."""
    y = edges(a, 1.0 + x, log_of_one_plus(a, x))
    return a.select(a.size(x) < 2.0**-54, x, y)


def softplus(a: Arithmetic, x: Any) -> Any:
    """ln(1 + eˣ) as max(x, 0) + ln(1 + exp(−|x|))."""
    size = a.size(x)
    high, low, n = exp_in_two(a, -a.select(size > 746.0, 746.0, size))
    high, low = quick_sum(a, high, low)
    return a.select(x > 0.0, x, 0.0) + log_of_one_plus(a, scale(a, high, n), scale(a, low, n))
