"""The checkers check: each of these kernels is wrong in one way, and each must be caught."""

import numpy as np
import pytest

from clearhead import alibi, attend, attention, causal, dense, documents, full, softcap, testing, window
from clearhead.definition import textbook
from clearhead.machine.target import native_isas
from clearhead.testing import check_definition, check_hidden, check_invariance, check_same_bits

FEWEST = 4 + len(native_isas())  # numbers of threads, and instruction sets


def arrays(dtype=np.float32):
    return tuple(np.random.default_rng(seed).standard_normal((2, 70, 16)).astype(dtype) for seed in range(3))


def sees_one_too_many(q, k, v, **rules):
    return attention(q, np.roll(k, -1, axis=-2), np.roll(v, -1, axis=-2), **rules)


def sees_one_too_few(q, k, v, **rules):
    y = attention(q, k, v, **rules)
    y[..., 1:, :] = attention(q[..., 1:, :], k[..., :-1, :], v[..., :-1, :], mask=causal(align="start"))
    return y


def sees_all(q, k, v, *, mask, scale):
    return attention(q, k, v, mask=full(), scale=scale)


def forgets_the_scale(q, k, v, *, mask, scale):
    return attention(q, k, v, mask=mask, scale=1.0)


def drops_the_tail(q, k, v, **rules):
    y = attention(q, k, v, **rules)
    y[..., 64:, :] = 0
    return y


def drops_the_last_key(q, k, v, **rules):
    k = k.copy()
    k[..., -1, :] = -1e9
    return attention(q, k, v, **rules)


def forgets_the_maximum(q, k, v, *, mask, scale):
    seen = np.tri(q.shape[-2], dtype=bool)
    with np.errstate(all="ignore"):
        e = np.where(seen, np.exp(textbook.scores(q, k, q.shape[-1] ** -0.5)), 0)
        return (e / e.sum(axis=-1, keepdims=True)) @ v


def multiplies_hidden_values_by_zero(q, k, v, *, mask, scale):
    seen = np.tri(q.shape[-2], dtype=bool)
    return textbook.softmax(textbook.scores(q, k, q.shape[-1] ** -0.5), seen) @ v


def rounds_to_half(q, k, v, **rules):
    return attention(q, k, v, **rules).astype(np.float16).astype(np.float32)


def loses_a_row(q, k, v, **rules):
    return attention(q, k, v, **rules)[..., :-1, :]


def makes_nan(q, k, v, **rules):
    y = attention(q, k, v, **rules)
    y[0, 0, 0] = np.nan
    return y


def test_the_kernel_itself_passes():
    check_definition(attention, *arrays())
    check_hidden(attention, *arrays())


@pytest.mark.parametrize(
    "wrong",
    [sees_one_too_many, sees_one_too_few, sees_all, forgets_the_scale, drops_the_tail, drops_the_last_key,
     rounds_to_half, loses_a_row, makes_nan],
)  # fmt: skip
def test_wrong_results_are_caught(wrong):
    with pytest.raises(AssertionError):
        check_definition(wrong, *arrays())


def test_overflow_is_caught():
    q, k, v = arrays()
    with pytest.raises(AssertionError, match="not a number"):
        check_definition(forgets_the_maximum, q * 30, k * 30, v)


@pytest.mark.parametrize("leaky", [multiplies_hidden_values_by_zero, sees_all, sees_one_too_many])
def test_leaks_are_caught(leaky):
    with pytest.raises(AssertionError, match="hidden"):
        check_hidden(leaky, *arrays())


def test_one_bit_is_caught():
    a = np.ones(4, np.float32)
    b = a.copy()
    b[2] = np.nextafter(b[2], np.float32(2))
    with pytest.raises(AssertionError, match=r"1 of 4 places, first at \(2,\)"):
        check_same_bits(a, b)
    with pytest.raises(AssertionError):
        check_same_bits(a, a.astype(np.float64))


@pytest.mark.parametrize(
    ("dtype", "rules", "least"),
    [
        (np.float64, {}, 100),
        (np.float32, {"mask": window(20), "score": [alibi(2), softcap(3.0)]}, 100),
        (np.float64, {"mask": causal() & documents([30, 40])}, FEWEST),
        (np.float32, {"mask": full()}, FEWEST),
        (np.float64, {"mask": dense(np.tri(70, dtype=bool)), "sink": np.ones(2)}, FEWEST),
    ],
)
def test_invariance_holds_whatever_the_rules(dtype, rules, least):
    assert check_invariance(*arrays(dtype), **rules) >= least


def test_invariance_notices_one_bit(monkeypatch):
    calls = []

    def unsteady(*arguments, **rules):
        done = clearhead_attend(*arguments, **rules)
        calls.append(done)
        if len(calls) == 5:
            done.output.flat[7] = np.nextafter(done.output.flat[7], 9)
        return done

    clearhead_attend = attend
    monkeypatch.setattr(testing, "attend", unsteady)
    with pytest.raises(AssertionError, match=r"1 of 2240 places, first at \(0, 0, 7\)"):
        check_invariance(*arrays())
