"""Decoding: few queries give the canonical bits, and a cache the bits of plain arrays."""

import re
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_dtypes import bfloat16

import clearhead
from clearhead import (
    KeyValueCache,
    alibi,
    attend,
    attention,
    causal,
    dilated,
    documents,
    full,
    prefix,
    softcap,
    where,
    window,
)
from clearhead.definition import canonical
from clearhead.engine.launch import FEW
from clearhead.machine.target import native_isas
from clearhead.testing import check_hidden, check_same_bits, using_isa
from tests.arrays import random
from tests.kernels.combinations import in_turns, isas_and_dtypes

ISAS = native_isas()


def check(q, k, v, threads=(1,), **rules):
    asked = clearhead.problem(q, k, v, mask=rules["mask"])
    assert clearhead.kernel_for(asked).spec.kernel == "decode"
    output, lse = canonical.attention(q, k, v, **rules)
    for n in threads:
        got = attend(q, k, v, threads=n, **rules)
        check_same_bits(got.output, output, f"outputs by {n} threads")
        check_same_bits(got.lse, lse, f"log-sum-exps by {n} threads")


RULES = {
    "causal": {"mask": causal(align="end")},
    "full": {"mask": full()},
    "window": {"mask": window(50, align="end")},
    "where": {"mask": window(None, None, align="end") & where(lambda b, h, q, k: (q + k + h) % 3 != 0)},
    "scores": {"mask": window(None, None, align="end"), "score": [alibi(4), softcap(2.0)]},
    "sink": {"mask": causal(align="start"), "sink": random(4)},
    "nothing seen": {"mask": window(0, 0, align="start") & ~window(0, 0, align="start")},
}


@given(
    st.sampled_from(in_turns(sorted(RULES), isas_and_dtypes(), 1)), st.integers(1, FEW), st.integers(1, 400),
    st.sampled_from([1, 2, 4]), st.booleans(),
)  # fmt: skip
def test_few_queries_give_the_canonical_bits(kernel, queries, keys, key_heads, batches):
    rule, (isa, dtype) = kernel
    lead = (2,) if batches else ()
    q, k = random(*lead, 4, queries, 16, dtype=dtype), random(*lead, key_heads, keys, 16, dtype=dtype)
    v = random(*lead, key_heads, keys, 48, dtype=dtype)
    with using_isa(isa):
        check(q, k, v, **RULES[rule])


@pytest.mark.parametrize("keys", [2047, 2048, 2049, 4100, 6200])
def test_segments_that_threads_share_merge_in_order(keys):
    q, k, v = random(4, 1, 32), random(2, keys, 32), random(2, keys, 32)
    for mask in (full(), window(2100, align="end")):
        check(q, k, v, threads=(1, 2, 3, 7), mask=mask)


@pytest.mark.parametrize("at", [2**31 - 1, 2**31 + 5, 2**32])
def test_positions_that_fill_32_bits(at):
    row = random(1, 16)
    k = np.broadcast_to(row, (2**32 + 100, 16))
    few, many = (attend(np.repeat(row, n, 0), k, k, mask=window(99, 0, at=at)) for n in (1, FEW + 1))
    check_same_bits(
        few.output, attend(row, k[:4000], k[:4000], mask=window(99, 0, at=at % 128 + 256)).output, "outputs"
    )
    check_same_bits(few.lse, many.lse[:1], "log-sum-exps")


@pytest.mark.parametrize("queries", [3, 6])
def test_queries_before_the_keys_that_a_cache_still_holds_see_nothing(queries):
    q, k = random(2, queries, 16), random(2, 200, 16, seed=1)
    whole, cache = KeyValueCache(), KeyValueCache(window=1)
    for part in (k[:, :140], k[:, 140:]):
        whole.append(part, part)
        cache.append(part, part)
    left = where(lambda b, h, q, k: k >= 128)
    late = where(lambda b, h, q, k: k > 2)
    for mask in (window(0, 0, at=20), window(0, 3, at=126), causal(at=20) & late, causal(at=126) & late):
        got, expected = attend(q, cache, mask=mask), attend(q, whole, mask=mask & left)
        check_same_bits(got.output, expected.output, f"outputs of {mask}")
        check_same_bits(got.lse, expected.lse, f"log-sum-exps of {mask}")
        check_same_bits(np.asarray(got.weights), np.asarray(expected.weights), f"weights of {mask}")


def test_layouts():
    wide = random(2, 300, 64)
    k, v = wide[:, ::-2, :32], wide[::-1, ::2, 32:]
    q = random(2, 3, 64)[:, :, ::2]
    check(q, k, v, mask=full())
    check(np.broadcast_to(q[:1], (2, 3, 32)), np.broadcast_to(k[:1, :1], (2, 20, 32)), v[:, :20], mask=full())


