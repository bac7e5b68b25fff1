"""What heads write, and the sizes of values after the output matrix, against the definition on whole matrices."""

import tracemalloc
from functools import partial

import numpy as np
import pytest

import clearhead
from clearhead import full, head_outputs, key_contributions, output_norms, weights
from clearhead.definition import weights as definition
from tests import arrays

random = partial(arrays.random, dtype=np.float64)
HEADS, N, DV, MODEL = 4, 70, 6, 10


def layer(key_heads=HEADS, mask=None):
    """Weights, values and output matrices of one layer."""
    rules = {} if mask is None else {"mask": mask}
    w = weights(2 * random(HEADS, N, 5), random(HEADS, N, 5, seed=1), **rules)
    return w, random(key_heads, N, DV, seed=2), random(HEADS, DV, MODEL, seed=3)


@pytest.mark.parametrize("mask", [None, full()])
@pytest.mark.parametrize("key_heads", [HEADS, 2, 1])
def test_outputs_are_those_of_whole_matrices(key_heads, mask):
    w, v, W_O = layer(key_heads, mask)
    each = np.repeat(v, HEADS // key_heads, axis=0)
    whole = definition.head_outputs(np.asarray(w), each, W_O)
    np.testing.assert_allclose(head_outputs(w, v, W_O), whole, atol=1e-12)
    np.testing.assert_allclose(head_outputs(w, v, W_O, [-1, 3]), whole[:, [-1, 3]], atol=1e-12)
    np.testing.assert_allclose(head_outputs(w, v, W_O, 5), whole[:, 5], atol=1e-12)
    np.testing.assert_allclose(output_norms(v, W_O), definition.output_norms(each, W_O), rtol=1e-12)


def test_contributions_of_keys_are_those_of_whole_matrices():
    w, v, W_O = layer()
    directions = W_O @ random(MODEL)
    whole = definition.key_contributions(np.asarray(w), v, directions)
    np.testing.assert_allclose(key_contributions(w, v, directions), whole[:, -1], atol=1e-12)
    np.testing.assert_allclose(key_contributions(w, v, directions, query=9), whole[:, 9], atol=1e-12)
    along = definition.head_outputs(np.asarray(w), v, W_O) @ random(MODEL)
    np.testing.assert_allclose(whole.sum(-1), along, atol=1e-11)


@pytest.mark.parametrize("dv", [1, MODEL + 3])
def test_norms_need_no_square_matrices(dv):
    v, W_O = random(2, 9, dv), random(2, dv, MODEL)
    np.testing.assert_allclose(output_norms(v, W_O), definition.output_norms(v, W_O), rtol=1e-12)


def test_a_norm_keeps_its_digits_where_values_almost_cancel():
    W_O = np.array([[[1.0, 0.0], [1.0, 1e-6]]])
    v = np.array([[[1.0, -1.0]]])
    np.testing.assert_allclose(output_norms(v, W_O), 1e-6, rtol=1e-8)


def test_hidden_values_are_not_touched():
    w, v, W_O = layer()
    v[:, 40:] = np.nan
    got = head_outputs(w, v, W_O)
    clean = head_outputs(*layer())
    np.testing.assert_allclose(got[:, :40], clean[:, :40], atol=1e-12)
    assert np.isnan(got[:, 40:]).all()
    assert np.isfinite(key_contributions(w, v, W_O[..., 0], query=39)).all()


def test_memory_grows_with_the_length_alone():
    n, heads = 4096, 12
    q, k, v = (arrays.random(heads, n, 8, seed=seed) for seed in range(3))
    w, W_O = weights(q, k), arrays.random(heads, 8, 16)
    head_outputs(w, v, W_O, -1)
    tracemalloc.start()
    head_outputs(w, v, W_O, slice(1000, 1400))
    output_norms(v, W_O)
    key_contributions(w, v, W_O[..., 0])
    assert tracemalloc.get_traced_memory()[1] < 16 << 20  # the matrices would take 768 MiB
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda w, v, W_O: head_outputs(w[0], v, W_O), ["(70, 70)", "(heads, queries, keys)"]),
        (lambda w, v, W_O: head_outputs(w, v[:3], W_O), ["(3, 70, 6)", "key heads"]),
        (lambda w, v, W_O: head_outputs(w, v[:, :9], W_O), ["(4, 9, 6)", "70"]),
        (lambda w, v, W_O: head_outputs(w, v, W_O[:, :3]), ["(4, 3, 10)", "dim 6"]),
        (lambda w, v, W_O: output_norms(v[0], W_O), ["(70, 6)", "(4, 6, 10)"]),
        (lambda w, v, W_O: output_norms(v, W_O[0]), ["(6, 10)"]),
        (lambda w, v, W_O: output_norms(v, W_O[:, :3]), ["(4, 3, 10)"]),
        (lambda w, v, W_O: key_contributions(w, v, W_O), ["(4, 6, 10)", "(4, 6)"]),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(clearhead.ShapeError) as caught:
        call(*layer())
    assert all(word in str(caught.value) for word in words), caught.value


def test_outputs_too_large_for_memory_are_refused(monkeypatch):
    monkeypatch.setenv("CLEARHEAD_MEMORY", "1")
    w, v, _ = layer()
    with pytest.raises(clearhead.InputError, match="CLEARHEAD_MEMORY=1"):
        head_outputs(w, v, np.zeros((HEADS, DV, 1000)))
    assert head_outputs(w, v, np.zeros((HEADS, DV, 1000)), 0).shape == (HEADS, 1000)
