"""asin, acos, atan and atan2: each a multiple of π/4 and the function of an argument that is small."""

from typing import Any

from clearhead.definition.arithmetic import Arithmetic, Fit, polynomial, quick_sum, two_sum

QUARTER_PI = float.fromhex("0x1.921fb54442d18p-1"), 3.061616997868383e-17  # so that four times the first are exact

# atan(q) = q + q³·ATAN(q²) for |q| ≤ tan(π/8)
ATAN = Fit(
    (-0.3333333333333333, 0.19999999999999804, -0.14285714285659779, 0.11111111105150588,
     -0.09090908753259112, 0.07692296368042296, -0.0666642476020052, 0.05878927554473807,
     -0.05230443640686948, 0.045515447340221615, -0.03456931506332609, 0.016284375050043393),
    (-0.33333333331439496, 0.19999998916690562, -0.14285612465275252, 0.11107493853432703,
     -0.09028967562110418, 0.07135234647464041, -0.04043033696147107),
)  # fmt: skip
# asin(u) = u + u³·ASIN(u²) for |u| ≤ ½
ASIN = Fit(
    (0.16666666666666666, 0.07500000000000118, 0.044642857142551895, 0.03038194447553234,
     0.02237215744350722, 0.017352816540325496, 0.01396378001220357, 0.011566459612121669,
     0.009621842970100282, 0.009319560794767446, 0.0030448799094556773, 0.019554513336123378,
     -0.01924167174674304, 0.02961201126495512),
    (0.16666666665495086, 0.07500000598829049, 0.044642358484883196, 0.030397634130580702,
     0.022132443623426794, 0.019306260869368045, 0.0054431851027481075, 0.02930523970533579),
)  # fmt: skip
EIGHTH = 0.41421356237309503, 2.414213562373095  # tan(π/8), tan(3π/8)
INFINITY = float("inf")


def beyond(a: Arithmetic, quarters: Any, x: Any, tail: Any) -> Any:
    """quarters·π/4 + x + tail, for x below π/4 where there are quarters."""
    total, rest = quick_sum(a, quarters * QUARTER_PI[0], x)
    return total + (rest + a.fma(quarters, QUARTER_PI[1], tail))


def angle(a: Arithmetic, y: Any, x: Any) -> tuple[Any, Any, Any]:
    """The angle of the point (x, y) with x, y ≥ 0, not both 0: quarters of π, and the rest in two parts."""
    steep, middle = y > x * EIGHTH[1], y > x * EIGHTH[0]
    over, over_low = two_sum(a, y, -x)
    under, under_low = two_sum(a, y, x)
    quarters = a.select(steep, 2.0, a.select(middle, 1.0, 0.0))
    over, under = a.select(steep, -x, a.select(middle, over, y)), a.select(steep, y, a.select(middle, under, x))
    inverse = 1.0 / under
    q = over * inverse
    square = q * q
    tail = (q * square) * polynomial(a, square, ATAN)
    if not a.narrow:  # what the sums and the quotient lost
        sums = a.select(middle & ~steep, a.fma(-q, under_low, over_low), 0.0)
        tail = a.fma(a.fma(-q, under, over) + sums, inverse, tail)
    return quarters, q, tail


def atan(a: Arithmetic, x: Any) -> Any:
    """The angle whose tangent is x, from −π/2 to π/2."""
    size = a.size(x)
    return a.signed(beyond(a, *angle(a, a.select(size > 2.0**60, 2.0**60, size), a.number(1.0))), x)


def atan2(a: Arithmetic, y: Any, x: Any) -> Any:
    """The angle of the point (x, y), from −π to π, with the signs of zeros and for infinite numbers as C99 has it."""
    height, width = a.size(y), a.size(x)
    infinite = (height == INFINITY) | (width == INFINITY)
    origin = (height == 0.0) & (width == 0.0)
    # Powers of two, so that no sum overflows and no quotient's rest is lost.
    largest = a.select(height > width, height, width)
    factor = a.select(largest > 2.0**1000, 2.0**-4, a.select(largest < 2.0**-900, 2.0**100, 1.0))
    top = a.select(infinite, a.select(height == INFINITY, 1.0, 0.0), height * factor)
    side = a.select(infinite, a.select(width == INFINITY, 1.0, 0.0), a.select(origin, 1.0, width * factor))
    quarters, q, tail = angle(a, top, side)
    left = a.bits(x) < 0
    quarters = a.select(left, 4.0 - quarters, quarters)
    result = beyond(a, quarters, a.select(left, -q, q), a.select(left, -tail, tail))
    return a.select((x != x) | (y != y), x + y, a.signed(result, y))


def half_angle(a: Arithmetic, size: Any) -> tuple[Any, Any, Any]:
    """asin(size) for size ≤ ½, else asin(√((1 − size)/2)), in two parts, and whether it is the former.

    The latter is (π/2 − asin(size))/2, and acos(size)/2.
    """
    near = size <= 0.5
    square = a.select(near, size * size, (1.0 - size) * 0.5)
    u = a.select(near, size, a.sqrt(square))
    tail = (u * square) * polynomial(a, square, ASIN)
    if not a.narrow:  # what the root lost
        lost = a.fma(-u, u, square) / (u + u)
        tail = tail + a.select(near | (square == 0.0), 0.0, lost)
    return u, tail, near


def asin(a: Arithmetic, x: Any) -> Any:
    """The angle whose sine is x, from −π/2 to π/2."""
    u, tail, near = half_angle(a, a.size(x))
    factor = a.select(near, 1.0, -2.0)
    return a.signed(beyond(a, a.select(near, 0.0, 2.0), factor * u, factor * tail), x)


def acos(a: Arithmetic, x: Any) -> Any:
    """The angle whose cosine is x, from 0 to π."""
    u, tail, near = half_angle(a, a.size(x))
    factor = a.select(near, a.select(x < 0.0, 1.0, -1.0), a.select(x < 0.0, -2.0, 2.0))
    quarters = a.select(near, 2.0, a.select(x < 0.0, 4.0, 0.0))
    return beyond(a, quarters, factor * u, factor * tail)
