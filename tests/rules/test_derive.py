"""Derivatives of rules against finite differences, and their size."""

import numpy as np
import pytest

from clearhead import functions
from clearhead.rules.compositions import call
from clearhead.rules.derivatives import by_loads, by_score, derivatives
from clearhead.rules.evaluation import evaluate
from clearhead.rules.expression import Expression, Formula, parts
from clearhead.rules.operations import OPERATIONS
from clearhead.rules.scores import SCORE_PARAMETERS, alibi, as_rules, relative, softcap
from clearhead.rules.trace import trace

TABLE = np.random.default_rng(0).standard_normal((3, 4))
RULES = {
    "add": lambda s, b, h, q, k: s + 2 * s - 1,
    "times": lambda s, b, h, q, k: s * s * s - s,
    "over": lambda s, b, h, q, k: (1 + s) / (2 + s * s),
    "neg": lambda s, b, h, q, k: -(-s * 3),
    "abs": lambda s, b, h, q, k: abs(s - 0.25),
    "min": lambda s, b, h, q, k: np.minimum(s, 0.3) * 2,
    "max": lambda s, b, h, q, k: np.maximum(s * s, s),
    "where": lambda s, b, h, q, k: np.where(s > q - k, s * 2, s * s),
    "exp": lambda s, b, h, q, k: np.exp(s * 0.5),
    "log": lambda s, b, h, q, k: np.log(2 + np.exp(s)),
    "sqrt": lambda s, b, h, q, k: np.sqrt(1 + s * s),
    "tanh": lambda s, b, h, q, k: 3 * np.tanh(s / 3),
    "sigmoid": lambda s, b, h, q, k: functions.sigmoid(s) * s,
    "loads": lambda s, b, h, q, k: s * TABLE[h, k] + np.exp(TABLE[h, q % 4]) / (2 + TABLE[h, k] * TABLE[0, 0 * k]),
    "nothing": lambda s, b, h, q, k: (q - k) * 0.5,
}
LEAVES = {
    "score": np.random.default_rng(1).standard_normal((3, 4, 4)), "batch": np.zeros((1, 1, 1), int),
    "head": np.arange(3)[:, None, None], "query": np.arange(4)[:, None], "key": np.arange(4),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(RULES))
def test_derivatives_by_the_score_are_those_of_finite_differences(name):
    formula, step = trace(RULES[name], SCORE_PARAMETERS), 1e-6
    up, down = (evaluate(formula, LEAVES | {"score": LEAVES["score"] + d}) for d in (step, -step))
    got = evaluate(Formula(by_score(formula.expression), formula.arrays), LEAVES)
    np.testing.assert_allclose(
        np.broadcast_to(got, (3, 4, 4)), (up - down) / (2 * step) + np.zeros((3, 4, 4)), atol=1e-8
    )


def test_derivatives_by_loads_are_those_of_finite_differences():
    formula, step = trace(RULES["loads"], SCORE_PARAMETERS), 1e-6
    total = np.zeros_like(TABLE)
    for load, coefficient in by_loads(formula.expression):
        share = evaluate(Formula(coefficient, formula.arrays), LEAVES)
        index = [evaluate(Formula(i), LEAVES) for i in load.args]
        np.add.at(total, tuple(np.broadcast_to(i, (3, 4, 4)) for i in index), np.broadcast_to(share, (3, 4, 4)))
    for at in np.ndindex(TABLE.shape):
        changed = [TABLE.copy(), TABLE.copy()]
        changed[0][at] += step
        changed[1][at] -= step
        up, down = (evaluate(Formula(formula.expression, (x,)), LEAVES).sum() for x in changed)
        np.testing.assert_allclose(total[at], (up - down) / (2 * step), atol=1e-7)


GUARDED = {
    "over a distance": (lambda s, b, h, q, k: np.where(q > k, s / (q - k), s), lambda s, d: np.where(d > 0, 1 / d, 1)),
    "root": (lambda s, b, h, q, k: np.where(s > 0, np.sqrt(s), 0.0), lambda s, d: np.where(s > 0, 0.5 / np.sqrt(s), 0)),
    "logarithm": (
        lambda s, b, h, q, k: -np.where(q > k, np.where(s > 0, np.log(s) * 2, 1.0), s) / 4,
        lambda s, d: np.where(d > 0, np.where(s > 0, -0.5 / s, 0), -0.25),
    ),
}


@pytest.mark.parametrize("name", GUARDED)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_where_leaves_out_has_derivative_0_even_if_it_is_no_number(name):
    function, slope = GUARDED[name]
    expression = by_score(trace(function, SCORE_PARAMETERS).expression)
    score, distance = LEAVES["score"], (LEAVES["query"] - LEAVES["key"]).astype(float)
    wanted = np.broadcast_to(slope(score, distance), score.shape)
    got = np.broadcast_to(evaluate(Formula(expression), LEAVES), score.shape)
    np.testing.assert_allclose(got, wanted, rtol=1e-12)
    again = np.broadcast_to(evaluate(Formula(by_score(expression)), LEAVES), score.shape)
    assert np.isfinite(again).all()


