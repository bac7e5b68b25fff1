"""Functions of score rules are as close to the exact value as docs/functions.md says."""

import numpy as np
import pytest

from clearhead.definition.elementary import Functions
from clearhead.kernels.ir import math
from tests.rules.exact import BOUNDS, EXACT, angles_near_quarter_turns, arguments, worst

DTYPES = [np.float32, np.float64]


def test_the_page_has_every_function_and_no_bound_above_two_units():
    assert set(BOUNDS) == set(math.FUNCTION_EMITTERS) == set(EXACT)
    assert all(0.5 <= bound <= 2 for bounds in BOUNDS.values() for bound in bounds.values())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", EXACT)
def test_errors_stay_below_the_bounds_of_the_page(name, dtype):
    error, where = worst(name, *arguments(name, dtype, 4000, seed=0))
    assert error <= BOUNDS[name][np.dtype(dtype).name], where


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_angles_closest_to_quarter_turns_keep_their_digits(name, dtype):
    x = angles_near_quarter_turns(dtype)
    assert x.min() < 1 < np.sqrt(np.finfo(dtype).max) < x.max()
    error, where = worst(name, np.concatenate([x, -x]))
    assert error <= BOUNDS[name][np.dtype(dtype).name], where


def test_the_tail_of_erfc_keeps_its_digits():
    error, where = worst("erfc", np.linspace(20, 27.3, 2000))
    assert error <= BOUNDS["erfc"]["float64"], where


@pytest.mark.parametrize("name", ["exp", "exp2", "expm1", "sinh", "cosh", "pow"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_last_finite_result_and_the_first_infinite_one_are_right(name, dtype):
    edge = {"exp2": 1.0}.get(name, np.log(2)) * np.finfo(dtype).maxexp + (np.log(2) if name in ("sinh", "cosh") else 0)
    x = np.asarray(edge if name != "pow" else edge / np.log(3), dtype)
    x = x + np.arange(-20, 21, dtype=dtype) * np.spacing(x)
    both = (np.full_like(x, 3), x) if name == "pow" else (x,)
    error, where = worst(name, *both)
    assert error <= BOUNDS[name][np.dtype(dtype).name], where


@pytest.mark.parametrize("dtype", DTYPES)
def test_whole_results_are_exact(dtype):
    n = np.arange(-37, 38).astype(dtype)
    assert np.array_equal(Functions.exp2(n), np.ldexp(dtype(1), n.astype(int)))
    assert np.array_equal(Functions.log2(np.ldexp(dtype(1), n.astype(int))), n)
    assert np.array_equal(Functions.cbrt(n**3), n)
    tens = np.array([10.0**k for k in range(11)], dtype)
    assert np.array_equal(Functions.log10(tens), np.arange(11))
    assert np.array_equal(Functions.pow(np.arange(-9, 10).astype(dtype), dtype(3)), np.arange(-9, 10.0) ** 3)
