"""Weights and summaries of pieces of the queries against stretches of the keys: the whole's numbers."""

import itertools

import numpy as np
import pytest

from clearhead import InputError, Match, Summary, alibi, attend, bias, causal, dense, full, partial, weights, window
from tests.arrays import random

LENGTH, SEGMENT = 2 * 2048 + 130, 2048
ROWS = (0, 1000, 2500, LENGTH)
CUTS = (0, SEGMENT, LENGTH)
TABLE = random(1, LENGTH)[0][:, None] > random(1, LENGTH, seed=1)
Q, K = random(4, LENGTH, 8), random(2, LENGTH, 8, seed=2)
SINK = np.array([0.5, -1.0, 2.0, 0.0], np.float32)
LABELS = np.arange(LENGTH) % 7
QUESTIONS = (
    "entropy", "effective", "received_sum", "received_max", "distance", "first", "within", "off_first", "sink_share",
    "top", "distances", "groups", "matches",
)  # fmt: skip
SUMMED = {"entropy", "effective", "distance", "within", "distances", "groups", "matches"}
RULES = {
    "causal": (causal, ()),
    "window": (lambda **at: window(700, 20, **at), alibi(4)),
    "dense": (lambda **at: full(**at) & dense(TABLE), ()),
}


def asked(w, rows, keys, *, without=()):
    """All questions about weights of some rows and keys."""
    group = np.zeros(keys.stop - keys.start, bool)
    group[: max(0, min(keys.stop, 3000) - keys.start)] = True
    return w.summary(
        *(name for name in QUESTIONS if name not in without), top=5, window=300, groups={"early": group},
        matches={"same": Match(LABELS[rows], LABELS[keys])},
    )  # fmt: skip


@pytest.fixture(scope="module", params=sorted(RULES))
def whole(request):
    """One call's rules, log-sum-exps and summary."""
    mask, score = RULES[request.param]
    lse = attend(Q, K, K, mask=mask(), score=score, sink=SINK).lse
    w = weights(Q, K, mask=mask(), score=score, sink=SINK, lse=lse)
    every = slice(0, LENGTH)
    return mask, score, lse, w, asked(w, every, every)


def piece(whole, rows: slice, keys: slice):
    """Weights of some rows over some keys."""
    mask, score, lse, *_ = whole
    return weights(
        Q[:, rows], K[:, keys], mask=mask(at=rows.start), score=score, sink=SINK, lse=lse[:, rows], first_key=keys.start
    )


def slices(cuts):
    """Neighbouring slices."""
    return [slice(a, b) for a, b in itertools.pairwise(cuts)]


def test_weights_of_a_piece_are_the_wholes(whole):
    w = whole[3]
    for rows, keys in ((slice(2500, 2520), slice(SEGMENT, LENGTH)), (slice(4000, 4005), slice(0, SEGMENT))):
        part = piece(whole, rows, keys)
        assert part.shape == (4, rows.stop - rows.start, keys.stop - keys.start)
        assert np.array_equal(np.asarray(part), w[:, rows, keys])
        assert np.array_equal(part[..., 3], w[:, rows, keys.start + 3])
        assert np.array_equal(np.asarray(part.scores), w.scores[:, rows, keys])


def test_pieces_of_the_queries_join_to_one_summary(whole):
    parts = [asked(piece(whole, rows, slice(0, LENGTH)), rows, slice(0, LENGTH)) for rows in slices(ROWS)]
    joined, wanted = Summary.of_rows(parts), whole[4]
    assert joined.names == wanted.names
    for name, x in wanted.items():
        if name == "received_sum":
            assert np.allclose(joined[name], x, rtol=1e-5)
            assert np.array_equal(joined[name], (parts[0][name] + parts[1][name]) + parts[2][name])
        else:
            assert np.array_equal(joined[name], x), name


def test_stretches_of_the_keys_join_to_one_summary(whole):
    rows = slice(1000, 2500)
    parts = [asked(piece(whole, rows, keys), rows, keys) for keys in slices(CUTS)]
    joined, wanted = Summary.of_keys(parts), asked(piece(whole, rows, slice(0, LENGTH)), rows, slice(0, LENGTH))
    for name, x in wanted.items():
        if name in SUMMED:
            assert np.allclose(joined[name], x, rtol=2e-5, atol=1e-6), name
        else:
            assert np.array_equal(joined[name], x), name


