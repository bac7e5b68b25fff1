"""Gradients in pieces: the bits of one call over any ascending cut, the definition's meaning, and every refusal."""

import pickle
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearhead import (
    DtypeError,
    InputError,
    KeyValueCache,
    ShapeError,
    alibi,
    attend,
    bias,
    causal,
    dense,
    documents,
    full,
    key_gradients,
    partial,
    prefix,
    query_gradient,
    relative,
    softcap,
    where,
    window,
)  # fmt: skip
from clearhead.definition import canonical, gradient_pieces
from clearhead.definition.gradient import gradients
from clearhead.gradients.backward import sink_shares, summed_shares
from clearhead.machine.target import native_isas
from clearhead.pieces import piece_gradients, query_cut
from clearhead.testing import check_same_bits, using_isa
from tests.arrays import random
from tests.kernels.combinations import in_turns

ISAS = native_isas()
KEY_CUT = 64  # a block of keys
SLOPES, TABLE, PAIRS = random(4) / 8, random(4, 9), random(4, 700, 700)
MASKS = {  # of queries from position p on; tables are those of the whole call
    "causal": lambda p: causal(at=p),
    "full": lambda p: full(at=p),
    "window": lambda p: window(70, at=p),
    "wide window": lambda p: window(200, 30, at=p),
    "narrow": lambda p: window(0, 0, at=p),
    "prefix": lambda p: causal(at=p) | prefix(20),
    "dense": lambda p: dense(PAIRS > 0) & full(at=p),
    "thirds": lambda p: causal(at=p) & where(lambda batch, head, query, key: (query + key + head) % 3 != 0),
    "nothing for some": lambda p: window(9, at=p) & where(lambda batch, head, query, key: query % 5 != 0),
}
SCORES = {
    "nothing": (),
    "softcap": softcap(1.5),
    "slopes": alibi(SLOPES),
    "table": relative(TABLE, 4),
    "function": lambda s, b, h, q, k: s * SLOPES[h] + np.tanh(s) / (1 + abs(q - k)),
    "several": [softcap(3.0), alibi(SLOPES)],
}


BANDS = ["causal", "full", "window", "wide window", "narrow"]  # which one kernel serves


@dataclass(frozen=True)
class Call:
    """One call and its gradients in one go, whose pieces the tests put together again."""

    arrays: tuple[np.ndarray, ...]  # q, k, v, d_out
    mask: Any
    score: Any
    threads: int
    sink: Any = None

    def forward(self):
        q, k, v, _ = self.arrays
        return attend(q, k, v, mask=self.mask(0), score=self.score, sink=self.sink, threads=1)

    def whole(self):
        done = self.forward()
        return done, done.backward(self.arrays[3], rules=False)

    @property
    def group(self):
        q, k, *_ = self.arrays
        return q.shape[-3] // k.shape[-3] if q.ndim > 2 else 1

    def piece(self, function, done, rows, keys, head=None, **more):
        """A function of gradients, of some queries (of one head of each group) and some keys."""
        q, k, v, d_out = self.arrays
        of_queries = [q, done.unrounded, done.lse[..., None], d_out]
        if head is not None:
            of_queries, more = [x[..., head[0] :: head[1], :, :] for x in of_queries], more | {"head": head}
        q, out, lse, d_out = (x[..., rows, :] for x in of_queries)
        k, v = k[..., keys, :], v[..., keys, :]
        return function(
            q, k, v, out, lse[..., 0], d_out, first_key=keys.start, mask=self.mask(rows.start), score=self.score,
            threads=self.threads, **more,
        )  # fmt: skip

    def query_gradient(self, done, rows, stretches):
        found = None
        for keys in stretches:
            found = self.piece(query_gradient, done, rows, keys, before=found)
        return found.q

    def key_gradients(self, done, keys, stretches):
        found = None
        heads = [(n, self.group) for n in range(self.group)]
        for head in heads:
            for rows in stretches:
                found = self.piece(key_gradients, done, rows, keys, head, before=found)
        return found.k, found.v

    def check(self, query_cuts, row_cuts, key_cuts):
        """Any rows where the queries are, any tiles where the keys are: the bits of one call."""
        n, m = self.arrays[0].shape[-2], self.arrays[1].shape[-2]
        done, want = self.whole()
        of_keys = between(key_cuts, m)
        for rows in between(row_cuts, n):
            got = self.query_gradient(done, rows, of_keys)
            check_same_bits(got, want.q[..., rows, :], f"dQ of {rows}")
        for keys in of_keys:
            d_k, d_v = self.key_gradients(done, keys, between(query_cuts, n))
            check_same_bits(d_k, want.k[..., keys, :], f"dK of {keys}")
            check_same_bits(d_v, want.v[..., keys, :], f"dV of {keys}")


