"""Numbers in a page are rounded once, in decimals, so that what is equal but for float noise is printed alike."""

import math
import re
from decimal import ROUND_HALF_EVEN, Context, Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearhead.wording import number, percent

DECIMALS = st.builds(
    lambda digits, places: Decimal(digits).scaleb(-places), st.integers(-(10**9), 10**9), st.integers(0, 9)
)


@given(DECIMALS, st.integers(-3, 3))
def test_float_noise_never_changes_what_is_printed(decimal, noise):
    value = float(decimal)
    near = value
    for _ in range(abs(noise)):
        near = math.nextafter(near, math.copysign(math.inf, noise))
    assert number(near) == number(value) or value == 0


@given(DECIMALS.filter(lambda decimal: 1e-4 <= abs(decimal) < 10**6))
def test_four_decimals_are_half_to_even_of_the_decimal_number(decimal):
    assert Decimal(number(float(decimal))) == decimal.quantize(Decimal("0.0001"), ROUND_HALF_EVEN)
    assert re.fullmatch(r"-?\d+\.\d{4}", number(float(decimal)))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_says_its_value_and_its_sign(value):
    read, exact = Decimal(number(value)), Decimal(value)
    small = 0 < abs(value) < 1e-4 - 1e-15
    allowed = abs(exact) * Decimal("0.051" if small else "5.1e-4")
    assert abs(read - exact) <= (allowed if small else max(allowed, Decimal("5.0001e-5")))
    assert (number(value) == "0") == (value == 0)
    assert number(-value) == ("0" if value == 0 else number(value)[1:] if value < 0 else f"-{number(value)}")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.1 + 0.2, "0.3000"), (0.00005, "5.0e-05"), (0.12345, "0.1234"), (0.12355, "0.1236"),
        (0.1 + 0.02345, "0.1234"),
        (1.00005, "1.0000"), (1.00015, "1.0002"), (-0.0, "0"), (1e-4 - 1e-18, "0.0001"), (2.5e8, "2.500e+08"),
        (1e6 - 1e-9, "1.000e+06"), (-3e-7, "-3.0e-07"), (5e-324, "4.9e-324"), (1.7976e308, "1.798e+308"),
        (math.inf, "∞"), (-math.inf, "−∞"),
        (np.float32(0.1), "0.1000"), (1234.56785, "1234.5678"), (2.25e-05, "2.2e-05"), (2.35e-05, "2.4e-05"),
    ],
)  # fmt: skip
def test_numbers_at_their_borders(value, written):
    assert number(value) == written


@pytest.mark.parametrize(
    ("share", "written"),
    [
        (0, "0 %"), (1, "100.0 %"), (0.0689, "6.9 %"), (0.001, "0.1 %"), (0.5 - 1e-17, "50.0 %"), (0.00085, "0.085 %"),
        (0.000999, "0.10 %"), (0.00012, "0.012 %"), (0.0005, "0.050 %"), (0.00001, "0.0010 %"),
        (0.0000099, "< 0.001 %"),
        (1e-300, "< 0.001 %"), (0.99949, "99.9 %"), (0.9999, "> 99.9 %"), (1 - 1e-14, "100.0 %"),
        (0.0025 + 1e-18, "0.2 %"),
    ],
)  # fmt: skip
def test_percentages_are_read_without_exponents(share, written):
    assert percent(share) == written


@given(st.floats(0, 1))
def test_a_percentage_is_near_its_share_and_never_looks_like_none_or_all(share):
    said = percent(share)
    assert re.fullmatch(r"0 %|< 0\.001 %|> 99\.9 %|\d{1,3}\.\d %|0\.\d{2,4} %", said)
    value = float(said.strip("<>% "))
    allowed = (
        0.1 if said.startswith(">") else 0.0501 if share >= 1e-3 else 0.001 if said.startswith("<") else 5.1 * share
    )
    assert abs(value - 100 * share) <= allowed
    twelve = Context(prec=12).create_decimal_from_float(share)
    assert (said == "0 %") == (share == 0)
    assert (said == "100.0 %") == (twelve == 1)
