"""The worked steps as a page: scores, softmax, weighted sum, and what changed.

One page serves the first approach, where x is query, key and value, and the transformer's form.

Responsible for the words and the choice of numbers. Not for the numbers, which are in `steps`, nor for looks, which are
in the formats. Every sentence must be true for every input; zero.py has the sentences on dot products that are 0.
"""

import math
import sys

import numpy as np

from clearhead.arrays import Array
from clearhead.explain.blocks import Block, Cell, Column, Formula, Heading, Prose, Table, Title, Triangle
from clearhead.explain.rows import (
    SUBSTITUTE_MARK,
    RowChoice,
    choose_rows,
    is_substitute,
    item_reference,
    items_table,
    marked_name,
    name_cells,
)
from clearhead.explain.ruled import mask_step, rules_step
from clearhead.explain.steps import Explanation, underflowed
from clearhead.explain.zero import lost_score, lost_weight, no_weight, zero_score
from clearhead.rules.named import name_of_mask
from clearhead.wording import count, factor, label, number, quoted, sub
from clearhead.words.forms import family

MOST_ASKING = 24  # items of the other text that are named; more are only counted
MOST_NAMES = 200  # items that a title names; of more, only those around the chosen one
MOST_DIMS_SHOWN = 6  # of each vector
LARGEST_EXPONENT = math.log(sys.float_info.max)
SENSES_NOTE = (
    "A word has one vector, all its senses mixed, and this step only adds up the vectors of what is seen: it can lean "
    "a word towards them, and here they lean it too little. It cannot choose which sense is meant."
)
NEAREST_NOTE = "The words whose vectors point most nearly its way, one form of each, and none of"
UNCHANGED_COSINE = 0.9999  # above this, the visible vectors point the same way or are zero
FEW_NEW_NOTES = {0: "None of these words is new.", 1: "Only one of these words is new."}


def worked_page(e: Explanation, dims: int = MOST_DIMS_SHOWN, matrix: bool = False) -> list[Block]:
    """Every step at the explanation's position, showing the first `dims` dims of each vector."""
    page, shown = page_opening(e), choose_rows(e)
    if e.items:
        page += scores_step(e, shown) + lost_score(e) + rules_step(e, shown, example_item(e))
    page += mask_step(e)
    if e.sum:
        page += softmax_step(e, shown) + lost_weight(e) + zero_score(e) + sum_step(e, shown, dims) + change_section(e)
    else:
        page += no_weight(e)
    return page + (all_rows_section(e) if matrix else [])


def page_opening(e: Explanation) -> list[Block]:
    """The title, the notes, and a sentence on which item looks at which."""
    return [title(page_name(e), e, e.itself), *notes_prose(e), Prose(f"{looking_text(e)} {vectors_text(e)}")]


def page_name(e: Explanation) -> str:
    """The page's title, in the field's terms."""
    if e.itself is None:
        return "Cross-attention, step by step"
    return "Self-attention, step by step" + ("" if e.operands.alike else ": queries, keys and values")


def looking_text(e: Explanation) -> str:
    """A sentence on the item at the position and the items it may see."""
    i, n, m = e.position, len(e.asking), len(e.tokens)
    if e.itself is None:
        mask = f"what the mask {name_of_mask(e.mask)} lets it see of " if e.masked else ""
        text = f"“{' '.join(map(label, e.asking))}”" if n <= MOST_ASKING else count(n, "item")
        return f"{quoted(e.token)}, item {i} of {text}, looks at {mask}the {count(m, 'item')} above."
    if e.masked:
        return f"{quoted(e.token)}, item {i}, looks at what the mask {name_of_mask(e.mask)} lets it see."
    earlier = {0: "nothing came before it", 1: "at the one item before it"}.get(i, f"at the {i:,} items before it")
    looks = f"{quoted(e.token)}, item {i}, looks at itself" + (" and " if i else "; ") + earlier
    return looks + ("." if i == n - 1 else "; what comes later is hidden.")


def vectors_text(e: Explanation) -> str:
    """A sentence on the vectors and their sizes."""
    n, d = e.x.shape
    if e.operands.alike:
        several = f", {sub('x', 0)} to {sub('x', n - 1)}" if n > 1 and not e.masked else ""
        return f"Each item is a vector of {count(d, 'number')}{several}."
    if e.operands.keys is e.operands.values:
        return f"Each item is a vector of {count(d, 'number')}: those looked at are keys and values in one."
    dv = e.operands.values.shape[1]
    return f"Queries and keys are vectors of {count(d, 'number')}, values of {count(dv, 'number')}."


