"""xʸ for floats, as exp(y·ln|x|) with the logarithm and the product in two parts, and with the special cases of C99."""

from typing import Any

from clearhead.definition.arithmetic import Arithmetic, polynomial, product, quick_sum, scale
from clearhead.definition.exponentials import LN2, LN2_REST, exp_in_two
from clearhead.definition.logarithms import INFINITY, LOG, NAN, fraction, log_of_fraction

THIRDS = 0.6666666666666666, 3.700743415417188e-17  # 2/3
MOST = 750.0  # exp of this is ∞, and of minus this 0


def log_more_precisely(a: Arithmetic, s: Any, s_low: Any) -> tuple[Any, Any]:
    """2s + ⅔s³ + s⁵·LOG(s²) in two parts, to about 65 bits: each power of s too is kept in two."""
    square, square_low = product(a, s, s)
    square_low = a.fma(s + s, s_low, square_low)
    cube, cube_low = product(a, s, square)
    cube_low = cube_low + a.fma(s, square_low, s_low * square)
    fifth, fifth_low = product(a, cube, square)
    fifth_low = fifth_low + a.fma(cube, square_low, cube_low * square)
    third, third_low = product(a, cube, THIRDS[0])
    third_low = third_low + a.fma(cube, THIRDS[1], cube_low * THIRDS[0])
    high, low = quick_sum(a, s + s, third)
    factor = polynomial(a, square, LOG)
    low = low + a.fma(fifth, factor, a.fma(fifth_low, factor, third_low + (s_low + s_low)))
    return quick_sum(a, high, low)


def log_in_two(a: Arithmetic, x: Any) -> tuple[Any, Any]:
    """ln x in two parts, for 0 < x < ∞."""
    e, *s = fraction(a, x)
    high, low = log_of_fraction(a, *s) if a.narrow else log_more_precisely(a, *s)
    total, rest = quick_sum(a, e * LN2, high)
    return quick_sum(a, total, rest + a.fma(e, LN2_REST, low))


def whole(a: Arithmetic, size: Any) -> Any:
    """Whether a number ≥ 0 is whole; ∞ and all numbers from 2⁵² on are."""
    return (size >= 2.0**52) | ((size + 2.0**52) - 2.0**52 == size)


def exp_of_product(a: Arithmetic, y: Any, high: Any, low: Any) -> Any:
    """exp(y·(high + low))."""
    p = y * high
    lost = y * low if a.narrow else a.fma(y, high, -p) + y * low
    inside = a.select(p > MOST, MOST, a.select(p < -MOST, -MOST, p))
    high, low, n = exp_in_two(a, inside, a.select(a.size(p) < MOST, lost, 0.0))
    return scale(a, high + low, n)


def pow(a: Arithmetic, x: Any, y: Any) -> Any:
    """xʸ; a negative x needs a whole y, and its result is negative for odd ones."""
    base, size = a.size(x), a.size(y)
    result = exp_of_product(a, y, *log_in_two(a, base))
    falls = y < 0.0
    grows = ((base > 1.0) & ~falls) | ((base < 1.0) & falls)
    extreme = (base == 0.0) | (base == INFINITY) | (size == INFINITY)
    result = a.select(extreme, a.select(grows, INFINITY, a.select(base == 1.0, 1.0, 0.0)), result)
    integral = whole(a, size)
    odd = integral & ~whole(a, size * 0.5)
    result = a.select((a.bits(x) < 0) & odd, -result, result)
    result = a.select((x < 0.0) & (base < INFINITY) & ~integral, NAN, result)
    result = a.select((x != x) | (y != y), x + y, result)
    return a.select((x == 1.0) | (y == 0.0), 1.0, result)
