"""Questions with something given: groups and matches, factors; the sink's share, scores, the rows of a key."""

import tracemalloc

import ml_dtypes
import numpy as np
import pytest

import clearhead
from clearhead import KeyValueCache, Match, Summary, attend, causal, documents, full, token_matches, weights, window
from clearhead.attention_weights.scores import Scores
from clearhead.definition import weights as definition
from clearhead.testing import check_same_bits
from tests.arrays import random

GROUPS = {"system": slice(0, 20), "needle": [31, -2], "image": np.arange(90) % 3 == 0, "nothing": []}


def members(groups, keys):
    """Groups as truths, (groups, keys)."""
    return np.stack([np.isin(np.arange(keys), np.arange(keys)[np.asarray(x, np.int64) if x == [] else x])
                     if not isinstance(x, np.ndarray) else x for x in groups.values()])  # fmt: skip


def test_groups_are_named_and_in_order():
    w = weights(random(2, 90, 8), random(2, 90, 8, seed=1))
    s = w.summary("groups", "entropy", groups=GROUPS)
    assert list(s) == ["groups", "entropy"]
    assert s.group_names == ("system", "needle", "image", "nothing")
    wanted = definition.groups(np.asarray(w).astype(np.float64), members(GROUPS, 90))
    np.testing.assert_allclose(s.groups, wanted, atol=1e-6)
    assert (s.groups[..., 3] == 0).all()
    mean = s.over_heads()
    np.testing.assert_allclose(mean.groups, wanted.mean(0), atol=1e-6)
    assert mean.group_names == s.group_names
    check_same_bits(w.summary("groups", groups=GROUPS, queries=[5, 80, 7]).groups, s.groups[:, [5, 80, 7]])
    check_same_bits(w[1].summary("groups", groups=GROUPS).groups, s.groups[1])


def test_groups_of_each_sequence():
    w = weights(random(3, 2, 40, 4), random(3, 2, 40, 4, seed=1))
    padding = np.arange(40) < np.array([0, 7, 20])[:, None]
    s = w.summary("groups", groups={"padding": padding[:, None]})
    for n in range(3):
        check_same_bits(s.groups[n], w[n].summary("groups", groups={"padding": padding[n]}).groups)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_shares_of_shared_heads_sinks_and_any_dtype(dtype):
    q, k = (random(*shape, seed=n).astype(dtype) for n, shape in enumerate([(6, 90, 16), (2, 90, 16)]))
    w = weights(q, k, sink=np.arange(6.0))
    s = w.summary("groups", "distances", "sink_share", groups=GROUPS)
    a = np.asarray(w).astype(np.float64)
    assert s.groups.dtype == w.dtype
    np.testing.assert_allclose(s.groups, definition.groups(a, members(GROUPS, 90)), atol=2e-6)
    np.testing.assert_allclose(s.sink_share, definition.sink_share(a), atol=2e-6)
    np.testing.assert_allclose(s.distances.sum(-1) + s.sink_share, 1, atol=2e-6)


def test_ranges_of_distances_begin_at_powers_of_two():
    w = weights(random(2000, 8), random(2000, 8, seed=1), mask=full())
    s = w.summary("distances")
    assert s.distance_edges == tuple(definition.distance_edges(2000, 2000)) == (0, *(1 << n for n in range(12)))
    a, apart = np.asarray(w).astype(np.float64), definition.distances(2000, 2000, full())
    np.testing.assert_allclose(s.distances, definition.by_distance(a, apart, s.distance_edges), atol=1e-6)
    check_same_bits(s.distances[:, 0], a.diagonal().astype(np.float32))
    one = weights(random(1, 2), random(1, 2)).summary("distances")
    assert (one.distance_edges, one.distances.tolist()) == ((0, 1), [[1.0]])


def test_distances_within_documents():
    mask = documents([10, 20]) & causal()
    w = weights(random(30, 4), random(30, 4, seed=1), mask=mask)
    a = np.asarray(w).astype(np.float64)
    s = w.summary("distances")
    wanted = definition.by_distance(a, definition.distances(30, 30, mask), s.distance_edges)
    np.testing.assert_allclose(s.distances, wanted, atol=1e-6)


