"""The lesson on order: attention ignores it until positions enter the scores.

Responsible for reversing the past and for the positions (ALiBi, rotary); the weights are the definition's.
"""

import numpy as np

from clearhead.arrays import Array
from clearhead.definition import textbook
from clearhead.explain.blocks import Block, Cell, Column, Formula, Heading, Prose, Table
from clearhead.explain.lesson import Lesson
from clearhead.explain.rows import MOST_ROWS, name_cells
from clearhead.explain.steps import Explanation
from clearhead.explain.story import notes_prose, title
from clearhead.rules.masks import causal
from clearhead.wording import count, number, quoted

ALIBI_SLOPE = 0.5  # subtracted from a score for each item of distance
ANGLE_BASE = 10_000.0  # of rotary angles


def positions_lesson(e: Explanation) -> Lesson:
    """The item's weights with the past in order and reversed, without positions and with them."""
    i = e.position
    x, backwards = e.x[: i + 1], np.array([*range(i - 1, -1, -1), i], np.intp)
    kinds = {"plain": plain_weights, "ALiBi": alibi_weights, "rotary": rotary_weights}
    both = {name: (weights(x), weights(x[backwards])[np.argsort(backwards)]) for name, weights in kinds.items()}
    rows = tuple(
        {"item": j, "token": e.tokens[j]} | {name: [float(a[j]) for a in pair] for name, pair in both.items()}
        for j in range(i + 1)
    )
    return Lesson(rows, tuple(positions_page(e, both)))


def plain_weights(x: Array) -> Array:
    """The last item's weights in the first approach: (n,)."""
    a: Array = textbook.weights_of_rows(x, x, [-1], causal(), 1.0)[0]
    return a


def alibi_weights(x: Array) -> Array:
    """The last item's weights with ALIBI_SLOPE · (i − j) subtracted from each score."""
    n = len(x)
    s = textbook.scores(x[-1:], x) - ALIBI_SLOPE * np.arange(n - 1, -1, -1)
    a: Array = textbook.softmax(s, np.ones((1, n), bool))[0]
    return a


def rotary_weights(x: Array) -> Array:
    """The last item's weights with items rotated by angles that grow with position, so a score depends on i − j.

    >>> x = np.ones((3, 4))
    >>> rotary_weights(x).round(2)  # equal items, and the nearer one has more
    array([0.04, 0.27, 0.69])
    """
    return plain_weights(rotate_positions(x))


def rotate_positions(x: Array) -> Array:
    """Rotate each pair of dims of item j by the angle j · ANGLE_BASE^(−pair / pairs); an odd last dim stays."""
    n, d = x.shape
    half = d // 2
    angle = np.arange(n)[:, None] * ANGLE_BASE ** (-np.arange(half) / max(half, 1))  # (n, half)
    a, b = x[:, :half], x[:, half : 2 * half]
    rotated = [a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle), x[:, 2 * half :]]
    y: Array = np.concatenate(rotated, axis=1)
    return y


def positions_page(e: Explanation, both: dict[str, tuple[Array, Array]]) -> list[Block]:
    """The lesson's page."""
    i = e.position
    shuffled = float(np.abs(both["plain"][0] - both["plain"][1]).max())
    moved = {name: float(np.abs(a - b).max()) for name, (a, b) in both.items()}
    alike = "to the last digit" if not shuffled else f"but for rounding, {number(shuffled)} at most"
    blocks: list[Block] = [title("What order means", e, i), *notes_prose(e)]
    if i < 2:
        text = (
            f"{quoted(e.token)} has {count(i, 'item')} before it, and no order among them: choose a later --position."
        )
        return [*blocks, Prose(text)]
    return [
        *blocks,
        Prose(
            f"Reverse the {i:,} items before {quoted(e.token)}. A score compares two items wherever they stand, and "
            f"a sum does not ask for the order: every weight stays, {alike}, and the output with it. Attention sees a "
            "set of items, not a sequence; only the mask knows what came before."
        ),
        Heading("ALiBi", Formula(f"s ← s − {ALIBI_SLOPE} · |i − j|", rf"s \leftarrow s - {ALIBI_SLOPE}\, |i - j|")),
        Prose(
            f"Each score loses {ALIBI_SLOPE} for every item of distance. With the past reversed, weights move by up to "
            f"{number(moved['ALiBi'])}."
        ),
        Heading("Rotary", Formula("score = R(i) xᵢ · R(j) xⱼ", r"\mathrm{score} = R(i)\, x_i \cdot R(j)\, x_j")),
        Prose(
            "Queries and keys are turned by an angle that grows with their position, pair of dims by pair of dims: the "
            f"dot product then depends on i − j. {rotary_text(e, moved['rotary'])}"
        ),
        positions_table(e, both),
        Prose("Transformers bring positions in one of these ways, or add a vector for each position to the items."),
    ]


def rotary_text(e: Explanation, moved: float) -> str:
    """The effect of reversing the past with rotary positions; an odd last dim has no partner to rotate with."""
    if e.x.shape[1] == 1:
        return "One dim alone has no partner to be turned with, so here nothing is."
    odd = " The last dim has no partner, and stays." if e.x.shape[1] % 2 else ""
    return f"With the past reversed, weights move by up to {number(moved)}.{odd}"


def positions_table(e: Explanation, both: dict[str, tuple[Array, Array]]) -> Table:
    """The weights with the past in order and reversed, for each kind of position."""
    i = e.position
    columns = [Column("j"), Column("item", "left")]
    columns += [Column(f"{name}{order}") for name in both for order in ("", " reversed")]
    heaviest = np.argsort(-both["plain"][0], kind="stable")[:MOST_ROWS]
    shown = sorted({*heaviest.tolist(), i})
    rows: list[tuple[Cell, ...]] = [
        (*name_cells(e, j), *(number(float(a[j])) for pair in both.values() for a in pair)) for j in shown
    ]
    if len(shown) <= i:
        rest = np.delete(np.arange(i + 1), shown)
        sums = (number(float(a[rest].sum())) for pair in both.values() for a in pair)
        rows.append(("", f"… {len(rest):,} more", *sums))
    return Table(tuple(columns), tuple(rows))
