"""What a page of explanation is made of; story and lessons write it, text, markdown and latex render it.

Decides nothing about looks: a bar is a number here, a formula has a plain and a LaTeX spelling.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Formula:
    """The same formula twice: for a terminal and for LaTeX."""

    plain: str
    latex: str


@dataclass(frozen=True)
class Title:
    """The name of the page and the items it is about."""

    text: str
    items: tuple[str, ...]
    chosen: int | None = None  # which of the items to point at


@dataclass(frozen=True)
class Heading:
    """The name of a step, and its formula."""

    text: str
    formula: Formula | None = None


@dataclass(frozen=True)
class Prose:
    """One paragraph; a strong one holds what must not be missed."""

    text: str
    strong: bool = False


Cell = str | float | Formula  # a float is the length of a bar


@dataclass(frozen=True)
class Column:
    """The heading of a column and how its cells stand in it."""

    name: str
    kind: Literal["left", "right", "bar"] = "right"


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns, with an optional last row that adds them up."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    total: tuple[Cell, ...] | None = None
    strong: tuple[int, ...] = ()  # rows to point out


@dataclass(frozen=True, eq=False)
class Triangle:
    """Weights (n, m) of n named items, and which of them are seen: a triangle where the future is hidden."""

    items: tuple[str, ...]
    weights: npt.NDArray[np.floating]
    seen: npt.NDArray[np.bool_]


Block = Title | Heading | Prose | Table | Triangle
