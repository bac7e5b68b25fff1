"""The lessons on the order and the shapes of the steps, and all lessons by name.

Responsible for the rows of each lesson, which JSON prints, and for its page, which the other formats print.
"""

import re
from collections.abc import Callable

import numpy as np

from clearhead.definition import textbook
from clearhead.explain import cost, positions
from clearhead.explain.blocks import Block, Column, Formula, Heading, Prose, Table
from clearhead.explain.lesson import Lesson
from clearhead.explain.steps import Explanation, check_finite
from clearhead.explain.story import notes_prose, title
from clearhead.wording import count, number, quoted, short

ORDER_NAMES = ("step", "takes", "gives", "why")
ORDER_ROWS = (
    ("scores", "vectors", "a number for each pair j ≤ i", "weights come from how alike items are"),
    ("softmax", "scores", "weights: positive, adding up to 1", "it divides by the sum over all of a row"),
    (
        "weighted sum",
        "weights, vectors",
        "a vector for each item",
        "only weights that add up to 1 make an average",
    ),
)

Step = tuple[str, Formula, str, str]  # name, formula, shapes in letters, shapes in numbers

FIRST_APPROACH = (
    ("scores", Formula("S = X Xᵀ", "S = X X^{T}"), "(n,d)·(d,n) → (n,n)"),
    ("mask", Formula("hide j > i", r"\mbox{hide}\ j > i"), "(n,n) → (n,n)"),
    ("softmax", Formula("A = softmax(S)", r"A = \mathrm{softmax}(S)"), "(n,n) → (n,n)"),
    ("weighted sum", Formula("Y = A X", "Y = A X"), "(n,n)·(n,d) → (n,d)"),
)
TRANSFORMER = (
    ("queries", Formula("Q = X W^Q", "Q = X W^Q"), "(n,d)·(d,h·p) → (h,n,p)"),
    ("keys", Formula("K = X W^K", "K = X W^K"), "(n,d)·(d,h·p) → (h,n,p)"),
    ("values", Formula("V = X W^V", "V = X W^V"), "(n,d)·(d,h·p) → (h,n,p)"),
    ("scores", Formula("S = Q Kᵀ / √p", r"S = Q K^{T} / \sqrt{p}"), "(h,n,p)·(h,p,n) → (h,n,n)"),
    ("mask", Formula("hide j > i", r"\mbox{hide}\ j > i"), "(h,n,n) → (h,n,n)"),
    ("softmax", Formula("A = softmax(S)", r"A = \mathrm{softmax}(S)"), "(h,n,n) → (h,n,n)"),
    ("weighted sum", Formula("Z = A V", "Z = A V"), "(h,n,n)·(h,n,p) → (h,n,p)"),
    ("output", Formula("Y = Z W^O", "Y = Z W^O"), "(n,h·p)·(h·p,d) → (n,d)"),
)


def order_lesson(e: Explanation) -> Lesson:
    """The lesson on the order of scores, softmax and weighted sum, and why another order fails."""
    why = {
        "Why not sum with the scores themselves?": scores_answer(e),
        "Why hide the future before the softmax?": future_answer(e),
        "Why is a score of 0 not the end of an item?": (
            "Because exp comes after the score, and exp(0) = 1 is a positive number. To hide an item, its "
            "score must become −∞ before the softmax, for exp(−∞) = 0; that is how the future is hidden."
        ),
    }
    page: list[Block] = [
        title("The order of the steps", e),
        *notes_prose(e),
        Table(tuple(Column(name, "left") for name in ORDER_NAMES), ORDER_ROWS),
    ]
    for question, answer in why.items():
        page += [Heading(question), Prose(answer)]
    return Lesson(tuple(dict(zip(ORDER_NAMES, row, strict=True)) for row in ORDER_ROWS), tuple(page), why)


def scores_answer(e: Explanation) -> str:
    """What goes wrong with scores as weights, with this input's numbers."""
    scores = e.stages[0][[*e.items]]
    with np.errstate(over="ignore"):
        total, negative = number(float(scores.sum())), int((scores < 0).sum())
    come = {"1.0000": "add up to 1 by chance", "∞": "exceed a float64 together"}.get(total, f"come to {total}")
    ones = {0: "", 1: " The negative one here would even subtract."}
    subtract = ones.get(negative, f" The negative ones, {negative} here, would even subtract.")
    return (
        f"Nothing makes scores add up to 1: those of {quoted(e.token)} {come}. "
        f"As weights they would let the output grow with the input's length.{subtract} "
        "After the softmax all weights are positive and add up to 1."
    )


