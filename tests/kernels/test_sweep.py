"""The reduce kernel: every question about weights against the definition, on every instruction set and any threads.

Each mask meets one score rule, instruction set, dtype and sink or none of it, in turns.
"""

from dataclasses import replace
from itertools import product

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clearhead
from clearhead import KeyValueCache, Match, attend, causal, full, problem, softcap, weights, where, window
from clearhead.attention_weights.questions import SHARES, USUAL
from clearhead.definition import canonical
from clearhead.definition import weights as definition
from clearhead.engine.launch import spec_for
from clearhead.kernels.abi.softmax_state import FOUND
from clearhead.machine.compile import assembly
from clearhead.machine.target import AARCH64, native_isas
from clearhead.rules.placement import split_documents
from clearhead.testing import check_same_bits, using_isa
from tests.arrays import random
from tests.kernels.combinations import each_in_turns, in_turns
from tests.kernels.test_rules import HEADS, MASKS, SCORES

ISAS = native_isas()
COMBINATIONS = each_in_turns(  # the mask that shows nothing first: its score rule comes round again
    sorted(MASKS, key=lambda name: (name != "empty window", name)), sorted(SCORES)
)
ALONG_ROWS = ("entropy", "distance", "within", "first", "off_first", "top", *SHARES)
TOLERANCE = {4: 2e-5, 8: 2e-13}


def close(got, wanted, dtype, what):
    np.testing.assert_allclose(got, wanted, rtol=TOLERANCE[np.dtype(dtype).itemsize],
                               atol=TOLERANCE[np.dtype(dtype).itemsize], err_msg=what)  # fmt: skip


def first_keys(mask, queries, keys):
    """The first key of each query's document."""
    return np.concatenate([np.full(s.queries, s.first_key) for s in split_documents(mask, queries, keys)[0]])


def check(q, k, near=9, top=3, sink=None, mask=None, score=()):
    """All weights and every answer, against the definition in float64."""
    dtype, mask = q.dtype, causal() if mask is None else mask
    w = weights(q, k, mask=mask, score=score, sink=sink)
    exact = tuple(x.astype(np.float64) for x in (q, k))
    a = definition.weights(*exact, mask=mask, score=score, sink=sink)
    got = np.asarray(w)
    close(got, a, dtype, "weights")
    assert ((got == 0) | (a > 0)).all()
    apart, firsts = definition.distances(*a.shape[-2:], mask), first_keys(mask, *a.shape[-2:])  # type: ignore[call-arg]
    groups, matches = some_groups(a.shape), some_matches(a.shape)
    s = w.summary(*USUAL, *SHARES, top=top, window=near, groups=groups, matches=matches)
    for name, wanted in {
        "entropy": definition.entropy(a),
        "received_sum": definition.received_sum(a),
        "received_max": definition.received_max(a),
        "received_mean": definition.received_mean(a),
        "within": definition.within(a, apart, near),
        "first": definition.first(a, firsts),
        "off_first": definition.off_first(a, firsts),
        "top_weights": definition.top(a, top)[1],
        "sink_share": definition.sink_share(a) if sink is not None else np.zeros(a.shape[:-1]),
        "distances": definition.by_distance(a, apart, definition.distance_edges(*a.shape[-2:])),
        "groups": definition.groups(a, np.stack([mask_of(x, a.shape) for x in groups.values()], axis=-2)),
        "matches": np.stack(
            [
                definition.matches(
                    a, q, k, None if own else definition.distances(a.shape[-2], a.shape[-1], mask, shift)
                )
                for q, k, own, shift in matches.values()
            ],
            axis=-1,
        ),
    }.items():
        close(s[name], wanted, dtype, name)
    close(s.effective / a.shape[-1], definition.effective(a) / a.shape[-1], dtype, "effective")
    close(s.distance / apart.max(initial=1), definition.distance(a, apart) / apart.max(initial=1), dtype, "distance")
    listed = s.top_keys >= 0
    assert np.array_equal(s.top_weights > 0, listed)
    own = np.take_along_axis(got, np.maximum(s.top_keys, 0), -1)
    assert np.array_equal(own[listed], s.top_weights[listed])  # the very weights
    return w, got