def between(cuts, length):
    places = sorted({0, *(cut for cut in cuts if cut < length), length})
    return [slice(a, b) for a, b in pairwise(places)]


def call(dtype, n, heads=2, key_heads=1, dim=8, mask="causal", score="nothing", threads=1, sink=None):
    q, d_out = (random(heads, n, dim, seed=seed).astype(dtype) for seed in (1, 2))
    k, v = (random(key_heads, n, dim, seed=seed).astype(dtype) for seed in (3, 4))
    return Call((q, k, v, d_out), MASKS[mask], SCORES[score], threads, sink)


@given(st.data())
def test_any_ascending_cut_has_the_bits_of_one_call(data):
    isa, dtype = data.draw(st.sampled_from(in_turns(ISAS, [np.float32, np.float64], 1)))
    with using_isa(isa):
        tile = query_cut(dtype)
        n = max(1, data.draw(st.sampled_from([1, tile, 64, 128, 192, 256])) + data.draw(st.integers(-1, 1)))
        one = call(
            dtype, n, 2, data.draw(st.sampled_from([1, 2])), data.draw(st.sampled_from([1, 5, 16, 20])),
            data.draw(st.sampled_from(BANDS)), threads=data.draw(st.sampled_from([1, 2, 7])),
            sink=data.draw(st.sampled_from([None, random(2)])),
        )  # fmt: skip

        def cuts(step):
            return [step * x for x in data.draw(st.lists(st.integers(1, max(1, n // step)), max_size=2))]

        one.check(cuts(tile), cuts(1), cuts(KEY_CUT))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", [2047, 2048, 2049, 4097])
def test_segments_of_the_forward_pass(isa, n):
    with using_isa(isa):
        unit = 2040 if isa == "avx2" else 1536
        call(np.float32, n, 1, 1, 4, threads=2).check([unit], [1000], [2048])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_sums_of_16_bits_are_rounded_once(dtype):
    tile = query_cut(dtype)
    call(dtype, 300, 4, 2, 20, "wide window", threads=2, sink=random(4)).check([tile, 3 * tile], [100], [64, 256])


RULES = [  # every mask and every score rule: bands share their kernels, each other mask stands beside a score rule
    *((band, "nothing") for band in BANDS),
    ("dense", "softcap"),
    ("prefix", "slopes"),
    ("thirds", "table"),
    ("nothing for some", "function"),
    ("causal", "several"),
]


@pytest.mark.parametrize(("mask", "score"), RULES)
def test_every_rule(mask, score):
    tile = query_cut(np.float32)
    call(np.float32, 300, 4, 2, mask=mask, score=score).check([tile], [100], [128])


def test_tables_are_those_of_the_whole_call():
    q, k, v, d_out = (random(4, 300, 8, seed=seed) for seed in range(4))
    rule = [bias(PAIRS[:, :300, :300]), bias(random(1, 300))]
    Call((q, k[:2], v[:2], d_out), lambda p: causal(at=p), rule, 3).check([192], [77], [64, 256])


def test_documents_are_cut_where_they_begin_and_at_their_own_tiles():
    lengths, tile = [100, 200, 17], query_cut(np.float32)
    q, k, v, d_out = (random(2, 317, 8, seed=seed) for seed in range(4))
    one = Call((q, k, v, d_out), lambda p: documents(lengths) & causal() & full(at=p), (), 1)
    one.check([100, 100 + tile, 300], [50, 150, 301], [64, 100, 100 + 128, 300])
    done, _ = one.whole()
    for cut in (128, 317 - 1):
        with pytest.raises(InputError, match=rf"multiples of 64 from the document.* first_key={cut}\."):
            one.piece(query_gradient, done, slice(0, 317), slice(cut, 317))
    with pytest.raises(InputError, match=rf"multiples of {tile} from the document's first on.*: got {100 + tile + 1}"):
        one.piece(key_gradients, done, slice(100 + tile + 1, 317), slice(0, 317))


def test_keys_and_queries_that_nobody_sees_may_be_left_out():
    tile = query_cut(np.float32)
    one = call(np.float32, 640, 2, 1, mask="window")
    done, want = one.whole()
    got = one.query_gradient(done, slice(400, 500), [slice(320, 448), slice(448, 512)])  # a window of 70
    check_same_bits(got, want.q[:, 400:500], "dQ")
    first = 320 // tile * tile
    d_k, d_v = one.key_gradients(done, slice(320, 384), [slice(first, first + tile), slice(first + tile, 480)])
    check_same_bits(d_k, want.k[:, 320:384], "dK")
    check_same_bits(d_v, want.v[:, 320:384], "dV")


@pytest.mark.parametrize(
    ("q", "k", "v"),
    [
        ((3, 4, 200, 8), (3, 1, 200, 8), (1, 200, 8)),  # one key head, values of all batches
        ((3, 4, 200, 8), (200, 8), (200, 8)),  # keys for all
        ((200, 8), (2, 200, 8), (3, 1, 200, 8)),  # queries for all
        ((2, 6, 200, 8), (3, 200, 8), (2, 3, 200, 8)),  # grouped and broadcast
        ((200, 8), (200, 8), (200, 8)),
    ],
)
def test_what_was_shared_is_summed_at_the_end(q, k, v):
    q, k, v = (random(*shape, seed=n).astype(np.float16) for n, shape in enumerate((q, k, v)))
    d_out = random(*attend(q, k, v).output.shape).astype(np.float16)
    one = Call((q, k, v, d_out), lambda p: causal(at=p), (), 1)
    done, want = one.whole()
    check_same_bits(one.query_gradient(done, slice(0, 200), [slice(0, 128), slice(128, 200)]), want.q, "dQ")
    for keys in (slice(0, 64), slice(64, 200)):  # all heads and queries in one call
        found = one.piece(key_gradients, done, slice(0, 200), keys)
        for name, got in (("k", found.k), ("v", found.v)):
            check_same_bits(got, getattr(want, name)[..., keys, :], f"d{name}")


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_shares_of_a_sinks_gradient_are_those_of_one_call(dtype):
    sink = random(4).astype(np.float32)
    one = call(dtype, 300, 4, 2, 5, mask="nothing for some", sink=sink)
    done, want = one.whole()
    shares = [
        sink_shares(sink, done.unrounded[:, rows], done.lse[:, rows], one.arrays[3][:, rows], None)
        for rows in between([1, 100, 177], 300)
    ]
    check_same_bits(summed_shares(np.concatenate(shares, -1), sink), want.sink, "dsink")


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_finished_partial_sum_has_what_gradients_need(dtype):
    one = call(dtype, 2100, 2, 2, 8, mask="window")
    done, want = one.whole()
    q, k, v, d_out = one.arrays
    rows = slice(2000, 2100)
    total = partial(q[:, rows], k[:, :2048], v[:, :2048], mask=one.mask(2000)).then(k[:, 2048:], v[:, 2048:]).finish()
    check_same_bits(total.unrounded, done.unrounded[:, rows], "the output before it was rounded")
    found = None
    for keys in slice(1920, 2048), slice(2048, 2100):
        of_rows = q[:, rows], k[:, keys], v[:, keys], total.unrounded, total.lse, d_out[:, rows]
        found = query_gradient(*of_rows, first_key=keys.start, before=found, mask=one.mask(2000))
    check_same_bits(found.q, want.q[:, rows], "dQ")


def test_with_a_gradient_of_the_log_sum_exp():
    q, k, v, d_out = (random(4, 200, 8, seed=seed) for seed in range(4))
    done, d_lse, tile = attend(q, k[:2], v[:2]), random(4, 200, seed=9), query_cut(np.float32)
    want = done.backward(d_out, d_lse)
    of_queries = q, k[:2], v[:2], done.output, done.lse, d_out, d_lse
    check_same_bits(query_gradient(*of_queries, mask=causal(at=0)).q, want.q, "dQ")
    found = None
    for head in (0, 2), (1, 2):
        for rows in slice(0, tile), slice(tile, 200):
            x = [a[head[0] :: 2, rows] if len(a) == 4 else a for a in of_queries]
            found = key_gradients(*x, mask=causal(at=rows.start), head=head, before=found)
    check_same_bits(found.k, want.k, "dK")


@pytest.mark.parametrize(
    ("mask", "score"),
    [("causal", "nothing"), ("window", "nothing"), ("thirds", "table"), ("nothing for some", "function")],
)
def test_hidden_keys_are_never_touched(mask, score):
    one = call(np.float32, 300, 4, 2, mask=mask, score=score)
    done, want = one.whole()
    q, k, v, d_out = one.arrays
    for x in (k, v):
        x[:, 250:] = np.nan
    got = one.query_gradient(done, slice(0, 150), [slice(0, 128), slice(128, 300)])
    check_same_bits(got, want.q[:, :150], "dQ")
    for x in (q, d_out):
        x[:, :100] = np.inf
    head = (0, 2)
    found = one.piece(key_gradients, done, slice(0, 300), slice(128, 192), head)
    found = one.piece(key_gradients, done, slice(0, 300), slice(128, 192), (1, 2), before=found)
    check_same_bits(found.k, want.k[:, 128:192], "dK")


@pytest.mark.parametrize(("mask", "score"), [("window", "nothing"), ("dense", "nothing"), ("prefix", "function")])
def test_each_piece_is_what_the_definition_says(mask, score):
    one = call(np.float64, 90, 4, 2, 5, mask, score)
    done = one.forward()
    q, k, v, d_out = one.arrays
    rows, keys = slice(24, 60), slice(64, 90)
    of_piece = q[:, rows], k[:, keys], v[:, keys], done.output[:, rows], done.lse[:, rows], d_out[:, rows]
    rules = {"first_key": 64, "mask": one.mask(24), "score": one.score}
    got = query_gradient(*of_piece, **rules)
    both = piece_gradients(*of_piece, **rules)
    d_q, d_k, d_v = gradient_pieces.pieces(*of_piece, **rules)
    np.testing.assert_allclose(got.q, d_q, rtol=0, atol=1e-12)
    for a, b in zip(both, (d_q, d_k, d_v), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    cut = query_cut(np.float64)
    rows = slice(cut, 90)
    of_piece = q[:, rows], k[:, keys], v[:, keys], done.output[:, rows], done.lse[:, rows], d_out[:, rows]
    found = key_gradients(*of_piece, **(rules | {"mask": one.mask(cut)}))
    for a, b in zip(
        (found.k, found.v), gradient_pieces.key_gradients(*of_piece, **(rules | {"mask": one.mask(cut)})), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mask", sorted(MASKS))
def test_the_definitions_pieces_add_up_to_the_definitions_gradients(mask):
    one = call(np.float64, 30, 4, 2, 5, mask, "several")
    q, k, v, d_out = one.arrays
    output, lse = canonical.attention(q, k, v, mask=one.mask(0), score=one.score)
    want = gradients(q, k, v, d_out, mask=one.mask(0), score=one.score)
    totals = [np.zeros_like(x) for x in (q, k, v)]
    for rows in between([7, 19], 30):
        for keys in between([11, 12], 30):
            found = gradient_pieces.pieces(
                q[:, rows], k[:, keys], v[:, keys], output[:, rows], lse[:, rows], d_out[:, rows],
                first_key=keys.start, mask=one.mask(rows.start), score=one.score,
            )  # fmt: skip
            for total, at, piece in zip(totals, (rows, keys, keys), found, strict=True):
                total[:, at] += piece
    for total, name in zip(totals, "qkv", strict=True):
        np.testing.assert_allclose(total, getattr(want, name), rtol=0, atol=1e-12)


def sent(sums):
    return pickle.loads(pickle.dumps(sums))  # noqa: S301


def test_sums_travel_by_pickle_and_stay_as_they_were():
    one = call(np.float16, 200)
    done, want = one.whole()
    first = one.piece(query_gradient, done, slice(0, 200), slice(0, 128))
    before = first.q
    last = one.piece(query_gradient, done, slice(0, 200), slice(128, 200), before=sent(first))
    check_same_bits(last.q, want.q, "dQ")
    check_same_bits(first.q, before, "the sums so far")
    found = one.piece(key_gradients, done, slice(0, 200), slice(0, 200), (0, 2))
    before = found.k
    found = one.piece(key_gradients, done, slice(0, 200), slice(0, 200), (1, 2), before=sent(found))
    check_same_bits(found.k, want.k, "dK")
    assert not np.array_equal(found.k, before)


@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 0, 3)])
def test_empty_operands_have_empty_gradients(shape):
    x, lse = np.ones(shape), np.ones(shape[:-1])
    assert query_gradient(x, x, x, x, lse, x, mask=full(at=0)).q.shape == shape
    found = key_gradients(x, x, x, x, lse, x, mask=full(at=0))
    assert found.k.shape == found.v.shape == shape


def test_an_empty_stretch_changes_nothing():
    one = call(np.float32, 100, 1)
    done, want = one.whole()
    got = one.query_gradient(done, slice(0, 100), [slice(0, 64), slice(64, 64), slice(64, 100), slice(100, 100)])
    check_same_bits(got, want.q, "dQ")


# Orders that would change bits


def test_the_orders_that_are_refused_change_bits():
    """Each is tried by what a user could do without the state: pieces summed apart, then added."""
    with using_isa(ISAS[0]):
        one = call(np.float32, 640, 2, 1, 16)
        done, want = one.whole()
        parts = [one.piece(query_gradient, done, slice(0, 640), keys).q for keys in between([256, 448], 640)]
        assert not np.array_equal(parts[2] + parts[1] + parts[0], want.q)
        together = [
            one.piece(key_gradients, done, rows, slice(0, 640)).k for rows in between([256, 448], 640)
        ]  # both heads of the group at once
        assert not np.array_equal(together[0] + together[1] + together[2], want.k)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_queries_are_cut_at_tiles(isa, dtype):
    with using_isa(isa):
        one, tile = call(dtype, 300, 1), query_cut(dtype)
        done, _ = one.whole()
        assert not 6144 % tile
        words = rf"multiples of {tile} on {isa} \(6144 serves every processor\): got {tile + 1}\."
        with pytest.raises(InputError, match=words):
            one.piece(key_gradients, done, slice(tile + 1, 300), slice(0, 300))


def test_2048_queries_are_no_cut_on_avx2():
    if "avx2" not in ISAS:
        pytest.skip("needs AVX2")
    with using_isa("avx2"):
        one = call(np.float32, 2100, 1, 1, 4)
        done, _ = one.whole()
        words = r"queries are cut at multiples of 24 on avx2 \(6144 serves every processor\): got 2048\."
        with pytest.raises(InputError, match=words):
            one.piece(key_gradients, done, slice(2048, 2100), slice(0, 2100))


def test_keys_out_of_order_are_refused_by_their_numbers():
    one = call(np.float32, 300)
    done, _ = one.whole()
    first = one.piece(query_gradient, done, slice(0, 300), slice(128, 192))
    for keys in (slice(256, 300), slice(0, 128), slice(128, 192)):
        with pytest.raises(InputError, match=rf"ends at key 192, these keys begin at {keys.start}: .* ascending order"):
            one.piece(query_gradient, done, slice(0, 300), keys, before=first)
    with pytest.raises(InputError, match=r"keys are cut at multiples of 64 \(2048 .*\): got first_key=100\."):
        one.piece(query_gradient, done, slice(0, 300), slice(100, 300))


def test_queries_out_of_order_are_refused_by_their_numbers():
    tile = query_cut(np.float32)
    one = call(np.float32, 6 * tile, 4, 2)
    done, _ = one.whole()
    keys = slice(0, 6 * tile)

    def add(start, stop, head, before=None):
        return one.piece(key_gradients, done, slice(start * tile, stop * tile), keys, head, before=before)

    first = add(1, 3, (0, 2))
    second = add(1, 2, (1, 2), first)
    for wrong, words in (
        (lambda: add(4, 5, (0, 2), first), f"end at query {3 * tile} of head 0 .* begin at query {4 * tile} of head 0"),
        (lambda: add(0, 1, (0, 2), first), f"end at query {3 * tile} of head 0 .* begin at query 0 of head 0"),
        (lambda: add(3, 4, (1, 2), first), f"end at query {3 * tile} of head 0 .* begin at query {3 * tile} of head 1"),
        (
            lambda: add(3, 4, (0, 2), second),
            f"end at query {2 * tile} of head 1 .* begin at query {3 * tile} of head 0",
        ),
        (lambda: add(2, 4, (1, 2), second), f"head 0 of each group ended at query {3 * tile}, head 1 at {4 * tile}"),
        (lambda: add(1, 3, (1, 2)), "head=(1, 2): sums go head after head"),
        (lambda: add(3, 4, None, add(1, 3, None)), "sums go head after head; give q[..., i::2, :, :] with head=(i, 2)"),
        (lambda: add(3, 4, None, first), "sums go head after head"),
        (lambda: add(3, 4, (2, 2), first), "head=(2, 2) is not a query head of a group"),
    ):
        with pytest.raises(InputError) as caught:
            wrong()
        pattern = words.split(" .* ")
        assert all(part in str(caught.value) for part in pattern), caught.value


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"out": random(2, 3, 4)}, ShapeError, ["out", "(2, 3, 4)", "(2, 100, 4)"]),
        ({"lse": random(2, 3)}, ShapeError, ["lse", "(2, 3)", "(2, 100)"]),
        ({"out": random(2, 100, 4).astype(np.float16)}, DtypeError, ["out", "float16", "before it was rounded"]),
        ({"d_out": random(2, 3, 4)}, ShapeError, ["d_out", "(2, 3, 4)"]),
        ({"d_out": None}, InputError, ["d_out is missing"]),
        ({"k": None}, InputError, ["k is missing", "the keys and values of the stretch"]),
        ({"d_lse": random(2, 3)}, ShapeError, ["d_lse", "(2, 3)"]),
        ({"threads": 0}, InputError, ["threads=0"]),
        ({"first_key": -1}, InputError, ["first_key=-1"]),
        ({"first_key": 64.0}, InputError, ["first_key=64.0"]),
        ({"before": (random(2, 100, 4), random(2, 100, 4))}, InputError, ["before is a tuple", "pass the whole"]),
        ({"mask": causal()}, InputError, ["causal()", "at=0"]),
        ({"mask": causal(align="end")}, InputError, ["align", "at=p"]),
    ],
)
def test_what_does_not_fit_is_refused(changes, kind, words):
    given = dict(zip(("q", "k", "v", "out", "lse", "d_out", "d_lse"), [random(2, 100, 4)] * 6 + [None], strict=True))
    given |= {"lse": random(2, 100), "mask": causal(at=0)} | changes
    for function in (query_gradient, key_gradients, *(() if "before" in changes else (piece_gradients,))):
        with pytest.raises(kind) as caught:
            function(**given)
        assert all(word in str(caught.value) for word in words), caught.value


