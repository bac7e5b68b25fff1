"""Every claim that clearhead explain prints is true: 2000 random inputs and the corners, before a judge of its own."""

import pytest

from clearhead.explain import markdown
from clearhead.explain.pages import Worked
from tests.explain import prose
from tests.explain.cases import case
from tests.explain.corners import all_corners, corner
from tests.explain.judge.ranges import UntrueError

SEEDS, EACH = 2000, 100
PLAIN = corner([[0.0, 1.0], [0.5, 0.2], [1.0, 0.0], [2.0, 2.0]], "abcd", position=2)
FALSE = {
    "item 2, looks": "item 3, looks",
    "the 2 items before": "the 3 items before",
    "; what comes later is hidden": "",
    "a vector of 2 numbers": "a vector of 2 number",
    "1.0000 × 0.5000": "1.0000 × 0.4000",
    "(0.5000) = 1.6487": "(0.5000) = 1.6488",
    "| 1 | b | 0.5000 |": "| 1 | b | 0.5001 |",
    "| 1 | b | 0.5000 | ██": "| 1 | b | 0.5000 | █",
    "2 | c (itself)": "2 | c",
    "**1.0000**": "**0.9999**",
    "5.3670, they": "5.367, they",
    "“a” is at right": "“b” is at right",
    "18.6 %": "18.7 %",
    "18.6 % ": "1.9e+01 % ",
    "0.1863 × a": "0.1863 × b",
    "**0.2478**": "**0.2479**",
    "0.9362": "0.9361",
    "from 1.0000 to 0.7050": "from 0.7050 to 1.0000",
    "mixed with what it saw": "the same, for nothing else has weight",
    "a b **c** d": "a **b** c d",
    r"x_{2} \cdot": r"x_{1} \cdot",
    "## What changed": "## What has changed",
    "both are long and point the same way.": "both are long and point the same way. The second is the largest.",
    "**Score 0 is not": "**Score 0 is",
}


@pytest.mark.parametrize("first", range(0, SEEDS, EACH))
def test_what_is_said_of_random_inputs_is_true(first, tmp_path):
    for seed in range(first, first + EACH):
        told = case(seed, tmp_path)
        try:
            prose.judge(told)
        except UntrueError as error:
            raise AssertionError(f"seed {seed}: {error}\n{told}") from None


def test_what_is_said_of_corners_is_true_and_every_sentence_is_met(tmp_path):
    met = set().union(*(prose.judge(made(seed)) for made in all_corners(tmp_path) for seed in (1, 2)))
    assert sorted({one.template for one in prose.SENTENCES} - met) == []


@pytest.mark.parametrize("true", FALSE)
def test_what_is_false_new_or_left_out_is_found(true, monkeypatch):
    prose.judge(PLAIN(0))
    render = markdown.render
    assert true in render(Worked(PLAIN(0).explained()).blocks(prose.DIMS))
    monkeypatch.setattr(markdown, "render", lambda page: render(page).replace(true, FALSE[true], 1))
    with pytest.raises(UntrueError):
        prose.judge(PLAIN(0))