def test_hidden_keys_and_values_are_never_touched():
    q, k, v = random(2, 3, 16), random(2, 40, 16), random(2, 40, 16)
    for name in ("causal", "window", "where"):
        if name != "where":
            check_hidden(attention, q, k, v, **RULES[name])
        spoilt = v.copy()
        spoilt[:, 5], spoilt[:, 38] = np.nan, np.inf
        check(q, k, spoilt, **RULES[name])


CACHED = [(np.float32, 32, 48, None), (np.float64, 16, 16, 120), (np.float32, 7, 5, None)]


@pytest.mark.parametrize(("kind", "isa"), in_turns(CACHED, ISAS))
def test_a_cache_gives_the_bits_of_the_whole(kind, isa):
    (dtype, dim, value_dim, kept), n = kind, 420
    q, k = random(2, 4, n, dim, dtype=dtype), random(2, 2, n, dim, dtype=dtype)
    v = random(2, 2, n, value_dim, dtype=dtype)
    mask = causal() if kept is None else window(kept - 1)
    rules = {"score": alibi(4), "sink": random(4)}
    with using_isa(isa):
        whole, cache, start = attend(q, k, v, mask=mask, **rules), KeyValueCache(window=kept), 0
        for step in (1, 126, 1, 1, 1, 40, 3, 4, 5, 1, 100, 1, 136):
            part = np.s_[:, :, start : start + step]
            cache.append(k[part], v[part])
            got = attend(q[part], cache, mask=mask, **rules)
            check_same_bits(got.output, whole.output[part], f"outputs from {start}")
            check_same_bits(got.lse, whole.lse[part], "log-sum-exps")
            start += step
    assert start == n == cache.lengths[0]


TOO_FAR = {
    "reaches back 100 keys, but KeyValueCache(window=100) keeps no more than 99": window(100),
    "give mask=window(99) or yours & window(99), or make the cache with window=151.": causal() & window(150, 5),
    "reaches back 104 keys": dilated(8) & window(108),
    "reaches back to the first key": causal(),
    "give mask=window(99) or yours & window(99), or make the cache with no window.": full(),
    "mask=window(None, 0) reaches": window(None),
    "mask=window(99, 0) | prefix(4) reaches": window(99) | prefix(4),
    "mask=window(99, 0) | window(200, 0) reaches back 200": window(99) | window(200),
    "mask=dilated(4) reaches": dilated(4),
    "window(None, None, align='end') reaches back 200": (window(99) | window(200)) & window(None, None, align="end"),
}


@pytest.mark.parametrize("held", [20, 400])  # with and without pages to let go
def test_a_windows_cache_refuses_masks_that_reach_further(held):
    cache, x, q = KeyValueCache(window=100), random(1, held, 16), random(1, 3, 16, seed=1)
    cache.append(x, x)
    cache.append(x[:, :3], x[:, :3])
    for words, mask in TOO_FAR.items():
        for call in (
            lambda mask: attention(q, cache, mask=mask),
            lambda mask: attend(q, cache, mask=mask),
            lambda mask: clearhead.weights(q, cache, mask=mask),
            lambda mask: clearhead.weights(q, cache, mask=mask, lse=np.zeros((1, 3), np.float32)),
        ):
            with pytest.raises(clearhead.InputError, match=re.escape(words)):
                call(mask)
    with pytest.raises(clearhead.InputError, match="reaches back to the first key"):
        clearhead.partial(q, cache, mask=causal(at=held))
    every = KeyValueCache()
    every.append(x, x)
    every.append(x[:, :3], x[:, :3])
    for mask in (window(99), causal() & window(99), window(400) & window(0, None), window(103) & dilated(8), window(9)):
        check_same_bits(attention(q, cache, mask=mask), attention(q, every, mask=mask), str(mask))
    for mask in (where(lambda b, h, q, k: k <= q), causal() & where(lambda b, h, q, k: k > 2)):  # nobody knows how far
        attention(q, cache, mask=mask)


def test_a_windows_cache_does_not_grow():
    cache, x = KeyValueCache(window=200), random(1, 64, 16)
    sizes = []
    for _ in range(60):
        cache.append(x, x)
        sizes.append(cache.nbytes)
    assert sizes[-1] == sizes[20] <= 5 * 128 * 2 * 16 * 4


def test_sequences_of_different_lengths():
    q, k, v = random(3, 2, 1, 16), random(3, 2, 50, 16), random(3, 2, 50, 16)
    cache = KeyValueCache()
    cache.append(k, v, lengths=[50, 7, 21])
    got = attend(q, cache, sink=np.zeros(2, np.float32))
    for i, n in enumerate(cache.lengths):
        one = attend(q[i], k[i, :, :n], v[i, :, :n], mask=causal(align="end"), sink=np.zeros(2, np.float32))
        check_same_bits(got.output[i], one.output)
        check_same_bits(got.lse[i], one.lse)


