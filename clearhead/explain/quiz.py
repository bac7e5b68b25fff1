"""The steps as an exercise: questions on the reader's own sentence, each answered and explained.

Responsible for the questions. `ask_questions` asks them one by one; a page has the answers at the end.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from clearhead.definition import textbook
from clearhead.explain.blocks import Block, Column, Heading, Prose, Table
from clearhead.explain.json import json_text
from clearhead.explain.steps import Explanation, check_finite
from clearhead.explain.story import notes_prose, title
from clearhead.explain.zero import weight_of_one_more
from clearhead.wording import count, number, quoted, sub

LETTERS = "abc"


@dataclass(frozen=True)
class Question:
    """A question, its options (a, b, c …), the letters of the right answer, and the reason."""

    text: str
    options: tuple[str, ...]
    answer: str
    why: str

    def right(self, given: str) -> bool:
        """Whether the given letters are the answer, ignoring case, blanks and punctuation.

        >>> Question("", ("x", "y"), "ba", "").right(" B, a")
        True
        """
        return "".join(c for c in given.casefold() if c.isalpha()) == self.answer


def questions(e: Explanation) -> tuple[Question, ...]:
    """The questions, with this input's numbers; a single item has no future to ask about."""
    asked = (order_question(), zero_question(e), sum_question(e), shape_question(e))
    return (*asked, future_question(e)) if len(e.x) > 1 else asked


def order_question() -> Question:
    """The question on the order of the steps."""
    return Question(
        "Put the steps of self-attention in order, as in “bca”.",
        ("softmax", "weighted sum of the vectors", "scores: dot products"),
        "cab",
        "First the scores, for weights come from how alike items are; then softmax, which makes positive weights of "
        "them that add up to 1; then the sum of the vectors, each times its weight.",
    )


def zero_question(e: Explanation) -> Question:
    """The question on the weight of an item with score 0."""
    shown = number(weight_of_one_more(e)) if weight_of_one_more(e) else "positive, if too small for a float64"
    angle = e.x.shape[1] > 1 and e.query.any()  # nothing is at right angles to the zero vector, nor in one dimension
    what = f"An item at right angles to {quoted(e.token)}" if angle else "A zero vector"
    added = "it sees" if angle else f"{quoted(e.token)} sees"
    return Question(
        f"{what} is added to what {added}. Its score is 0. What is its weight?",
        ("0: it is not looked at", f"exp(0) ÷ (sum + exp(0)) = {shown}", "1: nothing speaks against it"),
        "b",
        f"{zero_reason(e, shown)} Only a score of −∞, which hides an item, makes it 0.",
    )


def zero_reason(e: Explanation, shown: str) -> str:
    """How the weight of a score of 0 is calculated."""
    token, total = quoted(e.token), number(e.sum)
    if not e.shift:
        weight = f"1 ÷ ({total} + 1) = {shown}"
        return f"exp(0) = 1. The exponentials of {token} add up to {total}, so the weight is {weight}."
    one = f"exp(0 − {number(e.shift)})"
    return (
        f"Here {number(e.shift)} is taken from every score, which changes no weight and lets a float64 hold the "
        f"exponentials. Those of {token} then add up to {total}, and {one} ÷ ({total} + {one}) is {shown}."
    )


def sum_question(e: Explanation) -> Question:
    """The question on the sum of the weights."""
    return Question(
        f"{quoted(e.token)} sees {count(len(e.items), 'item')}. What do its weights add up to?",
        ("0: they cancel out", "1", "to more, the more alike the items are"),
        "b",
        f"Softmax divides every exponential by the sum of all, here {number(e.sum)}: the weights add up to 1, however "
        "many items there are.",
    )


def shape_question(e: Explanation) -> Question:
    """The question on the shape of the scores."""
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


def future_question(e: Explanation) -> Question:
    """The question on when to hide the future."""
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


def ask_questions(e: Explanation, read: Callable[[str], str | None], say: Callable[[str], None]) -> int:
    """Ask every question and explain its answer; returns the number of right ones. `read` returns None at the end."""
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
class QuizPage:
    """The questions as a page to print and as JSON."""

    explained: Explanation

    def blocks(self, dims: int) -> list[Block]:
        """Each question with its options, then all answers."""
        asked = questions(self.explained)
        page: list[Block] = [title("Questions on the steps", self.explained), *notes_prose(self.explained)]
        columns = (Column("", "left"), Column("answer", "left"))
        for at, question in enumerate(asked, 1):
            rows = tuple(zip(LETTERS, question.options, strict=True))
            page += [Heading(f"Question {at} of {len(asked)}"), Prose(question.text), Table(columns, rows)]
        page.append(Heading("Answers"))
        return [*page, *(Prose(f"{at}: {question.answer}. {question.why}") for at, question in enumerate(asked, 1))]

    def json(self) -> str:
        """The questions, options and answers as JSON."""
        fields = [
            {"question": one.text, "options": dict(zip(LETTERS, one.options, strict=True)), "answer": one.answer,
             "why": one.why}
            for one in questions(self.explained)
        ]  # fmt: skip
        return json_text(
            {
                "tokens": self.explained.tokens,
                "position": self.explained.position,
                "questions": fields,
                "notes": self.explained.notes,
            }
        )
