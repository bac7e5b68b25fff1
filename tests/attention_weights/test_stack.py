"""Rollout, flow and alignment against the definition on whole matrices."""

import re
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clearhead
from clearhead import alignment, flow, full, rollout, weights
from clearhead.definition import weights as definition
from clearhead.errors import InputError, ShapeError
from tests import arrays

random = partial(arrays.random, dtype=np.float64)


def stack(layers, *shape, mask=None, scale=1.5):
    """Weights of several layers."""
    rules = {} if mask is None else {"mask": mask}
    return [weights(scale * random(*shape, seed=n), random(*shape, seed=n + 50), **rules) for n in range(layers)]


@pytest.mark.parametrize("residual", [0.0, 0.5, 1.0])
def test_rollout_is_the_product_of_the_layers(residual):
    layers = stack(3, 2, 4, 70, 5)
    whole = np.stack(
        [definition.rollout([np.asarray(w)[b] for w in layers], residual) for b in range(2)],
    )
    np.testing.assert_allclose(rollout(layers, residual=residual), whole, atol=1e-13)
    np.testing.assert_allclose(rollout(layers, [-1, 3], residual=residual), whole[:, [-1, 3]], atol=1e-13)
    np.testing.assert_allclose(rollout(layers, 5, residual=residual), whole[:, 5], atol=1e-13)
    np.testing.assert_allclose(rollout(layers, residual=residual).sum(-1), 1, atol=1e-13)


def test_queries_that_pass_nothing_on_are_not_touched():
    q, k = random(2, 9, 5), random(2, 9, 5, seed=1)
    clean = rollout([weights(q, k)] * 2, 4)
    q[:, 5:] = np.nan
    np.testing.assert_allclose(rollout([weights(q, k)] * 2, 4), clean, atol=1e-13)


@given(st.integers(1, 3), st.integers(1, 3), st.booleans(), st.sampled_from([0.0, 0.3, 0.5]), st.integers(0, 99))
def test_flow_is_the_least_cut(count, n, see_all, residual, seed):
    rng = np.random.default_rng(seed)
    layers = [
        weights(3 * rng.standard_normal((2, n, 4)), rng.standard_normal((2, n, 4)),
                mask=full() if see_all else clearhead.causal())
        for _ in range(count)
    ]  # fmt: skip
    got = flow(layers, n - 1, range(n), residual=residual)
    wanted = [definition.flow([np.asarray(w) for w in layers], n - 1, key, residual) for key in range(n)]
    np.testing.assert_allclose(got, wanted, atol=1e-7)


def test_flow_of_more_than_a_handful():
    layers = stack(4, 3, 40, 6)
    got = flow(layers, -1, [0, 20, 39])
    assert ((got > 0) & (got <= 1)).all()
    assert (got >= rollout(layers, 39)[[0, 20, 39]] - 1e-6).all()  # what rollout sends along is a flow


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 99), st.booleans(), st.sampled_from([1, 3]))
def test_alignment_is_the_best_path(n, m, seed, normalise, smooth):
    rng = np.random.default_rng(seed)
    w = weights(3 * rng.standard_normal((2, n, 4)), rng.standard_normal((2, m, 4)), mask=full())
    a = np.asarray(w)
    if normalise:
        deviation = a.std(axis=-2, keepdims=True)
        a = (a - a.mean(axis=-2, keepdims=True)) / np.where(deviation > 1e-12, deviation, 1)
    if smooth == 3 and m > 1:
        wide = np.pad(a, [(0, 0), (0, 0), (1, 1)], mode="reflect")
        a = np.median(np.stack([wide[..., :-2], wide[..., 1:-1], wide[..., 2:]]), axis=0)
    fit = a.mean(axis=0)
    got = alignment(w[:1], w[1], normalise=normalise, smooth=smooth)
    steps = np.diff(np.stack([got.queries, got.keys]), axis=1)
    assert (got.queries[0], got.keys[0], got.queries[-1], got.keys[-1]) == (0, 0, n - 1, m - 1)
    assert ((steps >= 0) & (steps <= 1)).all()
    assert (steps.sum(axis=0) >= 1).all()
    best = sum(fit[at] for at in definition.alignment(fit))
    np.testing.assert_allclose(fit[got.queries, got.keys].sum(), best, atol=1e-9)
    assert got.starts.shape == (n,)


