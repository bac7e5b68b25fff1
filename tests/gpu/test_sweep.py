"""Weights on a GPU: the three kernels that sweep over them, their PTX run on this processor by a stand-in driver."""

import functools
import re

import numpy as np
import pytest

from clearhead import causal, full, window
from clearhead.attention_weights.matrix import weights_of
from clearhead.engine.inputs import Rules
from clearhead.errors import InputError
from clearhead.gpu import launch
from clearhead.gpu.programs import Program
from clearhead.gpu.query_sums import MOST_LANES, MOST_VECTORS
from clearhead.gpu.weights import weights_on
from clearhead.kernels.abi.tiles import F32, tile_for
from clearhead.machine.target import native_isas
from tests.gpu.comparing import drawn, unequal
from tests.gpu.emulation import ORDERS

END = "end"
WINDOW = window(150, 20, align=END)
CASES = {  # queries, keys, leading axes of queries, of keys, mask
    "one": (1, 1, (), (), causal()),
    "an edge": (129, 129, (4,), (2,), causal()),
    "the last queries": (70, 1100, (1,), (1,), causal(align=END)),
    "the first queries": (100, 300, (), (), causal(align="start")),
    "rows that see nothing": (200, 70, (2,), (2,), causal(align=END)),
    "full": (70, 200, (2, 3, 2), (2, 1, 2), full()),
    "a window": (100, 400, (2,), (2,), WINDOW),
    "a window far from the first key": (70, 1000, (2,), (1,), WINDOW),
}
QUESTIONS = ("entropy", "distance", "within", "first", "off_first", "top", "received_sum", "received_max")
KINDS = ("weights", "numbers", "picture", "received", "pooled")


def swept(card, q, k, rules):
    """Weights on a card, by kernels that need no self-test."""
    dim = q.shape[-1]
    kernels = functools.cache(lambda kind: launch.kernel_of(card, Program(kind, launch.tile_of(card, dim))))
    return weights_on(card, q, k, rules, kernels)[0]


def known(q, k, rules):
    return weights_of(q, k, rules, lse=None, threads=None, matching=True)