def scores_of_tokens(a, ids):
    """What each job's name says, pair by pair."""
    n = len(ids)
    wanted = np.zeros((n, 3))
    for i in range(n):
        for j in range(n):
            jobs = j == i - 1, j != i and ids[i] == ids[j], j > 0 and j - 1 != i and ids[i] == ids[j - 1]
            wanted[i] += a[i, j] * np.array(jobs)
    return wanted


@pytest.mark.parametrize("mask", [causal(), full()])
def test_tokens_that_match(mask):
    ids = np.random.default_rng(0).integers(0, 9, 150)
    w = weights(random(150, 8), random(150, 8, seed=1), mask=mask)
    s = w.summary("matches", matches=token_matches(ids))
    assert s.match_names == ("previous", "duplicate", "induction")
    np.testing.assert_allclose(s.matches, scores_of_tokens(np.asarray(w).astype(np.float64), ids), atol=1e-6)


def test_a_token_met_once_has_no_duplicate():
    w = weights(random(50, 8), random(50, 8, seed=1))
    s = w.summary("matches", matches=token_matches(np.arange(50) - 3))
    assert (s.matches[:, 1] == 0).all()
    assert (s.matches[:4, 1:] == 0).all()  # negative tokens match nothing, not even one another
    assert (s.matches[1:, 0] > 0).all()


def test_tokens_of_each_sequence_and_of_the_last_queries():
    ids = np.random.default_rng(0).integers(0, 5, (3, 60))
    w = weights(random(3, 2, 7, 8), random(3, 2, 60, 8, seed=1), mask=causal(align="end"))
    s = w.summary("matches", matches=token_matches(ids, queries=7))
    for n in range(3):
        a = np.zeros((2, 60, 60))
        a[:, 53:] = np.asarray(w[n])
        wanted = np.stack([scores_of_tokens(head, ids[n])[53:] for head in a])
        np.testing.assert_allclose(s.matches[n], wanted, atol=1e-6)


def test_labels_far_apart_and_of_other_types():
    w = weights(random(30, 4), random(30, 4, seed=1), mask=full())
    a = np.asarray(w).astype(np.float64)
    large = np.array([1 << 62, 0, (1 << 62) + (1 << 32)] * 10)
    given = {
        "large": (large, large),
        "bools": (np.ones(30, bool), np.arange(30) % 2 == 0),
        "bytes": (np.arange(30, dtype=np.uint8), np.full(30, 3)),
        "none": (np.arange(30), np.arange(30) + 99),
    }
    s = w.summary("matches", matches=given)
    wanted = [definition.matches(a, *(np.asarray(x).astype(np.int64) for x in pair)) for pair in given.values()]
    np.testing.assert_allclose(s.matches, np.stack(wanted, -1), atol=1e-6)


@pytest.mark.parametrize("narrow", [np.float32, np.float16, "int8"])
def test_shares_and_scores_over_a_cache(narrow):
    k, v, q = random(2, 300, 16), random(2, 300, 8), random(6, 5, 16)
    dtype = np.float32 if narrow == "int8" else narrow
    cache = KeyValueCache(window=100, dtype="int8" if narrow == "int8" else None)
    cache.append(k.astype(dtype), v.astype(dtype))
    done = attend(q.astype(dtype), cache, mask=window(99))
    a, ids = np.asarray(done.weights).astype(np.float64), np.arange(300) % 7
    s = done.weights.summary("groups", "matches", "distances", groups={"late": slice(250, None)},
                             matches=token_matches(ids, queries=5))  # fmt: skip
    np.testing.assert_allclose(s.groups[..., 0], a[..., 250:].sum(-1), atol=2e-6)
    np.testing.assert_allclose(s.matches[..., 1], definition.matches(a, ids[295:], ids)
                               - a[..., np.arange(5), np.arange(295, 300)], atol=2e-6)  # fmt: skip
    np.testing.assert_allclose(s.distances.sum(-1), 1, atol=2e-6)
    scores = np.asarray(done.weights.scores).astype(np.float64)
    assert ((scores == -np.inf) == (a == 0)).all()
    np.testing.assert_allclose(np.exp(scores - done.weights.lse[..., None]), a, atol=1e-6)


