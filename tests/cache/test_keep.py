"""Keeping chosen keys of a cache: attention over what is left, and rules that see every key at its position."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import clearhead
from clearhead import FileError, InputError, KeyValueCache, ShapeError, attend, attention, causal, dense, full, window
from clearhead.definition import textbook
from clearhead.rules.placement import at_end
from clearhead.testing import check_same_bits
from tests import arrays

STORED = [(np.float64, None), (np.float32, None), (np.float16, None), (np.float32, "int8")]
SCATTERED = [[0, 1, 5, 6, 130, 140, 255, 299], [0, 2, 3, 128, 129, 200, 298, 299]]  # of two key heads, 300 keys

random = partial(arrays.random, dtype=np.float64)


def filled(n=300, lead=(2,), dtype=np.float64, narrow=None, kept=None):
    cache = KeyValueCache(window=kept, dtype=narrow)
    cache.append(*(random(*lead, n, 16, dtype=dtype, seed=seed) for seed in range(2)))
    return cache


def grown(cache, n, seed=5):
    lead = (len(cache.sequences),) * cache.batched + (cache.layout.heads,)
    cache.append(*(random(*lead, n, 16, dtype=cache.layout.dtype, seed=seed + i) for i in range(2)))
    return cache


@pytest.mark.parametrize(("dtype", "narrow"), STORED)
@pytest.mark.parametrize("more", [0, 1, 130])
def test_attention_has_the_bits_of_the_kept_arrays(dtype, narrow, more):
    cache = filled(dtype=dtype, narrow=narrow)
    k, v = cache.arrays()
    cache.keep(SCATTERED)
    for kept, every in zip(cache.arrays(), (k, v), strict=True):
        check_same_bits(kept, np.stack([x[chosen] for x, chosen in zip(every, SCATTERED, strict=True)]))
    if more:
        grown(cache, more)
    assert cache.lengths == (300 + more,)
    assert cache.positions().tolist() == [[*chosen, *range(300, 300 + more)] for chosen in SCATTERED]
    q = random(4, min(more + 1, 3), 16, dtype=dtype, seed=7)
    plain = [x.astype(q.dtype) if narrow is None else x for x in cache.arrays()]
    others: list[dict[str, Any]] = [
        {"mask": full()},
        {"score": clearhead.softcap(2.0)},
        {"sink": np.ones(4, np.float32)},
    ]
    no_rules: dict[str, Any] = {}
    in_turns = others[STORED.index((dtype, narrow)) % 3]  # each has kernels of its own
    for rules in (no_rules, in_turns):
        mask = rules.get("mask", causal(align="end"))
        check_same_bits(attention(q, cache, **rules), attention(q, *plain, **rules | {"mask": mask}))


TABLE = random(5, 331, seed=3)
IDS = np.arange(331) // 7 % 3
POSITIONAL = {  # masks, and score rules beside some of them
    "causal from the start": {"mask": causal(align="start")},
    "window": {"mask": window(40)},
    "window to both sides, alibi": {"mask": window(40, 3), "score": clearhead.alibi(4)},
    "all but a window, relative": {"mask": causal() & ~window(20), "score": clearhead.relative(random(4, 65), 32)},
    "prefix, several": {"mask": causal() | clearhead.prefix(3), "score": [clearhead.softcap(3.0), clearhead.alibi(4)]},
    "dilated, bias": {"mask": clearhead.dilated(5), "score": clearhead.bias(TABLE)},
    "blocks, function": {
        "mask": causal() & clearhead.blocks(random(12, 12) > -0.5, 30),
        "score": lambda score, batch, head, query, key: score - 0.1 * (query - key) * head,
    },
    "dense": {"mask": causal() & dense(TABLE > 0)},
    "where": {"mask": causal() & clearhead.where(lambda batch, head, query, key: IDS[key] == (query + head) % 3)},
}


def expected(q, every, held, mask=None, score=()):
    """The definition over all keys that ever were, where a head sees only those that it holds."""
    k, v = every
    seen = np.zeros((len(held), 1, k.shape[-2]), bool)
    for head, positions in enumerate(held):
        seen[head, :, positions] = True
    seen = dense(np.repeat(seen, len(q) // len(k), 0))
    mask = at_end(causal() if mask is None else mask)
    return textbook.attention(q, k, v, mask=mask & seen, score=score)


@pytest.mark.parametrize("name", POSITIONAL)
@pytest.mark.parametrize("twice", [False, True])
def test_rules_see_keys_at_their_positions(name, twice):
    cache, rules = filled(), POSITIONAL[name]
    every = [x.copy() for x in cache.arrays()]
    cache.keep(SCATTERED)
    every = [np.concatenate([x, random(2, 31, 16, seed=5 + i)], 1) for i, x in enumerate(every)]
    grown(cache, 31)
    if twice:
        cache.keep(np.stack([np.arange(0, 39, 2), np.arange(19, 39)]))
    q = random(4, 5, 16, seed=9)
    wanted = expected(q, every, cache.positions(), **rules)
    done = attend(q, cache, **rules)
    np.testing.assert_allclose(done.output, wanted, atol=1e-12)
    check_same_bits(done.output, attention(q, cache, **rules))
    values = np.repeat(cache.arrays()[1], 2, 0)
    np.testing.assert_allclose(np.asarray(done.weights) @ values, wanted, atol=1e-12)
    np.testing.assert_allclose(np.asarray(clearhead.weights(q, cache, **rules)), np.asarray(done.weights), atol=1e-15)


@pytest.mark.parametrize("queries", [1, 2, 3, 40])
def test_queries_from_before_see_no_later_key(queries):
    cache = filled()
    every = cache.arrays()
    cache.keep([[0, 200, 270, 298, 299], [0, 5, 290, 297, 299]])  # only the last key is in order in both heads
    q = random(4, queries, 16, seed=9)
    np.testing.assert_allclose(attention(q, cache), expected(q, every, cache.positions()), atol=1e-12)


@pytest.mark.parametrize("order", [[0, 1], [1, 0], [1, 1]])
def test_sequences_keep_keys_of_their_own(order):
    cache = filled(lead=(2, 2))
    every = [cache.arrays(n) for n in range(2)]
    chosen = np.stack([SCATTERED, SCATTERED[::-1]])
    chosen[1, :, 2] = 17, 29
    chosen.sort()
    cache.keep(chosen)
    cache.reorder(order)
    q = random(2, 4, 3, 16, seed=4)
    for rules in ({}, {"mask": window(60)}, {"score": clearhead.alibi(4)}):
        done = attend(q, cache, **rules)
        for n, source in enumerate(order):
            assert cache.positions(n).tolist() == chosen[source].tolist()
            wanted = expected(q[n], every[source], chosen[source], **rules)
            np.testing.assert_allclose(done.output[n], wanted, atol=1e-12)
        assert done.weights.shape == (2, 4, 3, 8)


def test_sequences_of_different_lengths_keep_as_many_each():
    k, v = (random(2, 2, 50, 16, seed=seed) for seed in range(2))
    cache = KeyValueCache()
    cache.append(k, v, lengths=[50, 20])
    cache.keep([[[0, 7, 49], [1, 2, 3]], [[0, 7, 19], [1, 2, 3]]])
    assert cache.lengths == (50, 20)
    grown(cache, 2)
    assert cache.positions(1).tolist() == [[0, 7, 19, 20, 21], [1, 2, 3, 20, 21]]
    q = random(2, 4, 2, 16, seed=3)
    every = [(np.concatenate([x[n, :, :m], random(2, 2, 2, 16, seed=5 + i)[n]], 1)) for n, m in ((0, 50), (1, 20))
             for i, x in enumerate((k, v))]  # fmt: skip
    for rules in ({}, {"mask": window(15)}):
        output = attention(q, cache, **rules)
        for n in range(2):
            wanted = expected(q[n], every[2 * n : 2 * n + 2], cache.positions(n), **rules)
            np.testing.assert_allclose(output[n], wanted, atol=1e-12)
    with pytest.raises(InputError, match="no common weights"):
        _ = attend(q, cache).weights
    other = filled(n=50, lead=(2, 2))
    other.keep(np.arange(50) < np.array([[[5]], [[9]]]))  # one length, but unlike numbers of keys
    with pytest.raises(InputError, match=r"that let go \[41, 45\] keys"):
        _ = attend(q, other).weights


ARGUMENTS = {
    "for all": [3, 5, 9],
    "unsorted": [9, 3, 5],
    "one row": np.array([[3, 5, 9]]),
    "for each head": np.array([[3, 5, 9]] * 2, np.int32),
    "for each sequence": np.array([[[3, 5, 9]] * 2] * 2, np.uint8),
    "booleans": np.isin(np.arange(12), [3, 5, 9]),
    "booleans for each head": np.stack([np.isin(np.arange(12), [3, 5, 9])] * 2),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_keys_are_named_in_several_ways(name):
    cache = filled(n=12, lead=(2, 2))
    cache.keep(ARGUMENTS[name])
    for n in range(2):
        assert cache.positions(n).tolist() == [[3, 5, 9]] * 2


BAD = {
    "twice": ([3, 5, 3], InputError, "key 3 twice"),
    "beyond": ([3, 12], InputError, "key 12, but sequence 0 holds keys 0 to 11"),
    "negative": ([-1, 3], InputError, "key -1"),
    "floats": ([0.0, 1.0], clearhead.DtypeError, "float64"),
    "words": (["a"], clearhead.DtypeError, "dtype <U1"),
    "a number": (3, ShapeError, r"shape \(\)"),
    "heads": (np.zeros((3, 1), int), ShapeError, r"2 sequences of 2 key heads"),
    "ragged": ([[1, 2], [3]], ShapeError, "different lengths"),
    "uneven": (np.arange(12) < np.array([[3], [4]]), InputError, r"\[3, 4\] keys"),
    "booleans of another length": (np.ones(11, bool), ShapeError, "12 keys"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_keys_are_refused_and_nothing_is_lost(name):
    keys, error, text = BAD[name]
    cache = filled(n=12, lead=(2, 2))
    before = [cache.arrays(n) for n in range(2)]
    with pytest.raises(error, match=text) as caught:
        cache.keep(keys)
    assert isinstance(caught.value, InputError)
    assert cache.lengths == (12, 12)
    for n in range(2):
        for now, then in zip(cache.arrays(n), before[n], strict=True):
            check_same_bits(now, then)
    with pytest.raises(InputError, match="empty"):
        KeyValueCache().keep([0])


def test_keeping_all_changes_nothing_and_keeping_none_leaves_the_position():
    cache, q = filled(), random(4, 2, 16)
    before = attention(q, cache, mask=window(30))
    cache.keep(np.arange(300))
    check_same_bits(attention(q, cache, mask=window(30)), before)
    cache.keep([])
    assert cache.lengths == (300,)
    assert cache.positions().shape == (2, 0)
    assert not attention(q, cache).any()
    assert grown(cache, 2).positions().tolist() == [[300, 301]] * 2


def test_memory_is_given_back():
    cache = filled(n=128 * 64, dtype=np.float32)
    before = cache.nbytes
    cache.keep(np.arange(0, 128 * 64, 64))
    assert cache.nbytes * 60 < before


@pytest.mark.parametrize(("dtype", "narrow"), STORED[::3])
def test_views_and_forks_hold_what_they_show(dtype, narrow):
    cache = filled(lead=(2, 2), dtype=dtype, narrow=narrow)
    q = random(2, 4, 2, 16, dtype=dtype, seed=3)
    done, fork = attend(q, cache, mask=window(200)), cache.fork()
    before = np.asarray(done.weights)
    cache.keep(SCATTERED)
    view = attend(q, cache, mask=window(200))
    then, kept = np.asarray(view.weights), cache.fork()
    for _ in range(4):
        grown(cache, 200)
    cache.keep(np.arange(100, 300))
    check_same_bits(np.asarray(done.weights), before)
    check_same_bits(attention(q, fork, mask=window(200)), done.output)
    check_same_bits(np.asarray(view.weights), then)
    check_same_bits(attention(q, kept, mask=window(200)), view.output)
    assert (fork.lengths, kept.lengths, cache.lengths) == ((300, 300), (300, 300), (1100, 1100))


@pytest.mark.parametrize(("dtype", "narrow"), STORED[::3])
@pytest.mark.parametrize("kept", [None, 150])
def test_files_keep_positions(tmp_path, dtype, narrow, kept):
    cache, path = filled(lead=(2, 2), dtype=dtype, narrow=narrow, kept=kept), tmp_path / "cache.safetensors"
    q = random(2, 4, 3, 16, dtype=dtype, seed=3)
    cache.keep(np.stack([np.arange(140, 300), np.arange(139, 299)]))
    for step in range(4):
        cache.save(path)
        again = KeyValueCache.load(path)
        assert again.lengths == cache.lengths
        for n in range(2):
            assert again.positions(n).tolist() == cache.positions(n).tolist()
        for mask in (window(40), window(149)):
            check_same_bits(attention(q, again, mask=mask), attention(q, cache, mask=mask))
        grown(cache, 70, seed=step)
        grown(again, 70, seed=step)
        check_same_bits(attention(q, again, mask=window(100)), attention(q, cache, mask=window(100)))


def test_a_window_lets_go_of_keys_by_their_positions():
    every = [random(2, 600, 16, seed=seed) for seed in range(2)]
    cache = KeyValueCache(window=200)
    cache.append(*(x[:, :500] for x in every))
    assert cache.first_key(0) == 0
    cache.keep(np.stack([np.arange(1, 500, 2), np.arange(0, 500, 2)]))  # 250 places; the first 128 end at 255
    cache.append(*(x[:, 500:530] for x in every))
    assert cache.first_key(0) == 128
    assert cache.positions()[:, 0].tolist() == [257, 256]
    cache.append(*(x[:, 530:] for x in every))
    q = random(4, 70, 16, seed=4)
    wanted = expected(q, every, cache.positions(), mask=window(199))
    np.testing.assert_allclose(attention(q, cache, mask=window(199)), wanted, atol=1e-12)
    with pytest.raises(InputError, match="key 5, but sequence 0 holds keys 128 to 349"):
        cache.keep([5])
    cache.keep(np.arange(200, 350))
    wanted = expected(q, every, cache.positions(), mask=window(100))
    np.testing.assert_allclose(attention(q, cache, mask=window(100)), wanted, atol=1e-12)


def damaged(tmp_path, change, dropped="290"):
    cache, path = filled(), tmp_path / "cache.safetensors"
    cache.keep(np.arange(0, 300, 30))
    cache.save(path)
    with safe_open(path, "numpy") as file:
        stored, words = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    save_file({name: np.ascontiguousarray(x) for name, x in change(stored).items()}, path, words | {"dropped": dropped})
    return path


def test_files_whose_positions_do_not_fit_are_told(tmp_path):
    def put(**arrays):
        return lambda stored: stored | {name.replace("_", "."): x for name, x in arrays.items()}

    positions = np.stack([np.arange(0, 300, 30)] * 2)
    assert KeyValueCache.load(damaged(tmp_path, put())).lengths == (300,)
    changes = [positions[:1], positions[:, ::-1], positions + 30, positions - 1, positions.astype(np.int32)]
    changes += [np.zeros((2, 11), np.int64) + np.arange(11), positions[0], positions * 0]
    for change in changes:
        with pytest.raises(FileError, match="is not a saved cache"):
            KeyValueCache.load(damaged(tmp_path, put(position_0=change)))
    for dropped in ("0", "-5", "9" * 30, "290,290", "", "x"):
        with pytest.raises(FileError, match="is not a saved cache"):
            KeyValueCache.load(damaged(tmp_path, put(), dropped))
    with pytest.raises(FileError, match="is not a saved cache"):
        KeyValueCache.load(damaged(tmp_path, lambda stored: {n: x for n, x in stored.items() if "position" not in n}))


def test_rules_that_do_not_fit_are_told():
    cache, q = filled(), random(4, 2, 16)
    cache.keep(SCATTERED)
    with pytest.raises(InputError, match="packs documents"):
        attention(q, cache, mask=clearhead.documents([300]))
    with pytest.raises(ShapeError, match="300"):  # a table has a column for each position, not for each key left
        attention(q, cache, score=clearhead.bias(np.zeros((2, 8))))
    with pytest.raises(ShapeError, match="300"):
        attention(q, cache, mask=dense(np.ones((2, 8), bool)))
    with pytest.raises(InputError, match="reads positions"):
        attend(q, cache).weights.summary("distance")
    assert set(attend(q, cache).weights.summary()) >= {"entropy", "received_sum", "top_keys"}
