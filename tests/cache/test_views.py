"""A view holds what it shows, or says that it changed: weights whose cache, and whose arrays, change afterwards."""

import gc
from functools import partial

import numpy as np
import pytest

import clearhead
from clearhead import KeyValueCache, attend, attention, causal, window
from clearhead.testing import check_same_bits
from tests import arrays

KEPT = [(np.float64, None), (np.float32, None), (np.float16, None), (np.float32, "int8")]


random = partial(arrays.random, dtype=np.float64)


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
    gc.collect(1)  # all that this test has made
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
        made.append(cache.created)
    assert made[9] < made[30] <= 32  # pages of ten views beside the cache's own
    assert made[31] == made[-1]


def test_a_fork_that_outlives_its_cache_uses_pages_again():
    cache, x = KeyValueCache(window=100), random(1, 64, 16)
    cache.append(x, x)
    cache = cache.fork()
    for _ in range(60):
        cache.append(x, x)
    assert cache.created <= 6


def test_sequences_of_different_lengths_are_looked_at_one_at_a_time():
    k, v, q = random(2, 2, 50, 16), random(2, 2, 50, 16, seed=1), random(2, 4, 1, 16, seed=2)
    cache = KeyValueCache()
    cache.append(k, v, lengths=[50, 20])
    done = attend(q, cache)
    for _ in range(2):
        with pytest.raises(clearhead.InputError, match=r"\[20, 50\].*fork.*reorder") as caught:
            _ = done.weights
        assert "select one" in str(caught.value)
        cache.append(k[:, :, :30], v[:, :, :30], lengths=[0, 30])  # now they are alike, but were not then
    one = cache.fork()
    one.reorder([1])
    assert one.lengths == (80,)
    check_same_bits(attend(q[1:], one).output, attention(q, cache)[1:])
    assert attend(q[1:], one).weights.row(0).sum() == pytest.approx(4)


