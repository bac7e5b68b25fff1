"""Gradients by weights and relevance, against the definition on whole matrices and a loss's differences."""

import tracemalloc
from functools import partial

import numpy as np
import pytest

import clearhead
from clearhead import full, relevance, weight_gradients, weights, weights_times_gradients
from clearhead.definition import weights as definition
from tests import arrays

random = partial(arrays.random, dtype=np.float64)
HEADS, N, DV = 4, 70, 6


def stack(count, n=N, key_heads=HEADS, dtype=np.float64, **rules):
    """Weights of several layers, and gradients by them."""
    draw = partial(arrays.random, dtype=dtype)
    layers = [weights(2 * draw(HEADS, n, 5, seed=s), draw(HEADS, n, 5, seed=s + 9), **rules) for s in range(count)]
    gradients = [
        weight_gradients(draw(HEADS, n, DV, seed=s + 20), draw(key_heads, n, DV, seed=s + 30)) for s in range(count)
    ]
    return layers, gradients


def whole(gradients):
    """Gradients as matrices."""
    each = [(g.d_outputs, np.repeat(g.values, HEADS // len(g.values), axis=0)) for g in gradients]
    return [definition.gradients(d, v) for d, v in each]


def test_a_gradient_is_the_slope_of_a_loss():
    a, v, d = random(HEADS, 3, N), random(HEADS, N, DV, seed=1), random(HEADS, 3, DV, seed=2)
    step = np.zeros_like(a)
    step[2, 1, 7] = 1e-3
    slope = ((((a + step) @ v) * d).sum() - (((a - step) @ v) * d).sum()) / 2e-3
    np.testing.assert_allclose(weight_gradients(d, v)[2, 1][7], slope, rtol=1e-9)


@pytest.mark.parametrize("key_heads", [HEADS, 2, 1])
def test_gradients_are_read_in_parts(key_heads):
    _, (g,) = stack(1, key_heads=key_heads)
    (matrix,) = whole([g])
    assert g.shape == matrix.shape
    np.testing.assert_allclose(np.stack([g[head, 3:9] for head in range(HEADS)]), matrix[:, 3:9], atol=1e-12)
    np.testing.assert_allclose(g[-1, 5], matrix[-1, 5], atol=1e-12)
    np.testing.assert_allclose(g.row(-1), matrix[:, -1], atol=1e-12)
    with pytest.raises(IndexError):
        g[HEADS, 0]


@pytest.mark.parametrize("rules", [{}, {"mask": full()}, {"sink": np.arange(4.0)}])
def test_relevance_is_that_of_whole_matrices(rules):
    layers, gradients = stack(3, key_heads=2, **rules)
    expected = definition.relevance([np.asarray(w) for w in layers], whole(gradients))
    np.testing.assert_allclose(relevance(layers, gradients), expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(relevance(layers, gradients, -1), expected[-1], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(relevance(layers, gradients, [9, 2]), expected[[9, 2]], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(relevance(layers, whole(gradients)), expected, rtol=1e-10, atol=1e-12)


def test_weights_times_gradients_are_those_of_whole_matrices():
    (w,), (g,) = stack(1)
    a, (matrix,) = np.asarray(w), whole([g])
    expected = definition.weights_times_gradients(a, matrix)
    np.testing.assert_allclose(weights_times_gradients(w, g), expected, atol=1e-12)
    rows = [60, 3, 3]
    expected = definition.weights_times_gradients(a[:, [3, 60]], matrix[:, [3, 60]])
    np.testing.assert_allclose(weights_times_gradients(w, g, rows), expected, atol=1e-12)


def test_hidden_values_are_not_touched():
    layers, gradients = stack(2)
    clean = relevance(layers, gradients, 39)
    for g in gradients:
        g.values[:, 40:] = np.nan
    np.testing.assert_allclose(relevance(layers, gradients, 39)[:40], clean[:40], atol=1e-12)
    assert np.isfinite(weights_times_gradients(layers[0], gradients[0], slice(0, 40))).all()


def test_memory_grows_with_the_length_alone():
    layers, gradients = stack(2, n=4096, dtype=np.float32)
    tracemalloc.start()
    relevance(layers, gradients, -1)
    weights_times_gradients(layers[0], gradients[0], slice(4000, None))
    assert tracemalloc.get_traced_memory()[1] < 24 << 20  # a layer's weights would take 256 MiB
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda w, g: relevance([], []), ["no layers"]),
        (lambda w, g: relevance(w, g[:1]), ["1 gradients", "2 layers"]),
        (lambda w, g: relevance(w, [g[0], g[1].row(0)]), ["(4, 70)", "(4, 70, 70)"]),
        (lambda w, g: relevance([x[None] for x in w], g), ["(1, 4, 70, 70)", "one sequence"]),
        (lambda w, g: weights_times_gradients(w[0], g), ["()", "(4, 70, 70)"]),
        (lambda w, g: weight_gradients(g[0].d_outputs, g[0].values[:3]), ["(4, 70, 6)", "(3, 70, 6)"]),
        (lambda w, g: weight_gradients(g[0].d_outputs, g[0].values[..., 1:]), ["(4, 70, 5)"]),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(clearhead.InputError) as caught:
        call(*stack(2))
    assert all(word in str(caught.value) for word in words), caught.value