def test_a_stretch_of_packed_documents_has_the_wholes_weights():
    from clearhead import documents

    packed = documents([2000, LENGTH - 2000])
    lse = attend(Q, K, K, mask=causal() & packed).lse
    rows, keys = slice(3000, 3010), slice(2000, 4000)
    w = weights(Q[:, rows], K[:, keys], mask=causal(at=3000) & packed, lse=lse[:, rows], first_key=2000)
    whole = weights(Q, K, mask=causal() & packed, lse=lse)
    assert np.array_equal(np.asarray(w), whole[:, rows, keys])


def test_distances_of_far_queries_have_ranges_of_their_own():
    """The queries stand far behind the keys that are given."""
    q = random(1, 3, 8)
    w = weights(q, K[:1, :200], mask=causal(at=3000))
    s = w.summary("distances", "within", window=2900)
    assert s.distance_edges[-1] > 3002
    assert np.allclose(s.distances[..., -1] + s.distances[..., -2], 1)
    assert (s.within[0] > 0).all()


def test_what_does_not_join_or_fit_is_an_error():
    w = weights(Q[:, :5], K[:, :5])
    with pytest.raises(InputError, match="need the log-sum-exp over all keys"):
        weights(Q[:, :5], K[:, :5], mask=causal(at=2048), first_key=2048)
    with pytest.raises(InputError, match="need the log-sum-exp over all keys and the queries' place"):
        weights(Q[:, :5], K[:, :5], mask=full(), lse=np.zeros((4, 5), np.float32), first_key=2048)
    for wrong in (-1, 1.5, True):
        with pytest.raises(InputError, match="first_key="):
            weights(Q[:, :5], K[:, :5], first_key=wrong)
    with pytest.raises(InputError, match="do not add up"):
        Summary.of_rows([w.summary("received_mean")])
    with pytest.raises(InputError, match="carriers need whole rows"):
        Summary.of_keys([w.summary("carriers")])
    for pieces in ([], [w.summary("first"), w.summary("entropy")]):
        with pytest.raises(InputError, match="do not join"):
            Summary.of_rows(pieces)
    named = [w.summary("groups", groups={name: [0]}) for name in "ab"]
    with pytest.raises(InputError, match="name groups and matches alike"):
        Summary.of_keys(named)


def test_rules_that_read_tables_read_the_wholes():
    table = random(1, LENGTH)
    lse = attend(Q, K, K, score=bias(table)).lse
    rows, keys = slice(4000, 4003), slice(SEGMENT, 3000)
    w = weights(Q[:, rows], K[:, keys], mask=causal(at=4000), score=bias(table), lse=lse[:, rows], first_key=SEGMENT)
    assert np.array_equal(np.asarray(w), weights(Q, K, score=bias(table), lse=lse)[:, rows, keys])
    done = partial(Q[:, rows], K, K, mask=causal(at=4000), score=bias(table)).finish()
    assert np.array_equal(done.lse, lse[:, rows])


def test_pieces_out_of_order_are_an_error():
    x = random(1, 60, 8)[0]
    lse = attend(x, x, x).lse

    def keys(first: int, stop: int, **options: int) -> Summary:
        w = weights(x, x[first:stop], mask=causal(at=0), lse=lse, first_key=first)
        return w.summary("top", "within", "received_sum", **options)

    def rows(first: int, stop: int) -> Summary:
        return weights(x[first:stop], x, mask=causal(at=first)).summary("entropy", "received_sum")

    one, two = keys(0, 32), keys(32, 60)
    assert Summary.of_keys([one, two]).received_sum.shape == (60,)
    for wrong in ([two, one], [one, one], [keys(0, 16), two]):
        with pytest.raises(InputError, match="in ascending order without a gap"):
            Summary.of_keys(wrong)
    for wrong in ([one, keys(32, 60, top=3)], [one, keys(32, 60, window=50)]):
        with pytest.raises(InputError, match="ask all pieces alike"):
            Summary.of_keys(wrong)
    assert Summary.of_rows([rows(0, 30), rows(30, 60)]).entropy.shape == (60,)
    with pytest.raises(InputError, match="of_keys joins stretches of keys for the same queries"):
        Summary.of_keys([rows(0, 30), rows(30, 60)])
    with pytest.raises(InputError, match="of_rows joins pieces of the queries over the same keys"):
        Summary.of_rows([one, two])
    whole = weights(x, x)
    chosen = [whole.summary("entropy", queries=slice(first, first + 30)) for first in (0, 30)]
    assert np.array_equal(Summary.of_rows(chosen).entropy, whole.summary("entropy").entropy)
    for wrong in ([rows(30, 60), rows(0, 30)], [rows(0, 30), rows(20, 60)], chosen[::-1]):
        with pytest.raises(InputError, match="in ascending order, each once"):
            Summary.of_rows(wrong)
