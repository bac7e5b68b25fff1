"""The cosine similarity of heads: against the definition, over layers, and in parts that leave nothing out."""

import os
import subprocess
import sys

import numpy as np
import pytest

import clearhead
from clearhead import attend, causal, documents, full, similarity, weights, window
from clearhead.attention_weights import similarity as module
from clearhead.definition import weights as definition
from clearhead.testing import check_same_bits
from tests.arrays import random

THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def matrices(*layers):
    """The weights of all heads in float64."""
    return np.concatenate([np.asarray(w).astype(np.float64).reshape(-1, *w.shape[-2:]) for w in layers])


@pytest.mark.parametrize("mask", [causal(), full(), window(9), documents([100, 0, 130]) & causal()])
def test_heads_of_one_layer_and_of_another(mask):
    one, two = (weights(random(heads, 230, 8, seed=heads), random(1, 230, 8), mask=mask) for heads in (4, 3))
    got = similarity(one)
    np.testing.assert_allclose(got, definition.similarity(matrices(one), matrices(one)), atol=1e-6)
    assert (np.diag(got) == 1).all()
    np.testing.assert_allclose(similarity(one, two), definition.similarity(matrices(one), matrices(two)), atol=1e-6)
    assert similarity(one[0], two[1]).shape == ()


def test_layers_with_different_masks():
    layers = [weights(random(2, 150, 8, seed=n), random(2, 150, 8), mask=mask)
              for n, mask in enumerate([causal(), window(20, 30)])]  # fmt: skip
    got = similarity(layers)
    assert got.shape == (2, 2, 2, 2)
    wanted = definition.similarity(matrices(*layers), matrices(*layers))
    np.testing.assert_allclose(got.reshape(4, 4), wanted, atol=1e-6)
    np.testing.assert_allclose(similarity(layers, layers[0]).reshape(4, 2), wanted[:, :2], atol=1e-6)


def test_many_parts(monkeypatch):
    w = weights(random(3, 400, 8), random(3, 700, 8, seed=1), mask=causal(align="end"))
    wanted = definition.similarity(matrices(w), matrices(w))
    monkeypatch.setattr(module, "MOST_BYTES", 1)
    monkeypatch.setattr(module, "TOGETHER", 2)
    monkeypatch.setattr(module, "PAIRS", 1000)
    np.testing.assert_allclose(similarity(w), wanted, atol=1e-6)


def test_a_head_without_weight_is_like_nothing():
    x = random(2, 20, 4)
    nothing = weights(x, x, mask=window(0, 0) & ~window(0, 0))
    assert (similarity(nothing) == 0).all()
    assert (similarity(weights(x, x), nothing) == 0).all()


def test_the_same_bits_for_any_number_of_threads():
    q, k = random(3, 500, 8), random(3, 500, 8, seed=1)
    check_same_bits(*(similarity(weights(q, k, threads=n)) for n in (1, 3)))
    check_same_bits(similarity(attend(q, k, k).weights), similarity(weights(q, k)))


MANY_HEADS = """
import numpy as np, clearhead
q, k = (np.random.default_rng(n).standard_normal((40, 600, 8)).astype(np.float32) for n in (0, 1))
print(clearhead.similarity(clearhead.weights(q, k)).tobytes().hex())
"""


def test_the_same_bits_for_any_number_of_threads_of_numpys_products():
    called = [
        subprocess.run([sys.executable, "-c", MANY_HEADS], env=os.environ | dict.fromkeys(THREADS, n),
                       check=True, capture_output=True).stdout
        for n in ("1", "4")
    ]  # fmt: skip
    assert called[0] == called[1]
    assert len(called[0]) > 40 * 40 * 8


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda w: similarity([]), ["empty list"]),
        (lambda w: similarity(np.zeros((2, 5, 5))), ["ndarray"]),
        (lambda w: similarity(w, weights(random(2, 6, 2), random(2, 6, 2))), ["(5, 5), (6, 6)"]),
        (lambda w: similarity([w, w[:1]]), ["(2, 5, 5)", "(1, 5, 5)"]),
        (lambda w: similarity(w, weights(np.ones((2, 5, 2)), np.ones((2, 5, 2)))), ["float32 and float64"]),
    ],
)
def test_weights_that_do_not_fit_are_refused(call, words):
    with pytest.raises(clearhead.InputError) as caught:
        call(weights(random(2, 5, 2), random(2, 5, 2)))
    assert all(word in str(caught.value) for word in words), caught.value