def notes_prose(e: Explanation) -> list[Block]:
    """The notes on the items of the title."""
    notes = (
        [f"{SUBSTITUTE_MARK} marks an item that has no vector of its own here"]
        if any(map(is_substitute, e.origins))
        else []
    )
    return [Prose(f"{note}.") for note in (*notes, *e.notes)]


def title(text: str, e: Explanation, chosen: int | None = None) -> Title:
    """The title of a page with its items; where there are many, only those around the chosen or last one."""
    n = len(e.tokens)
    if n <= MOST_NAMES:
        return Title(text, tuple(marked_name(e, j) for j in range(n)), chosen)
    middle = n - 1 if chosen is None else chosen
    around = range(max(0, middle - 4), min(n, middle + 5))
    before, after = ["…"] * (around[0] > 0), ["…"] * (around[-1] < n - 1)
    items = (*before, *(marked_name(e, j) for j in around), *after)
    return Title(text, items, None if chosen is None else len(before) + chosen - around[0])


def scores_step(e: Explanation, shown: RowChoice) -> list[Block]:
    """Step 1: scores."""
    i, (q, k, _) = e.position, e.operands.letters
    over, under = scale_formula(e)
    formula = Formula(
        f"score({sub(q, i)}, {k}ⱼ) = {sub(q, i)} · {k}ⱼ{over}",
        rf"\mathrm{{score}}({q}_{{{i}}}, {k}_j) = {q}_{{{i}}} \cdot {k}_j{under}",
    )
    text = (
        f"How alike are {quoted(e.token)} and what it sees? Their dot product tells: it is large where both are long "
        "and point the same way."
    )
    if not e.operands.alike:
        text = f"Does what {quoted(e.token)} asks for, its query, fit what it sees, the keys? Their dot product tells."
    largest = float(np.abs(e.stages[0][[*e.items]]).max()) or 1.0
    dots = e.stages[0]
    rows: list[list[Cell]] = [[*name_cells(e, j), number(dots[j]), float(dots[j]) / largest] for j in shown.rows]
    columns = (Column("j"), Column("item", "left"), Column("score"), Column("", "bar"))
    return [
        Heading("1  Scores", formula),
        Prose(f"{text} {one_score(e)}"),
        items_table(e, shown, columns, rows, ["", ""]),
    ]


def scale_formula(e: Explanation) -> tuple[str, str]:
    """The scale after a dot product in a formula, plain and in LaTeX; empty for scale 1."""
    d, scale = e.x.shape[1], e.operands.scale
    if scale == 1:
        return "", ""
    if scale == d**-0.5:
        return f" ÷ √{d}", rf" / \sqrt{{{d}}}"
    return f" × {number(scale)}", rf" \times {number(scale)}"


def one_score(e: Explanation) -> str:
    """One dot product in full, or its first three products."""
    i, d, j = e.position, e.x.shape[1], example_item(e)
    products = [f"{factor(a)} × {factor(b)}" for a, b in zip(e.x[i, :3], e.operands.keys[j, :3], strict=True)]
    products += [f"… ({count(d - 3, 'more product')})"] if d > 3 else []
    scale, total = scale_formula(e)[0], " + ".join(products)
    total = f"({total})" if scale and len(products) > 1 else total
    return f"For {item_reference(e, j)}: {total}{scale} = {number(e.stages[0][j])}."


def softmax_step(e: Explanation, shown: RowChoice) -> list[Block]:
    """Step 2: softmax."""
    j = example_item(e)
    s = "s" if e.rules else "score"  # after rules, the score is no longer the dot product
    exp = f"exp({s})" if not e.shift else f"exp({s} − {number(e.shift)})"
    positive = "finite score positive, and −∞ 0" if np.isneginf(e.scores[[*e.items]]).any() else "score positive"
    worked = f"exp({number(e.scores[j] - e.shift)}) = {number(e.exponentials[j])}"
    text = (
        f"exp makes every {positive}. Divided by their sum, {number(e.sum)}, they are weights that add "
        f"up to 1. For {item_reference(e, j)}: {worked}, and {number(e.exponentials[j])} ÷ {number(e.sum)} = "
        f"{number(e.weights[j])}."
    )
    page: list[Block] = [Heading("2  Softmax", softmax_formula(e)), Prose(text)]
    if e.shift:
        page.append(Prose(shift_note(e), strong=True))
    return [*page, softmax_table(e, shown, s, exp)]


