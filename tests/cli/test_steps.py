"""The order of a run's rows: every row of every head once, in steps of any size, shared evenly among parts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearhead.cli import steps
from clearhead.cli.steps import Budget, Order, cuts
from clearhead.errors import InputError


def triangle(row):
    return row * (row + 1) // 2


def order_of(lead, queries, together=False):
    return Order(tuple(lead), queries, together, triangle)


ORDERS = st.builds(order_of, st.lists(st.integers(0, 4), max_size=3), st.integers(0, 9), st.booleans())
BUDGETS = st.builds(Budget, st.integers(1, 200), st.integers(0, 9), st.integers(0, 9), st.sampled_from([(), (2, 4)]))


def covered(order, found):
    """How often each row of each head is in the steps."""
    times = np.zeros((*order.lead, order.queries), int)
    grid = times if order.together else times.reshape(*(order.lead or (1,)), order.queries)
    for step in found:
        place = () if order.together else (*step.outer, step.heads)
        grid[(*place, ..., slice(*step.rows))] += 1
    return times


@given(ORDERS, BUDGETS, st.integers(1, 3), st.integers(0, 400), st.integers(0, 60))
def test_whatever_the_steps_every_row_is_computed_once(order, budget, tiles, step_bytes, done):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "WHOLE_TILES", tiles)
        patch.setattr(steps, "STEP_BYTES", step_bytes)
        everything = ((0, order.rows),)
        found = list(order.steps(everything, 0, budget))
        assert (covered(order, found) == 1).all()
        assert sum(order.pairs(s.start, s.stop) for s in found) == order.heads * triangle(order.queries)
        assert [s.stop for s in found[:-1]] == [s.start for s in found[1:]]
        left = list(order.steps(everything, done, budget))
        assert sum(s.stop - s.start for s in left) == max(0, order.rows - done)
        assert all(not cuts(s.heads.start, s.heads.stop, 2) for s in found if budget.groups and not order.together)


@given(ORDERS, st.integers(1, 12), BUDGETS)
def test_parts_hold_every_row_once(order, parts, budget):
    found = [s for part in range(1, parts + 1) for s in order.steps(order.share(part, parts), 0, budget)]
    assert (covered(order, found) == 1).all()


@pytest.mark.parametrize(("lead", "together"), [((), False), ((3,), False), ((2, 4), True)])
@pytest.mark.parametrize("parts", [2, 3, 16])
def test_parts_have_equally_many_pairs(lead, together, parts):
    order = order_of(lead, 4000, together)
    pairs = [sum(order.pairs(*s) for s in order.share(part, parts)) for part in range(1, parts + 1)]
    assert sum(pairs) == order.pairs(0, order.rows)
    assert max(pairs) / min(pairs) < 1.01


def test_each_part_has_a_stretch_from_the_front_and_one_from_the_back():
    (a, b), (c, d) = order_of((1,), 4000).share(1, 4)
    assert (a, d) == (0, 4000)
    assert b - a > 5 * (d - c), "early rows see few keys"


def test_a_part_that_is_none_is_refused():
    with pytest.raises(InputError, match=r"--part 3/2 is not a part: count from 1/2 to 2/2"):
        order_of((1,), 5).share(3, 2)


def test_a_step_has_about_its_budget_of_pairs():
    order, budget = order_of((2,), 100_000), Budget(10**8, 10**9, 100)
    sizes = [order.pairs(s.start, s.stop) for s in order.steps(((0, order.rows),), 0, budget)]
    assert max(sizes) <= 10**8
    assert np.median(sizes) > 0.5e8


def test_a_step_of_few_rows_fills_the_tiles_of_every_processor():
    order = order_of((1,), 10**8)
    step = next(order.steps(((0, order.rows),), 9 * 10**7, Budget(10**6, 10**12, 100)))
    assert step.rows == (9 * 10**7, 9 * 10**7 + steps.WHOLE_TILES)
    assert all(steps.WHOLE_TILES % queries == 0 for queries in (64, 32, 24, 12, 16, 8, 6))
