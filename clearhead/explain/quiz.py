"""The steps as an exercise: questions on the reader's own sentence, each answered and explained.

Decides the questions. `ask` asks them one by one; as a page, answers stand at the end.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from clearhead.definition import textbook
from clearhead.explain.blocks import Block, Column, Heading, Prose, Table
from clearhead.explain.json import written
from clearhead.explain.steps import Explanation, check_finite
from clearhead.explain.story import noted, title
from clearhead.explain.zero import weight_of_one_more
from clearhead.wording import count, number, quoted, sub

LETTERS = "abc"


@dataclass(frozen=True)
class Question:
    """A question, what may be answered by letter (a, b, c …), the right letters, and why."""

    text: str
    options: tuple[str, ...]
    answer: str
    why: str

    def right(self, given: str) -> bool:
        """Whether letters, in whatever writing, are the answer.

        >>> Question("", ("x", "y"), "ba", "").right(" B, a")
        True
        """
        return "".join(c for c in given.casefold() if c.isalpha()) == self.answer


def questions(e: Explanation) -> tuple[Question, ...]:
    """Questions with this input's own numbers; one item alone has no future to ask about."""
    asked = (order(), zero(e), sum_of_weights(e), shape(e))
    return (*asked, future(e)) if len(e.x) > 1 else asked


def order() -> Question:
    """Which step comes when."""
    return Question(
        "Put the steps of self-attention in order, as in “bca”.",
        ("softmax", "weighted sum of the vectors", "scores: dot products"),
        "cab",
        "First the scores, for weights come from how alike items are; then softmax, which makes positive weights of "
        "them that add up to 1; then the sum of the vectors, each times its weight.",
    )


def zero(e: Explanation) -> Question:
    """What weight a score of 0 has."""
    shown = number(weight_of_one_more(e)) if weight_of_one_more(e) else "positive, if too small for a float64"
    angle = e.x.shape[1] > 1 and e.query.any()  # nothing is at right angles to 0, or to one dim alone
    what = f"An item at right angles to {quoted(e.token)}" if angle else "A zero vector"
    added = "it sees" if angle else f"{quoted(e.token)} sees"
    return Question(
        f"{what} is added to what {added}. Its score is 0. What is its weight?",
        ("0: it is not looked at", f"exp(0) ÷ (sum + exp(0)) = {shown}", "1: nothing speaks against it"),
        "b",
        f"{why_zero(e, shown)} Only a score of −∞, which hides an item, makes it 0.",
    )


def why_zero(e: Explanation, shown: str) -> str:
    """How that weight comes about."""
    token, total = quoted(e.token), number(e.sum)
    if not e.shift:
        weight = f"1 ÷ ({total} + 1) = {shown}"
        return f"exp(0) = 1. The exponentials of {token} add up to {total}, so the weight is {weight}."
    one = f"exp(0 − {number(e.shift)})"
    return (
        f"Here {number(e.shift)} is taken from every score, which changes no weight and lets a float64 hold the "
        f"exponentials. Those of {token} then add up to {total}, and {one} ÷ ({total} + {one}) is {shown}."
    )


def sum_of_weights(e: Explanation) -> Question:
    """What weights add up to."""
    return Question(
        f"{quoted(e.token)} sees {count(len(e.items), 'item')}. What do its weights add up to?",
        ("0: they cancel out", "1", "to more, the more alike the items are"),
        "b",
        f"Softmax divides every exponential by the sum of all, here {number(e.sum)}: the weights add up to 1, however "
        "many items there are.",
    )


def shape(e: Explanation) -> Question:
    """Which shape the scores have."""
    n, d = e.x.shape
    return Question(
        f"X is ({n},{d}): {count(n, 'item')}, each a vector of {count(d, 'number')}. What is X Xᵀ, the scores?",
        (
            f"({n},{n}): a number for each pair of items",
            f"({d},{d}): a number for each pair of dims",
            f"({n},{d}): a number for each dim of each item",
        ),
        "a",
        f"({n},{d})·({d},{n}) → ({n},{n}): a score for each pair. Xᵀ X would be ({d},{d}), which compares dims.",
    )


def future(e: Explanation) -> Question:
    """When to hide what comes later."""
    s = textbook.scores(e.x[:1], e.x)
    everything = np.ones(s.shape, bool)
    check_finite(s, everything)
    late = number(float(textbook.softmax(s, everything)[0, 0]))
    return Question(
        f"Item 0, {quoted(e.asking[0])}, may see only itself. When must the future be hidden?",
        ("before the softmax, by a score of −∞", "after it, by a weight of 0", "it does not matter"),
        "a",
        f"Hidden before, its weight on itself, {sub('α', 0)}₀, is 1. Hidden after, the sum would hold all "
        f"{count(len(e.x), 'exponential')}, and {late} would be left of it.",
    )


def ask(e: Explanation, read: Callable[[str], str | None], say: Callable[[str], None]) -> int:
    """Ask every question, say whether the answer was right and why, and give how many were; None read ends it."""
    asked = questions(e)
    right = 0
    for at, question in enumerate(asked, 1):
        say(f"{at} of {len(asked)}  {question.text}")
        for letter, option in zip(LETTERS, question.options, strict=True):
            say(f"   {letter}  {option}")
        given = read("Your answer: ")
        if given is None:
            say(f"No answer. It is {question.answer}. {question.why}")
            say("")
            continue
        correct = question.right(given)
        right += correct
        say(f"{'Right.' if correct else f'It is {question.answer}.'} {question.why}")
        say("")
    say(f"{right} of {len(asked)} right.")
    return right


@dataclass(frozen=True)
class Quiz:
    """The questions as a page to print, and as JSON."""

    explained: Explanation

    def blocks(self, dims: int) -> list[Block]:
        """Each question and what may be answered; at the end, all answers."""
        asked = questions(self.explained)
        page: list[Block] = [title("Questions on the steps", self.explained), *noted(self.explained)]
        columns = (Column("", "left"), Column("answer", "left"))
        for at, question in enumerate(asked, 1):
            rows = tuple(zip(LETTERS, question.options, strict=True))
            page += [Heading(f"Question {at} of {len(asked)}"), Prose(question.text), Table(columns, rows)]
        page.append(Heading("Answers"))
        return [*page, *(Prose(f"{at}: {question.answer}. {question.why}") for at, question in enumerate(asked, 1))]

    def json(self) -> str:
        """The same for programs."""
        made = [
            {"question": one.text, "options": dict(zip(LETTERS, one.options, strict=True)), "answer": one.answer,
             "why": one.why}
            for one in questions(self.explained)
        ]  # fmt: skip
        return written(
            {
                "tokens": self.explained.tokens,
                "position": self.explained.position,
                "questions": made,
                "notes": self.explained.notes,
            }
        )