def test_forks_and_beams_share_pages_until_they_write():
    k, v, new = random(2, 2, 300, 16), random(2, 2, 300, 16), random(3, 2, 1, 16)
    cache = KeyValueCache()
    cache.append(k, v)
    made = cache.created
    other = cache.fork()
    cache.reorder([1, 0, 1])
    assert (cache.created, other.created) == (made, 0)
    cache.append(new, new)
    q = random(3, 2, 1, 16)
    for i, source in enumerate([1, 0, 1]):
        keys, values = (np.concatenate([x[source], new[i]], 1) for x in (k, v))
        check_same_bits(attention(q, cache)[i], attention(q[i], keys, values, mask=causal(align="end")))
    check_same_bits(attention(q[:2], other), attention(q[:2], k, v, mask=causal(align="end")))


@pytest.mark.parametrize("kept", [None, 150])
def test_a_cache_is_saved_and_loaded(tmp_path, kept):
    k, v, q = random(2, 2, 300, 7), random(2, 2, 300, 5), random(2, 4, 1, 7)
    cache = KeyValueCache(window=kept)
    for start in (0, 200):
        cache.append(k[:, :, start : start + 200], v[:, :, start : start + 200], lengths=[min(100, 300 - start), 90])
    cache.save(tmp_path / "cache.safetensors")
    again = KeyValueCache.load(tmp_path / "cache.safetensors")
    assert (again.lengths, again.window, [f.name for f in tmp_path.iterdir()]) == (
        (200, 180),
        kept,
        ["cache.safetensors"],
    )
    mask = causal() if kept is None else window(kept - 1)
    check_same_bits(attention(q, again, mask=mask), attention(q, cache, mask=mask))
    again.append(k[:, :, :1], v[:, :, :1])
    cache.append(k[:, :, :1], v[:, :, :1])
    check_same_bits(attention(q, again, mask=mask), attention(q, cache, mask=mask))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda c, x: attention(x, c, x), clearhead.InputError, ["without v"]),
        (lambda c, x: attention(x[0], c), clearhead.ShapeError, ["(2, 5, 16)", "(2, heads, n, 16)"]),
        (lambda c, x: attention(x, KeyValueCache()), clearhead.InputError, ["empty"]),
        (lambda c, x: c.append(x, x[:, :, :2]), clearhead.ShapeError, ["(2, 2, 2, 16)"]),
        (lambda c, x: c.append(x[..., :3], x), clearhead.ShapeError, ["do not fit", "values of dim"]),
        (lambda c, x: c.append(x.astype(np.float16), x), clearhead.DtypeError, ["float16"]),
        (lambda c, x: c.append(x, x, lengths=[1]), clearhead.ShapeError, ["[1]", "2 numbers"]),
        (lambda c, x: c.reorder([2]), clearhead.InputError, ["[2]"]),
        (lambda c, x: KeyValueCache(window=0), clearhead.InputError, ["window=0"]),
        (lambda c, x: KeyValueCache.load("/nowhere"), clearhead.FileError, ["/nowhere"]),
    ],
)
def test_wrong_uses_are_refused_and_change_nothing(call, error, words):
    x, cache = random(2, 2, 5, 16), KeyValueCache()
    cache.append(x, x)
    with pytest.raises(error) as caught:
        call(cache, x)
    assert all(word in str(caught.value) for word in words), caught.value
    assert cache.lengths == (5, 5)


KEPT = [(np.float16, None), (bfloat16, None), (np.float32, "int8"), (bfloat16, "int8"), (np.float16, "int8")]


@given(
    st.sampled_from(in_turns(product(KEPT, ISAS), sorted(RULES), 1)), st.integers(1, 9),
    st.integers(1, 300), st.sampled_from([1, 2, 4]), st.sampled_from([(16, 48), (7, 5), (32, 20)]),
)  # fmt: skip
def test_narrow_caches_give_the_bits_of_their_arrays(kernel, queries, keys, key_heads, dims):
    ((dtype, narrow), isa), rule = kernel
    rules = RULES[rule]
    q, k = random(4, queries, dims[0], dtype=dtype), random(key_heads, keys, dims[0], dtype=dtype)
    v = random(key_heads, keys, dims[1], dtype=dtype)
    cache = KeyValueCache(dtype=narrow)
    for first in range(0, keys, 77):
        cache.append(k[:, first : first + 77], v[:, first : first + 77])
    k_kept, v_kept = cache.arrays()
    if narrow is None:
        np.testing.assert_array_equal(k_kept, k)
    wide = [x.astype(np.float32) for x in (q, k_kept, v_kept)]
    with using_isa(isa):
        got = attend(q, cache, **rules)
    if rule == "causal":
        rules = {"mask": causal(align="end")}
    output, lse = canonical.attention(*wide, **rules)
    check_same_bits(got.output, output.astype(dtype), "outputs")
    check_same_bits(got.lse, lse, "log-sum-exps")