@pytest.mark.parametrize("kept", [130, 300])
@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
@pytest.mark.parametrize(("dtype", "narrow"), KEPT)
def test_sequences_of_one_length_may_begin_with_different_keys(kept, order, dtype, narrow):
    k, v = (random(2, 2, 710, 16, dtype=dtype, seed=n) for n in range(2))
    cache = KeyValueCache(window=kept, dtype=narrow)
    cache.append(k[:, :, :700], v[:, :, :700], lengths=[700, 0])
    cache.append(k, v, lengths=[10, 710])  # only the first sequence had keys to let go
    cache.reorder(order)
    assert {cache.first_key(n) for n in range(2)} == {0, (700 - kept + 1) // 128 * 128}
    q = random(2, 4, 6, 16, dtype=dtype, seed=2)
    for mask in (window(kept - 1), window(20, 3), clearhead.where(lambda b, h, q, k: k <= q)):
        done = attend(q, cache, mask=mask)
        check_same_bits(done.output, attention(q, cache, mask=mask))
        for n in range(2):
            one = cache.fork()
            one.reorder([n])
            alone = attend(q[n : n + 1], one, mask=mask)
            check_same_bits(done.output[n : n + 1], alone.output)
            check_same_bits(done.lse[n : n + 1], alone.lse)
            np.testing.assert_allclose(np.asarray(alone.weights).sum(-1), 1, atol=1e-5)
        with pytest.raises(clearhead.InputError, match=r"first keys are \[0, \d+\].*reorder"):
            _ = done.weights


def test_a_cache_of_no_heads_is_one(tmp_path):
    cache = KeyValueCache()
    cache.append(np.zeros((0, 150, 4)), np.zeros((0, 150, 3)))
    cache.save(tmp_path / "cache.safetensors")
    for some in (cache, KeyValueCache.load(tmp_path / "cache.safetensors")):
        assert some.lengths == (150,)
        assert some.arrays()[1].shape == (0, 150, 3)
        assert attention(np.zeros((0, 2, 4)), some).shape == (0, 2, 3)


HELD = {
    "q": lambda q, k, table, seen: np.multiply(q, 1.5, out=q),
    "k": lambda q, k, table, seen: np.add(k, 0.25, out=k),
    "one key": lambda q, k, table, seen: k[:, 7].__setitem__(..., 2),
    "one query": lambda q, k, table, seen: q[:, -1].__setitem__(..., 2),
    "a table": lambda q, k, table, seen: table[39].__setitem__(3, 9),
    "what is seen": lambda q, k, table, seen: seen[39].__setitem__(5, False),
}


@pytest.mark.parametrize("change", HELD)
@pytest.mark.parametrize(("dtype", "sink"), [(np.float16, None), (np.float32, np.ones(4)), (np.float64, None)])
def test_whole_rows_of_what_has_changed_are_refused(change, dtype, sink):
    q, k, v = random(4, 40, 16, dtype=dtype), random(2, 40, 16, dtype=dtype, seed=1), random(2, 40, 8, dtype=dtype)
    table, seen = random(40, 40), random(40, 40) > -1
    seen[39] = True
    rules = {"mask": clearhead.dense(seen) & causal(), "score": clearhead.bias(table), "sink": sink}
    done, found = attend(q, k, v, **rules), clearhead.weights(q, k, **rules)
    for weights in (done.weights, found):  # while nothing changes, everything can be asked
        weights.row(-1)
        np.asarray(weights)
    HELD[change](q, k, table, seen)
    for weights in (done.weights, found, done.weights[1]):
        for look in (
            np.asarray,
            lambda w: w.row(-1),
            lambda w: w[..., 39, :],
            lambda w: w.block(slice(9, 40), slice(None)),
        ):
            with pytest.raises(clearhead.InputError, match="changed since") as caught:
                look(weights)
            assert "copies" in str(caught.value)
    np.asarray(attend(q, k, v, **rules).weights)


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("row", [0, 17, 31])
def test_any_row_of_a_few_that_has_changed_is_refused(heads, row):
    q, k = random(heads, 32, 16), random(heads, 32, 16, seed=1)
    sink = np.ones(heads)
    for rules in ({"mask": clearhead.full()}, {"mask": clearhead.full(), "sink": sink}):
        w = attend(q, k, k, **rules).weights
        np.asarray(w)
        held = q[0, row].copy()
        q[0, row] *= 3
        for look in (np.asarray, lambda w: w.row(row), lambda w: np.asarray(w[0])):
            with pytest.raises(clearhead.InputError, match=f"query {row} sum to .*changed since"):
                look(w)
        w.row(1), w[..., 20:30, :]  # those that are as they were
        q[0, row] = held
        np.asarray(w)


def test_a_log_sum_exp_of_more_keys_gives_shares_of_the_whole():
    q, k = random(3, 16), random(20, 16)
    whole = attend(q, k, k, mask=clearhead.full())
    parts = [np.asarray(clearhead.weights(q, x, lse=whole.lse, mask=clearhead.full())) for x in (k[:8], k[8:])]
    np.testing.assert_allclose(np.concatenate(parts, 1), np.asarray(whole.weights), atol=1e-12)


def test_rows_of_any_size_of_score_pass():
    for size in (1, 1e3, 1e5, 1e7, 1e9, 1e30):
        for dtype in (np.float32, np.float64):
            x = random(2, 300, 16, dtype=dtype) * dtype(np.sqrt(size))
            np.asarray(attend(x, x, x).weights)
    x[0, 3] = np.nan
    np.asarray(attend(x, x, x, mask=clearhead.full()).weights)


def test_gradients_are_of_the_arrays_as_they_are():
    q, k, v, d = (random(2, 9, 4, seed=n) for n in range(4))
    done, before = attend(q, k, v), attend(q, k, v).backward(d)
    held = q.copy()
    q *= 2
    assert not np.array_equal(done.backward(d).k, before.k)  # held, not copied, as its docstring says
    q[...] = held
    check_same_bits(done.backward(d).k, before.k)
