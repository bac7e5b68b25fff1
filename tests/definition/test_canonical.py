"""The canonical program against the textbook; its arithmetic against exact numbers."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearhead import causal, full
from clearhead.definition import canonical, elementary, textbook
from clearhead.definition.fma import fma
from clearhead.rules.masks import visible
from clearhead.testing import check_definition, check_same_bits
from tests.strategies import Case, cases

finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
finite64 = st.floats(width=64, allow_nan=False, allow_infinity=False)


def nearest(exact: Fraction, dtype: type) -> float:
    """The float nearest to a rational number, ties to even, as the processor would round it."""
    digits, lowest, highest = (24, -149, 128) if dtype is np.float32 else (53, -1074, 1024)
    size, exponent = abs(exact), lowest
    while size >= Fraction(2) ** (exponent + digits):
        exponent += 1
    value = round(size / Fraction(2) ** exponent) * Fraction(2) ** exponent  # a Fraction rounds to even
    sign = 1 if exact >= 0 else -1
    return sign * (float(value) if value < Fraction(2) ** highest else math.inf)


@pytest.mark.parametrize(("dtype", "numbers"), [(np.float32, finite32), (np.float64, finite64)])
def test_fma_rounds_once(dtype, numbers):
    @given(numbers, numbers, numbers, st.booleans())
    def check(a, b, c, cancel):
        a, b, c = dtype(a), dtype(b), dtype(c)
        if cancel:
            with np.errstate(all="ignore"):
                c = -(a * b)
            if not np.isfinite(c):
                return
        exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
        assert float(fma(a, b, c)) == nearest(exact, dtype)

    check()


def test_fma_keeps_infinities_and_nan():
    for dtype in (np.float32, np.float64):
        inf, one, zero = dtype(np.inf), dtype(1), dtype(0)
        assert fma(inf, one, one) == inf
        assert np.isnan(fma(inf, zero, one))
        assert np.isnan(fma(inf, one, -inf))
        assert np.isnan(fma(dtype(np.nan), one, one))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exp_errs_less_than_rounding_its_argument_would(dtype):
    x = np.concatenate([-np.geomspace(1e-8, 86.9, 20001), np.linspace(-2, 0, 20001)]).astype(dtype)
    error = np.abs(elementary.exp(x) / np.exp(x.astype(np.longdouble)) - 1)
    assert np.max(error - np.spacing(np.abs(x))) <= np.finfo(dtype).eps


def test_exp_of_zero_is_one_and_of_very_little_nothing():
    for dtype, floor in ((np.float32, -87), (np.float64, -708)):
        x = np.array([0.0, -0.0, floor, np.nextafter(dtype(floor), dtype(-np.inf)), -np.inf, np.nan], dtype)
        e = elementary.exp(x)
        assert e[:2].tolist() == [1.0, 1.0]
        assert e[2] > 0
        assert e[3:5].tolist() == [0.0, 0.0]
        assert np.isnan(e[5])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_is_within_two_units_in_the_last_place(dtype):
    x = np.concatenate([np.geomspace(1, 1e30, 20001), np.linspace(1, 3, 20001)[1:]]).astype(dtype)
    exact = np.log(x.astype(np.longdouble))
    spacing = np.spacing(exact.astype(dtype)).astype(np.longdouble)
    assert np.max(np.abs(elementary.log(x) - exact) / spacing) <= 2
    assert elementary.log(np.array([0.0, 1.0], dtype)).tolist() == [-np.inf, 0.0]


def output(q, k, v, **rules):
    return canonical.attention(q, k, v, **rules)[0]


@given(
    cases(
        kinds=st.sampled_from(["normal", "large", "tiny", "equal", "zeros", "orthogonal"]),
        lengths=st.integers(1, 60),
    )
)
def test_it_computes_what_the_textbook_says(case: Case):
    check_definition(output, *case.arrays(), mask=case.mask, scale=case.scale)


@pytest.mark.parametrize("keys", [127, 128, 129, 2047, 2048, 2049, 4500])
def test_blocks_and_segments_change_nothing_but_rounding(keys):
    rng = np.random.default_rng(keys)
    q, k, v = rng.standard_normal((3, 4)), rng.standard_normal((keys, 4)), rng.standard_normal((keys, 2))
    for mask in (causal(align="end"), full()):
        y, lse = canonical.attention(q, k, v, mask=mask)
        seen = visible(mask, 3, keys)
        assert y == pytest.approx(textbook.attention(q, k, v, mask=mask), abs=1e-14)
        assert lse == pytest.approx(textbook.log_sum_exp(textbook.scores(q, k, 0.5), seen), abs=1e-13)


def test_rows_do_not_know_of_each_other():
    rng = np.random.default_rng(5)
    q, k, v = (rng.standard_normal((40, 3)).astype(np.float32) for _ in range(3))
    whole, _ = canonical.attention(q, k, v)
    for row in (0, 7, 39):
        alone, _ = canonical.attention(q[row : row + 1], k[: row + 1], v[: row + 1], mask=causal(align="end"))
        check_same_bits(whole[row : row + 1], alone)