def test_sums_of_other_operands_are_refused():
    x, lse = random(2, 128, 4), random(2, 128)
    given = {"mask": full(at=0)}
    first = query_gradient(x, x[:, :64], x[:, :64], x, lse, x, **given)
    with pytest.raises(ShapeError, match=r"\(2, 128, 4\).*\(2, 64, 4\)"):
        query_gradient(x[:, :64], x, x, x[:, :64], lse[:, :64], x[:, :64], first_key=64, before=first, **given)
    with pytest.raises(InputError, match=r"full\(\) does not say where these queries stand"):
        key_gradients(x, x, x, x, lse, x, mask=full())
    with pytest.raises(ShapeError, match=r"q has shape \(2, 128, 4\): give q\[\.\.\., i::2, :, :\]"):
        key_gradients(x, x[:1], x[:1], x, lse, x, head=(0, 2), **given)


# Sums that are of something else


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("first_query", [1, 150])
def test_tiles_are_counted_from_the_calls_first_query(isa, first_query):
    """Queries that no key of a stretch is seen by are left out: they count all the same."""
    with using_isa(isa):
        tile, x = query_cut(np.float32), random(600, 8)
        q, d_out = x[first_query:], random(600, 8, seed=1)[first_query:]
        done = attend(q, x, x, mask=causal(at=first_query))
        want = done.backward(d_out)
        begin = first_query + tile * ((256 - first_query) // tile)  # before key 256, at the border of a tile
        for starts in ([first_query], [first_query, first_query + tile], [begin, begin + tile]):
            found, keys = None, slice(256, 320)
            for start, stop in pairwise([*starts, 600]):
                rows = slice(start - first_query, stop - first_query)
                of_rows = done.output[rows], done.lse[rows], d_out[rows]
                found = key_gradients(
                    q[rows], x[keys], x[keys], *of_rows, first_key=256, first_query=first_query, before=found,
                    mask=causal(at=start),
                )  # fmt: skip
            check_same_bits(found.k, want.k[keys], "dK")
            check_same_bits(found.v, want.v[keys], "dV")
        of_all = done.output, done.lse, d_out
        with pytest.raises(InputError, match=f"got {first_query}. If the whole call's queries do not begin at 0, give"):
            key_gradients(q, x, x, *of_all, mask=causal(at=first_query))
        with pytest.raises(InputError, match=f"first_query={first_query + 1} is not the position"):
            key_gradients(q, x, x, *of_all, mask=causal(at=first_query), first_query=first_query + 1)


def test_documents_of_a_call_that_begins_within_one():
    lengths, first, tile = [100, 200], 30, query_cut(np.float32)
    x, d_out = random(300, 8), random(270, 8, seed=1)
    mask = documents(lengths) & causal()
    done = attend(x[first:], x, x, mask=mask & full(at=first))
    want, found = done.backward(d_out), None
    for start, stop in pairwise([first, first + tile, 100, 100 + tile, 300]):
        rows = slice(start - first, stop - first)
        of_rows = done.output[rows], done.lse[rows], d_out[rows]
        at = {"mask": mask & full(at=start), "first_query": first}
        found = key_gradients(x[start:stop], x, x, *of_rows, before=found, **at)
    check_same_bits(found.k, want.k, "dK")


def other_sums():
    """What may differ between two stretches: sums of the first, a call of the second, and words of the error."""
    x = random(600, 8)
    done, ones = attend(x, x, x), np.ones((600, 8), np.float32)

    def queries(rows, keys, mask=causal, x=x, **more):
        of_rows = done.output[rows], done.lse[rows], ones[rows].astype(x.dtype)
        mask = mask(at=rows.start)
        return query_gradient(x[rows], x[keys], x[keys], *of_rows, first_key=keys.start, mask=mask, **more)

    def keys(rows, keys, mask=causal, x=x, **more):
        of_rows = done.output[rows], done.lse[rows], ones[rows].astype(x.dtype)
        mask = mask(at=rows.start)
        return key_gradients(x[rows], x[keys], x[keys], *of_rows, first_key=keys.start, mask=mask, **more)

    half, a, b = x.astype(np.float16), slice(0, 192), slice(192, 384)
    first = queries(a, slice(0, 64))
    yield lambda: queries(b, slice(64, 128), before=first), "queries that begin at position 0, this call of 192"
    yield lambda: queries(a, slice(64, 128), before=first, scale=2.0), "another mask, score or scale"
    yield lambda: queries(a, slice(64, 128), full, before=first), "another mask, score or scale"
    yield lambda: queries(a, slice(64, 128), before=first, x=half), "operands of dtype float32, this call of float16"
    begun = keys(a, slice(0, 64))
    yield lambda: keys(b, slice(64, 128), before=begun), "keys that begin at 0, this call of 64"
    yield lambda: keys(b, slice(0, 128), before=begun), "keys and values of shapes"
    yield lambda: keys(b, slice(0, 64), before=begun, score=softcap(3.0)), "another mask, score or scale"
    yield lambda: keys(b, slice(0, 64), before=begun, x=half), "operands of dtype float32, this call of float16"
    yield lambda: keys(b, slice(0, 64), before=begun, first_query=192), "queries begin at position 0, this call of 192"


@pytest.mark.parametrize("n", range(9))
def test_sums_of_something_else_are_refused(n):
    (call, words), count = list(other_sums())[n], len(list(other_sums()))
    assert count == 9
    with pytest.raises(InputError) as caught:
        call()
    assert words in str(caught.value)


def test_sums_go_on_only_with_the_same_instruction_set():
    if len(ISAS) < 2:
        pytest.skip("needs two instruction sets")
    one = call(np.float32, 400, 1)
    done, _ = one.whole()
    with using_isa(ISAS[0]):
        queries = one.piece(query_gradient, done, slice(0, 400), slice(0, 64))
        keys = one.piece(key_gradients, done, slice(0, 192), slice(0, 64))
    words = f"instruction set {ISAS[0]}, this call of {ISAS[1]}"
    with using_isa(ISAS[1]):
        with pytest.raises(InputError, match=words):
            one.piece(query_gradient, done, slice(0, 400), slice(64, 400), before=queries)
        with pytest.raises(InputError, match=words):
            one.piece(key_gradients, done, slice(192, 400), slice(0, 64), before=keys)


def test_sums_in_another_memory_order_are_the_same_sums():
    one = call(np.float32, 200, 2, 2)
    done, want = one.whole()
    queries = one.piece(query_gradient, done, slice(0, 200), slice(0, 128))
    turned = replace(queries, sums=np.asfortranarray(queries.sums))
    check_same_bits(one.piece(query_gradient, done, slice(0, 200), slice(128, 200), before=turned).q, want.q, "dQ")
    tile = query_cut(np.float32)
    keys = one.piece(key_gradients, done, slice(0, tile), slice(0, 200))
    turned = replace(keys, key_sums=np.asfortranarray(keys.key_sums), value_sums=keys.value_sums[::-1].copy()[::-1])
    check_same_bits(one.piece(key_gradients, done, slice(tile, 200), slice(0, 200), before=turned).k, want.k, "dK")


def test_a_cache_has_no_gradients():
    cache, x = KeyValueCache(), random(2, 9, 4)
    cache.append(x, x)
    with pytest.raises(InputError, match="is a cache, which has no gradients"):
        query_gradient(x, cache, None, x, random(2, 9), x, mask=causal(at=0))
