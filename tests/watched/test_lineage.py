"""Keys of an earlier pass are known again, whatever was done to a cache in between."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearhead.watched.lineage import continuation, place

FIRST = np.array([[11, 12, 13, 14], [21, 22, 23, 24], [31, 32, 33, 34]])


def keys_again(before, now, queries):
    """Which of the earlier pass's keys each sequence is found to have, as their fingerprints."""
    found = continuation(before, now, queries)
    return None if found is None else [before[p][at].tolist() for p, at in zip(found.parents, found.kept, strict=True)]


def with_new(rows, count=1):
    """Fingerprints of a pass: some old keys, then new ones."""
    new = 1000 + np.arange(len(rows) * count).reshape(len(rows), count)
    return np.concatenate([np.array(rows), new], axis=1)


def test_the_next_token_continues_each_sequence():
    found = continuation(FIRST, with_new(FIRST), 1)
    assert found.parents.tolist() == [0, 1, 2]
    assert found.kept == (slice(0, 4),) * 3
    assert found.known == 4


def test_beams_change_places():
    order = [2, 2, 0]
    found = continuation(FIRST, with_new(FIRST[order]), 1)
    assert found.parents.tolist() == order


def test_beams_that_are_alike_so_far_are_neighbours():
    alike = np.repeat(FIRST[:1], 3, axis=0)
    assert continuation(alike, with_new(alike), 1).parents.tolist() == [0, 1, 2]


def test_a_batch_that_grows_or_shrinks_keeps_its_parents():
    assert continuation(FIRST[:2], with_new(np.repeat(FIRST[:2], 2, axis=0)), 1).parents.tolist() == [0, 0, 1, 1]
    assert continuation(FIRST, with_new(FIRST[[2]]), 1).parents.tolist() == [2]


def test_rejected_candidates_are_cut_back():
    found = continuation(FIRST, with_new(FIRST[:, :2], 3), 3)
    assert (found.known, found.kept) == (2, (slice(0, 2),) * 3)


def test_a_sliding_cache_drops_its_first_keys():
    found = continuation(FIRST, with_new(FIRST[:, 1:]), 1)
    assert found.kept == (slice(1, 4),) * 3


def test_evicted_keys_may_be_any():
    some = FIRST[:, [0, 2, 3]]
    assert keys_again(FIRST, with_new(some), 1) == some.tolist()


def test_keys_of_cross_attention_all_come_again():
    found = continuation(FIRST, FIRST[[1, 0, 2]], 1)
    assert (found.known, found.parents.tolist()) == (4, [1, 0, 2])


@pytest.mark.parametrize("queries", [4, 3, 1])
def test_another_text_continues_nothing(queries):
    assert continuation(FIRST, FIRST + 100, queries) is None


def test_the_same_text_once_more_begins_anew():
    assert continuation(FIRST, FIRST, 4) is None


def test_a_text_that_begins_alike_is_one_prompt_in_pieces_only_if_all_its_old_keys_come_again():
    other = with_new(FIRST, 2)
    assert continuation(FIRST, other, 2).known == 4
    other[1, 0] += 1
    assert continuation(FIRST, other, 2) is None


def test_keys_in_another_order_are_not_a_continuation():
    assert continuation(FIRST, with_new(FIRST[:, ::-1]), 1) is None


def test_equal_keys_are_told_apart_by_their_order():
    repeated = np.array([5, 6, 5, 7, 5])
    assert place(repeated, np.array([5, 7, 5])) == slice(2, 5)
    assert place(repeated, np.array([6, 7, 5])).tolist() == [1, 3, 4]
    assert place(repeated, np.array([5, 6, 6])) is None
    assert place(repeated, np.array([7, 5, 6])) is None


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.data())
def test_any_part_in_order_is_found(before, data):
    chosen = sorted(data.draw(st.sets(st.sampled_from(range(len(before))), min_size=1)))
    row = np.array(before)[chosen]
    at = place(np.array(before), row)
    assert np.array_equal(np.array(before)[at], row)
    places = np.arange(len(before))[at]
    assert (np.diff(places) > 0).all()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_what_is_no_part_in_order_is_not_found(before, row):
    rest = iter(before)
    assert (place(np.array(before), np.array(row)) is not None) == all(x in rest for x in row)