def test_the_share_of_the_sink():
    q, k = random(2, 40, 8), random(2, 40, 8, seed=1)
    w = weights(q, k, sink=np.array([0.5, -np.inf]), mask=causal() & ~window(0, 0))
    a = np.asarray(w).astype(np.float64)
    share = w.summary("sink_share").sink_share
    np.testing.assert_allclose(share[:, 1:], definition.sink_share(a)[:, 1:], atol=1e-6)
    assert share[:, 0].tolist() == [1, 0]  # it sees nothing but the sink, and not even that
    assert (weights(q, k).summary("sink_share").sink_share == 0).all()
    check_same_bits(w[0].summary("sink_share", queries=[7, 3]).sink_share, share[0, [7, 3]])


def test_what_keys_receive_with_factors_of_their_own():
    q, k, v = random(6, 90, 4), random(2, 90, 4, seed=1), random(6, 90, 3, seed=2)
    w = weights(q, k)
    names = ("received_sum", "received_max", "received_mean", "top")
    sizes = np.linalg.norm(v, axis=-1)
    by_factors, by_values = w.summary(*names, factors=sizes), w.summary(*names, v=v)
    for name, x in by_factors.items():
        check_same_bits(x, by_values[name], name)
    a = np.asarray(w).astype(np.float64)
    shared = w.summary("received_sum", factors=sizes[0]).received_sum
    np.testing.assert_allclose(shared, definition.received_sum(a, factors=sizes[0]), rtol=1e-5)
    check_same_bits(w[4].summary("received_sum", factors=sizes[0]).received_sum, shared[4])


def test_the_queries_that_give_a_key_most():
    w = weights(random(2, 90, 8), random(2, 90, 8, seed=1))
    a = np.asarray(w)
    for key, top in ((40, 8), (-1, 3), (88, 5), (0, 90)):
        queries, given = w.rows_of(key, top=top)
        wanted = definition.rows_of(a, key, top)
        assert np.array_equal(queries, wanted[0])
        check_same_bits(given, wanted[1])
    assert w.rows_of(88, top=5).queries[0, 2:].tolist() == [-1] * 3


def test_scores_are_indexed_as_weights_are():
    w = weights(random(2, 3, 200, 4), random(2, 1, 200, 4, seed=1), sink=np.ones(3))
    s = w.scores
    full_scores = np.asarray(s)
    assert isinstance(s[1], Scores)
    assert repr(s[1, 2]) == "Scores(shape=(200, 200), dtype=float32)"
    check_same_bits(np.asarray(s[1, 2]), full_scores[1, 2])
    check_same_bits(s.row(-1), full_scores[:, :, -1])
    check_same_bits(s.column(150), full_scores[..., 150])
    check_same_bits(s.block(slice(10, 80, 7), slice(None, None, -3)), full_scores[:, :, 10:80:7, ::-3])
    check_same_bits(s[..., [3, 1], [190, 0]], full_scores[..., [3, 1], [190, 0]])
    assert (np.isneginf(full_scores) == (np.asarray(w) == 0)).all()
    with pytest.raises(IndexError, match="scores"):
        s[0, 0, 0, 0, 0]


def test_scores_need_no_log_sum_exp_and_stay_in_memory(monkeypatch):
    monkeypatch.setenv("CLEARHEAD_MEMORY", "1")
    w = weights(random(600, 4), random(600, 4))
    w.scores.row(3)
    assert not w.source.lse_and_final[1].any()
    with pytest.raises(clearhead.InputError, match=r"scores of shape \(600, 600\).*w\.scores\.row"):
        np.asarray(w.scores)


def test_summaries_of_layers_stack():
    one, two = (weights(random(2, 20, 4, seed=n), random(2, 20, 4)).summary(
        "groups", "distances", groups={"start": [0]}) for n in range(2))  # fmt: skip
    both = Summary.stack([one, two])
    assert both.groups.shape == (2, 2, 20, 1)
    assert both.group_names == ("start",)
    assert both.distance_edges == one.distance_edges
    assert both.over_heads().groups.shape == (2, 20, 1)
    for wrong in ([], [one, weights(random(2, 20, 4), random(2, 20, 4)).summary("entropy")]):
        with pytest.raises(clearhead.InputError, match="do not stack"):
            Summary.stack(wrong)


def test_a_summary_names_the_question_that_was_not_asked():
    s = weights(random(5, 2), random(5, 2)).summary("entropy")
    for name, question in (("groups", "groups"), ("group_names", "groups"), ("match_names", "matches"),
                           ("distance_edges", "distances"), ("sink_share", "sink_share")):  # fmt: skip
        with pytest.raises(AttributeError, match=rf"summary\('{question}'"):
            getattr(s, name)


