"""Every claim that clearhead explain prints is true: 600 random inputs and the corners, before a judge of its own.

`scripts/fuzz prose` judges as many random inputs as one asks for.
"""

import pytest

from clearhead.explain import markdown
from clearhead.explain.pages import WorkedPage
from tests.explain import prose
from tests.explain.cases import case
from tests.explain.corners import all_corners, corner, on_model
from tests.explain.judge.ranges import UntrueError

SEEDS, EACH = 300, 60
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
WHAT_IF = corner([[3.0, 0.0], [-1.0, 0.0], [1.0, 1.0], [1.0, 0.0]], page="what if", what="no-softmax")
ON_MODEL = on_model("The king went to the sea", "-1", (2, 1))
ORDERED = corner([[0.5, 1.0], [1.0, 0.0], [-0.3, 0.4], [0.2, 0.9]], page="positions")
ASKED = corner([[1.0, 0.0], [0.5, 1.0]], page="quiz")
FALSE_ELSEWHERE = [
    (WHAT_IF, "no-softmax", "no-values"),
    (WHAT_IF, "| 3.0000 | 0.7758 | 3.0000 |", "| 3.0000 | 0.7758 | 3.0001 |"),
    (WHAT_IF, "add up to 4.0000", "add up to 4.0001"),
    (WHAT_IF, "“x1” would be subtracted", "“x2” would be subtracted"),
    (WHAT_IF, "has length 12.0416", "has length 12.0417"),
    (WHAT_IF, "| 2 | 12.0416 |", "| 3 | 12.0416 |"),
    (WHAT_IF, "Nothing keeps it from growing", "Everything keeps it from growing"),
    (ORDERED, "Reverse the 3 items", "Reverse the 4 items"),
    (ORDERED, "to the last digit", "but for rounding, 0.1000 at most"),
    (ORDERED, "move by up to 0.", "move by up to 1."),
    (ORDERED, "in one of these ways", "in all of these ways"),
    (ASKED, "(2,2): a number for each pair of items", "(2,1): a number for each pair of items"),
    (ASKED, "| b | 1 |", "| b | 2 |"),
    (ASKED, "2: b.", "2: a."),
    (ASKED, "all 2 exponentials", "all 3 exponentials"),
    (ON_MODEL, "has 4 layers", "has 5 layers"),
    (ON_MODEL, "is number 1196", "is number 1197"),
    (ON_MODEL, "| layer 3 |", "| layer 2 |"),
    (ON_MODEL, "looks at itself", "looks at signs"),
    (ON_MODEL, "said 1", "said 2"),
    (ON_MODEL, " less than the 7.6246", " less than the 7.6247"),
    (ON_MODEL, "(4,7,32)", "(4,7,33)"),
    (ON_MODEL, "÷ √32", "÷ √31"),
    (ON_MODEL, "115 k", "116 k"),
]


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
    assert true in render(WorkedPage(PLAIN(0).explained()).blocks(prose.DIMS))
    monkeypatch.setattr(markdown, "render", lambda page: render(page).replace(true, FALSE[true], 1))
    with pytest.raises(UntrueError):
        prose.judge(PLAIN(0))


@pytest.mark.parametrize(("made", "true", "false"), FALSE_ELSEWHERE)
def test_what_is_false_on_other_pages_is_found(made, true, false, monkeypatch):
    told = made(0)
    prose.judge(told)
    render = markdown.render
    assert true in render(prose.asked(told, told.explained()).blocks(prose.DIMS))
    monkeypatch.setattr(markdown, "render", lambda page: render(page).replace(true, false, 1))
    with pytest.raises((UntrueError, ValueError)):
        prose.judge(told)