@pytest.mark.parametrize("dtype", [np.float16, bfloat16])
@pytest.mark.parametrize("isa", ISAS)
def test_few_narrow_queries_over_arrays_decode(dtype, isa):
    q, k, v = random(4, 2, 32, dtype=dtype), random(2, 300, 32, dtype=dtype), random(2, 300, 64, dtype=dtype)
    asked = clearhead.problem(q, k, v, mask=causal(align="end"))
    with using_isa(isa):
        assert clearhead.kernel_for(asked).spec.kernel == "decode"
        got = attention(q, k, v, mask=causal(align="end"))
    output, _ = canonical.attention(*(x.astype(np.float32) for x in (q, k, v)), mask=causal(align="end"))
    check_same_bits(got, output.astype(dtype), "outputs")


def test_8_bits_are_rounded_once_and_by_row():
    k, v = random(2, 200, 16) * np.float32(3), random(2, 200, 32)
    k[0, 3], v[1, 5] = 0, 1e-6 * v[1, 5]
    once, piecewise = KeyValueCache(dtype="int8"), KeyValueCache(dtype="int8")
    once.append(k, v)
    for i in range(200):
        piecewise.append(k[:, i : i + 1], v[:, i : i + 1])
    for a, b, x in zip(once.arrays(), piecewise.arrays(), (k, v), strict=True):
        np.testing.assert_array_equal(a, b)
        assert (np.abs(a - x) <= np.abs(x).max(-1, keepdims=True) * np.float32(0.5 / 127 * 1.001)).all()
    assert once.rounding == piecewise.rounding
    assert once.rounding[0] == np.abs(once.arrays()[0] - k).max()
    assert once.nbytes < 0.4 * sum(x.nbytes for x in (k, v)) * 256 / 200


def test_8_bits_of_what_is_not_finite():
    k, v = random(1, 5, 16), random(1, 5, 16)
    k[0, 1, 3] = np.nan
    cache = KeyValueCache(dtype="int8")
    cache.append(k, v)
    assert np.isnan(cache.arrays()[0][0, 1]).all()
    seen = attention(random(1, 1, 16), cache, mask=where(lambda b, h, q, k: k != 1))
    assert np.isfinite(seen).all()


@pytest.mark.parametrize(("dtype", "narrow"), KEPT)
def test_narrow_caches_are_forked_reordered_and_saved(dtype, narrow, tmp_path):
    k, v, q = (random(2, 2, n, 16, dtype=dtype) for n in (150, 150, 1))
    cache = KeyValueCache(dtype=narrow, window=64)
    cache.append(k, v, lengths=[150, 131])
    cache.reorder([1, 0])
    cache.fork().append(k[:, :, :5], v[:, :, :5])
    cache.save(tmp_path / "cache.safetensors")
    loaded = KeyValueCache.load(tmp_path / "cache.safetensors")
    assert (loaded.lengths, loaded.rounding) == (cache.lengths, cache.rounding) == ((131, 150), cache.rounding)
    mask = window(63, align="end")
    expected = attend(q, cache, mask=mask)
    got = attend(q, loaded, mask=mask)
    check_same_bits(got.output, expected.output, "outputs")
    check_same_bits(got.lse, expected.lse, "log-sum-exps")


def test_wrong_dtypes_of_caches_are_told():
    with pytest.raises(clearhead.InputError, match="int4"):
        KeyValueCache(dtype="int4")
    with pytest.raises(clearhead.DtypeError, match="float64"):
        KeyValueCache(dtype="int8").append(np.zeros((1, 1, 4)), np.zeros((1, 1, 4)))
    cache = KeyValueCache()
    with pytest.raises(clearhead.DtypeError, match="int32"):
        cache.append(np.zeros((1, 1, 4), np.int32), np.zeros((1, 1, 4), np.int32))
    cache.append(np.zeros((1, 1, 4), np.float16), np.zeros((1, 1, 4), np.float16))
    with pytest.raises(clearhead.DtypeError, match="float32"):
        attention(np.zeros((1, 1, 4), np.float32), cache)


@pytest.mark.parametrize("queries", [1, 9])
def test_packed_documents_and_a_cache_are_refused(queries):
    cache = KeyValueCache()
    cache.append(random(2, 30, 16), random(2, 30, 16))
    mask = documents([10, 20], queries=[0, queries]) & causal(align="end")
    with pytest.raises(clearhead.InputError, match="separate sequence"):
        attention(random(2, queries, 16), cache, mask=mask)
    with pytest.raises(clearhead.InputError, match="separate sequence"):
        clearhead.weights(random(2, queries, 16), cache, mask=mask, lse=np.zeros((2, queries), np.float32))
