"""Functions of score rules at zeros, infinities and what is not a number: as C99's annex F has them, signs included."""

import math

import numpy as np
import pytest

from clearhead.definition.elementary import Functions

INF, NAN = math.inf, math.nan
HALF, QUARTER = math.pi / 2, math.pi / 4
DTYPES = [np.float32, np.float64]
X = [0.0, -0.0, INF, -INF, NAN, 1.0, -1.0, -2.0]
WANTED = {
    "cbrt": [0.0, -0.0, INF, -INF, NAN, 1, -1, -(2 ** (1 / 3))],
    "exp": [1, 1, INF, 0, NAN, math.e, 1 / math.e, math.exp(-2)],
    "exp2": [1, 1, INF, 0, NAN, 2, 0.5, 0.25],
    "expm1": [0.0, -0.0, INF, -1, NAN, math.expm1(1), math.expm1(-1), math.expm1(-2)],
    "log": [-INF, -INF, INF, NAN, NAN, 0, NAN, NAN],
    "log2": [-INF, -INF, INF, NAN, NAN, 0, NAN, NAN],
    "log10": [-INF, -INF, INF, NAN, NAN, 0, NAN, NAN],
    "log1p": [0.0, -0.0, INF, NAN, NAN, math.log(2), -INF, NAN],
    "softplus": [math.log(2), math.log(2), INF, 0, NAN, *(math.log1p(math.exp(x)) for x in X[5:])],
    "sigmoid": [0.5, 0.5, 1, 0, NAN, 1 / (1 + 1 / math.e), 1 / (1 + math.e), 1 / (1 + math.exp(2))],
    "sin": [0.0, -0.0, NAN, NAN, NAN, math.sin(1), -math.sin(1), -math.sin(2)],
    "cos": [1, 1, NAN, NAN, NAN, math.cos(1), math.cos(1), math.cos(2)],
    "tan": [0.0, -0.0, NAN, NAN, NAN, math.tan(1), -math.tan(1), -math.tan(2)],
    "asin": [0.0, -0.0, NAN, NAN, NAN, HALF, -HALF, NAN],
    "acos": [HALF, HALF, NAN, NAN, NAN, 0, math.pi, NAN],
    "atan": [0.0, -0.0, HALF, -HALF, NAN, QUARTER, -QUARTER, -math.atan(2)],
    "sinh": [0.0, -0.0, INF, -INF, NAN, math.sinh(1), -math.sinh(1), -math.sinh(2)],
    "cosh": [1, 1, INF, INF, NAN, math.cosh(1), math.cosh(1), math.cosh(2)],
    "tanh": [0.0, -0.0, 1, -1, NAN, math.tanh(1), -math.tanh(1), -math.tanh(2)],
    "erf": [0.0, -0.0, 1, -1, NAN, math.erf(1), -math.erf(1), -math.erf(2)],
    "erfc": [1, 1, 0, 2, NAN, math.erfc(1), math.erfc(-1), math.erfc(-2)],
}  # fmt: skip


def check(got, wanted, dtype):
    """Equal to the last digits, zeros with their signs."""
    wanted = np.array(wanted, dtype)
    assert np.array_equal(np.isnan(got), np.isnan(wanted))
    special = (wanted == 0) | np.isinf(wanted)
    assert np.array_equal(got[special], wanted[special])
    assert np.array_equal(np.signbit(got[wanted == 0]), np.signbit(wanted[wanted == 0]))
    assert np.allclose(got, wanted, rtol=4 * np.finfo(dtype).eps, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", WANTED)
def test_functions_of_one_number(name, dtype):
    check(getattr(Functions, name)(np.array(X, dtype)), WANTED[name], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["expm1", "log1p", "sin", "tan", "asin", "atan", "sinh", "tanh"])
def test_the_smallest_numbers_are_their_own_result(name, dtype):
    x = np.array([1, -1, 3, -77], dtype) * np.finfo(dtype).smallest_subnormal
    assert np.array_equal(getattr(Functions, name)(x), x)


SIDES = [0.0, -0.0, 1.0, -1.0, INF, -INF, NAN]


@pytest.mark.parametrize("dtype", DTYPES)
def test_atan2_knows_every_quadrant_and_axis(dtype):
    info = np.finfo(dtype)
    sides = [*SIDES, float(info.max), -float(info.max), float(info.smallest_subnormal)]
    y, x = (np.array(side, dtype).ravel() for side in np.meshgrid(sides, sides))
    check(Functions.atan2(y, x), [math.atan2(*pair) for pair in zip(y, x, strict=True)], dtype)


def power(x, y):
    """C's pow, where Python raises an error."""
    if x == 1 or y == 0:
        return 1.0
    if x == 0 and y < 0:
        return math.copysign(INF, x) if abs(y) < INF and y % 2 == 1 else INF
    if -INF < x < 0 and abs(y) < INF and y % 1:
        return NAN
    return math.pow(x, y)


@pytest.mark.parametrize("dtype", DTYPES)
def test_pow_is_right_where_no_logarithm_helps(dtype):
    numbers = [*SIDES, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0, 2.5, -2.5]
    x, y = (np.array(side, dtype).ravel() for side in np.meshgrid(numbers, numbers))
    check(Functions.pow(x, y), [power(*pair) for pair in zip(x.tolist(), y.tolist(), strict=True)], dtype)


def test_large_exponents_are_odd_or_even_as_their_last_bit_says():
    y = np.array([2.0**53 - 1, 2.0**53, 2.0**52 + 1, 2.0**52, 2.0**60])
    assert Functions.pow(np.full_like(y, -1), y).tolist() == [-1, 1, -1, 1, 1]
