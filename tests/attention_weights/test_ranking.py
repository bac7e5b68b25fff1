"""Ranks of heads and the largest weights of several layers, against the definition on whole matrices."""

from functools import partial

import numpy as np
import pytest

import clearhead
from clearhead import heaviest_keys, heaviest_rows, rank_heads, weights
from clearhead.definition import weights as definition
from tests import arrays

random = partial(arrays.random, dtype=np.float64)
REDUCED = {"mean": lambda x: x.mean(-1), "last": lambda x: x[..., -1], "max": lambda x: x.max(-1)}


def stack(count, heads=3, n=40):
    return [weights(3 * random(heads, n, 5, seed=s), random(heads, n, 5, seed=s + 9)) for s in range(count)]


@pytest.mark.parametrize("how", REDUCED)
@pytest.mark.parametrize("most", [1, 5, 99])
def test_heads_are_ranked_as_defined(how, most):
    answers = random(4, 3, 20).round(1)
    expected = definition.rank_heads(REDUCED[how](answers), most)
    assert rank_heads(answers, how, most) == expected
    smallest = definition.rank_heads(-REDUCED[how](answers), most)
    assert [x[:2] for x in rank_heads(answers, how, most, smallest=True)] == [x[:2] for x in smallest]
    assert rank_heads(REDUCED[how](answers), most=most) == expected


def test_equal_heads_keep_their_order_and_their_own_numbers():
    found = rank_heads(np.ones((2, 2, 3)), layers=(3, 7), heads=(5, 0))
    assert found == [(3, 5, 1.0), (3, 0, 1.0), (7, 5, 1.0), (7, 0, 1.0)]
    assert (found[0].layer, found[0].head, found[0].value) == (3, 5, 1.0)


@pytest.mark.parametrize("smallest", [False, True])
def test_a_head_without_a_number_comes_last(smallest):
    found = rank_heads([[1.0, np.nan, 2.0]], smallest=smallest)
    assert (found[-1].head, len(found)) == (1, 3)


def test_answers_of_a_summary_rank_heads():
    layers = stack(2)
    first = np.stack([w.summary("first").first for w in layers])
    best = rank_heads(first, most=1)[0]
    assert best.value == max(float(row.mean()) for w in layers for row in w.summary("first").first)


@pytest.mark.parametrize("most", [1, 7, 500])
def test_the_heaviest_are_those_of_whole_matrices(most):
    layers = stack(3)
    whole = [np.asarray(w) for w in layers]
    only_key = [np.where(np.arange(40) == 7, a, 0) for a in whole]
    only_query = [np.where(np.arange(40)[:, None] == 33, a, 0) for a in whole]
    for got, expected in (
        (heaviest_rows(layers, 7, most), definition.heaviest(only_key, most)),
        (heaviest_keys(layers, 33, most), definition.heaviest(only_query, most)),
    ):
        assert [x[:4] for x in got] == [x[:4] for x in expected]
        np.testing.assert_allclose([x.weight for x in got], [x[4] for x in expected], atol=1e-14)
    assert heaviest_rows(layers, -33, most) == heaviest_rows(layers, 7, most)


def test_equal_weights_keep_the_order_of_layers_heads_and_items():
    layers = [weights(np.zeros((2, 3, 1)), np.zeros((2, 3, 1)))] * 2
    found = heaviest_keys(layers, 1)
    assert [x[:4] for x in found] == [(n, h, 1, k) for n in range(2) for h in range(2) for k in range(2)]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda w: rank_heads(np.zeros(3)), ["(3,)", "(layers, heads)"]),
        (lambda w: rank_heads(np.zeros((1, 2, 0))), ["(1, 2, 0)"]),
        (lambda w: rank_heads(np.zeros((1, 2)), "median"), ["'median'", "'mean'"]),
        (lambda w: rank_heads(np.zeros((1, 2)), most=0), ["most=0"]),
        (lambda w: rank_heads(np.zeros((1, 2)), heads=[3]), ["1 heads", "2"]),
        (lambda w: heaviest_keys(w, 40), ["query 40", "39"]),
        (lambda w: heaviest_rows(w, -41), ["key -41"]),
        (lambda w: heaviest_rows(w, 0.5), ["key 0.5"]),
        (lambda w: heaviest_rows(w, 0, most=True), ["most=True"]),
        (lambda w: heaviest_rows([w[0][0]], 0), ["(40, 40)", "(heads, queries, keys)"]),
    ],
)
def test_what_makes_no_rank_is_refused(call, words):
    with pytest.raises(clearhead.InputError) as caught:
        call(stack(2))
    assert all(word in str(caught.value) for word in words), caught.value
