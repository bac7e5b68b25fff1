"""Rounding to whole numbers and remainders of floats as vectors: exact, so that they need no program in the definition.

Decides how they are done with additions alone: instructions that round are missing from the oldest processors, and
LLVM would call a library instead.
"""

import math
from collections.abc import Callable

from clearhead.kernels.ir.code import Code
from clearhead.kernels.ir.math import constants
from clearhead.kernels.ir.values import Vector, fma


def whole_size(f: Code, x: Vector) -> tuple[Vector, Vector]:
    """|x|, and |x| rounded to the nearest whole number, halves to even: floats that are large have none in between."""
    size = x.size()
    large = f.constant(2.0 ** constants(f).mantissa_bits)
    rounded = size + large - large
    return size, (size < large).choose(rounded, size)


def nearest(f: Code, x: Vector) -> Vector:
    """x rounded to a whole number, halves to even, with the sign of x."""
    return whole_size(f, x)[1].signed(x)


def toward_zero(f: Code, x: Vector) -> Vector:
    """x without its fraction."""
    size, rounded = whole_size(f, x)
    return (rounded > size).choose(rounded - 1.0, rounded).signed(x)


def floor(f: Code, x: Vector) -> Vector:
    """The largest whole number that is not above x."""
    rounded = nearest(f, x)
    return (rounded > x).choose(rounded - 1.0, rounded)


def ceil(f: Code, x: Vector) -> Vector:
    """The smallest whole number that is not below x; −0 from −1 on."""
    rounded = nearest(f, x)
    raised = (rounded + 1.0).signed(x)
    return (rounded < x).choose(raised, rounded)


def copysign(_: Code, x: Vector, sign: Vector) -> Vector:
    """|x| with the sign of another."""
    return x.signed(sign)


def fmod(f: Code, x: Vector, y: Vector) -> Vector:
    """What is left of x when |y| is taken away as often as it can be, with the sign of x.

    Each round takes away whole multiples of |y|·2ᵏ that a float's digits count exactly, until no lane has |y| left.
    """
    start, step = x.size(), y.size()
    possible = (start < math.inf) & (step > 0.0)
    start = possible.choose(start, f.constant(0.0))  # so that lanes without an answer are done at once
    left = f.until_done(start, lambda left: left >= step, lambda left: taken_away(f, left, step))
    return possible.choose(left, f.constant(math.nan)).signed(x)


def taken_away(f: Code, left: Vector, step: Vector) -> Vector:
    """`left` without a multiple of `step`, for left ≥ step: most of what it has, or all."""
    bits = constants(f).mantissa_bits
    most = f.constant(2.0 ** (constants(f).bias - 7))
    for _ in range(2):  # quotients may be larger than any float
        beyond = left / step == math.inf
        step = beyond.choose(step * most, step)
    quotient = left / step
    exponent = quotient.bits() & -1 << bits
    factor = exponent.floats() * 2.0 ** (2 - bits)  # a power of two
    step = step * (factor > 1.0).choose(factor, f.constant(1.0))
    times = toward_zero(f, left / step)
    rest = fma(-times, step, left)
    return (rest < 0.0).choose(rest + step, rest)


def remainder(f: Code, x: Vector, y: Vector) -> Vector:
    """Python's %: what floor division leaves, with the sign of y."""
    left = fmod(f, x, y)
    apart = (left < 0.0) ^ (y < 0.0)
    moved = apart.choose(left + y, left)
    return (left == 0.0).choose(f.constant(0.0).signed(y), moved)


def floor_division(f: Code, x: Vector, y: Vector) -> Vector:
    """Python's //: the quotient of x without its remainder, which is whole but for rounding; by 0 the quotient."""
    left, quotient = fmod(f, x, y), x / y
    whole = (x - left) / y
    apart = (left < 0.0) ^ (y < 0.0)
    apart = apart & (left != 0.0)
    whole = apart.choose(whole - 1.0, whole)
    below = floor(f, whole)
    below = (whole - below > 0.5).choose(below + 1.0, below)
    below = (whole == 0.0).choose(f.constant(0.0).signed(quotient), below)
    return (y == 0.0).choose(quotient, below)


ROUNDING_EMITTERS: dict[str, Callable[..., Vector]] = {
    "floor": floor,
    "ceil": ceil,
    "round": nearest,
    "trunc": toward_zero,
    "copysign": copysign,
    "fmod": fmod,
}