def some_groups(shape):
    """A slice, a list, a mask for all heads and one for each."""
    rng, keys = np.random.default_rng(1), shape[-1]
    masks = rng.random(keys) < 0.5, rng.random((*shape[:-2], keys)) < 0.1
    return {"begin": slice(0, 20), "two": [keys - 1, keys // 2], "half": masks[0], "own": masks[1]}


def mask_of(group, shape):
    """A group as truths, (..., keys)."""
    members = group if isinstance(group, np.ndarray) else np.isin(np.arange(shape[-1]), np.arange(shape[-1])[group])
    return np.broadcast_to(members, (*shape[:-2], shape[-1]))


def some_matches(shape):
    """Labels for all heads and for each, some of them negative."""
    *lead, queries, keys = shape
    rng = np.random.default_rng(2)
    shared = rng.integers(-1, 4, queries), rng.integers(-1, 5, keys)
    return {
        "shared": Match(*shared),
        "apart": Match(*shared, own=False),
        "behind": Match(*shared, own=False, shift=3),
        "each": Match(rng.integers(0, 1 << 60, (*lead, 1)) + rng.integers(0, 3, queries), np.arange(keys)),
        "large": Match(np.full(queries, 1 << 62), np.full(keys, 1 << 62), own=False),
    }


@pytest.mark.parametrize("one", COMBINATIONS, ids=str)
def test_any_combination_is_what_the_definition_says(one):
    for queries, keys, batches in one.sizes():
        lead = (2, HEADS) if batches else (HEADS,)
        q, k = random(*lead, queries, 5, dtype=one.dtype), random(*lead, keys, 5, dtype=one.dtype, seed=1)
        with using_isa(one.isa):
            check(
                q, k, mask=MASKS[one.mask](queries, keys), score=SCORES[one.score](queries, keys),
                sink=random(HEADS, dtype=one.dtype) if one.sink else None,
            )  # fmt: skip


@pytest.mark.parametrize("one", COMBINATIONS[::2], ids=str)
def test_scores_have_the_canonical_bits(one):
    for queries, keys, batches in one.sizes():
        lead = (2, HEADS) if batches else (HEADS,)
        q, k = random(*lead, queries, 5, dtype=one.dtype), random(*lead, keys, 5, dtype=one.dtype, seed=1)
        rules = {"mask": MASKS[one.mask](queries, keys), "score": SCORES[one.score](queries, keys)}
        wanted = canonical.scores(q, k, **rules)
        with using_isa(one.isa):
            scores = weights(q, k, **rules).scores
            check_same_bits(np.asarray(scores), wanted)
            check_same_bits(scores[..., 1:3, ::-2], wanted[..., 1:3, ::-2])
        exact = definition.scores(q.astype(np.float64), k.astype(np.float64), **rules)
        close(wanted, exact, one.dtype, "scores")


@given(
    st.sampled_from(COMBINATIONS), st.integers(1, 150), st.integers(1, 300),
    st.integers(0, 200), st.integers(0, 200), st.integers(0, 200), st.integers(0, 200),
)  # fmt: skip
def test_a_part_has_the_bits_of_the_whole(one, queries, keys, first, rows, begin, columns):
    q, k = random(HEADS, queries, 6, dtype=one.dtype), random(HEADS, keys, 6, dtype=one.dtype, seed=1)
    with using_isa(one.isa):
        w = weights(
            q, k, mask=MASKS[one.mask](queries, keys), score=SCORES[one.score](queries, keys),
            sink=random(HEADS, dtype=one.dtype) if one.sink else None,
        )  # fmt: skip
        part = slice(first, first + rows), slice(begin, begin + columns)
        check_same_bits(w.block(*part), np.asarray(w)[:, part[0], part[1]])


@given(
    st.sampled_from(in_turns(sorted(MASKS), product(ISAS, ["max", "sum", "mean"]), 1)),
    st.integers(1, 150), st.integers(1, 300), st.integers(1, 40), st.integers(1, 40), st.integers(0, 50),
)  # fmt: skip
def test_a_picture_pools_every_pixel_exactly(pooled, queries, keys, height, width, begin):
    mask, (isa, how) = pooled
    q, k = random(HEADS, queries, 6), random(HEADS, keys, 6, seed=1)
    rule = MASKS[mask](queries, keys)
    part = np.s_[:, min(begin, queries - 1) :, min(begin, keys - 1) :]
    a = definition.weights(q.astype(np.float64), k.astype(np.float64), mask=rule)[part]
    size = min(height, a.shape[-2]), min(width, a.shape[-1])
    with using_isa(isa):
        picture = weights(q, k, mask=rule).map(part[1], part[2], size=size, reduce=how)
    np.testing.assert_allclose(picture, definition.pooled(a, size, how), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("mask", [causal(), window(700, 40), full()])
def test_many_blocks_and_groups(mask):
    q, k = random(1, 2500, 8), random(1, 2500, 8, seed=1)
    w, got = check(q, k, near=300, top=5, mask=mask)
    np.testing.assert_allclose(got.sum(-1), 1, atol=3e-6)
    close(w.map(size=50, reduce="sum") / 2500, definition.pooled(got.astype(np.float64), (50, 50), "sum") / 2500,
          np.float32, "picture")  # fmt: skip


def test_the_same_bits_for_any_number_of_threads_and_any_heads_beside():
    q, k = random(3, 3000, 16), random(3, 3000, 16, seed=1)
    one, many = (weights(q, k, threads=n) for n in (1, 3))
    labels = {"each": Match(random(3, 3000).astype(np.int64), random(3, 3000, seed=1).astype(np.int64))}
    names, groups = (*USUAL, *SHARES), {"half": random(3000) > 0}
    a, b = (w.summary(*names, groups=groups, matches=labels) for w in (one, many))
    labels = {"each": Match(*(x[1] for x in labels["each"][:2]))}
    alone = many[1].summary(*names, groups=groups, matches=labels)
    for name, x in a.items():
        check_same_bits(x, b[name], name)
        check_same_bits(x[1], alone[name], name)
    check_same_bits(one.map(size=100, reduce="sum"), many.map(size=100, reduce="sum"))
    check_same_bits(one[:, 1000:1200], many[:, 1000:1200])


@pytest.mark.parametrize(("isa", "mask"), in_turns(ISAS, [causal(), window(70)], 1))
def test_the_same_bits_along_rows_on_every_instruction_set(isa, mask):
    q, k = random(HEADS, 300, 7), random(HEADS, 300, 7, seed=1)
    best = weights(q, k, mask=mask, score=softcap(3.0))
    asked = {"groups": some_groups(best.shape), "matches": some_matches(best.shape)}
    with using_isa(isa):
        w = weights(q, k, mask=mask, score=softcap(3.0))
        check_same_bits(np.asarray(w), np.asarray(best))
        found = w.summary(*ALONG_ROWS, **asked)
        check_same_bits(np.asarray(w.scores), np.asarray(best.scores))
    for name, x in best.summary(*ALONG_ROWS, **asked).items():
        check_same_bits(found[name], x, name)


@pytest.mark.parametrize("one", [one for one in COMBINATIONS if one.mask not in ("empty window", "full")], ids=str)
def test_hidden_keys_are_never_touched(one):
    n = 40
    q, k = random(HEADS, n, 3, dtype=one.dtype), random(HEADS, n, 3, dtype=one.dtype, seed=1)
    rule, score = MASKS[one.mask](n, n), SCORES[one.score](n, n)
    sink = random(HEADS, dtype=one.dtype) if one.sink else None
    seen = np.broadcast_to(clearhead.rules.masks.visible(rule, n, n, lead=(HEADS,)), (HEADS, n, n))
    spoilt = k.copy()
    spoilt[0, 7], spoilt[1, 30] = np.nan, np.inf
    blind = np.stack([~seen[0, :, 7], ~seen[1, :, 30]])  # queries that do not see what was spoilt
    assert blind.any()
    with using_isa(one.isa):
        before, after = (weights(q, keys, mask=rule, score=score, sink=sink) for keys in (k, spoilt))
        check_same_bits(np.asarray(after)[blind], np.asarray(before)[blind])
        asked = {"groups": some_groups(before.shape), "matches": some_matches(before.shape)}
        found, wanted = (w.summary(*USUAL, *SHARES, top=3, window=9, **asked) for w in (after, before))
        check_same_bits(np.asarray(after.scores)[blind], np.asarray(before.scores)[blind])
    for name, x in found.items():
        if not name.startswith("received"):
            check_same_bits(x[blind], wanted[name][blind], name)


@pytest.mark.parametrize("isa", ISAS)
def test_an_answer_has_the_same_bits_whatever_else_is_asked(isa):
    """Each answer alone, which takes a kernel of its own, on one instruction set in turns."""
    q, k = random(HEADS, 40, 3), random(HEADS, 40, 3, seed=1)
    with using_isa(isa):
        w = weights(q, k, mask=window(20))
        given = {"groups": some_groups(w.shape), "matches": some_matches(w.shape)}
        for name, x in list(w.summary(*ALONG_ROWS, **given).items())[ISAS.index(isa) :: len(ISAS)]:
            asked = "top" if name in ("top_weights", "top_keys") else name
            own = {asked: given[asked]} if asked in given else {}
            check_same_bits(x, w.summary(asked, **own)[name], name)


def test_a_row_that_is_not_a_number_gives_nothing_to_later_keys():
    q, k = random(150, 4), random(150, 4, seed=1)
    q[70] = np.nan
    w = weights(q, k)
    assert np.isnan(w.row(70)[:71]).all()
    assert (w.row(70)[71:] == 0).all()
    received = w.summary("received_sum").received_sum
    assert np.isnan(received[:71]).all()
    assert np.isfinite(received[71:]).all()


def test_queries_that_see_nothing_have_no_weight():
    q, k = random(60, 4), random(60, 4, seed=1)
    w = weights(q, k, mask=window(0, 0) & ~window(0, 0))
    assert (np.asarray(w) == 0).all()
    s = w.summary()
    assert all((s[name] == 0).all() for name in s if name not in ("effective", "top_keys"))
    assert (s.effective == 1).all()
    assert (s.top_keys == -1).all()


@pytest.mark.parametrize("one", COMBINATIONS[::3], ids=str)
def test_single_queries_have_the_numbers_of_many(one):
    queries, keys, dim = 133, 301, 16  # dims that fill vectors: keys are in the lanes then
    q, k = random(HEADS, queries, dim, dtype=one.dtype), random(HEADS, keys, dim, dtype=one.dtype, seed=1)
    with using_isa(one.isa):
        w = weights(q, k, mask=MASKS[one.mask](queries, keys), score=SCORES[one.score](queries, keys))
        many = np.asarray(w), np.asarray(w.scores)
        for i in (0, 44, 70, 132):
            check_same_bits(w.row(i), many[0][:, i], f"weights of {i}")
            check_same_bits(w[:, [i], 37:294], many[0][:, [i], 37:294], f"some weights of {i}")
            check_same_bits(w.scores[1, i], many[1][1, i], f"scores of {i}")
        check_same_bits(w[1, [131, 2], 128:129], many[0][1, [131, 2], 128:129], "two queries, one key")


@pytest.mark.parametrize("kept", ["float32", "float64", "float16", "bfloat16", "int8"])
def test_single_queries_over_a_cache_have_the_numbers_of_many(kept):
    dtype = {"int8": np.float32, "bfloat16": ml_dtypes.bfloat16}.get(kept) or np.dtype(kept)
    q, k = (random(3, 290, 32, seed=seed).astype(dtype) for seed in (0, 1))
    cache = KeyValueCache(dtype="int8") if kept == "int8" else KeyValueCache(window=150)
    cache.append(k, k)
    done = attend(q, cache, mask=causal(align="end") if kept == "int8" else window(100, 0, align="end"))
    many = np.asarray(done.weights)
    for i in (150, 289):
        check_same_bits(done.weights.row(i), many[:, i], str(i))
        check_same_bits(done.weights[2, i, 200:251], many[2, i, 200:251], str(i))


def test_a_row_that_is_not_a_number_keeps_its_zeros():
    q, k = random(40, 16), random(40, 16, seed=1)
    q[20, 3] = np.nan
    row = attend(q, k, k).weights.row(20)
    assert np.isnan(row[:21]).all()
    assert (row[21:] == 0).all()


@pytest.mark.parametrize("hidden", [full(), causal(), where(lambda b, h, q, k: k != 7)], ids=str)
def test_a_score_of_minus_infinity_weighs_nothing_in_any_row(hidden):
    q, k = random(200, 16), random(200, 16, seed=1)
    k[3, 0], k[5] = np.nan, 0
    k[5, 0], q[:, 0] = -np.inf, np.abs(q[:, 0])
    w = weights(q, k, mask=hidden)
    many = np.asarray(w)
    assert (many[:, 5] == 0).all()
    assert np.isnan(many[5:, 3]).all()
    check_same_bits(w[60:, :], many[60:], "tiles that begin elsewhere")
    for i in (5, 150):
        check_same_bits(w.row(i), many[i], f"weights of {i}")


def test_a_row_whose_keys_number_more_than_32_bits():
    q, k = random(5, 16), np.broadcast_to(random(1, 16, seed=1), (2**31 + 300, 16))
    w = weights(q, k, mask=full(), lse=np.full(5, 2, np.float32))
    parts = {1: np.zeros((1, 1, 200), np.float32), 5: np.zeros((1, 5, 200), np.float32)}
    for count, out in parts.items():
        w.sweep(np.array([0]), np.arange(count), 2**31 - 100, 2**31 + 100).array(out, "block")
    assert parts[1].all()
    check_same_bits(parts[1][0, 0], parts[5][0, 0], "weights")


@pytest.mark.parametrize("layout", ["reversed", "lying apart", "misaligned", "shared"])
def test_single_queries_of_any_layout(layout):
    q, k = random(4, 50, 16), random(4, 200, 16, seed=1)
    whole = np.asarray(weights(q, k, mask=full()))
    if layout == "reversed":
        q, k, whole = q[:, ::-1], k[:, ::-1], whole[:, ::-1, ::-1]
    elif layout == "lying apart":
        q, k = np.repeat(q, 2, -1)[..., ::2], np.repeat(k, 3, -2)[:, ::3]
    elif layout == "misaligned":
        raw = np.zeros(k.nbytes + 1, np.uint8)
        raw[1:] = np.frombuffer(k.tobytes(), np.uint8)
        k = raw[1:].view(np.float32).reshape(k.shape)
    else:
        k, whole = k[:1], np.asarray(weights(q, np.broadcast_to(k[:1], k.shape), mask=full()))
    w = weights(q, k, mask=full())
    for i in (0, 49):
        np.testing.assert_allclose(w.row(i), whole[:, i], rtol=2e-5)
        check_same_bits(w.row(i), np.asarray(w)[:, i], layout)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_large_scores_lose_no_more_than_their_own_rounding(scale):
    q, k = (random(300, 64, seed=seed) * scale for seed in (0, 1))
    done = attend(q, k, k)
    exact = definition.weights(q.astype(np.float64), k.astype(np.float64))
    error = np.abs(np.asarray(done.weights) - exact).max()
    largest = np.abs(q @ k.T).max() / 8
    assert error < 4 * largest * 2**-24 + 1e-6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "consumers", [("block",), ("pool_max",), (*FOUND, "received_sum", "received_max", "top", "matches", "distances")]
)
def test_it_compiles_for_aarch64(dtype, consumers):
    x = np.zeros((2, 300, 8), dtype)
    asked = problem(x, x, x, mask=window(9) & where(lambda b, h, q, k: k % 3 == 0), score=softcap(2.0))
    spec = spec_for(asked, AARCH64)
    spec = replace(spec, kernel="sweep", variant=replace(spec.variant, consumers=consumers))
    assert "fmla" in assembly(spec)
