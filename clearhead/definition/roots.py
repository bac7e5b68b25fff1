"""The cube root: of a polynomial and two Newton steps for a number between ½ and 4, and a third of the exponent."""

from typing import Any

from clearhead.definition.arithmetic import (
    SHIFT,
    Arithmetic,
    Fit,
    integer_as_float,
    nearest_integer,
    polynomial,
    power_of_two_float,
    product,
)
from clearhead.definition.logarithms import INFINITY

CUBE_ROOT_OF_2 = 1.2599210498948732
MANTISSA, ONE_BITS = (1 << 52) - 1, 1023 << 52

# 1/∛m for 1 ≤ m ≤ 2, from the start of Newton's steps
ROOT = Fit(
    (1.7776471684890054, -1.5540274077106597, 1.2271496200207155, -0.5865141615889806,
     0.15224956438221762, -0.016511679091286462),
    (1.53776026627287, -0.8012745696637373, 0.3118472681731596, -0.04863305334283885),
)  # fmt: skip


def cbrt(a: Arithmetic, x: Any) -> Any:
    """∛x with the sign of x, as 2ⁿ·∛t with |x| = 2³ⁿ·t and ½ ≤ t < 4."""
    size = a.size(x)
    subnormal = size < 2.0**-1022
    bits = a.bits(a.select(subnormal, size * 2.0**54, size))
    e = integer_as_float(a, bits >> 52) - 1023.0
    n, whole = nearest_integer(a, a.fma(e, 1 / 3, SHIFT))
    rest = a.fma(n, -3.0, e)  # −1, 0 or 1
    t = a.of_bits(bits - (whole + whole + whole << 52))
    m = a.of_bits((bits & MANTISSA) + ONE_BITS)
    start = polynomial(a, m, ROOT)
    z = start * a.select(rest < 0.0, CUBE_ROOT_OF_2, a.select(rest > 0.0, 1 / CUBE_ROOT_OF_2, 1.0))
    third = z * (1 / 3)
    z = a.fma(a.fma(-t, z * z * z, 1.0), third, z)  # 1/∛t: what t·z³ lacks of 1 is three times what z lacks
    square = z * z
    y = t * square
    # The same for y, whose cube is taken in two parts; what it lacks of t is 3y² times what y lacks.
    p, low = product(a, y, y)
    y = a.fma(a.fma(-y, low, a.fma(-y, p, t)), square * (1 / 3), y)
    y = y * power_of_two_float(a, whole) * a.select(subnormal, 2.0**-18, 1.0)
    return a.select((size > 0.0) & (size < INFINITY), a.signed(y, x), x)
