"""The blocks of a page: titles, headings, prose, tables and triangles, written by `story` and the lessons.

Not responsible for looks, which are in `text`, `markdown`, `html` and `latex`: a bar is a number here, and a formula
has a plain and a LaTeX spelling.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Formula:
    """A formula in two spellings: for a terminal and for LaTeX."""

    plain: str
    latex: str


@dataclass(frozen=True)
class Title:
    """The title of a page and the items it is about."""

    text: str
    items: tuple[str, ...]
    chosen: int | None = None  # the item to highlight


@dataclass(frozen=True)
class Heading:
    """The name of a step and its formula."""

    text: str
    formula: Formula | None = None


@dataclass(frozen=True)
class Prose:
    """One paragraph; a strong one is highlighted."""

    text: str
    strong: bool = False


Cell = str | float | Formula  # a float is the length of a bar


@dataclass(frozen=True)
class Column:
    """The heading of a column and the alignment of its cells."""

    name: str
    kind: Literal["left", "right", "bar"] = "right"


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns, with an optional last row of sums."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    total: tuple[Cell, ...] | None = None
    strong: tuple[int, ...] = ()  # rows to highlight


@dataclass(frozen=True, eq=False)
class Triangle:
    """Weights (n, m) of n named items, and which are visible: a triangle where the future is hidden."""

    items: tuple[str, ...]
    weights: npt.NDArray[np.floating]
    seen: npt.NDArray[np.bool_]


Block = Title | Heading | Prose | Table | Triangle
