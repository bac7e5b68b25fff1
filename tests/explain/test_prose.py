"""Every claim that clearhead explain prints is true: 2000 random inputs and the corners, before a judge apart."""

import pytest

from tests.explain import prose
from tests.explain.cases import case
from tests.explain.corners import all_corners
from tests.explain.judge.ranges import UntrueError

SEEDS, EACH = 2000, 100


@pytest.mark.parametrize("first", range(0, SEEDS, EACH))
def test_what_is_said_of_random_inputs_is_true(first, tmp_path):
    for seed in range(first, first + EACH):
        told = case(seed, tmp_path)
        try:
            prose.judge(told)
        except UntrueError as error:
            raise AssertionError(f"seed {seed}: {error}\n{told}") from None


def test_what_is_said_of_corners_is_true_and_every_sentence_is_met(tmp_path):
    met = set().union(*(prose.judge(corner(seed)) for corner in all_corners(tmp_path) for seed in (1, 2)))
    assert sorted({one.template for one in prose.SENTENCES} - met) == []