def answers(w):
    """Everything that the kernels compute: rows, parts, lists of rows and keys, some heads, numbers, pictures."""
    last, *_ = w.shape[-2:]
    found = [w.block(), w.scores.block(slice(0, 70), slice(3, 140)), w[..., -1, :], w[..., w.shape[-1] // 2], w.lse]
    found += [w[..., [0, last // 3, -1], :]]
    found += [*w.summary(*QUESTIONS, top=5, window=9).values(), w.map(size=(7, 33)), w.map(slice(5, 60), slice(3, 90))]
    found += [w.map(size=(5, 33), reduce="sum"), w.map(slice(5, 60), slice(3, 90), reduce="mean", size=20)]
    if w.ndim > 2:
        found += [np.asarray(w[..., -1, :, :]), *w[..., -1, :, :].summary(*QUESTIONS).values()]
    return found


def compare(card, q, k, rules):
    with np.errstate(all="ignore"):
        pairs = zip(answers(swept(card, q, k, rules)), answers(known(q, k, rules)), strict=True)
        return [unequal(a, b) for a, b in pairs]


@pytest.mark.parametrize("case", CASES)
def test_weights_have_the_cpus_bits(cards, case):
    queries, keys, lead, key_lead, mask = CASES[case]
    q, k = drawn(queries, (*lead, queries, 32), (*key_lead, keys, 32))
    assert not any(compare(cards(), q, k, Rules(mask, scale=0.4)))


RTX = {"_97": 101376, "_81": 102400}


@pytest.mark.parametrize(("dim", "attributes"), [(64, {}), (96, RTX), (128, {})], ids=["64", "96, RTX", "128"])
def test_every_tile(cards, dim, attributes):
    q, k = drawn(dim, (2, 70, dim), (2, 300, dim))
    assert not any(compare(cards(**attributes), q, k, Rules(WINDOW)))


@pytest.mark.parametrize("special", ["hidden", "large", "equal"])
def test_special_numbers(cards, special):
    q, k = drawn(7, *[(2, 200, 32)] * 2)
    match special:
        case "hidden":
            q[:], k[:, :140] = 1, -np.inf
        case "large":
            q, k = q * 40, k * 40
        case "equal":  # of equals, the first key stays in a list
            k[:] = 0
    assert not any(compare(cards(), q, k, Rules(causal())))


@pytest.mark.parametrize("special", ["nan", "overflow"])
def test_rows_that_are_not_a_number(cards, special):
    """They change no other row, and no picture; nothing is promised of what is in them."""
    q, k = drawn(7, *[(2, 200, 32)] * 2)
    if special == "nan":
        k[0, 50], k[1, 199] = np.nan, np.inf
    else:
        q, k = q * np.float32(1e20), k * np.float32(1e20)
    rules = Rules(causal())
    with np.errstate(all="ignore"):
        w, expected = swept(cards(), q, k, rules), known(q, k, rules)
        rows, lost = np.asarray(expected), np.isnan(expected.lse)
        assert 20 < lost.sum() < lost.size
        assert not unequal(np.asarray(w)[~lost], rows[~lost])
        assert np.isnan(np.asarray(w)[lost]).any(-1).all()
        found, wanted = (x.summary(*QUESTIONS[:-2]) for x in (w, expected))
        assert not any(unequal(found[name][~lost], wanted[name][~lost]) for name in wanted)
        assert not unequal(w.map(size=20), expected.map(size=20))


def test_a_sink_is_in_the_log_sum_exp(cards):
    q, k = drawn(8, *[(2, 90, 32)] * 2)
    rules = Rules(causal(), sink=np.array([2.0, -1.0], np.float32))
    w, expected = (make(q, k, rules).summary() for make in (functools.partial(swept, cards()), known))
    assert [unequal(w[name], expected[name]) for name in expected] == [0] * len(expected)
    assert w.sink_share.any()


@pytest.mark.parametrize("order", ORDERS)
def test_threads_in_any_order(cards, order):
    card = cards()
    card.driver.library.order, card.driver.library.late = order, True
    q, k = drawn(9, (70, 64), (300, 64))
    assert not any(compare(card, q, k, Rules(WINDOW)))


def test_pixels_that_groups_share(cards):
    """Each pixel's rows and keys are spread over many groups, and its largest weight may be in any."""
    q, k = drawn(11, *[(2, 260, 32)] * 2)
    w, expected = (make(q, k, Rules(causal())) for make in (functools.partial(swept, cards()), known))
    for size in (1, (3, 5), (260, 260), (259, 2)):
        assert not unequal(w.map(size=size), expected.map(size=size))


@pytest.mark.parametrize("isa", ["avx512", "avx2", "generic"])
def test_sums_over_queries_have_the_order_of_each_cpu(cards, isa, monkeypatch):
    """Tiles of several vectors and lanes, groups of tiles, queries that are no neighbours, parts of the keys."""
    if isa not in native_isas():
        pytest.skip(f"this processor has no {isa}")
    monkeypatch.setenv("CLEARHEAD_ISA", isa)
    q, k = drawn(16, (2, 1100, 32), (2, 150, 32))
    w, expected = (make(q, k, Rules(full())) for make in (functools.partial(swept, cards()), known))
    some = [*range(3, 70), 200, *range(300, 431)]
    asks = (
        lambda w: w.summary("received_sum", "received_max").values(),
        lambda w: w.summary("received_sum", queries=some).values(),
        lambda w: [w.map(size=size, reduce="sum") for size in (1, (7, 150), 40)],
        lambda w: [w.map(slice(5, 1000), slice(3, 140), reduce="mean", size=(9, 2))],
    )
    assert not any(unequal(a, b) for ask in asks for a, b in zip(ask(w), ask(expected), strict=True))


def test_tiles_of_cpus():
    """The kernels that sum over queries are written for no more lanes, and for three or four vectors."""
    tiles = [tile_for(F32, bits, registers) for bits in (128, 256, 512) for registers in (16, 32)]
    assert {tile.vectors for tile in tiles} == {MOST_VECTORS - 1, MOST_VECTORS}
    assert max(tile.lanes for tile in tiles) == MOST_LANES


BARRIER = re.compile(r"\tbar\.sync[^\n]*\n")


BARRIERS = dict.fromkeys(KINDS, 3) | {"pooled": 4}


@pytest.mark.parametrize(("kind", "number"), [(kind, n) for kind in KINDS for n in range(BARRIERS[kind])])
def test_each_barrier_is_needed(cards, kind, number):
    """Without it, some order of threads gives other numbers."""

    def without(ptx):
        if f".entry {kind}_" not in ptx:
            return ptx
        found = list(BARRIER.finditer(ptx))
        assert len(found) == BARRIERS[kind]
        return ptx[: found[number].start()] + ptx[found[number].end() :]

    q, k = drawn(12, (64, 32), (300, 32))
    expected = answers(known(q, k, Rules(full())))

    def noticed(order):
        card = cards(spoil=without)
        card.driver.library.order = order
        try:
            found = answers(swept(card, q, k, Rules(full())))
        except RuntimeError:  # some threads were done while others waited
            return True
        with np.errstate(invalid="ignore"):
            return any(unequal(a, b) for a, b in zip(found, expected, strict=True))

    assert any(map(noticed, ORDERS))


# What has no kernel


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda w: w.summary("distances"), "distances are not computed on a GPU"),
        (lambda w: w.summary("groups", groups={"first": [0]}), "groups and matches are not computed"),
        (lambda w: w.summary("top", factors=np.ones(w.shape[-1])), "top with v or factors"),
    ],
)
def test_questions_for_the_cpu(cards, ask, words):
    q, k = drawn(13, *[(20, 32)] * 2)
    w = swept(cards(), q, k, Rules(causal()))
    with pytest.raises(InputError, match=f"{words}.*CPU"):
        ask(w)


def test_carriers_are_counted_from_rows(cards):
    q, k = drawn(14, *[(2, 50, 32)] * 2)
    w, expected = (make(q, k, Rules(causal())) for make in (functools.partial(swept, cards()), known))
    assert (w.summary("carriers").carriers == expected.summary("carriers").carriers).all()


def test_distances_that_floats_cannot_count(cards):
    q, k = drawn(15, *[(2, 20, 32)] * 2)
    card = cards()
    w = swept(card, q, k, Rules(full(at=1 << 24)))
    with pytest.raises(InputError, match="exact below 16777216, but a query and a key may be 16777235 apart: ask"):
        w.summary("distance")
    assert w.summary("entropy").entropy.shape == (2, 20)
    w, expected = (make(q, k, Rules(full(at=(1 << 24) - 20))) for make in (functools.partial(swept, card), known))
    assert not unequal(w.summary("distance").distance, expected.summary("distance").distance)
