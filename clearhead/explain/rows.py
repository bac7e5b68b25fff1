"""The rows of tables: which items get a row, how an item is named, and the row that sums up the others.

Responsible for this in every table of every page. Not for the other cells, which each table's own code fills.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from clearhead.arrays import Array
from clearhead.explain.blocks import Cell, Column, Table
from clearhead.explain.steps import Explanation, Origin
from clearhead.wording import label, quoted

MOST_ROWS = 32  # a table of more items shows only the heaviest, and the rest as one row
SUBSTITUTE_MARK = "≈"  # before an item whose vector is not its own word's


@dataclass(frozen=True)
class RowChoice:
    """The visible items that get a row each, and the rest, which share one."""

    rows: tuple[int, ...]
    rest: tuple[int, ...]


def choose_rows(e: Explanation) -> RowChoice:
    """All visible items if they are few, else the heaviest, the item itself and some with dot product 0."""
    if len(e.items) <= MOST_ROWS:
        return RowChoice(e.items, ())
    heaviest = sorted(e.items, key=lambda j: -e.weights[j])[: MOST_ROWS - 8]
    rows = {*heaviest, *e.zeros[:6], *(j for j in e.items if j == e.itself)}
    return RowChoice(tuple(sorted(rows)), tuple(j for j in e.items if j not in rows))


def rest_label(weights: Array, shown: Sequence[int], rest: Sequence[int]) -> str:
    """The label of the row for the rest; “no heavier” if, in every row of `weights`, none outweighs an item shown.

    >>> import numpy as np
    >>> rest_label(np.array([0.5, 0.25, 0.25]), [0, 1], [2]), rest_label(np.array([0.5, 0.2, 0.3]), [0, 1], [2])
    ('… 1 more, no heavier', '… 1 more')
    """
    lighter = weights[..., [*rest]].max(axis=-1) <= weights[..., [*shown]].min(axis=-1)
    return f"… {len(rest):,} more" + (", no heavier" if lighter.all() else "")


def name_cells(e: Explanation, j: int) -> list[Cell]:
    """The two cells that name an item: its index and its name."""
    cells: list[Cell] = [str(j), marked_name(e, j) + (" (itself)" if j == e.itself else "")]
    return cells


def item_reference(e: Explanation, j: int) -> str:
    """An item as named in a sentence, with its index where others have the same name."""
    return quoted(e.tokens[j]) + (f" (item {j})" if e.tokens.count(e.tokens[j]) > 1 else "")


def marked_name(e: Explanation, j: int) -> str:
    """An item's name, with a mark before it if its vector is not its own word's."""
    return (SUBSTITUTE_MARK if e.origins and is_substitute(e.origins[j]) else "") + label(e.tokens[j])


def is_substitute(item: Origin) -> bool:
    """Whether an item's vector is not its own word's."""
    return item.how != "known"


def items_table(
    e: Explanation,
    shown: RowChoice,
    columns: tuple[Column, ...],
    rows: list[list[Cell]],
    rest: list[Cell],
    total: tuple[Cell, ...] | None = None,
) -> Table:
    """A table of the chosen items, with the others summed in one row and items with dot product 0 highlighted."""
    if shown.rest:
        rows = [*rows, ["", rest_label(e.weights, shown.rows, shown.rest), *rest]]
    strong = tuple(at for at, j in enumerate(shown.rows) if j in e.zeros)
    return Table(columns, tuple(tuple(row) for row in rows), total, strong)
