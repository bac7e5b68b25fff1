"""Arrays that grow pass by pass, some of whose parts are still on their way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearhead.watched.growing import Growing


class OnItsWay:
    """A part that is being copied from elsewhere; counts who waits for it."""

    def __init__(self, array):
        self.array, self.waits = array, 0
        self.shape, self.nbytes = array.shape, array.nbytes

    def arrived(self):
        self.waits += 1
        return self.array


def part(sequences, items, seed=0):
    return np.random.default_rng(seed).standard_normal((sequences, 2, items, 3)).astype(np.float32)


def filled(*parts):
    made = Growing()
    for one in parts:
        made.append(one)
    return made


def test_parts_are_joined_and_counted():
    parts = [part(2, 5), OnItsWay(part(2, 1, 1)), part(2, 2, 2)]
    made = filled(*parts)
    assert (made.length, made.nbytes) == (8, 2 * 2 * 8 * 3 * 4)
    assert parts[1].waits == 0, "nothing waits before it is looked at"
    joined = np.concatenate([parts[0], parts[1].array, parts[2]], axis=2)
    assert np.array_equal(made.join()[0], joined)
    assert len(made.parts) == 1
    made.join()
    assert parts[1].waits == 1


def test_the_number_of_sequences_may_change():
    made = filled(part(1, 4), part(3, 1, 1), part(3, 1, 2))
    assert [x.shape for x in made.join()] == [(1, 2, 4, 3), (3, 2, 2, 3)]
    taken = made.take(np.array([0, 0, 2, 1]), np.array([0, 3, 4, 5]))
    expected = [part(1, 4)[0, :, 0], part(1, 4)[0, :, 3], part(3, 1, 1)[2, :, 0], part(3, 1, 2)[1, :, 0]]
    assert np.array_equal(taken, np.stack(expected, axis=1))


@pytest.mark.parametrize("length", range(9))
def test_cutting_keeps_the_first_items(length):
    parts = [part(2, 5), OnItsWay(part(2, 3, 1))]
    whole = np.concatenate([parts[0], parts[1].array], axis=2)
    made = filled(*parts)
    made.cut(length)
    assert made.length == length
    if length:
        assert np.array_equal(np.concatenate(made.join(), axis=2), whole[:, :, :length])
    made.append(part(2, 1, 2))
    assert made.length == length + 1


def test_cutting_gives_memory_back():
    made = filled(part(2, 100))
    made.cut(1)
    assert made.parts[0].base is None
    assert made.nbytes == 2 * 2 * 3 * 4


def test_neighbours_of_one_sequence_are_not_copied():
    made = filled(part(2, 6))
    assert np.shares_memory(made.take(np.ones(4, int), np.arange(1, 5)), made.parts[0])


def test_nothing_is_taken_of_nothing_chosen():
    assert filled(part(2, 6)).take(np.empty(0, int), np.empty(0, int)).shape == (2, 0, 3)


@given(st.data())
def test_any_items_of_any_sequences(data):
    sizes = data.draw(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), min_size=1, max_size=4))
    parts = [part(sequences, items, n) for n, (sequences, items) in enumerate(sizes)]
    all_items = [(n, at) for n, (_, items) in enumerate(sizes) for at in range(items)]
    chosen = sorted(data.draw(st.sets(st.integers(0, len(all_items) - 1), min_size=1)))
    rows = [data.draw(st.integers(0, sizes[all_items[i][0]][0] - 1)) for i in chosen]
    expected = np.stack(
        [parts[all_items[i][0]][row, :, all_items[i][1]] for i, row in zip(chosen, rows, strict=True)], axis=1
    )
    assert np.array_equal(filled(*parts).take(np.array(rows), np.array(chosen)), expected)
