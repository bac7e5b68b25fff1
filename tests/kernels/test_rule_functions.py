"""Functions in fused rules: the canonical bits on every instruction set, the definition's gradients and tangents."""

import math
from itertools import product

import numpy as np
import pytest

from clearhead import Direction, attend, causal, functions, where
from clearhead.definition import canonical
from clearhead.definition.gradient import gradients
from clearhead.definition.tangent import second
from clearhead.machine.target import native_isas
from clearhead.testing import check_same_bits, using_isa
from tests.kernels.combinations import in_turns

SLOPES = np.array([0.3, -0.7, 1.4])
TABLE = np.linspace(-1, 1, 8)
RULES = {
    "units": lambda s, b, h, q, k: functions.gelu(s) + functions.silu(s) * functions.softplus(s, beta=2),
    "tables": lambda s, b, h, q, k: s * functions.gelu(SLOPES[h], approximate="tanh") + np.sin(TABLE[k % 8]),
    "waves": lambda s, b, h, q, k: s + np.sin(s * SLOPES[h]) * np.cos(q * 0.1) + np.arctan2(s, k + 1.0),
    "inverse": lambda s, b, h, q, k: np.arcsin(np.tanh(s)) + np.arccos(np.tanh(s) / 2) * np.arctan(k - q),
    "powers": lambda s, b, h, q, k: s**2 - abs(s) ** 1.5 / (abs(q - k) + 1.0) ** -0.5 + 1.1**s + 2.0 ** (0.1 * s),
    "errors": lambda s, b, h, q, k: functions.erf(s) * functions.erfc(0.1 * (q - k)) + np.expm1(0.1 * s),
    "logarithms": lambda s, b, h, q, k: s - np.log2(abs(q - k) + 1) + np.log1p(s * s) - np.log10(1 + k),
    "hyperbolic": lambda s, b, h, q, k: np.sinh(0.2 * s) + np.cosh(0.3 * s) - np.tan(0.1 * np.tanh(s)),
    "roots": lambda s, b, h, q, k: np.cbrt(s) * np.cbrt(q - k + 0.5) + np.sinc(s) + np.sinc(0.1 * (q - k)),
    "rounding": lambda s, b, h, q, k: np.floor(s * 2) + np.ceil(s) - np.rint(s * 4) / 4 + np.trunc(q * 0.3),
    "remainders": lambda s, b, h, q, k: s % 0.7 + np.fmod(s, 0.3) + s // 0.9 - (q - k) % 3 + np.copysign(0.5, s),
    "indices": lambda s, b, h, q, k: s + TABLE[math.floor(abs(s) * 3) % 8] + TABLE[round(k * 0.2) % 8],
}  # fmt: skip
JUMPS = ("rounding", "remainders", "indices")


def random(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


# Each rule in one kernel of float32, on an instruction set in turns, for many queries or few; in float64, below. Each
# function alone has the definition's bits in both dtypes on all of them in tests/rules/test_elementary_bits.py.
@pytest.mark.parametrize(("name", "way"), in_turns(RULES, product(native_isas(), [70, 2]), 1))
def test_functions_give_the_canonical_bits(name, way):
    isa, queries = way
    q, k = random(3, queries, 4, dtype=np.float32), random(3, 90, 4, dtype=np.float32, seed=1)
    rule = {"mask": causal(align="end"), "score": RULES[name]}
    with using_isa(isa):
        check_same_bits(attend(q, k, k, **rule).output, canonical.attention(q, k, k, **rule)[0], name)


@pytest.mark.parametrize("isa", native_isas())
def test_functions_in_masks_give_the_canonical_bits(isa):
    def seen(batch, head, query, key):
        return (
            (np.sin(query * 0.7) > np.cos(key * 0.3)) | (math.floor(key * 0.4) == query) | np.logical_and(head, key < 3)
        )

    q = random(3, 70, 4, dtype=np.float32)
    with using_isa(isa):
        check_same_bits(attend(q, q, q, mask=where(seen)).output, canonical.attention(q, q, q, mask=where(seen))[0])


@pytest.mark.parametrize("name", sorted(set(RULES) - set(JUMPS)))
def test_gradients_and_tangents_are_the_definition_s(name):
    q, k, v, d_out = (random(3, 20, 4, seed=n) for n in range(4))
    rule = {"mask": causal(), "score": RULES[name]}
    done = attend(q, k, v, **rule)
    check_same_bits(done.output, canonical.attention(q, k, v, **rule)[0], name)
    found, wanted = done.backward(d_out), gradients(q, k, v, d_out, **rule)
    for x in ("q", "k", "v"):
        np.testing.assert_allclose(getattr(found, x), getattr(wanted, x), rtol=1e-9, atol=1e-11)
    for mine, theirs in zip(found.rules[0], wanted.rules[0], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-11)
    along = Direction(*(random(3, 20, 4, seed=n) for n in range(4, 7)))
    changed, wanted_change = done.second(d_out, None, along), second(q, k, v, d_out, np.zeros((3, 20)), along, **rule)
    np.testing.assert_allclose(changed.gradients.q, wanted_change.gradients.q, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", JUMPS)
def test_gradients_between_jumps_are_those_of_finite_differences(name):
    q, k, d_out = random(3, 8, 4), random(3, 8, 4, seed=1), random(3, 8, 4, seed=2)

    def loss(x):
        return (canonical.attention(x, k, k, score=RULES[name])[0] * d_out).sum()

    done = attend(q, k, k, score=RULES[name])
    check_same_bits(done.output, canonical.attention(q, k, k, score=RULES[name])[0], name)
    found = done.backward(d_out).q
    for at in ((0, 1, 2), (1, 7, 0), (2, 3, 3)):
        step = np.zeros_like(q)
        step[at] = 1e-6
        np.testing.assert_allclose(found[at], (loss(q + step) - loss(q - step)) / 2e-6, rtol=1e-5, atol=1e-8)
