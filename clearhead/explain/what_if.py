"""Altered formulas compared with the right one: their weights, their output and the consequence.

Responsible for the alterations and their texts. The right numbers come from `steps`; the altered ones are computed here
with the definition's functions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from clearhead.arrays import Array
from clearhead.definition import textbook
from clearhead.errors import InputError
from clearhead.explain.blocks import Block, Cell, Column, Formula, Heading, Prose, Table
from clearhead.explain.json import json_text, seen_values, vector_fields
from clearhead.explain.rows import MOST_ROWS, item_reference, name_cells
from clearhead.explain.steps import Explanation, vector_length
from clearhead.explain.story import notes_prose, title
from clearhead.rules.masks import full, visible
from clearhead.wording import count, listed, number, quoted

ROUNDING = 1e-12  # a relative difference up to this is rounding
INVISIBLE = 5e-5  # a smaller difference does not show in four decimals


@dataclass(frozen=True, eq=False)
class Altered:
    """The result of another formula: a weight for each of the m items, and an output of any shape.

    Where nothing changes, `advice` tells a user of the command line where something would.
    """

    weights: Array  # (m,)
    output: Array
    formula: Formula
    consequence: str
    advice: str = ""

    @property
    def text(self) -> str:
        """The consequence and the advice, if there is any."""
        return f"{self.consequence} {self.advice}".rstrip()


ROLES_ADVICE = "See it where they differ: clearhead explain --roles."
EARLIER_ADVICE = "Try an earlier --position."
SAME_VECTOR = "Nothing changes: here each item is key and value in one."
RIGHT_FORMULA = Formula("y = softmax(scores) V", r"y = \mathrm{softmax}(\mathrm{scores})\, V")


def no_values(e: Explanation) -> Altered:
    """The weights as the output."""
    n, (m, dv) = len(e.operands.queries), e.operands.values.shape
    text = (
        f"What comes out is {count(len(e.items), 'weight')}, one for each item that is seen: where to look, and "
        f"nothing of what is there. For all items the shape is ({n},{m}) in place of ({n},{dv}): a row's length is "
        "that of the input, so that no layer could follow that takes vectors of a fixed size."
    )
    seen = e.row[list(e.items)]
    return Altered(e.row, seen, Formula("y = softmax(scores)", r"y = \mathrm{softmax}(\mathrm{scores})"), text)


def values_are_keys(e: Explanation) -> Altered:
    """The keys as values."""
    y = altered_output(e, e.row, e.operands.keys)
    altered = Formula("y = softmax(scores) K", r"y = \mathrm{softmax}(\mathrm{scores})\, K")
    if e.operands.keys is e.operands.values:
        return Altered(e.row, y, altered, SAME_VECTOR, ROLES_ADVICE)
    text = (
        f"{quoted(e.token)} gets what the items are found by in place of what they give: the same weights, a mean of "
        "keys. To be found by one thing and give another, an item needs two vectors."
    )
    return Altered(e.row, y, altered, text)


def keys_are_values(e: Explanation) -> Altered:
    """The values as keys."""
    of = e.operands
    if of.values.shape[1] != of.queries.shape[1]:
        raise InputError(
            f"A query of {of.queries.shape[1]} numbers cannot be compared with values of {of.values.shape[1]}: that is "
            "what keys are for. Give another --what-if."
        )
    a = altered_weights(e, textbook.scores(e.query[None], of.values, of.scale)[0])
    altered = Formula("y = softmax(Q Vᵀ) V", r"y = \mathrm{softmax}(Q V^{T})\, V")
    if of.keys is of.values:
        return Altered(a, altered_output(e, a, of.values), altered, SAME_VECTOR, ROLES_ADVICE)
    looks = "now looks for items by what they give, not by what they would be found by"
    text = f"{quoted(e.token)} {looks}: {largest_weight_text(e, a)}"
    return Altered(a, altered_output(e, a, of.values), altered, text)


def no_softmax(e: Explanation) -> Altered:
    """The scores as weights."""
    s = np.where(e.seen, e.stages[0], 0.0)
    y = altered_output(e, s, e.operands.values)
    altered = Formula("y = scores · V", r"y = \mathrm{scores}\, V")
    return Altered(
        s, y, altered, f"{sums_text(s, e)} {lengths_text(e, y)} Nothing keeps it from growing with the number of items."
    )


def scores_as_weights(e: Explanation) -> Altered:
    """Scores divided by their sum."""
    s = np.where(e.seen, e.stages[0], 0.0)
    with np.errstate(over="ignore"):
        total = float(s.sum())
    altered = Formula("y = scores ÷ Σ scores · V", r"y = (\mathrm{scores} / \sum \mathrm{scores})\, V")
    if abs(total) <= ROUNDING * np.abs(s).sum():
        nothing = np.zeros_like(s)
        text = "The scores add up to 0, and nothing can be divided by that: there are no weights, and no output."
        return Altered(nothing, altered_output(e, nothing, e.operands.values), altered, text)
    a = s / total
    y = altered_output(e, a, e.operands.values)
    zero = " An item with score 0 would have no weight at all." if e.zeros else ""
    return Altered(
        a, y, altered, f"{sums_text(a, e)}{zero} A sum of scores near 0 would blow all of them up. {lengths_text(e, y)}"
    )


def no_scale(e: Explanation) -> Altered:
    """Scores that are not divided by √d."""
    d, scale = e.operands.queries.shape[1], e.operands.scale
    a = altered_weights(e, textbook.scores(e.query[None], e.operands.keys)[0])
    y = altered_output(e, a, e.operands.values)
    altered = Formula("y = softmax(Q Kᵀ) V", r"y = \mathrm{softmax}(Q K^{T})\, V")
    if scale == 1:
        if e.operands.alike:
            return Altered(a, y, altered, "Nothing changes: the first approach has no scale.", ROLES_ADVICE)
        return Altered(a, y, altered, "Nothing changes: the scale is 1 already.")
    text = (
        f"Every score is {number(1 / scale)} times as large, as a sum of {count(d, 'product')} tends to grow, and "
        "softmax decides harder:"
    )
    return Altered(a, y, altered, f"{text} {largest_weight_text(e, a)}")


def divide_by_d(e: Explanation) -> Altered:
    """Scores divided by d."""
    d = e.operands.queries.shape[1]
    a = altered_weights(e, textbook.scores(e.query[None], e.operands.keys, 1 / d)[0])
    altered = Formula("y = softmax(Q Kᵀ ÷ d) V", r"y = \mathrm{softmax}(Q K^{T} / d)\, V")
    y = altered_output(e, a, e.operands.values)
    if d == 1:
        return Altered(a, y, altered, "Nothing changes: d = 1, and divided by 1 a score stays what it is.")
    text = (
        f"Divided by d = {d:,}, scores shrink, and weights come nearer to equal: {largest_weight_text(e, a)} The "
        "spread of a sum of d products grows as √d, so √d is what takes it away."
    )
    return Altered(a, y, altered, text)


def mask_after_softmax(e: Explanation) -> Altered:
    """The mask after softmax, whose sum then includes hidden items."""
    everything = textbook.softmax(e.stages[0][None], np.ones((1, len(e.row)), bool))[0]
    a = np.where(e.seen, everything, 0.0)
    altered = Formula("y = mask(softmax(scores)) V", r"y = \mathrm{mask}(\mathrm{softmax}(\mathrm{scores}))\, V")
    hidden = len(e.row) - len(e.items)
    if not hidden:
        return sees_all(e, a, altered_output(e, a, e.operands.values), altered)
    y = altered_output(e, a, e.operands.values)
    left = number(a.sum())
    left = "a little less than 1" if left == "1.0000" else f"{left} and not to 1"
    text = (
        f"The {count(hidden, 'hidden item')} took part in the sum: the weights left add up to {left}, and they leak "
        f"what is hidden: other hidden items would give other weights. {lengths_text(e, y)}"
    )
    return Altered(a, y, altered, text)


def no_mask(e: Explanation) -> Altered:
    """Every item visible."""
    m = len(e.row)
    a = textbook.softmax(e.stages[0][None], visible(full(), 1, m))[0]
    y = textbook.weighted_sum(a[None], e.operands.values, np.ones((1, m), bool))[0]
    altered = Formula("y = softmax(scores of all) V", r"y = \mathrm{softmax}(\mathrm{scores\ of\ all})\, V")
    hidden = [j for j in range(m) if not e.seen[j]]
    if not hidden:
        return sees_all(e, a, y, altered)
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
    return Altered(a, y, altered, text)


def sees_all(e: Explanation, a: Array, y: Array, altered: Formula) -> Altered:
    """The result where nothing is hidden from the item."""
    last = e.itself is not None and not e.masked and e.position == len(e.tokens) - 1 > 0
    text = f"Nothing changes: nothing is hidden from {quoted(e.token)}."
    return Altered(a, y, altered, text, EARLIER_ADVICE if last else "")


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


def alter(e: Explanation, name: str) -> Altered:
    """One alteration of a plain explanation; raises InputError for an unknown one, or where there are rules."""
    if name not in WHAT_IF:
        raise InputError(f"--what-if {name} is unknown: use {', '.join(WHAT_IF)}.")
    if e.rules or not e.items:
        raise InputError(
            "--what-if compares with plain attention over some items: give no --score, --rule or empty mask."
        )
    return WHAT_IF[name](e)


def what_if_page(e: Explanation, name: str, dims: int) -> list[Block]:
    """The page: the right formula, the altered one, and their results side by side."""
    other = alter(e, name)
    columns = (Column("j"), Column("item", "left"), Column("score"), Column("weight"), Column(f"what if: {name}"))
    j_all = [j for j in range(len(e.row)) if e.seen[j] or other.weights[j]]
    shown = sorted(sorted(j_all, key=lambda j: -abs(e.row[j]) - abs(other.weights[j]))[:MOST_ROWS])
    rows: list[tuple[Cell, ...]] = [
        (*name_cells(e, j), number(e.stages[0][j]), right_weight(e, j), number(other.weights[j])) for j in shown
    ]
    if len(shown) < len(j_all):
        rest = [j for j in j_all if j not in shown]
        rows.append(("", f"… {len(rest):,} more", "", number(e.row[rest].sum()), number(other.weights[rest].sum())))
    total = ("", "sum", "", number(e.row.sum()), number(other.weights.sum()))
    return [
        title(f"What if: {name}", e, e.itself),
        *notes_prose(e),
        Heading("The right formula", RIGHT_FORMULA),
        Heading("Another", other.formula),
        Table(columns, tuple(rows), total),
        outputs_table(e, other, dims),
        Prose(other.text, strong=True),
    ]


def right_weight(e: Explanation, j: int) -> str:
    """The right weight of an item, or “hidden”."""
    return number(e.row[j]) if e.seen[j] else "hidden"


def outputs_table(e: Explanation, other: Altered, dims: int) -> Table:
    """Both outputs: their first numbers, their sizes and their lengths."""
    rows = []
    for name, y in (("right", e.output), ("what if", other.output)):
        first = ", ".join(map(number, y[:dims])) + (", …" if len(y) > dims else "")
        rows.append((name, first, str(len(y)), number(vector_length(y))))
    return Table((Column("y", "left"), Column("its numbers", "left"), Column("count"), Column("length")), tuple(rows))


def what_if_json(e: Explanation, name: str) -> str:
    """Both results as JSON."""
    other = alter(e, name)
    made = {
        "what_if": name,
        "tokens": e.tokens,
        "position": e.position,
        **vector_fields(e),
        "scores": seen_values(e, e.stages[0]),
        "formula": other.formula.plain,
        "right": {"weights": e.row.tolist(), "output": e.output.tolist()},
        "altered": {"weights": other.weights.tolist(), "output": other.output.tolist()},
        "consequence": other.text,
        "notes": e.notes,
    }
    return json_text(made)


def altered_weights(e: Explanation, s: Array) -> Array:
    """Softmax of another row of scores over the visible items."""
    a: Array = textbook.softmax(s[None], e.seen[None])[0]
    return a


def altered_output(e: Explanation, a: Array, values: Array) -> Array:
    """The sum of the visible values with other weights."""
    with np.errstate(over="ignore", invalid="ignore"):
        y: Array = textbook.weighted_sum(a[None], values, e.seen[None])[0]
        if not np.isfinite([*y, a.sum()]).all():
            raise InputError("By this formula the numbers exceed a float64: scale the vectors down.")
    return y


def sums_text(weights: Array, e: Explanation) -> str:
    """A sentence on numbers that are used as weights but do not add up to 1."""
    total, negative = number(float(weights.sum())), int((weights < 0).sum())
    one = f"They add up to {total}" + ("" if total == "1.0000" else " and not to 1")
    if not negative:
        return f"{one}."
    which = item_reference(e, int(weights.argmin()))
    who = which if negative == 1 else f"{negative} items, {which} most of all,"
    return f"{one}, and {who} would be subtracted rather than added."


def lengths_text(e: Explanation, y: Array) -> str:
    """A sentence on the lengths of both outputs."""
    return f"The output has length {number(vector_length(y))}, the right one {number(vector_length(e.output))}."


def largest_weight_text(e: Explanation, a: Array) -> str:
    """A clause on the largest weight before and after."""
    if np.abs(e.row - a).max() < INVISIBLE:
        return "here no weight changes to speak of."
    j, k = heaviest_item(e.row), heaviest_item(a)
    k = j if number(a[j]) == number(a[k]) else k
    clause = f"the largest weight, of {item_reference(e, j)}, goes from {number(e.row[j])} to {number(a[j])}"
    return f"{clause}." if j == k else f"{clause}, and {item_reference(e, k)} now has the most, {number(a[k])}."


def heaviest_item(a: Array) -> int:
    """The first of the items with the largest weight, up to rounding."""
    return int(np.flatnonzero(a >= a.max() * (1 - ROUNDING))[0])