def test_a_sign_is_flat_even_at_0():
    expression = by_score(trace(lambda s, b, h, q, k: np.sign(s), SCORE_PARAMETERS).expression)
    assert not evaluate(Formula(expression), LEAVES | {"score": np.array([-2.0, 0.0, 3.0])}).any()


def test_shared_parts_are_derived_once():
    score = Expression("score", "float")
    power = score
    for _ in range(40):
        power = Expression("mul", "float", (power, power))
    assert len(list(parts(derivatives(power)[score]))) < 200


def test_simple_rules_have_simple_derivatives():
    assert repr(by_score(as_rules(alibi(3))[0].formula.expression)) == "1.0"
    assert repr(by_score(as_rules(relative(np.zeros((3, 9)), 4))[0].formula.expression)) == "1.0"
    assert len(list(parts(by_score(as_rules(softcap(2.0))[0].formula.expression)))) <= 10
    assert derivatives(trace(RULES["nothing"], SCORE_PARAMETERS).expression) == {}


def sloped(op, arity):
    """A rule of one operation, its arguments within its domain and away from its kinks."""
    if arity == 2:
        return lambda s, b, h, q, k: call(op, 1.3 + 0.7 * np.tanh(s), 2.1 + 0.2 * s) * s
    return lambda s, b, h, q, k: call(op, 0.45 + 0.4 * np.tanh(s)) * s


FLOATS = {
    name: len(row.signatures[-1][0])
    for name, row in OPERATIONS.items()
    if row.signatures[-1] == (("float",) * len(row.signatures[-1][0]), "float")
}


@pytest.mark.parametrize("op", FLOATS)
def test_derivatives_of_operations_are_those_of_finite_differences(op):
    """First and second ones: tangents use both."""
    rule, step = trace(sloped(op, FLOATS[op]), SCORE_PARAMETERS), 1e-6
    for _ in range(2):
        slope = Formula(by_score(rule.expression), rule.arrays)
        up, down = (evaluate(rule, LEAVES | {"score": LEAVES["score"] + d}) for d in (step, -step))
        got = evaluate(slope, LEAVES)
        wanted = (up - down) / (2 * step) + np.zeros((3, 4, 4))
        smooth = np.abs(evaluate(rule, LEAVES) - (up + down) / 2) < 1e-7  # away from jumps and kinks
        assert smooth.mean() > 0.9
        np.testing.assert_allclose(np.broadcast_to(got, (3, 4, 4))[smooth], wanted[smooth], rtol=2e-6, atol=2e-7)
        rule = slope


UNITS = {
    "gelu": functions.gelu,
    "gelu as GPT-2's": lambda x: functions.gelu(x, approximate="tanh"),
    "silu": functions.silu,
    "softplus": lambda x: functions.softplus(x, beta=2.0),
    "power": lambda x: functions.power(1 + x * x, x) + x**3 + (1 + x * x) ** 0.5 + (2 + x) ** -1,
    "clip": lambda x: functions.clip(x, -0.4, 0.8) * x,
    "relu": lambda x: functions.relu(x) * x,
    "sinc": lambda x: functions.sinc(x) + functions.sinc(x / 50),
}


@pytest.mark.parametrize("name", UNITS)
def test_derivatives_of_compositions_are_those_of_finite_differences(name):
    formula, step = trace(lambda s, b, h, q, k: UNITS[name](s), SCORE_PARAMETERS), 1e-6
    up, down = (UNITS[name](LEAVES["score"] + d) for d in (step, -step))
    np.testing.assert_allclose(
        evaluate(Formula(by_score(formula.expression)), LEAVES), (up - down) / (2 * step), rtol=1e-7, atol=1e-8
    )


def test_sinc_is_smooth_at_0():
    """Its value and derivatives there are 1, 0 and −π²/3, and next to 0 nothing cancels."""
    rule = trace(lambda s, b, h, q, k: np.sinc(s), SCORE_PARAMETERS)
    x = np.array([0.0, 1e-300, 1e-9, -1e-4, 0.0397, 0.0398])
    square = (np.pi * x) ** 2
    third = np.pi**2 / 3
    wanted = 1 - square / 6 + square**2 / 120, -third * x * (1 - square / 10), -third * (1 - 0.3 * square)
    for order, slope in enumerate(wanted):
        np.testing.assert_allclose(evaluate(rule, LEAVES | {"score": x}), slope, rtol=1e-5, err_msg=str(order))
        rule = Formula(by_score(rule.expression))


def test_powers_of_0_have_the_derivatives_that_torch_gives():
    expression = by_score(
        trace(lambda s, b, h, q, k: np.maximum(s, 0) ** 2.5 + 1.5 ** np.minimum(s, 0), SCORE_PARAMETERS).expression
    )
    assert evaluate(Formula(expression), LEAVES | {"score": np.array([0.0, 4.0])}).tolist() == [0.0, 20.0]
    flat = by_score(trace(lambda s, b, h, q, k: (s * 0) ** (s + 1), SCORE_PARAMETERS).expression)
    assert not np.isnan(evaluate(Formula(flat), LEAVES | {"score": np.array([-1.0, 0.5])})).any()
