"""Rows of tables: which items have one of their own, how an item is named in it, and what is said of all others.

Decides this for every table of every page; what stands beside a name is decided where the table is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from clearhead.arrays import Array
from clearhead.explain.blocks import Cell, Column, Table
from clearhead.explain.steps import Explanation, Item
from clearhead.wording import label, quoted

MOST_ROWS = 32  # more items than this and a table shows only the heaviest, and the rest as one row
MARK = "≈"  # before an item whose vector is not that of its very own word


@dataclass(frozen=True)
class Shown:
    """Which of the seen items have a row of their own, and which share one."""

    rows: tuple[int, ...]
    rest: tuple[int, ...]


def choose(e: Explanation) -> Shown:
    """All seen items if they are few, else the heaviest, the item itself and some of those with dot product 0."""
    if len(e.items) <= MOST_ROWS:
        return Shown(e.items, ())
    heaviest = sorted(e.items, key=lambda j: -e.weights[j])[: MOST_ROWS - 8]
    rows = {*heaviest, *e.zeros[:6], *(j for j in e.items if j == e.itself)}
    return Shown(tuple(sorted(rows)), tuple(j for j in e.items if j not in rows))


def gathered(weights: Array, shown: Sequence[int], rest: Sequence[int]) -> str:
    """What the row of all others is called: no heavier only if none is, in any row of `weights`, than one shown.

    >>> import numpy as np
    >>> gathered(np.array([0.5, 0.25, 0.25]), [0, 1], [2]), gathered(np.array([0.5, 0.2, 0.3]), [0, 1], [2])
    ('… 1 more, no heavier', '… 1 more')
    """
    lighter = weights[..., [*rest]].max(axis=-1) <= weights[..., [*shown]].min(axis=-1)
    return f"… {len(rest):,} more" + (", no heavier" if lighter.all() else "")


def names(e: Explanation, j: int) -> list[Cell]:
    """The cells that name an item."""
    cells: list[Cell] = [str(j), marked(e, j) + (" (itself)" if j == e.itself else "")]
    return cells


def pointed(e: Explanation, j: int) -> str:
    """An item in a sentence, with its number where others have its name."""
    return quoted(e.tokens[j]) + (f" (item {j})" if e.tokens.count(e.tokens[j]) > 1 else "")


def marked(e: Explanation, j: int) -> str:
    """An item's name, with a mark before it if its vector is not that of its very own word."""
    return (MARK if e.origins and made(e.origins[j]) else "") + label(e.tokens[j])


def made(item: Item) -> bool:
    """Whether an item's vector is not that of its very own word."""
    return item.how != "known"


def table(
    e: Explanation,
    shown: Shown,
    columns: tuple[Column, ...],
    rows: list[list[Cell]],
    rest: list[Cell],
    total: tuple[Cell, ...] | None = None,
) -> Table:
    """A table of the shown items, the others gathered in one row, those with score 0 pointed out."""
    if shown.rest:
        rows = [*rows, ["", gathered(e.weights, shown.rows, shown.rest), *rest]]
    strong = tuple(at for at, j in enumerate(shown.rows) if j in e.zeros)
    return Table(columns, tuple(tuple(row) for row in rows), total, strong)