def test_alignment_follows_a_warped_text():
    words, long = random(20, 16), np.repeat(np.arange(20), np.arange(20) % 4 + 1)
    q, k = 6 * words[None], words[long][None]
    path = alignment(weights(q, k, mask=full()), smooth=3)
    assert (long[path.keys] == path.queries).mean() > 0.9


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda w: rollout([]), ["no layers"]),
        (lambda w: rollout([w, stack(1, 2, 5, 3)[0]]), ["(2, 6, 6)", "(2, 5, 5)"]),
        (lambda w: rollout([w[0]]), ["(6, 6)", "heads"]),
        (lambda w: rollout([w], residual=2), ["residual=2"]),
        (lambda w: flow([w[None]], 0, [0]), ["(1, 2, 6, 6)", "batches"]),
        (lambda w: alignment(), ["no weights"]),
        (lambda w: alignment(w, smooth=2), ["smooth=2", "odd"]),
        (lambda w: alignment(w, stack(1, 2, 5, 3)[0]), ["(2, 6, 6)", "(2, 5, 5)"]),
    ],
)
def test_wrong_stacks_are_refused_with_a_next_step(call, words):
    with pytest.raises(clearhead.InputError) as caught:
        call(stack(1, 2, 6, 3)[0])
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_stack_too_large_for_memory_is_refused(monkeypatch):
    monkeypatch.setenv("CLEARHEAD_MEMORY", "2")
    layers = stack(2, 1, 600, 4)
    for call in (lambda: rollout(layers), lambda: flow(layers, 0, [0])):
        with pytest.raises(clearhead.InputError, match="CLEARHEAD_MEMORY=2"):
            call()
    assert rollout(layers, 599).shape == (600,)


@pytest.mark.parametrize(
    ("allowed", "rows", "words"),
    [
        ("1", 362, None),  # 362 × 362 float64 are less than a MiB
        ("1", 363, "would take 2 MiB, more than CLEARHEAD_MEMORY=1:"),  # and 363 × 363 just more
        ("0", 1, "would take 1 MiB, more than CLEARHEAD_MEMORY=0:"),
        (" 1 ", 363, "more than CLEARHEAD_MEMORY=1:"),
        ("1.5GB", 1, "CLEARHEAD_MEMORY=1.5GB is not a number of MiB: set it to 1024"),
        ("1.5", 1, "CLEARHEAD_MEMORY=1.5 is not a number of MiB"),
        ("-1", 1, "CLEARHEAD_MEMORY=-1 is not a number of MiB"),
        ("", 1, "CLEARHEAD_MEMORY= is not a number of MiB"),
    ],
)
def test_the_memory_that_is_shown_is_the_memory_that_is_allowed(monkeypatch, allowed, rows, words):
    monkeypatch.setenv("CLEARHEAD_MEMORY", allowed)
    w = clearhead.weights(np.zeros((rows, 2)), np.zeros((rows, 2)))
    with nullcontext() if words is None else pytest.raises(clearhead.InputError, match=re.escape(words)):
        np.asarray(w)


def test_alignment_leaves_out_a_prompt_and_the_padding_behind_a_recording():
    """Rows and columns that are left out change nothing, whatever they hold."""
    words, long = random(20, 16), np.repeat(np.arange(20), np.arange(20) % 4 + 1)
    q, k = 6 * words[None], words[long][None]
    prompt, padding = 9 * random(3, 16)[None], 9 * random(40, 16)[None]
    w = weights(np.concatenate([prompt, q], axis=1), np.concatenate([k, padding], axis=1), mask=full())
    part = slice(0, len(long))
    kept = np.asarray(w)[0, 3:, part].astype(np.float64)
    fit = (kept - kept.mean(axis=0)) / kept.std(axis=0)
    path = alignment(w, queries=slice(3, None), keys=part, smooth=1)
    assert (path.queries[0], path.queries[-1], path.keys[0], path.keys[-1]) == (3, 22, 0, len(long) - 1)
    assert path.starts.shape == (20,)
    best = sum(fit[at] for at in definition.alignment(fit))
    np.testing.assert_allclose(fit[path.queries - 3, path.keys].sum(), best, atol=1e-9)
    with pytest.raises(InputError, match=r"queries=3 must be a slice without a step"):
        alignment(w, queries=3)
    with pytest.raises(ShapeError, match="20 queries and 0 keys"):
        alignment(w, queries=slice(3, None), keys=slice(5, 5))
    with pytest.raises(InputError, match="got no weights"):
        alignment(w[:0])
