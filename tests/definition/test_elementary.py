"""The functions of score rules: within 2 units in the last place, and right at every special value."""

import numpy as np
import pytest

from clearhead.definition.elementary import Functions

WIDE = {np.float32: np.float64, np.float64: np.longdouble}


def exact_sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


EXACT = {"exp": np.exp, "log": np.log, "tanh": np.tanh, "sigmoid": exact_sigmoid}


def arguments(dtype):
    rng = np.random.default_rng(0)
    integers = np.int32 if dtype == np.float32 else np.int64
    info = np.iinfo(integers)
    far = 110 if dtype == np.float32 else 750
    x = np.concatenate([
        rng.integers(info.min, info.max, 3000, dtype=integers).view(dtype), rng.uniform(-far, far, 3000).astype(dtype),
        rng.uniform(-1, 1, 6000).astype(dtype), rng.uniform(-20, 20, 3000).astype(dtype),
        rng.uniform(0.7, 1.5, 3000).astype(dtype), rng.uniform(0.17, 0.3, 9000).astype(dtype),
        np.finfo(dtype).smallest_subnormal * np.arange(-9, 9).astype(dtype),
    ])  # fmt: skip
    x = x[np.isfinite(x)]
    return x[(np.abs(x) < 1e60) & ((np.abs(x) > 1e-60) | (x == 0))] if dtype == np.float64 else x


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", EXACT)
def test_functions_are_within_two_units_in_the_last_place(name, dtype):
    x = arguments(dtype)
    with np.errstate(all="ignore"):
        exact = EXACT[name](x.astype(WIDE[dtype]))
        got = getattr(Functions, name)(x)
        assert np.array_equal(np.isnan(got), np.isnan(exact))
        inside = np.abs(exact) <= np.finfo(dtype).max
        assert np.all(np.abs(got[np.isinf(exact.astype(dtype))]) == np.inf)
        error = np.abs(got[inside] - exact[inside]) / np.spacing(np.abs(exact[inside]).astype(dtype))
    worst = error.argmax()
    assert error[worst] <= 2, x[inside][worst]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_values(dtype):
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -1.0], dtype)
    results = {name: getattr(Functions, name)(x) for name in EXACT}
    assert results["exp"][:4].tolist() == [1, 1, np.inf, 0]
    assert results["log"][:3].tolist() == [-np.inf, -np.inf, np.inf]
    assert np.isnan(results["log"][3:]).all()
    assert results["tanh"][:4].tolist() == [0, 0, 1, -1]
    assert np.signbit(results["tanh"][:2]).tolist() == [False, True]
    assert results["sigmoid"][:4].tolist() == [0.5, 0.5, 1, 0]
    assert all(np.isnan(result[4]) for result in results.values())
