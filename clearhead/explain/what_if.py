"""What if the formula were another? Each alteration beside the right one: its weights, its output, what follows.

Decides the alterations and what is said of them; the right numbers come from steps, the altered ones are worked out
here by the definition's own functions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from clearhead.arrays import Array
from clearhead.definition import textbook
from clearhead.errors import InputError
from clearhead.explain.blocks import Block, Cell, Column, Formula, Heading, Prose, Table
from clearhead.explain.json import row, vectors, written
from clearhead.explain.rows import MOST_ROWS, names, pointed
from clearhead.explain.steps import Explanation, length
from clearhead.explain.story import noted, title
from clearhead.rules.masks import full, visible
from clearhead.wording import count, listed, number, quoted

NOTHING = 1e-12  # a difference up to this, beside the numbers that differ, is rounding
UNSEEN = 5e-5  # a difference below this is none in four decimals


@dataclass(frozen=True, eq=False)
class Altered:
    """What comes out of another formula: a weight for each of the m items, and an output of whatever shape.

    Where nothing changes, `advice` tells the command line's user where something would.
    """

    weights: Array  # (m,)
    output: Array
    formula: Formula
    consequence: str
    advice: str = ""

    @property
    def told(self) -> str:
        """The consequence, and the advice if there is one."""
        return f"{self.consequence} {self.advice}".rstrip()


def formula(plain: str, latex: str) -> Formula:
    """The same twice."""
    return Formula(plain, latex)


ROLES = "See it where they differ: clearhead explain --roles."
EARLIER = "Try an earlier --position."
IN_ONE = "Nothing changes: here each item is key and value in one."
RIGHT = formula("y = softmax(scores) V", r"y = \mathrm{softmax}(\mathrm{scores})\, V")


def no_values(e: Explanation) -> Altered:
    """The weights themselves as the output."""
    n, (m, dv) = len(e.operands.queries), e.operands.values.shape
    text = (
        f"What comes out is {count(len(e.items), 'weight')}, one for each item that is seen: where to look, and "
        f"nothing of what is there. For all items the shape is ({n},{m}) in place of ({n},{dv}): a row's length is "
        "that of the input, so that no layer could follow that takes vectors of a fixed size."
    )
    seen = e.row[list(e.items)]
    return Altered(e.row, seen, formula("y = softmax(scores)", r"y = \mathrm{softmax}(\mathrm{scores})"), text)


def values_are_keys(e: Explanation) -> Altered:
    """Each item gives what it is found by."""
    y = mixed(e, e.row, e.operands.keys)
    made = formula("y = softmax(scores) K", r"y = \mathrm{softmax}(\mathrm{scores})\, K")
    if e.operands.keys is e.operands.values:
        return Altered(e.row, y, made, IN_ONE, ROLES)
    text = (
        f"{quoted(e.token)} gets what the items are found by in place of what they give: the same weights, a mean of "
        "keys. To be found by one thing and give another, an item needs two vectors."
    )
    return Altered(e.row, y, made, text)


def keys_are_values(e: Explanation) -> Altered:
    """Each item is found by what it gives."""
    of = e.operands
    if of.values.shape[1] != of.queries.shape[1]:
        raise InputError(
            f"A query of {of.queries.shape[1]} numbers cannot be compared with values of {of.values.shape[1]}: that is "
            "what keys are for. Give another --what-if."
        )
    a = softmax(e, textbook.scores(e.query[None], of.values, of.scale)[0])
    made = formula("y = softmax(Q Vᵀ) V", r"y = \mathrm{softmax}(Q V^{T})\, V")
    if of.keys is of.values:
        return Altered(a, mixed(e, a, of.values), made, IN_ONE, ROLES)
    looks = "now looks for items by what they give, not by what they would be found by"
    text = f"{quoted(e.token)} {looks}: {largest(e, a)}"
    return Altered(a, mixed(e, a, of.values), made, text)


def no_softmax(e: Explanation) -> Altered:
    """Scores as they are."""
    s = np.where(e.seen, e.stages[0], 0.0)
    y = mixed(e, s, e.operands.values)
    made = formula("y = scores · V", r"y = \mathrm{scores}\, V")
    return Altered(s, y, made, f"{sums(s, e)} {lengths(e, y)} Nothing keeps it from growing with the number of items.")


def scores_as_weights(e: Explanation) -> Altered:
    """Scores divided by their sum."""
    s = np.where(e.seen, e.stages[0], 0.0)
    with np.errstate(over="ignore"):
        total = float(s.sum())
    made = formula("y = scores ÷ Σ scores · V", r"y = (\mathrm{scores} / \sum \mathrm{scores})\, V")
    if abs(total) <= NOTHING * np.abs(s).sum():
        nothing = np.zeros_like(s)
        text = "The scores add up to 0, and nothing can be divided by that: there are no weights, and no output."
        return Altered(nothing, mixed(e, nothing, e.operands.values), made, text)
    a = s / total
    y = mixed(e, a, e.operands.values)
    zero = " An item with score 0 would have no weight at all." if e.zeros else ""
    return Altered(a, y, made, f"{sums(a, e)}{zero} A sum of scores near 0 would blow all of them up. {lengths(e, y)}")


def no_scale(e: Explanation) -> Altered:
    """Scores that are not divided by √d."""
    d, scale = e.operands.queries.shape[1], e.operands.scale
    a = softmax(e, textbook.scores(e.query[None], e.operands.keys)[0])
    y = mixed(e, a, e.operands.values)
    made = formula("y = softmax(Q Kᵀ) V", r"y = \mathrm{softmax}(Q K^{T})\, V")
    if scale == 1:
        if e.operands.alike:
            return Altered(a, y, made, "Nothing changes: the first approach has no scale.", ROLES)
        return Altered(a, y, made, "Nothing changes: the scale is 1 already.")
    text = (
        f"Every score is {number(1 / scale)} times as large, as a sum of {count(d, 'product')} tends to grow, and "
        "softmax decides harder:"
    )
    return Altered(a, y, made, f"{text} {largest(e, a)}")


def divide_by_d(e: Explanation) -> Altered:
    """Scores divided by d."""
    d = e.operands.queries.shape[1]
    a = softmax(e, textbook.scores(e.query[None], e.operands.keys, 1 / d)[0])
    made = formula("y = softmax(Q Kᵀ ÷ d) V", r"y = \mathrm{softmax}(Q K^{T} / d)\, V")
    y = mixed(e, a, e.operands.values)
    if d == 1:
        return Altered(a, y, made, "Nothing changes: d = 1, and divided by 1 a score stays what it is.")
    text = (
        f"Divided by d = {d:,}, scores shrink, and weights come nearer to equal: {largest(e, a)} The spread of a sum "
        "of d products grows as √d, so √d is what takes it away."
    )
    return Altered(a, y, made, text)


def mask_after_softmax(e: Explanation) -> Altered:
    """Hidden items still in the sum that softmax divides by."""
    everything = textbook.softmax(e.stages[0][None], np.ones((1, len(e.row)), bool))[0]
    a = np.where(e.seen, everything, 0.0)
    made = formula("y = mask(softmax(scores)) V", r"y = \mathrm{mask}(\mathrm{softmax}(\mathrm{scores}))\, V")
    hidden = len(e.row) - len(e.items)
    if not hidden:
        return sees_all(e, a, mixed(e, a, e.operands.values), made)
    y = mixed(e, a, e.operands.values)
    left = number(a.sum())
    left = "a little less than 1" if left == "1.0000" else f"{left} and not to 1"
    text = (
        f"The {count(hidden, 'hidden item')} took part in the sum: the weights left add up to {left}, and they leak "
        f"what is hidden: other hidden items would give other weights. {lengths(e, y)}"
    )
    return Altered(a, y, made, text)


def no_mask(e: Explanation) -> Altered:
    """Everything seen."""
    m = len(e.row)
    a = textbook.softmax(e.stages[0][None], visible(full(), 1, m))[0]
    y = textbook.weighted_sum(a[None], e.operands.values, np.ones((1, m), bool))[0]
    made = formula("y = softmax(scores of all) V", r"y = \mathrm{softmax}(\mathrm{scores\ of\ all})\, V")
    hidden = [j for j in range(m) if not e.seen[j]]
    if not hidden:
        return sees_all(e, a, y, made)
    later = e.itself is not None and all(j > e.position for j in hidden)
    what = "what comes later" if later else "what the mask hides"
    text = (
        f"{quoted(e.token)} would see {what}, {listed([quoted(e.tokens[j]) for j in hidden])}, with "
        f"{number(a[hidden].sum())} of its weight."
    )
    if later:
        text += (
            " That is bidirectional attention, right for reading a whole text; a model that learns to guess the next "
            "item would simply copy it, and learn little."
        )
    return Altered(a, y, made, text)


def sees_all(e: Explanation, a: Array, y: Array, made: Formula) -> Altered:
    """Nothing is hidden from the item."""
    last = e.itself is not None and not e.masked and e.position == len(e.tokens) - 1 > 0
    text = f"Nothing changes: nothing is hidden from {quoted(e.token)}."
    return Altered(a, y, made, text, EARLIER if last else "")


WHAT_IF: dict[str, Callable[[Explanation], Altered]] = {
    "no-values": no_values,
    "values=keys": values_are_keys,
    "keys=values": keys_are_values,
    "no-softmax": no_softmax,
    "scores-as-weights": scores_as_weights,
    "no-scale": no_scale,
    "divide-by-d": divide_by_d,
    "mask-after-softmax": mask_after_softmax,
    "no-mask": no_mask,
}


def altered(e: Explanation, name: str) -> Altered:
    """One alteration of a plain explanation; raises InputError for an unknown one, or where rules were given."""
    if name not in WHAT_IF:
        raise InputError(f"--what-if {name} is unknown: use {', '.join(WHAT_IF)}.")
    if e.rules or not e.items:
        raise InputError(
            "--what-if compares with plain attention over some items: give no --score, --rule or empty mask."
        )
    return WHAT_IF[name](e)


def page(e: Explanation, name: str, dims: int) -> list[Block]:
    """The right formula and the altered one, side by side."""
    other = altered(e, name)
    columns = (Column("j"), Column("item", "left"), Column("score"), Column("weight"), Column(f"what if: {name}"))
    j_all = [j for j in range(len(e.row)) if e.seen[j] or other.weights[j]]
    shown = sorted(sorted(j_all, key=lambda j: -abs(e.row[j]) - abs(other.weights[j]))[:MOST_ROWS])
    rows: list[tuple[Cell, ...]] = [
        (*names(e, j), number(e.stages[0][j]), weight(e, j), number(other.weights[j])) for j in shown
    ]
    if len(shown) < len(j_all):
        rest = [j for j in j_all if j not in shown]
        rows.append(("", f"… {len(rest):,} more", "", number(e.row[rest].sum()), number(other.weights[rest].sum())))
    total = ("", "sum", "", number(e.row.sum()), number(other.weights.sum()))
    return [
        title(f"What if: {name}", e, e.itself),
        *noted(e),
        Heading("The right formula", RIGHT),
        Heading("Another", other.formula),
        Table(columns, tuple(rows), total),
        outputs(e, other, dims),
        Prose(other.told, strong=True),
    ]


def weight(e: Explanation, j: int) -> str:
    """The right weight of an item, if it is seen."""
    return number(e.row[j]) if e.seen[j] else "hidden"


def outputs(e: Explanation, other: Altered, dims: int) -> Table:
    """Both outputs, their first numbers, how many there are, and how long they are."""
    rows = []
    for name, y in (("right", e.output), ("what if", other.output)):
        first = ", ".join(map(number, y[:dims])) + (", …" if len(y) > dims else "")
        rows.append((name, first, str(len(y)), number(length(y))))
    return Table((Column("y", "left"), Column("its numbers", "left"), Column("count"), Column("length")), tuple(rows))


def render(e: Explanation, name: str) -> str:
    """Both as JSON."""
    other = altered(e, name)
    made = {
        "what_if": name,
        "tokens": e.tokens,
        "position": e.position,
        **vectors(e),
        "scores": row(e, e.stages[0]),
        "formula": other.formula.plain,
        "right": {"weights": e.row.tolist(), "output": e.output.tolist()},
        "altered": {"weights": other.weights.tolist(), "output": other.output.tolist()},
        "consequence": other.told,
        "notes": e.notes,
    }
    return written(made)


def softmax(e: Explanation, s: Array) -> Array:
    """Weights of another row of scores, over what is seen."""
    a: Array = textbook.softmax(s[None], e.seen[None])[0]
    return a


def mixed(e: Explanation, a: Array, values: Array) -> Array:
    """The sum of what is seen, by other weights."""
    with np.errstate(over="ignore", invalid="ignore"):
        y: Array = textbook.weighted_sum(a[None], values, e.seen[None])[0]
        if not np.isfinite([*y, a.sum()]).all():
            raise InputError("By this formula the numbers exceed a float64: scale the vectors down.")
    return y


def sums(weights: Array, e: Explanation) -> str:
    """What numbers that are no weights do."""
    total, negative = number(float(weights.sum())), int((weights < 0).sum())
    one = f"They add up to {total}" + ("" if total == "1.0000" else " and not to 1")
    if not negative:
        return f"{one}."
    which = pointed(e, int(weights.argmin()))
    who = which if negative == 1 else f"{negative} items, {which} most of all,"
    return f"{one}, and {who} would be subtracted rather than added."


def lengths(e: Explanation, y: Array) -> str:
    """How long the outputs are."""
    return f"The output has length {number(length(y))}, the right one {number(length(e.output))}."


def largest(e: Explanation, a: Array) -> str:
    """The largest weight before and after."""
    if np.abs(e.row - a).max() < UNSEEN:
        return "here no weight changes to speak of."
    j, k = heaviest(e.row), heaviest(a)
    k = j if number(a[j]) == number(a[k]) else k
    told = f"the largest weight, of {pointed(e, j)}, goes from {number(e.row[j])} to {number(a[j])}"
    return f"{told}." if j == k else f"{told}, and {pointed(e, k)} now has the most, {number(a[k])}."


def heaviest(a: Array) -> int:
    """The first of the items with the largest weight, rounding aside."""
    return int(np.flatnonzero(a >= a.max() * (1 - NOTHING))[0])
