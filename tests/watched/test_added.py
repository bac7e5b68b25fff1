"""What a model adds to scores: one number for each distance where that says it, else one for each pair."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clearhead
from clearhead.definition.weights import weights
from clearhead.errors import InputError
from clearhead.watched.added import joined, rule_of


def biases(heads, keys, seed=0):
    """A number for each distance key − query of any two items of a text, for each head."""
    return np.random.default_rng(seed).standard_normal((heads, 2 * keys - 1)).astype(np.float32)


def of_pairs(numbers, queries, keys):
    """What those come to for the last `queries` items and all keys, pair by pair."""
    place = np.arange(queries)[:, None] + keys - queries
    return numbers[:, np.arange(keys) - place + numbers.shape[1] // 2]


def by_distance(numbers, at, to, extra):
    """The table of one pass: from the last query's first key to the first query's last key."""
    first = to[0] - (at[-1] + extra) + numbers.shape[1] // 2
    return numbers[:, first : first + len(at) + len(to) - 1], True, at, to


def check(added, expected):
    """Compare the rule's effect on weights with the pairs' numbers, by the definition."""
    heads, queries, keys = expected.shape
    q, k = np.zeros((heads, queries, 2)), np.zeros((heads, keys, 2))
    found = weights(q, k, mask=clearhead.full(), score=rule_of(added))
    by_hand = np.exp(expected - expected.max(-1, keepdims=True))
    np.testing.assert_allclose(found, by_hand / by_hand.sum(-1, keepdims=True), atol=1e-6)


@given(st.integers(1, 3), st.integers(1, 8), st.data())
def test_passes_that_agree_are_one_table_of_distances(heads, keys, data):
    queries = keys - data.draw(st.integers(0, keys - 1))
    ends = sorted(data.draw(st.sets(st.integers(1, queries))) | {queries})
    numbers, parts, start = biases(heads, keys), [], 0
    for end in ends:
        parts.append(by_distance(numbers, np.arange(start, end), np.arange(keys - queries + end), keys - queries))
        start = end
    added = joined(parts, heads, queries, keys)
    assert added.by_distance == (queries == keys)
    seen = np.arange(keys) < np.repeat(ends, np.diff([0, *ends]))[:, None] + keys - queries
    found = of_pairs(added.table, queries, keys) if added.by_distance else added.table
    expected = of_pairs(numbers, queries, keys)
    assert np.array_equal(np.where(seen, found, 0), np.where(seen, expected, 0))
    check(added, found)


def test_passes_that_differ_at_a_distance_are_kept_pair_by_pair():
    one, other = biases(2, 4), biases(2, 4, seed=1)
    parts = [
        by_distance(one, np.arange(3), np.arange(3), 0),
        by_distance(other, np.arange(3, 4), np.arange(4), 0),
    ]
    added = joined(parts, 2, 4, 4)
    assert not added.by_distance
    expected = of_pairs(one, 4, 4)
    expected[:, :3, 3], expected[:, 3] = 0, of_pairs(other, 4, 4)[:, 3]
    assert np.array_equal(added.table, expected)
    check(added, expected)


def test_numbers_for_each_pair_keep_their_places():
    table = np.random.default_rng(0).standard_normal((2, 2, 3)).astype(np.float32)
    row = np.ones((1, 1, 1), np.float32)
    parts = [(table, False, np.arange(2), np.array([0, 2, 3])), (row, False, np.array([2]), np.arange(4))]
    expected = np.zeros((2, 3, 4), np.float32)
    expected[:, :2, [0, 2, 3]], expected[:, 2] = table, 1
    added = joined(parts, 2, 3, 4)
    assert np.array_equal(added.table, expected)
    check(added, expected)


def test_distances_of_scattered_keys_are_kept_pair_by_pair():
    numbers, to = biases(1, 5), np.array([0, 2, 4])
    part = numbers[:, 2:7], True, np.arange(3), to
    added = joined([part], 1, 3, 5)
    assert not added.by_distance
    for i in range(3):
        for n, j in enumerate(to):
            assert added.table[0, i, j] == numbers[0, 2 + n - i + 2]


def test_a_table_of_too_many_pairs_is_refused(monkeypatch):
    monkeypatch.setenv("CLEARHEAD_MEMORY", "1")
    part = np.zeros((1, 1, 1), np.float32), False, np.arange(2000), np.arange(2000)
    with pytest.raises(InputError, match="CLEARHEAD_MEMORY"):
        joined([part], 1, 2000, 2000)
