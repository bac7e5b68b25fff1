"""Numbers read at one place for all pairs: written down where they can be, plain numbers where they must be."""

import math

import numpy as np
import pytest

from clearhead import Direction, attend, bias, functions
from clearhead.definition.gradient import gradients
from clearhead.definition.tangent import second
from clearhead.rules.scores import NAMES
from clearhead.rules.trace import trace


def random(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


TABLE, ALONE, COUNTS = np.array([0.5, -2.0, 1.5]), np.array(0.7), np.array([2, 3])
HALF = TABLE.astype(np.float16)


def written(rule):
    return repr(trace(rule, NAMES).expression)


@pytest.mark.parametrize(
    ("rule", "expression"),
    [
        (lambda s, b, h, i, j: s * TABLE[0], "(score * a0[0])"),
        (lambda s, b, h, i, j: TABLE[-1] - s, "(a0[-1] - score)"),
        (lambda s, b, h, i, j: s * np.exp(HALF[np.int64(1)]), "(score * exp(a0[1]))"),
        (lambda s, b, h, i, j: s + functions.sigmoid(2 * TABLE[1]) / 4, "(score + (sigmoid((2.0 * a0[1])) / 4.0))"),
        (lambda s, b, h, i, j: s * ALONE, "(score * a0[])"),
        (lambda s, b, h, i, j: s / ALONE[()] + abs(ALONE[...]), "((score / a0[]) + abs(a0[]))"),
        (lambda s, b, h, i, j: np.where(TABLE[0] > 0, s, 2 * s), "where((a0[0] > 0.0), score, (2.0 * score))"),
        (lambda s, b, h, i, j: s * TABLE[1] ** 2, "(score * (a0[1] * a0[1]))"),
        (lambda s, b, h, i, j: s * max(TABLE), "(score * a0[2])"),
        (lambda s, b, h, i, j: s if TABLE[0] > 0 else -s, "score"),
        (lambda s, b, h, i, j: s if TABLE[0] else -s, "score"),
        (lambda s, b, h, i, j: s * COUNTS[0] + j // COUNTS[1], "((score * 2.0) + float((key // 3)))"),
        (lambda s, b, h, i, j: sum(s for _ in range(COUNTS[0])), "((0.0 + score) + score)"),
        (lambda s, b, h, i, j: s + int(TABLE[2]), "(score + 1.0)"),
        (lambda s, b, h, i, j: s * math.floor(TABLE[2]), "score"),
        (lambda s, b, h, i, j: s * np.floor(TABLE[2]), "(score * floor(a0[2]))"),
        (lambda s, b, h, i, j: s * np.dot(TABLE[0], 4), "(score * 2.0)"),
        (lambda s, b, h, i, j: s * (TABLE[2] // 1 + 7 % TABLE[2]), "(score * ((a0[2] // 1.0) + (7.0 % a0[2])))"),
        (lambda s, b, h, i, j: s * (4 ** TABLE[0]), "(score * pow(4.0, a0[0]))"),
        (lambda s, b, h, i, j: s * (TABLE[2] - 0.5) ** -1, "(score * (1.0 / (a0[2] - 0.5)))"),
        (lambda s, b, h, i, j: s + (TABLE * TABLE[0])[h], "(score + a0[head])"),
        (lambda s, b, h, i, j: s + (TABLE[0] * TABLE)[h], "(score + a0[head])"),
        (lambda s, b, h, i, j: s + np.array([TABLE[0], TABLE[1]]).sum(), "(score + -1.5)"),
    ],
)
def test_it_is_a_load_where_it_can_be_and_a_number_where_it_must(rule, expression):
    assert written(rule) == expression


RULES = {
    "one number": (TABLE, lambda s, b, h, i, j: s * TABLE[0] + TABLE[-1]),
    "beside others": (TABLE, lambda s, b, h, i, j: s * TABLE[j % 3] + np.tanh(s * TABLE[1])),
    "no axes": (ALONE, lambda s, b, h, i, j: s * np.exp(ALONE) - ALONE * s * s),
}


@pytest.mark.parametrize("name", RULES)
def test_it_has_a_gradient_and_later_changes_are_seen(name):
    array, rule = RULES[name]
    q, k, v, d_out = (random(3, 70, 4, seed=n) for n in range(4))
    done = attend(q, k, v, score=rule)
    got, exact = done.backward(d_out).rules[0][0], gradients(q, k, v, d_out, score=rule).rules[0][0]
    assert got.shape == exact.shape == array.shape
    np.testing.assert_allclose(got, exact, rtol=1e-9, atol=1e-12)
    along = Direction(rules=((np.asarray(random(*array.shape, seed=5)),),))
    moved, d_lse = done.second(d_out, None, along), np.zeros((3, 70))
    wanted = second(q, k, v, d_out, d_lse, along, score=rule)
    np.testing.assert_allclose(moved.gradients.rules[0][0], wanted.gradients.rules[0][0], rtol=1e-8, atol=1e-12)
    before, (step,) = array.copy(), along.rules[0]
    losses = []
    for by in (1e-6, -1e-6):
        array += by * step
        losses.append((attend(q, k, v, score=rule).output * d_out).sum())
        array[...] = before
    np.testing.assert_allclose((got * step).sum(), (losses[0] - losses[1]) / 2e-6, rtol=1e-5)


def test_a_bias_for_all_pairs_has_a_gradient_too():
    x, table = random(2, 9, 4), np.ones((1, 1))
    got = attend(x, x, x, score=bias(table), sink=np.zeros(2)).backward(x)
    exact = gradients(x, x, x, x, score=bias(table), sink=np.zeros(2))
    assert exact.rules[0][0].shape == (1, 1)
    np.testing.assert_allclose(got.rules[0][0], exact.rules[0][0], rtol=1e-9)


def test_places_beyond_the_end_are_errors_as_in_python():
    with pytest.raises(Exception, match="IndexError"):
        trace(lambda s, b, h, i, j: s * TABLE[3], NAMES)
    assert written(lambda s, b, h, i, j: s + sum(x for x in TABLE)).count("a0") == 3
