"""Edited weights are those of the matrix edited by hand."""

import numpy as np
import pytest

import clearhead
from clearhead.errors import InputError
from clearhead.interventions.edits import Cut, Patch, Scale, Sink, Uniform
from clearhead.interventions.places import by_position, in_order, positions
from clearhead.interventions.shown import edited_weights

LAYERS = (("self", 0),)
HEADS, QUERIES, KEYS, DIM = 3, 6, 6, 4


@pytest.fixture
def operands():
    rng = np.random.default_rng(0)
    return rng.standard_normal((HEADS, QUERIES, DIM)), rng.standard_normal((HEADS, KEYS, DIM))


def matrix(q, k, sink=None, added=0.0):
    scores = np.where(np.tri(QUERIES, dtype=bool), q @ k.swapaxes(1, 2) / 2 + added, -np.inf)
    sinks = np.full((HEADS, 1, 1), -np.inf) if sink is None else np.reshape(sink, (HEADS, 1, 1))
    top = np.exp(scores)
    return top / (top.sum(-1, keepdims=True) + np.exp(sinks))


def test_cuts_and_factors_that_renormalize(operands):
    q, k = operands
    cut = Cut(layers=LAYERS, heads=(1,), queries=positions(slice(2, None), "queries"), keys=positions([0], "keys"))
    factor = np.full((1, 1, 1), 3.0)
    scale = Scale(layers=LAYERS, heads=(0, 1), keys=positions([1], "keys"), factor=factor, renormalize=True)
    added = np.zeros((HEADS, QUERIES, KEYS))
    added[1, 2:, 0] = -np.inf
    added[:2, :, 1] += np.log(3)
    w = edited_weights(clearhead.weights(q, k), [cut, scale], ("self", 0))
    np.testing.assert_allclose(w, matrix(q, k, added=added), atol=1e-12)
    plain = edited_weights(clearhead.weights(q, k), [cut, scale], ("self", 1))
    np.testing.assert_allclose(plain, matrix(q, k), atol=1e-12)


def test_factors_that_do_not_renormalize(operands):
    q, k = operands
    sink = np.array([0.5, 1.0, -1.0])
    factors = np.random.default_rng(1).uniform(0, 2, (2, 1, KEYS))
    scale = Scale(layers=LAYERS, heads=(2, 0), queries=positions(slice(1, None), "queries"), factor=factors)
    expected = matrix(q, k, sink)
    expected[2, 1:] *= factors[0]
    expected[0, 1:] *= factors[1]
    w = edited_weights(clearhead.weights(q, k, sink=sink), [scale], ("self", 0))
    np.testing.assert_allclose(w, expected, atol=1e-12)


def test_even_weights_and_sinks(operands):
    q, k = operands
    own, forced = np.array([0.5, 1.0, -1.0]), np.array([0.5, 2.0, -1.0])
    even = Uniform(layers=LAYERS, heads=(0,), queries=positions([3, 4], "queries"))
    sink = Sink(layers=LAYERS, heads=(1,), value=2.0)
    expected = matrix(q, k, forced)
    expected[0, 3], expected[0, 4] = np.arange(KEYS) < 4, np.arange(KEYS) < 5
    expected[0, 3] /= 4
    expected[0, 4] /= 5
    w = edited_weights(clearhead.weights(q, k, sink=own), [even, sink], ("self", 0))
    np.testing.assert_allclose(w, expected, atol=1e-12)


def test_positions_from_the_end_count_in_each_pass(operands):
    """A prompt of four, then two generated tokens: the last key but one is another in each."""
    q, k = operands
    cut = Cut(layers=LAYERS, queries=positions([-1], "queries"), keys=positions([-2], "keys"))
    added = np.zeros((QUERIES, KEYS))
    added[[3, 4, 5], [2, 3, 4]] = -np.inf
    w = edited_weights(clearhead.weights(q, k), [cut], ("self", 0), steps=(4, 1, 1))
    np.testing.assert_allclose(w, matrix(q, k, added=added), atol=1e-12)
    with pytest.raises(InputError, match="count from the end of 70 passes"):
        edited_weights(clearhead.weights(q, k), [cut], ("self", 0), steps=(1,) * 70)


def test_masks_over_heads_of_the_model(operands):
    q, k = operands
    hidden = np.array([True, False, False, False, True, True])
    where = clearhead.where(lambda batch, head, query, key: hidden[head] & (query - key == 1))
    cut = Cut(layers=LAYERS, where=where)
    added = np.zeros((HEADS, QUERIES, KEYS))
    added[1:, np.arange(1, 6), np.arange(5)] = -np.inf
    w = edited_weights(clearhead.weights(q, k), [cut], ("self", 0), heads=(1, 4, 5), count=6)
    np.testing.assert_allclose(w, matrix(q, k, added=added), atol=1e-12)


def test_patched_weights_need_the_other_runs_heads(operands):
    q, k = operands
    patch = Patch(layers=LAYERS, heads=(1,), source=lambda layer, sequence: clearhead.weights(q, k), name="Weights")
    with pytest.raises(InputError, match="of two runs"):
        edited_weights(clearhead.weights(q, k), [patch], ("self", 0))


def test_positions():
    places = in_order(3, 5, first=2)
    assert positions([1, -1], "keys").chosen(places.key, places.key_count).tolist() == [
        [False, True, False, False, True]
    ]
    assert positions(slice(-2, None), "queries").chosen(places.query, places.query_count).tolist() == [
        [False, True, True]
    ]
    assert positions([1, -1, 9], "keys").met(places.key, places.key_count) == {1, -1}
    padded = np.array([[-1, 0, 1]])
    assert positions(None, "keys").chosen(padded, np.array([2])).tolist() == [[False, True, True]]


def test_tables_by_position():
    table = np.arange(24).reshape(2, 3, 4)
    places = in_order(2, 4, first=1)
    np.testing.assert_array_equal(by_position(table, places), table[None, :, 1:])
    np.testing.assert_array_equal(by_position(table[:, :1], places), table[None, :, :1])
    np.testing.assert_array_equal(by_position(table[:, :, :1], places), table[None, :, 1:, :1])
