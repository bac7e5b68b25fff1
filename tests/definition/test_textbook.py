"""The definition against examples worked by hand."""

import math

import numpy as np
import pytest

from clearhead.definition import textbook
from clearhead.rules.masks import causal, full, visible

E = math.e


def test_scores_are_dot_products_times_the_scale():
    q, k = np.array([[1.0, 2.0], [0.0, -1.0]]), np.array([[3.0, 1.0], [2.0, -1.0]])
    assert textbook.scores(q, k, 0.5).tolist() == [[2.5, 0.0], [-0.5, 0.5]]


def test_softmax_of_zeros_shares_equally_among_what_is_seen():
    weights = textbook.softmax(np.zeros((3, 3)), visible(causal(), 3, 3))
    assert weights.tolist() == [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], pytest.approx([1 / 3] * 3)]


def test_three_items_by_hand():
    # x₁ and x₂ at right angles, x₃ their sum: its scores are 1, 1 and 2.
    x = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    y = textbook.self_attention(x)
    total = E + E + E**2
    assert y[0].tolist() == [1.0, 0.0]
    assert y[1] == pytest.approx([1 / (1 + E), E / (1 + E)])  # score 0 still weighs exp(0) = 1
    assert y[2] == pytest.approx([(E + E**2) / total, (E + E**2) / total])


def test_order_of_earlier_items_does_not_matter_to_the_last():
    x = np.random.default_rng(0).standard_normal((5, 3))
    shuffled = x[[3, 1, 0, 2, 4]]
    assert textbook.self_attention(shuffled)[-1] == pytest.approx(textbook.self_attention(x)[-1])


def test_large_scores_do_not_overflow():
    weights = textbook.softmax(np.array([[1000.0, 1000.0 + math.log(3)]]), np.ones((1, 2), bool))
    assert weights[0] == pytest.approx([0.25, 0.75])


def test_minus_infinity_weighs_nothing_even_with_nothing_else():
    seen = np.ones((1, 2), bool)
    assert textbook.softmax(np.array([[-np.inf, 0.0]]), seen).tolist() == [[0.0, 1.0]]
    assert textbook.softmax(np.array([[-np.inf, -np.inf]]), seen).tolist() == [[0.0, 0.0]]


def test_a_query_that_sees_nothing_gets_zero_and_minus_infinity():
    q, k, v = np.ones((3, 2)), np.ones((1, 2)), np.ones((1, 4))
    seen = visible(causal(align="end"), 3, 1)
    assert seen.any(axis=1).tolist() == [False, False, True]
    assert textbook.attention(q, k, v, mask=causal(align="end")).tolist() == [[0.0] * 4, [0.0] * 4, [1.0] * 4]
    assert textbook.log_sum_exp(textbook.scores(q, k), seen).tolist() == [-np.inf, -np.inf, 2.0]


def test_hidden_values_are_not_even_multiplied():
    x = np.ones((3, 2))
    x[2] = np.nan
    assert np.isfinite(textbook.self_attention(x)[:2]).all()


def test_grouped_heads_share_consecutively():
    rng = np.random.default_rng(1)
    q, k, v = rng.standard_normal((4, 3, 2)), rng.standard_normal((2, 3, 2)), rng.standard_normal((2, 3, 2))
    y = textbook.attention(q, k, v)
    for head in range(4):
        assert np.array_equal(y[head], textbook.attention(q[head], k[head // 2], v[head // 2]))


def test_alignment_says_where_the_queries_stand():
    assert visible(causal(align="start"), 2, 4).astype(int).tolist() == [[1, 0, 0, 0], [1, 1, 0, 0]]
    assert visible(causal(align="end"), 2, 4).astype(int).tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert visible(full(), 2, 3).all()