def softmax_formula(e: Explanation) -> Formula:
    """The formula of the weights; after rules and masks a score is written s."""
    i, (q, k, _) = e.position, e.operands.letters
    last = i if e.itself is not None else len(e.tokens) - 1
    if e.rules or e.masked:
        after = "s after all rules, " if e.rules else ""
        return Formula(
            f"α{sub('', i)}ⱼ = exp(s{sub('', i)}ⱼ) ÷ Σₖ exp(s{sub('', i)}ₖ),  {after}k seen",
            rf"\alpha_{{{i},j}} = \exp(s_{{{i},j}}) \Big/ \sum_{{k\ \mathrm{{seen}}}} \exp(s_{{{i},k}})",
        )
    under = scale_formula(e)[1]
    return Formula(
        f"α{sub('', i)}ⱼ = exp(score({sub(q, i)}, {k}ⱼ)) ÷ Σₖ exp(score({sub(q, i)}, {k}ₖ)),  k = 0 … {last}",
        rf"\alpha_{{{i},j}} = \exp({q}_{{{i}}} \cdot {k}_j{under}) \Big/ "
        rf"\sum_{{k=0}}^{{{last}}} \exp({q}_{{{i}}} \cdot {k}_k{under})",
    )


def softmax_table(e: Explanation, shown: RowChoice, s: str, exp: str) -> Table:
    """Score, exponential and weight of each item."""
    largest, rest = float(e.weights.max()), list(shown.rest)
    rows = []
    for j in shown.rows:
        numbers = e.scores[j], e.exponentials[j], e.weights[j]
        rows.append([*name_cells(e, j), *map(number, numbers), e.weights[j] / largest])
    gathered: list[Cell] = ["", *map(number, (e.exponentials[rest].sum(), e.weights[rest].sum())), ""]
    total: tuple[Cell, ...] = ("", "sum", "", number(e.sum), number(e.weights.sum()), "")
    columns = (
        Column("j"), Column("item", "left"), Column(s), Column(exp), Column("weight"), Column("", "bar"),
    )  # fmt: skip
    return items_table(e, shown, columns, rows, gathered, total)


def example_item(e: Explanation) -> int:
    """The item used as the example of a step: the heaviest other item, if any has weight."""
    others = [j for j in e.items if j != e.itself and e.weights[j]] or e.items
    return max(others, key=lambda j: e.weights[j])


def shift_note(e: Explanation) -> str:
    """Why the table shows exp(score − shift) and not exp(score)."""
    top = number(e.shift)
    if e.shift < 0:
        seen = e.scores[[*e.items]]
        lost = seen[underflowed(np.exp(seen), e.weights[[*e.items]])]
        why = f"exp({number(lost.min())}) is too small for a float64 to hold in full"
    elif e.shift < LARGEST_EXPONENT:
        why = "The sum of the exponentials is too large for a float64"
    else:
        why = f"exp({top}) is too large for a float64"
    return (
        f"{why}, so the largest score, {top}, is subtracted from every score first. That divides every exponential and "
        "the sum by one and the same number: no weight changes."
    )


def sum_step(e: Explanation, shown: RowChoice, dims: int) -> list[Block]:
    """Step 3: the weighted sum."""
    i, v, values = e.position, e.operands.letters[2], e.operands.values
    d, rest = values.shape[1], list(shown.rest)
    last = i if e.itself is not None else len(e.tokens) - 1
    dims = min(dims, d)
    parts: Array = e.weights[:, None] * values[: e.reach]  # (reach, dv)
    formula = Formula(
        f"{sub('y', i)} = Σⱼ α{sub('', i)}ⱼ {v}ⱼ,  {'j seen' if e.masked else f'j = 0 … {last}'}",
        rf"y_{{{i}}} = \sum_{{{'j' if e.masked else f'j=0}}^{{{last}'}}} \alpha_{{{i},j}}\, {v}_j",
    )
    vector = "vector" if e.operands.alike else "value"
    text = f"Each {vector} times its weight; added up, column by column, they are the output {sub('y', i)}."
    text += "" if dims == d else f" Shown: the first {f'{dims} ' if dims > 1 else ''}of {count(d, 'dim')}."

    def cells(part: Array) -> list[Cell]:
        written: list[Cell] = [number(value) for value in part[:dims]]
        return [*written, "…"] if dims < d else written

    times = f"weight × {'item' if e.operands.alike else 'value'}"
    columns = [Column("j"), Column(times, "left"), *(Column(f"dim {k}") for k in range(dims))]
    columns += [Column("")] if dims < d else []
    rows: list[list[Cell]] = []
    for j in shown.rows:
        at, item = name_cells(e, j)
        rows.append([at, f"{number(e.weights[j])} × {item}", *cells(parts[j])])
    total: tuple[Cell, ...] = ("", f"sum = {sub('y', i)}", *cells(e.output))
    body = items_table(e, shown, tuple(columns), rows, cells(parts[rest].sum(axis=0)), total)
    return [Heading("3  Weighted sum", formula), Prose(text), body]


