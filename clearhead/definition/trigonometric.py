"""sin, cos and tan for every angle: reduced to within π/4 first, then two polynomials."""

from typing import Any

from clearhead.definition.angles import reduce
from clearhead.definition.arithmetic import Arithmetic, Fit, polynomial, quick_sum

# sin(r) = r + r³·SINE(r²) and cos(r) = 1 − r²/2 + r⁴·COSINE(r²) for |r| ≤ π/4
SINE = Fit(
    (-0.16666666666666666, 0.008333333333333331, -0.0001984126984126506, 2.7557319219335453e-06,
     -2.5052106231157904e-08, 1.605853141458901e-10, -7.586685070091267e-13),
    (-0.16666666666663882, 0.008333333331077422, -0.0001984126691523504, 2.7555990399839905e-06,
     -2.4805587179980646e-08),
)  # fmt: skip
COSINE = Fit(
    (0.041666666666666664, -0.0013888888888887395, 2.4801587298763433e-05, -2.7557317270560326e-07,
     2.0876146024689747e-09, -1.1382614868556325e-11),
    (0.04166666666431933, -0.0013888887671288108, 2.480059998353171e-05, -2.7300908167996537e-07),
)  # fmt: skip
TINY = 2.0**-27  # below, sin x and tan x are x


def sine(a: Arithmetic, r: Any, low: Any) -> tuple[Any, Any]:
    """sin(r + low) in two parts."""
    square = r * r
    return r, a.fma(r * square, polynomial(a, square, SINE), a.fma(low * -0.5, square, low))


def cosine(a: Arithmetic, r: Any, low: Any) -> tuple[Any, Any]:
    """cos(r + low) in two parts."""
    square = r * r
    total, rest = quick_sum(a, 1.0, square * -0.5)
    tail = a.fma(square * square, polynomial(a, square, COSINE), -(r * low))
    return total, rest + tail


def of_quadrant(a: Arithmetic, x: Any, turns: int) -> Any:
    """sin(x + turns·π/2)."""
    n, r, low = reduce(a, x)
    n = n + turns
    (s, s_low), (c, c_low) = sine(a, r, low), cosine(a, r, low)
    y = a.select((n & 1) == 0, s + s_low, c + c_low)
    return a.select((n & 2) == 0, y, -y)


def sin(a: Arithmetic, x: Any) -> Any:
    """The sine, x where it is so small that nothing else is left."""
    return a.select(a.size(x) < TINY, x, of_quadrant(a, x, 0))


def cos(a: Arithmetic, x: Any) -> Any:
    """The cosine."""
    return of_quadrant(a, x, 1)


def tan(a: Arithmetic, x: Any) -> Any:
    """The tangent: sine by cosine, or minus cosine by sine, with what the quotient lost put back."""
    n, r, low = reduce(a, x)
    even = (n & 1) == 0
    sines, cosines = quick_sum(a, *sine(a, r, low)), quick_sum(a, *cosine(a, r, low))
    over, over_low = (a.select(even, s, -c) for s, c in zip(sines, cosines, strict=True))
    under, under_low = (a.select(even, c, s) for s, c in zip(sines, cosines, strict=True))
    inverse = 1.0 / under
    y = over * inverse
    if not a.narrow:
        y = a.fma(a.fma(-y, under_low, a.fma(-y, under, over) + over_low), inverse, y)
    return a.select(a.size(x) < TINY, x, y)
