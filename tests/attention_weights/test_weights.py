"""`weights(q, k)`: a matrix that is never built: indices, questions, limits and errors."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clearhead
from clearhead import (
    InputError,
    KeyValueCache,
    ShapeError,
    Weights,
    attend,
    attention,
    causal,
    dense,
    documents,
    full,
    merge,
    prefix,
    softcap,
    weights,
    window,
)
from clearhead.definition import weights as definition
from clearhead.testing import check_same_bits
from tests.arrays import random
from tests.strategies import LAYOUTS, laid_out


def indices(size):
    """Indices of one axis."""
    number = st.integers(-size, size - 1)
    ends = st.one_of(st.none(), st.integers(-size - 2, size + 2))
    steps = st.one_of(st.none(), st.sampled_from([1, 2, -1, -3]))
    return st.one_of(
        number, st.builds(slice, ends, ends, steps), st.lists(number, max_size=4),
        st.lists(st.booleans(), min_size=size, max_size=size).map(np.array),
    )  # fmt: skip


@given(st.data())
def test_indices_are_numpys(data):
    w = weights(random(2, 3, 9, 4), random(2, 3, 7, 4, seed=1), mask=full())
    a = np.asarray(w)
    index = tuple(data.draw(indices(size)) for size in a.shape[: data.draw(st.integers(0, 4))])
    if data.draw(st.booleans()):
        index = (*index[:2], Ellipsis, *index[2:])
    try:
        wanted = a[index]
    except IndexError:  # lists of different lengths
        with pytest.raises(IndexError):
            w[index]
        return
    got = w[index]
    assert np.shape(got) == np.shape(wanted)
    assert np.array_equal(np.asarray(got), wanted)


def test_lists_that_choose_nothing_are_numpys():
    w = weights(random(2, 9, 4), random(2, 7, 4, seed=1), mask=full())
    a, none = np.asarray(w), np.zeros(7, bool)
    for index in (np.s_[0, [], [7]], np.s_[:, [20], []], np.s_[:, [3, 20], none], np.s_[..., []], np.s_[:, 2, none]):
        try:
            wanted = a[index]
        except IndexError:
            with pytest.raises(IndexError):
                w[index]
            continue
        assert w[index].shape == wanted.shape
        assert w[index].dtype == wanted.dtype


def test_indices_of_whole_heads_stay_lazy():
    w = weights(random(2, 3, 9, 4), random(2, 3, 9, 4), score=clearhead.alibi(3))
    a = np.asarray(w)
    for index in (0, (1, 2), np.s_[:, 1:], np.s_[..., ::-1, :, :], ([1, 0], [2, 2]), np.s_[None, 1], Ellipsis, ()):
        part = w[index]
        assert isinstance(part, Weights)
        assert part.shape == a[index].shape
        check_same_bits(np.asarray(part), a[index])
        check_same_bits(part.lse, w.lse[..., None][index][..., 0])
        s = part.summary("received_sum", "top")
        check_same_bits(s.received_sum, w.summary("received_sum").received_sum[..., None][index][..., 0])
        check_same_bits(s.top_keys, w.summary("top").top_keys[index])
    assert [head.shape for head in w[0]] == [(9, 9)] * 3


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_they_are_the_weights_of_the_forward_pass(dtype):
    q, k, v = (random(*shape, seed=seed).astype(dtype)
               for seed, shape in enumerate([(6, 300, 16), (2, 300, 16), (2, 300, 5)]))  # fmt: skip
    done = attend(q, k, v, score=softcap(4.0), sink=np.arange(6.0))
    w = done.weights
    assert w.dtype == done.lse.dtype
    check_same_bits(w.lse, done.lse)
    a = np.asarray(w).astype(np.float64)
    wide = np.repeat(v.astype(np.float64), 3, axis=0)
    np.testing.assert_allclose(a @ wide, done.output.astype(np.float64), atol=1e-2 if v.itemsize == 2 else 2e-6)
    sinks = np.exp(np.arange(6.0)[:, None] - w.lse)
    np.testing.assert_allclose(a.sum(-1) + sinks, 1, atol=2e-6)
    assert (np.triu(a, 1) == 0).all()
    check_same_bits(np.asarray(weights(q, k, score=softcap(4.0), sink=np.arange(6.0))), np.asarray(w))


@given(LAYOUTS, LAYOUTS)
def test_any_memory_layout(one, other):
    q, k = random(2, 70, 20), random(2, 70, 20, seed=1)
    moved = laid_out(q, one), laid_out(k, other)
    check_same_bits(np.asarray(weights(*moved)), np.asarray(weights(*map(np.ascontiguousarray, moved))))
    check_same_bits(weights(*moved).row(3), np.asarray(weights(*moved))[:, 3])


def test_a_block_into_memory_that_is_given(monkeypatch):
    q, k = random(2, 6, 300, 4), random(2, 1, 300, 4, seed=1)
    w = weights(q, k)
    for asked in (w, w.scores):
        a, out = np.asarray(asked), np.full(w.shape, np.nan, w.dtype)
        monkeypatch.setenv("CLEARHEAD_MEMORY", "1")  # which is about memory that is not given
        for _ in range(2):  # numbers of an earlier call are overwritten
            assert asked.block(out=out) is out
            check_same_bits(out, a)
            out[:] = 7
        part, spread = (slice(3, 250), slice(130, None)), (slice(5, 9), slice(None, None, -3))
        for rows, columns in (part, spread):
            wanted = a[:, :, rows, columns]
            check_same_bits(asked.block(rows, columns, out=np.full(wanted.shape, 7, w.dtype)), wanted)
        monkeypatch.undo()
    one = w[1, 2]
    check_same_bits(one.block(out=np.empty(one.shape, w.dtype)), np.asarray(w)[1, 2])
    for wrong, message in (
        (out[..., :-1], "has shape"),
        (out.astype(np.float64), "dtype float64"),
        (np.empty((*w.shape[:2], 300, 301), w.dtype)[..., :300], "contiguous"),
        (np.broadcast_to(out[0], w.shape), "read-only"),
        ([0.0], "is a list"),
    ):
        with pytest.raises((InputError, ShapeError), match=message):
            w.block(out=wrong)
    shared = random(1, 300, 300)
    with pytest.raises(ShapeError, match="overlaps q"):
        weights(shared, shared.copy()).block(out=shared)


def test_rows_columns_and_blocks():
    w = weights(random(2, 3, 200, 4), random(2, 1, 200, 4, seed=1))
    a = np.asarray(w)
    check_same_bits(w.row(-1), a[:, :, -1])
    check_same_bits(w.column(150), a[:, :, :, 150])
    check_same_bits(w.block(slice(10, 80, 7), slice(None, None, -3)), a[:, :, 10:80:7, ::-3])
    check_same_bits(w.block(slice(None), slice(None)), a)
    check_same_bits(w[..., [3, 1], [190, 0]], a[..., [3, 1], [190, 0]])
    check_same_bits(w[..., [3, 1], :][..., [190, 0]], a[..., [3, 1], :][..., [190, 0]])
    assert np.asarray(w, np.float64).dtype == np.float64
    for index in (
        (..., 200),
        (..., 200, 0),
        (0, 0, 0, 0, 0),
        (..., ..., 1),
        (..., "x"),
        (..., 1.5),
        np.s_[..., :, None],
    ):
        with pytest.raises(IndexError):
            w[index]


def test_scattered_columns_of_long_rows_take_little_memory():
    w = weights(random(1, 5000, 4), random(1, 5000, 4, seed=1), mask=full())
    columns = [4999, 0, 2500, 2501, 7]
    check_same_bits(w[0, :, columns], w.block(slice(None), slice(None))[0][:, columns].T)


def test_what_does_not_fit_into_memory_is_refused(monkeypatch):
    monkeypatch.setenv("CLEARHEAD_MEMORY", "1")
    w = weights(random(4, 600, 4), random(4, 600, 4))
    for call in (lambda: np.asarray(w), lambda: w[:, :300], lambda: w.map(size=600)):
        with pytest.raises(clearhead.InputError) as caught:
            call()
        assert all(word in str(caught.value) for word in ("(4, ", "CLEARHEAD_MEMORY=1", "w.row(i)", "w.summary()"))
    assert np.asarray(w[0, :300]).shape == (300, 600)
    monkeypatch.setenv("CLEARHEAD_MEMORY", "much")
    with pytest.raises(clearhead.InputError, match="much"):
        w.row(0)


def test_questions_about_some_queries_only():
    q, k = random(2, 300, 8), random(2, 300, 8, seed=1)
    w = weights(q, k, mask=causal() & window(100))
    a = np.asarray(w)
    for queries in (slice(100, 250), slice(None, None, 3), [5, 200, 17], slice(290, None), slice(0, 0)):
        s = w.summary("entropy", "received_sum", "received_max", "received_mean", "top", queries=queries)
        part = a[:, queries].astype(np.float64)
        np.testing.assert_allclose(s.entropy, definition.entropy(part), atol=1e-5)
        np.testing.assert_allclose(s.received_sum, definition.received_sum(part), atol=1e-5)
        np.testing.assert_allclose(s.received_max, definition.received_max(part))
        np.testing.assert_allclose(s.received_mean, definition.received_mean(part), atol=1e-6)
        check_same_bits(s.top_weights, definition.top(a[:, queries], 8)[1])
        assert np.array_equal(s.top_keys, definition.top(a[:, queries], 8)[0])


def test_carriers_are_the_fewest_keys():
    w = weights(random(2, 300, 8) * 2, random(2, 300, 8, seed=1), sink=np.zeros(2))
    shares = (0.5, 0.9, 0.99, 1.0)
    got = w.summary("carriers", shares=shares).carriers
    assert np.array_equal(got[..., :3], definition.carriers(np.asarray(w).astype(np.float64), shares)[..., :3])
    even = weights(np.zeros((10, 1)), np.zeros((10, 1)))
    assert even.summary("carriers").carriers[9].tolist() == [5, 9, 10]


def test_equal_weights_are_listed_earlier_first():
    s = weights(np.zeros((200, 1)), np.zeros((200, 1))).summary("top", top=3)
    assert s.top_keys[199].tolist() == [0, 1, 2]
    assert s.top_keys[1].tolist() == [0, 1, -1]
    assert s.top_weights[1].tolist() == [0.5, 0.5, 0]


@pytest.mark.parametrize("v", [None, np.random.default_rng(5).integers(0, 3, (300, 2)).astype(np.float64)])
def test_many_equal_weights_are_listed_in_order(v):
    rng = np.random.default_rng(0)
    q, k = rng.integers(0, 2, (300, 2)).astype(np.float64), rng.integers(0, 2, (300, 2)).astype(np.float64)
    w = weights(q, k)
    a = np.asarray(w) if v is None else np.asarray(w) * np.linalg.norm(v, axis=-1)
    s = w.summary("top", top=6, v=v)
    keys, largest = definition.top(a, 6)
    assert np.array_equal(s.top_keys, keys)
    np.testing.assert_allclose(s.top_weights, largest, rtol=1e-14)


def test_contributions_of_grouped_heads_and_hidden_values():
    q, k, v = random(2, 6, 90, 4), random(2, 2, 90, 4, seed=1), random(2, 2, 90, 3, seed=2)
    w = weights(q, k)
    a = np.asarray(w).astype(np.float64) * np.linalg.norm(np.repeat(v, 3, axis=1), axis=-1)[..., None, :]
    np.testing.assert_allclose(w.summary("top", v=v).top_weights, definition.top(a, 8)[1], rtol=1e-5)
    np.testing.assert_allclose(w[1, 4].summary("top", v=v).top_weights, definition.top(a[1, 4], 8)[1], rtol=1e-5)
    before = w.summary("top", v=v)
    v[:, :, 60] = np.inf
    after = w.summary("top", v=v)
    check_same_bits(after.top_weights[..., :60, :], before.top_weights[..., :60, :])
    assert (after.top_keys[..., 60:, 0] == 60).all()


def test_received_mass_weighted_by_the_values():
    q, k, v = random(6, 90, 4), random(2, 90, 4, seed=1), random(2, 90, 3, seed=2)
    w = weights(q, k, mask=full())
    s = w.summary("received_sum", "received_max", "received_mean", v=v)
    a, wide = np.asarray(w).astype(np.float64), np.repeat(v, 3, axis=0)
    for name in s:
        np.testing.assert_allclose(s[name], getattr(definition, name)(a, wide), rtol=1e-5)
    hidden = weights(q, k, mask=causal() & ~window(0, 0))  # nobody sees the last key
    v[:, -1] = np.nan
    assert hidden.summary("received_sum", v=v).received_sum[:, -1].tolist() == [0] * 6


def test_answers_over_heads_are_those_of_averaged_weights():
    w = weights(random(2, 4, 80, 8), random(2, 4, 80, 8, seed=1))
    mean = np.asarray(w).astype(np.float64).mean(axis=1)
    s = w.summary().over_heads()
    np.testing.assert_allclose(s.received_sum, mean.sum(-2), rtol=1e-5)
    np.testing.assert_allclose(s.first, mean[..., 0], rtol=1e-5)
    assert s.entropy.shape == (2, 80)
    assert "top_keys" not in s


def test_a_summary_says_what_it_has():
    s = weights(random(5, 2), random(5, 2)).summary("entropy", "top")
    assert list(s) == ["entropy", "top_weights", "top_keys"]
    assert "entropy (5,)" in repr(s)
    with pytest.raises(AttributeError, match=r"summary\('received_sum'\)"):
        _ = s.received_sum
    with pytest.raises(AttributeError, match="no colour"):
        _ = s.colour
    with pytest.raises(AttributeError):
        s.answers = {}


def test_documents_and_their_first_keys():
    q, k = random(30, 4), random(30, 4, seed=1)
    mask = documents([10, 20]) & causal()
    w = weights(q, k, mask=mask)
    s = w.summary("first", "off_first", "distance")
    a = np.asarray(w)
    check_same_bits(s.first[10:], a[10:, 10])
    check_same_bits(s.off_first[11:], a[11:, 11:].max(-1))
    assert s.off_first[0] == s.off_first[10] == s.distance[10] == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda w: w.summary("entropie"), ["entropie", "entropy"]),
        (lambda w: w.summary(top=0), ["top=0"]),
        (lambda w: w.summary("carriers", shares=[]), ["shares=[]", "[0.5, 0.9]"]),
        (lambda w: w.summary("carriers", shares=0.5), ["shares=0.5"]),
        (lambda w: w.summary("carriers", shares=[50]), ["shares=[50]", "from 0 to 1"]),
        (lambda w: w.summary("carriers", shares=[float("nan")]), ["shares=[nan]"]),
        (lambda w: w.summary(window=1.5), ["window=1.5"]),
        (lambda w: w.summary("received_sum", v=np.ones((3, 2))), ["(3, 2)", "5 keys"]),
        (lambda w: w.summary("received_sum", v=np.ones((7, 5, 2))), ["(7, 5, 2)"]),
        (lambda w: w.map(reduce="median"), ["median", "'max'"]),
        (lambda w: w.map(size=0), ["size=0"]),
        (lambda w: w.map(slice(0, 5, 2)), ["rows=slice(0, 5, 2)"]),
        (lambda w: w.map(3), ["rows=3"]),
        (lambda w: weights(random(5, 2), random(5, 2), lse=np.ones(4)), ["(4,)", "(5,)"]),
        (lambda w: weights(random(5, 2), random(5, 3)), ["(5, 2)", "(5, 3)"]),
        (lambda w: weights(random(5, 2), random(5, 2), threads=0).row(0), ["threads=0"]),
        (lambda w: merge(attend(*[random(5, 2)] * 3), attend(*[random(5, 2)] * 3)).weights, ["merged"]),
    ],
)
def test_wrong_questions_are_refused_with_a_next_step(call, words):
    with pytest.raises(clearhead.InputError) as caught:
        call(weights(random(5, 2), random(5, 2)))
    assert all(word in str(caught.value) for word in words), caught.value


def test_nothing_in_nothing():
    w = weights(np.zeros((2, 0, 4)), np.zeros((2, 5, 4)), mask=full())
    assert np.asarray(w).shape == (2, 0, 5)
    assert (w.summary("received_sum").received_sum == 0).all()
    w = weights(np.zeros((2, 5, 4)), np.zeros((2, 0, 4)), mask=full())
    assert np.asarray(w).shape == (2, 5, 0)
    assert (w.summary("entropy").entropy == 0).all()
    assert w.map().shape == (2, 5, 0)
    assert (w.lse == -np.inf).all()


@pytest.mark.parametrize("lead", [(), (2,)])
@pytest.mark.parametrize("mask", [causal(), window(100)])
def test_over_a_cache_as_it_was(lead, mask):
    k, v, q = random(*lead, 2, 700, 16), random(*lead, 2, 700, 8), random(*lead, 6, 5, 16)
    cache = KeyValueCache(window=150 if mask == window(100) else None)
    cache.append(k[..., :300, :], v[..., :300, :])
    align = causal(align="end") if mask == causal() else window(100, align="end")
    wanted = attend(q, k[..., :300, :], v[..., :300, :], mask=align).weights
    held = (
        attend(q, cache, mask=mask).weights,
        weights(q, cache, mask=mask),
        weights(q, cache, mask=mask, lse=wanted.lse),
    )
    cache.append(k[..., 300:, :], v[..., 300:, :])  # with a window, pages are let go
    del cache
    for w in held:
        check_same_bits(np.asarray(w), np.asarray(wanted))
        check_same_bits(w.summary("entropy").entropy, wanted.summary("entropy").entropy)
        check_same_bits(w.row(2), wanted.row(2))


@pytest.mark.parametrize("narrow", [np.float16, ml_dtypes.bfloat16, "int8"])
def test_over_narrow_caches(narrow):
    k, v, q = random(2, 300, 16), random(2, 300, 8), random(6, 5, 16)
    dtype = np.float32 if narrow == "int8" else narrow
    cache = KeyValueCache(dtype="int8") if narrow == "int8" else KeyValueCache()
    cache.append(k.astype(dtype), v.astype(dtype))
    done = attend(q.astype(dtype), cache)
    a = np.asarray(done.weights)
    assert (np.triu(a[0], 296) == 0).all()
    values = cache.arrays(0)[1].astype(np.float64)
    np.testing.assert_allclose(a @ np.repeat(values, 3, axis=0), done.output.astype(np.float64), atol=2e-2)
    np.testing.assert_allclose(a.sum(-1), 1, atol=2e-6)


def test_sequences_of_different_lengths_have_no_common_weights():
    cache = KeyValueCache()
    cache.append(random(2, 1, 3, 4), random(2, 1, 3, 4), lengths=[3, 1])
    done = attend(random(2, 1, 1, 4), cache)
    for call in (lambda: done.weights, lambda: weights(random(2, 1, 1, 4), cache)):
        with pytest.raises(clearhead.InputError, match=r"\[1, 3\] have no common weights"):
            call()


@pytest.mark.parametrize("rules", [
    {}, {"mask": window(40), "sink": np.ones(6)}, {"mask": causal() | prefix(30), "score": softcap(2.0)},
    {"mask": documents([100, 200]) & causal(), "score": clearhead.alibi(6)},
    {"mask": dense(np.random.default_rng(0).random((300, 300)) > 0.5)}, {"mask": clearhead.dilated(7)},
])  # fmt: skip
def test_queries_that_are_looked_at_have_the_lse_of_the_forward_pass(rules):
    q, k = random(6, 300, 16).astype(np.float16), random(2, 300, 16, seed=1).astype(np.float16)
    wanted = attend(q, k, k, **rules).weights
    w = weights(q, k, **rules)
    check_same_bits(w.row(250), wanted.row(250))
    check_same_bits(w[2, [5, 299, 7, 8]], wanted[2, [5, 299, 7, 8]])
    check_same_bits(w.summary("entropy", queries=slice(90, 200)).entropy, wanted.summary("entropy").entropy[:, 90:200])
    check_same_bits(w.lse, wanted.lse)


def test_memory_grows_with_the_length_alone():
    import tracemalloc

    n = 32768
    q, k = (np.ascontiguousarray(np.broadcast_to(random(1, 8, seed=seed), (1, n, 8))) for seed in (0, 1))
    w = weights(q, k, lse=np.log(np.arange(1, n + 1, dtype=np.float32))[None])
    rows = slice(n - 256, None)

    def ask():
        w.summary(queries=rows)
        w.map(rows)
        w.row(-1)
        w.column(0)

    ask()  # compiles
    tracemalloc.start()
    ask()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 16 << 20


def test_numbers_of_a_forward_pass_held_as_they_are():
    q, k, v = random(2, 50, 4), random(2, 50, 4, seed=1), random(2, 50, 4, seed=2)
    w = weights(q, k)
    np.testing.assert_allclose(np.asarray(w) @ v, attention(q, k, v), atol=1e-6)
    assert w.nbytes == 2 * 50 * 50 * 4
    assert repr(w) == "Weights(shape=(2, 50, 50), dtype=float32)"
    assert len(w) == 2


X = np.zeros((2, 8, 4))
OUT_OF_RANGE = {
    "a query": (lambda w: w[0, 99], "query 99 is out of range, for there are 8: choose from 0 to 7"),
    "a key": (lambda w: w[0, 0, -9], "key -9 is out of range, for there are 8: choose from 0 to 7, or from -8 to -1"),
    "a head": (lambda w: w[2], "head 2 is out of range, for there are 2: choose from 0 to 1"),
    "a head and a query": (lambda w: w[2, 1], "head 2 is out of range"),
    "a list": (lambda w: w[0, [1, 99]], "query 99 is out of range"),
    "a column": (lambda w: w.column(8), "key 8 is out of range"),
    "scores": (lambda w: w.scores.row(8), "query 8 is out of range"),
    "a summary": (lambda w: w.summary("entropy", queries=[99]), "query 99 is out of range"),
    "booleans": (lambda w: w[0, np.ones(3, bool)], "query has 3 booleans, but there are 8: give one for each"),
}


@pytest.mark.parametrize("case", OUT_OF_RANGE)
def test_an_index_out_of_range_is_named_with_the_range(case):
    ask, words = OUT_OF_RANGE[case]
    with pytest.raises(IndexError, match=words):
        ask(weights(X, X))
