"""Scores for cache eviction against the definition on whole matrices, and the keys that they choose."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clearhead
from clearhead import InputError, KeyValueCache, eviction, weights, window
from clearhead.definition import eviction as definition
from tests import arrays

random = partial(arrays.random, dtype=np.float64)
SCORES = {
    "h2o": {},
    "tova": {},
    "snapkv": {"window": 32, "kernel": 7, "pool": "max"},
}
VARIANTS = [
    *SCORES.items(),
    ("snapkv", {"window": 5, "kernel": 3, "pool": "mean"}),
    ("snapkv", {"window": 1, "kernel": 1, "pool": "max"}),
    ("snapkv", {"window": 10, "kernel": 401, "pool": "mean"}),
    ("snapkv", {"window": 999, "kernel": 3, "pool": "max"}),
]


@pytest.mark.parametrize(("name", "options"), VARIANTS)
@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_scores_are_the_definitions(name, options, lead, dtype):
    q, k, v = (random(*lead, heads, 150, 16, seed=seed, dtype=dtype) for seed, heads in enumerate((4, 2, 2)))
    q *= 2
    w = weights(q, k, mask=window(100))
    full = np.asarray(weights(q.astype(float), k.astype(float), mask=window(100)))
    atol = 1e-11 if dtype == np.float64 else 1e-4
    for values in (None, v):
        got = getattr(eviction, name)(w, v=values, **options)
        wanted = getattr(definition, name)(full, 2, values, **options)
        assert got.shape == (*lead, 2, 150)
        assert got.dtype == dtype
        np.testing.assert_allclose(got, wanted, atol=atol)


def test_a_head_alone_and_chosen_groups():
    q, k = random(2, 6, 20, 8), random(2, 3, 20, 8, seed=1)
    w, a = weights(q, k), np.asarray(weights(q, k))
    every = definition.h2o(a, 2)
    np.testing.assert_allclose(eviction.h2o(w[1]), every[1])
    np.testing.assert_allclose(eviction.h2o(w[:, [4, 5, 0, 1]]), every[:, [2, 0]])
    np.testing.assert_allclose(eviction.h2o(w[0, 3]), a[0, 3].sum(0))
    np.testing.assert_allclose(eviction.tova(w, key_heads=1), definition.tova(a, 6))
    np.testing.assert_allclose(eviction.h2o(weights(q, k[:, :1])), definition.h2o(np.asarray(weights(q, k[:, :1])), 6))
    np.testing.assert_allclose(eviction.tova(w[:, 1:4], key_heads=3), a[:, 1:4, -1])
    for part in (w[:, 1:3], w[:, :3]):
        with pytest.raises(InputError, match="whole groups of 2"):
            eviction.h2o(part)
    for wrong in (4, 0, -1, 1.5):
        with pytest.raises(InputError, match="key_heads"):
            eviction.h2o(w, key_heads=wrong)


def test_it_takes_memory_that_grows_with_the_length(monkeypatch):
    monkeypatch.setenv("CLEARHEAD_MEMORY", "1")  # MiB; a matrix would take 64
    q = random(1, 4000, 8, dtype=np.float32)
    for name, options in SCORES.items():
        assert getattr(eviction, name)(weights(q, q), **options).shape == (1, 4000)


ROWS = st.lists(st.sampled_from([0.0, 0.5, 1.0, np.inf]), min_size=1, max_size=9)


@given(ROWS, st.data())
def test_most_is_the_definitions(row, data):
    n = len(row)
    count = data.draw(st.integers(0, n))
    recent = data.draw(st.integers(0, count))
    first = data.draw(st.integers(0, count - recent))
    scores = np.array([row, row[::-1]])
    got = eviction.most(scores, count=count, recent=recent, first=first)
    np.testing.assert_array_equal(got, definition.most(scores, count, recent=recent, first=first))
    if count:
        np.testing.assert_array_equal(got, eviction.most(scores, share=count / n, recent=recent, first=first))


def test_what_cannot_be_chosen_is_told():
    scores = np.arange(10.0)
    for options in ({}, {"share": 0.5, "count": 5}, {"share": 0.0}, {"share": 1.5}, {"count": 11}, {"count": -1},
                    {"count": 3, "first": 2, "recent": 2}, {"count": 2.5}, {"share": 0.1, "recent": 5}):  # fmt: skip
        with pytest.raises(InputError):
            eviction.most(scores, **options)
    with pytest.raises(InputError, match="single number"):
        eviction.most(3.0, count=1)
    w = weights(random(9, 4), random(9, 4))
    for options in ({"window": 0}, {"kernel": 4}, {"kernel": 0}, {"pool": "median"}, {"window": 1.5}):
        with pytest.raises(InputError, match="snapkv"):
            eviction.snapkv(w, **options)
    with pytest.raises(InputError, match="not weights"):
        eviction.h2o(np.eye(3))


@pytest.mark.parametrize("name", SCORES)
def test_a_cache_is_cut_again_and_again(name):
    cache, q = KeyValueCache(), random(4, 1, 16, dtype=np.float32)
    for step in range(4):
        cache.append(*(random(2, 100, 16, seed=2 * step + i, dtype=np.float32) for i in range(2)))
        scores = getattr(eviction, name)(weights(q, cache), v=cache.arrays()[1])
        kept = eviction.most(scores, count=60, recent=10, first=2)
        positions = np.take_along_axis(cache.positions(), kept, 1)
        cache.keep(kept)
        np.testing.assert_array_equal(cache.positions(), positions)
        assert (cache.positions()[:, :2] == [0, 1]).all()
        assert (cache.positions()[:, -10:] == np.arange(100 * step + 90, 100 * step + 100)).all()
    assert clearhead.attention(q, cache).shape == (4, 1, 16)