def change_section(e: Explanation) -> list[Block]:
    """The section on what changed: the item's direction, its length, and the words nearest to it."""
    if not e.operands.alike:
        return []
    i = e.position
    before, after = e.lengths
    text = f"{quoted(e.token)} goes in as {sub('x', i)} and comes out as {sub('y', i)}, {mixture_text(e)}"
    if e.similarity is None:
        both = not (e.x[i].any() or e.output.any())
        which = "Both are zero vectors and have" if both else "One of them is the zero vector and has"
        text += f". {which} no direction, so there is no cosine between them."
    else:
        text += f": the cosine between them is {number(e.similarity)} (1 would be the same direction)."
    text += f" The length goes from {number(before)} to {number(after)}."
    page: list[Block] = [Heading("What changed"), Prose(text)]
    if e.before and e.after:
        known = frozenset[str]().union(*(family(word) for word, _ in e.before))
        columns = (
            Column(f"before: nearest to {sub('x', i)}", "left"),
            Column("cosine"),
            Column(f"after: nearest to {sub('y', i)}", "left"),
            Column("cosine"),
        )
        pairs = list(zip(e.before, e.after, strict=False))
        rows = tuple(
            (label(b), number(p), label(a) + ("" if known & family(a) else "  (new)"), number(q))
            for (b, p), (a, q) in pairs
        )
        page += [Prose(f"{NEAREST_NOTE} {quoted(e.token)}; (new) was not near before."), Table(columns, rows)]
        new = sum(known.isdisjoint(family(word)) for word, _ in e.after)
        if e.items == (i,):
            page.append(Prose("It sees only itself, so it comes out as it went in."))
        elif new in FEW_NEW_NOTES and not e.rules and e.similarity is not None and e.similarity < UNCHANGED_COSINE:
            page.append(Prose(f"{FEW_NEW_NOTES[new]} {SENSES_NOTE}"))
    elif e.origins:
        which = sub("x", i) if not e.before else sub("y", i)
        page.append(Prose(f"{which} is the zero vector and points nowhere, so no words are nearest to it."))
    return page


def mixture_text(e: Explanation) -> str:
    """What went into the output: the item and others, only the item, or only others."""
    giving = [j for j in e.items if not np.isneginf(e.scores[j])]
    if giving == [e.position]:
        return "the same, for nothing else has weight"
    return "mixed with what it saw" if e.position in giving else "mixed of what it saw, with nothing of its own"


def all_rows_section(e: Explanation) -> list[Block]:
    """The section with every item's weights."""
    empty = "" if e.square.weights.any(axis=1).all() else ", or to 0 if it sees nothing, or only scores of −∞"
    text = f"Row i holds the weights of item i and adds up to 1{empty}. A dot is hidden, not 0."
    formula = Formula(
        "α = softmax(X Xᵀ), row by row, j ≤ i",
        r"\alpha = \mathrm{softmax}(X X^{T}),\ \mbox{row by row},\ j \le i",
    )
    if e.rules or e.masked or not e.operands.alike:
        formula = Formula(
            "α = softmax(scores after rules and mask), row by row",
            r"\alpha = \mathrm{softmax}(\mbox{scores after rules and mask}),\ \mbox{row by row}",
        )
    labels = tuple(map(label, e.asking)) if e.itself is None else tuple(marked_name(e, j) for j in range(len(e.tokens)))
    return [Heading("All rows", formula), Prose(text), Triangle(labels, e.square.weights, e.square.seen)]
