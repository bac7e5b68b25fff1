"""The definition's gradients against finite differences, one element at a time."""

from typing import Any

import numpy as np
import pytest

from clearhead import alibi, bias, causal, documents, full, relative, softcap, window
from clearhead.definition import textbook
from clearhead.definition.gradient import gradients
from clearhead.definition.tangent import Direction, second

RNG = np.random.default_rng(0)
TABLE = RNG.standard_normal((2, 9))
SLOPES = RNG.standard_normal(2)
CASES: dict[str, dict[str, Any]] = {
    "causal": {},
    "scaled": {"scale": 0.7, "mask": full()},
    "window": {"mask": window(2)},
    "sink": {"sink": RNG.standard_normal(2)},
    "softcap": {"score": softcap(1.5)},
    "alibi": {"score": alibi(SLOPES)},
    "relative": {"score": relative(TABLE, 4)},
    "documents": {"score": relative(TABLE, 4), "mask": documents([2, 4]) & causal()},
    "several": {
        "score": [
            alibi(SLOPES),
            softcap(2.0),
            bias(RNG.standard_normal((2, 1, 6))),
            lambda s, b, h, q, k: s * SLOPES[h],
        ]
    },
}


def loss(q, k, v, d_out, d_lse, **rules):
    out = textbook.attention(q, k, v, **rules)
    shared = textbook.share_heads(k, q)
    s, seen = textbook.ruled_scores(
        q, shared, v.shape[:-2], rules.get("mask"), rules.get("score", ()), rules.get("scale")
    )
    sinks = textbook.sinks(rules.get("sink"), s)
    if sinks is not None:
        s = np.concatenate([np.where(seen, s, -np.inf), np.broadcast_to(sinks[..., None, :], (*s.shape[:-1], 1))], -1)
        seen = textbook.with_sink(seen)
    return (out * d_out).sum() + (textbook.log_sum_exp(s, seen) * d_lse).sum()


def differences(function, x):
    """Each element's central difference; x is changed in place and put back."""
    grad = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        before = x[at]
        x[at] = before + 1e-6
        up = function()
        x[at] = before - 1e-6
        grad[at] = (up - function()) / 2e-6
        x[at] = before
    return grad


@pytest.mark.parametrize("key_heads", [1, 2])
@pytest.mark.parametrize("name", sorted(CASES))
def test_gradients_are_those_of_finite_differences(name, key_heads):
    rules = CASES[name]
    q, k, v = (
        RNG.standard_normal((2, 6, 3)),
        RNG.standard_normal((key_heads, 6, 3)),
        RNG.standard_normal((key_heads, 6, 2)),
    )
    d_out, d_lse = RNG.standard_normal((2, 6, 2)), RNG.standard_normal((2, 6))
    got = gradients(q, k, v, d_out, d_lse, **rules)
    for x, grad in ((q, got.q), (k, got.k), (v, got.v), (rules.get("sink"), got.sink)):
        if x is not None:
            np.testing.assert_allclose(grad, differences(lambda: loss(q, k, v, d_out, d_lse, **rules), x), atol=1e-7)


@pytest.mark.parametrize("array", [SLOPES, TABLE], ids=["slopes", "table"])
def test_gradients_of_a_rules_array_are_those_of_finite_differences(array):
    q, k, v, d_out = (RNG.standard_normal((2, 6, 3)) for _ in range(4))
    lse = np.zeros((2, 6))

    if array is SLOPES:
        rule = lambda s, b, h, q, k: np.tanh(s * SLOPES[h])  # noqa: E731
    else:
        rule = lambda s, b, h, q, k: s * TABLE[h, k - q]  # noqa: E731
    got = gradients(q, k, v, d_out, score=rule).rules[0][0]
    np.testing.assert_allclose(got, differences(lambda: loss(q, k, v, d_out, lse, score=rule), array), atol=1e-7)


def test_what_is_hidden_has_no_part_and_who_sees_nothing_no_gradient():
    q, k, v, d_out = (RNG.standard_normal((5, 3)) for _ in range(4))
    before = gradients(q, k, v, d_out)
    later = [np.concatenate([x[:4], np.full((1, 3), poison)]) for x, poison in ((k, np.nan), (v, np.inf))]
    np.testing.assert_array_equal(before.q[:4], gradients(q, *later, d_out).q[:4])
    earlier = [np.concatenate([x[:1], np.full((1, 3), poison), x[2:]]) for x, poison in ((q, np.nan), (d_out, np.inf))]
    after = gradients(earlier[0], k, v, earlier[1])
    np.testing.assert_array_equal(before.k[2:], after.k[2:])
    np.testing.assert_array_equal(before.v[2:], after.v[2:])
    blind = gradients(q[2:4], k[:2], v[:2], d_out[2:4], mask=window(0, 0, align="end") & ~full())
    assert not np.any(blind.q)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("lowest", [-np.inf, 0.5])
def test_a_query_that_sees_nothing_moves_the_sink_by_its_log_sum_exp_alone(lowest):
    q, k, v, d_out = RNG.standard_normal((2, 6, 3)), *RNG.standard_normal((2, 2, 4, 3)), RNG.standard_normal((2, 6, 3))
    d_lse, rules = RNG.standard_normal((2, 6)), {"mask": causal(align="end"), "sink": np.array([lowest, 0.3])}
    want = gradients(q, k, v, d_out, d_lse, **rules)
    if np.isfinite(lowest):
        change = differences(lambda: loss(q, k, v, d_out, d_lse, **rules), rules["sink"])
        np.testing.assert_allclose(want.sink, change, atol=1e-7)
    else:
        assert want.sink[0] == 0
    d_out[:, :2] = np.nan  # queries before all keys
    np.testing.assert_array_equal(gradients(q, k, v, d_out, d_lse, **rules).sink, want.sink)
    along = Direction(*(np.ones_like(x) for x in (q, k, v)), sink=np.ones(2))
    moved = second(q, k, v, d_out, d_lse, along, **rules)
    assert all(np.isfinite(x).all() for x in (moved.output, moved.lse, moved.gradients.sink, moved.gradients.k))
