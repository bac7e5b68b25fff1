"""A view holds what it shows, or says that it changed: weights whose cache, and whose arrays, change afterwards."""

import gc

import numpy as np
import pytest

import clearhead
from clearhead import KeyValueCache, attend, attention, causal, window
from clearhead.testing import check_same_bits

KEPT = [(np.float64, None), (np.float32, None), (np.float16, None), (np.float32, "int8")]


def random(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def append(cache, lead, n, seed):
    cache.append(*(random(*lead, n, 16, dtype=cache.layout.dtype, seed=seed + i) for i in range(2)))


CHANGES = {
    "append in the last page": lambda c: append(c, (2, 2), 3, 1),
    "append until pages are used again": lambda c: [append(c, (2, 2), 90, n) for n in range(8)],
    "reorder to one sequence": lambda c: (c.reorder([1, 1]), [append(c, (2, 2), 200, n) for n in range(4)]),
    "reorder and drop one": lambda c: (c.reorder([1]), [append(c, (1, 2), 200, n) for n in range(4)]),
    "fork, and both go on": lambda c: [append(x, (2, 2), 100, n) for n, x in enumerate([c.fork(), c] * 4)],
    "fork, which is dropped": lambda c: [append(c.fork(), (2, 2), 300, n) for n in range(3)],
    "reordered forks": lambda c: [
        (x.reorder([n % 2, n % 2]), append(x, (2, 2), 300, n)) for n, x in enumerate([c.fork(), c] * 3)
    ],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kept", [None, 128])
@pytest.mark.parametrize(("dtype", "narrow"), KEPT)
def test_weights_over_a_cache_stay_what_they_were(change, kept, dtype, narrow):
    cache = KeyValueCache(window=kept, dtype=narrow)
    cache.append(random(2, 2, 300, 16, dtype=dtype), random(2, 2, 300, 16, dtype=dtype, seed=9))
    q = random(2, 4, 2, 16, dtype=dtype, seed=3)
    rules = {"mask": causal() if kept is None else window(kept - 1)}
    done = attend(q, cache, **rules)
    alone, own = clearhead.weights(q, cache, **rules), clearhead.weights(q, cache, lse=done.lse, **rules)
    before, lse = np.asarray(done.weights), done.lse.copy()
    assert np.abs(before.sum(-1) - 1).max() < 1e-5
    CHANGES[change](cache)
    gc.collect()
    for weights in (done.weights, alone, own):
        check_same_bits(np.asarray(weights), before)
        check_same_bits(weights.lse, lse)
        check_same_bits(weights.row(1), before[..., 1, :])
        check_same_bits(weights.map(size=4), attend_map(before))


def attend_map(weights):
    rows, columns = (np.arange(4) * n // 4 for n in weights.shape[-2:])
    rows = np.unique(rows)
    return np.maximum.reduceat(np.maximum.reduceat(weights, rows, axis=-2), columns, axis=-1)


def test_pages_are_used_again_as_soon_as_no_view_holds_them():
    cache, x = KeyValueCache(window=100), random(1, 64, 16)
    made, held = [], []
    for n in range(60):
        cache.append(x, x)
        done = attend(x[:, :1], cache, mask=window(99))
        assert done.weights.row(0).sum() == pytest.approx(1)
        if 10 <= n < 20:
            held.append(done.weights)
        if n == 30:
            held.clear()
        made.append(cache.made)
    assert made[9] < made[30] <= 32  # pages of ten views beside the cache's own
    assert made[31] == made[-1]


def test_a_fork_that_outlives_its_cache_uses_pages_again():
    cache, x = KeyValueCache(window=100), random(1, 64, 16)
    cache.append(x, x)
    cache = cache.fork()
    for _ in range(60):
        cache.append(x, x)
    assert cache.made <= 6


def test_sequences_of_different_lengths_are_looked_at_one_at_a_time():
    k, v, q = random(2, 2, 50, 16), random(2, 2, 50, 16, seed=1), random(2, 4, 1, 16, seed=2)
    cache = KeyValueCache()
    cache.append(k, v, lengths=[50, 20])
    done = attend(q, cache)
    for _ in range(2):
        with pytest.raises(clearhead.InputError, match=r"\[20, 50\].*fork.*reorder") as caught:
            _ = done.weights
        assert "look" in str(caught.value)
        cache.append(k[:, :, :30], v[:, :, :30], lengths=[0, 30])  # now they are alike, but were not then
    one = cache.fork()
    one.reorder([1])
    assert one.lengths == (80,)
    check_same_bits(attend(q[1:], one).output, attention(q, cache)[1:])
    assert attend(q[1:], one).weights.row(0).sum() == pytest.approx(4)