def future_answer(e: Explanation) -> str:
    """What goes wrong when the future is hidden too late, with this input's numbers."""
    n = len(e.tokens)
    if n == 1:
        return "Because the softmax divides by the sum over what is seen. One item alone has no future to hide."
    scores, seen = textbook.scores(e.x[:1], e.x), np.ones((1, n), bool)
    check_finite(scores, seen)
    late = float(textbook.softmax(scores, seen)[0, 0])
    return (
        f"Because the softmax divides by a sum. Item 0, {quoted(e.tokens[0])}, sees only itself, so its "
        f"weight is 1. Were the future hidden after the softmax, the sum would hold all {n:,} exponentials, "
        f"and a weight of {number(late)} would be left of that 1."
    )


def shapes_lesson(e: Explanation) -> Lesson:
    """The lesson on the shapes of every step: the first approach, then the transformer's form."""
    n, d = e.x.shape
    h = next(heads for heads in (8, 4, 2, 1) if (d % heads == 0 and d > heads) or heads == 1)
    sizes = {"n": n, "d": d, "h": h, "p": d // h, "h·p": d}
    first = tuple(with_sizes(row, sizes) for row in FIRST_APPROACH)
    transformer = tuple(with_sizes(row, sizes) for row in TRANSFORMER)
    page = (
        title("The shapes of the steps", e),
        *notes_prose(e),
        Prose(
            f"n = {count(n, 'item')}, each a vector of d = {count(d, 'number')}. Where two shapes meet, the inner "
            "sizes must be equal, and disappear from the result."
        ),
        Heading("The first approach"),
        shape_table(first),
        Prose(
            f"The mask leaves n(n + 1)/2 = {n * (n + 1) // 2:,} of {count(n * n, 'weight')}. The output has the "
            f"input's shape, ({n},{d}), so one layer can follow another."
        ),
        Prose(
            "In one line, all rows at once: Y = softmax(mask(X Xᵀ)) X. The (n,n) matrix α is called the attention "
            "weights, or the attention pattern."
        ),
        Heading("The transformer's form"),
        Prose(
            f"With h = {count(h, 'head')} of p = d/h = {count(d // h, 'dim')}{' each' * (h > 1)}, and four "
            f"matrices of d² numbers to learn, {short(4 * d * d)} in all."
        ),
        shape_table(transformer),
        Prose(
            f"A score adds up p = {count(d // h, 'product')}, so its spread grows as √p: dividing by √p keeps the "
            "softmax from choosing one item only."
        ),
        Prose(
            "For a single query q of one head, (p), with keys K and values V, (n,p) each: y = softmax(q Kᵀ / √p) V, "
            "(p)·(p,n) → (n), then (n)·(n,p) → (p). Keys and queries must have the same number of dims; values may "
            "have another."
        ),
        Prose(
            "The shapes give a wrong transpose away: Qᵀ K is (p,n)·(n,p) → (p,p), which compares dims and not "
            "items, and has lost the n that a mask needs."
        ),
    )
    rows = [("first approach", *row) for row in first] + [("transformer", *row) for row in transformer]
    names = ("form", "step", "formula", "shapes", "here")
    return Lesson(tuple(dict(zip(names, (*r[:2], r[2].plain, *r[3:]), strict=True)) for r in rows), page)


def with_sizes(row: tuple[str, Formula, str], sizes: dict[str, int]) -> Step:
    """A step with its shapes also in this input's sizes."""
    return (*row, re.sub("h·p|[ndhp]", lambda letter: str(sizes[letter.group()]), row[2]))


def shape_table(rows: tuple[Step, ...]) -> Table:
    """The shapes as a table; a line may break before an arrow but not after it."""
    columns = tuple(Column(name, "left") for name in ("step", "formula", "shapes", "here"))
    return Table(columns, tuple((*row[:2], *(cell.replace("→ ", "→\u00a0") for cell in row[2:])) for row in rows))


LESSONS: dict[str, Callable[[Explanation], Lesson]] = {
    "order": order_lesson,
    "shapes": shapes_lesson,
    "cost": cost.cost_lesson,
    "positions": positions.positions_lesson,
}
