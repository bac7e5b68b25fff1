"""Who sees whom in a pass, in its compact form, and the simplest mask with the same meaning."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearhead.rules.mask_kinds import Where
from clearhead.rules.masks import causal, documents, full, visible, window
from clearhead.watched.visible import Shown, Visible, visible_band

LENGTHS = st.integers(1, 9)


def intervals(low, high, keys, until=None):
    """What a whole sequence's queries see."""
    until = None if until is None else np.array(until)
    return Shown(np.array(low), np.array(high), keys, until)


def table_of(shown):
    """The pairs of intervals, one by one."""
    gone = np.full(shown.keys, len(shown.low)) if shown.until is None else shown.until
    bounds = list(zip(shown.low, shown.high, strict=True))
    return np.array([[lo <= j < hi and gone[j] > i for j in range(shown.keys)] for i, (lo, hi) in enumerate(bounds)])


@given(LENGTHS, LENGTHS, st.integers(-3, 6), st.none() | st.integers(0, 5), st.none() | st.integers(0, 5))
def test_a_band_is_that_table(queries, keys, offset, left, right):
    table = visible_band(queries, keys, offset, left, right).table(0, keys)
    place, key = np.arange(queries)[:, None] + offset, np.arange(keys)
    seen = np.ones((queries, keys), bool)
    if left is not None:
        seen &= key >= place - left
    if right is not None:
        seen &= key <= place + right
    assert np.array_equal(table, seen[None])


MASKS = {
    "causal": (intervals([0, 0, 0], [1, 2, 3], 3), causal(align="end")),
    "causal over a cache": (intervals([0, 0], [3, 4], 4), causal(align="end")),
    "one query": (intervals([0], [4], 4), causal(align="end")),
    "full": (intervals([0, 0, 0], [3, 3, 3], 3), full()),
    "window": (intervals([0, 0, 1, 2], [1, 2, 3, 4], 4), causal(align="end") & window(1, None, align="end")),
    "both sides": (intervals([0, 0, 1, 2], [2, 3, 4, 4], 4), window(1, 1, align="end")),
    "causal documents": (intervals([0, 0, 2, 2], [1, 2, 3, 4], 4), documents([2, 2]) & causal()),
    "full documents": (intervals([0, 0, 2, 2], [2, 2, 4, 4], 4), documents([2, 2]) & full()),
}


@pytest.mark.parametrize("name", MASKS)
def test_the_simplest_mask_is_chosen(name):
    shown, expected = MASKS[name]
    assert repr(shown.mask) == repr(expected)
    assert np.array_equal(visible(shown.mask, len(shown.low), shown.keys), table_of(shown))


def test_other_intervals_are_a_formula():
    shown = intervals([0, 1, 1], [3, 2, 3], 3)
    assert any(isinstance(part, Where) for part in shown.mask.parts())
    assert np.array_equal(visible(shown.mask, 3, 3), table_of(shown))


@given(st.data())
def test_a_mask_shows_the_pairs_of_its_intervals(data):
    queries, keys = data.draw(LENGTHS), data.draw(LENGTHS)
    low = np.array([data.draw(st.integers(0, keys)) for _ in range(queries)])
    high = np.array([data.draw(st.integers(0, keys)) for _ in range(queries)])
    until = [data.draw(st.integers(0, queries)) for _ in range(keys)] if data.draw(st.booleans()) else None
    shown = intervals(low, high, keys, until)
    assert np.array_equal(visible(shown.mask, queries, keys), table_of(shown))


@given(st.data())
def test_regular_intervals_keep_their_pairs(data):
    """Those that come of causal masks, windows and documents, where a simpler mask is tried first."""
    lengths = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    ends = np.cumsum(lengths)
    start, stop = np.repeat(ends - lengths, lengths), np.repeat(ends, lengths)
    place, left, right = np.arange(ends[-1]), data.draw(st.integers(0, 5)), data.draw(st.integers(0, 5))
    low, high = np.maximum(start, place - left), np.minimum(stop, place + right + 1)
    from_end = data.draw(st.integers(0, int(ends[-1]) - 1))
    shown = Shown(low[from_end:], high[from_end:], int(ends[-1]))
    assert np.array_equal(visible(shown.mask, len(shown.low), shown.keys), table_of(shown))


@given(st.data())
def test_a_table_is_kept_bit_by_bit(data):
    queries, keys, heads, batch = (data.draw(st.integers(1, n)) for n in (5, 19, 3, 2))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    table = rng.random((batch, heads, queries, keys)) < 0.5
    none = np.zeros((1, queries), np.int32)
    kept = Visible(none, none, None, np.packbits(table, axis=-1))
    for row in range(batch):
        assert np.array_equal(kept.table(row, keys), table[row])
    shown = Shown(none[0], none[0], keys, table=table[0])
    assert np.array_equal(np.broadcast_to(visible(shown.mask, queries, keys, lead=(heads,)), table[0].shape), table[0])


def test_padding_is_left_out_of_a_sequences_own_intervals():
    low, high = np.array([[0, 0, 0], [0, 1, 1]]), np.array([[1, 2, 3], [0, 2, 3]])
    kept = Visible(low, high, np.array([[True, True, True], [False, True, True]]))
    assert kept.table(0, 3).astype(int).tolist() == [[[1, 0, 0], [1, 1, 0], [1, 1, 1]]]
    assert kept.table(1, 3).astype(int).tolist() == [[[0, 0, 0], [0, 1, 0], [0, 1, 1]]]
    assert kept.nbytes == low.nbytes + high.nbytes + 6