ONE = {"one": (np.zeros(5, int), np.zeros(5, int))}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda w: w.summary("groups"), ["groups=None", "slice"]),
        (lambda w: w.summary("groups", groups={}), ["groups={}"]),
        (lambda w: w.summary("groups", groups=[1, 2]), ["groups=[1, 2]"]),
        (lambda w: w.summary("groups", groups={"far": [1, 5]}), ["'far'", "key 5", "0 to 4"]),
        (lambda w: w.summary("groups", groups={"far": [-6]}), ["'far'", "key -6"]),
        (lambda w: w.summary("groups", groups={"half": [0.5]}), ["'half'", "0.5"]),
        (lambda w: w.summary("groups", groups={"named": "system"}), ["'named'", "'system'"]),
        (lambda w: w.summary("groups", groups={"short": np.ones(4, bool)}), ["'short'", "(4,)", "(5,)"]),
        (lambda w: w.summary("groups", groups={"heads": np.ones((2, 5), bool)}), ["'heads'", "(2, 5)"]),
        (lambda w: w.summary("entropy", groups={"a": [0]}), ["summary('groups'"]),
        (lambda w: w.summary(matches=ONE), ["summary('matches'"]),
        (lambda w: w.summary("matches"), ["matches=None", "token_matches"]),
        (lambda w: w.summary("matches", matches={"odd": np.zeros(5)}), ["'odd'", "Match"]),
        (lambda w: w.summary("matches", matches={"odd": (np.zeros(5), np.zeros(5))}), ["'odd'", "query labels"]),
        (lambda w: w.summary("matches", matches={"odd": (np.zeros(4, int), np.zeros(5, int))}), ["'odd'", "(4,)"]),
        (lambda w: w.summary("matches", matches={"odd": ([0] * 5, np.zeros((3, 5), int))}), ["key labels", "(3, 5)"]),
        (lambda w: w.summary("matches", matches={"odd": ([0] * 5, np.full(5, 1 << 63, np.uint64))}), ["64 bits"]),
        (lambda w: w.summary("received_sum", v=np.ones((5, 2)), factors=np.ones(5)), ["v and factors"]),
        (lambda w: w.summary("received_sum", factors=np.ones(4)), ["(4,)", "(5,)"]),
        (lambda w: w.summary("top", factors=-np.ones(5)), ["-1"]),
        (lambda w: w.rows_of(5), ["key=5", "0 to 4"]),
        (lambda w: w.rows_of(0, top=0), ["top=0"]),
        (lambda w: token_matches([0.5]), ["0.5"]),
        (lambda w: token_matches([1, 2], queries=3), ["queries=3", "2 tokens"]),
    ],
)
def test_wrong_questions_are_refused_with_a_next_step(call, words):
    with pytest.raises(clearhead.InputError) as caught:
        call(weights(random(5, 2), random(5, 2)))
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(("queries", "keys"), [(0, 5), (5, 0), (0, 0)])
def test_nothing_in_nothing(queries, keys):
    w = weights(np.zeros((2, queries, 4)), np.zeros((2, keys, 4)), mask=full())
    labels = {"any": Match(np.zeros(queries, int), np.zeros(keys, int))}
    s = w.summary("groups", "distances", "matches", "sink_share", groups={"all": slice(None)}, matches=labels)
    for name, x in s.items():
        assert x.shape[:2] == (2, queries), name
        assert (x == 0).all(), name
    assert np.asarray(w.scores).shape == (2, queries, keys)
    assert clearhead.similarity(w).tolist() == [[0, 0], [0, 0]]


def test_memory_grows_with_the_length_alone():
    n = 32768
    q, k = (np.ascontiguousarray(np.broadcast_to(random(1, 8, seed=seed), (1, n, 8))) for seed in (0, 1))
    w = weights(q, k, lse=np.log(np.arange(1, n + 1, dtype=np.float32))[None])
    given = {"groups": {"half": np.arange(n) % 2 == 0}, "matches": token_matches(np.arange(n) % 100)}

    def ask():
        w.summary("groups", "distances", "matches", "sink_share", queries=slice(n - 128, None), **given)
        w.scores.row(-1)
        w.rows_of(n - 200)

    ask()  # compiles
    tracemalloc.start()
    ask()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 8 << 20
