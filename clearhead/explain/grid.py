"""A table as it fits a printed page: how wide its columns are, and into which parts it is cut.

Decides what gives way: first bars, then words wrap, then columns go into parts side by side, each with the names of its
rows; a part longer than a page is cut too. Nothing is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from clearhead.explain.blocks import Cell, Column, Formula
from clearhead.explain.tex import math_width, unbroken, width

ROOM = 345.0  # points: a line of article at 10 points; at 11 and 12 it is longer
GAP = 6.0  # points beside a column
LEAST_BAR, WIDEST_BAR = 30.0, 114.0
LEAST_WORDS = 60.0  # points to which words may wrap
LINES = 45  # on a page


@dataclass(frozen=True)
class Field:
    """A column: what stands above it, and how many points wide it is."""

    name: str
    kind: str
    room: float = 0.0


@dataclass(frozen=True)
class Grid:
    """A table, or a part of one."""

    fields: tuple[Field, ...]
    rows: tuple[tuple[Cell, ...], ...]
    total: tuple[Cell, ...] | None = None

    @staticmethod
    def of(
        columns: Sequence[Column], rows: Sequence[tuple[Cell, ...]], total: tuple[Cell, ...] | None = None
    ) -> "Grid":
        """A table that has not been measured."""
        return Grid(tuple(Field(column.name, column.kind) for column in columns), tuple(rows), total)

    def with_rows(self, rows: Sequence[tuple[Cell, ...]], *, total: bool = True) -> "Grid":
        """The same columns over other rows."""
        return replace(self, rows=tuple(rows), total=self.total if total else None)

    def with_columns(self, kept: Sequence[int]) -> "Grid":
        """Some of the columns."""

        def some(row: tuple[Cell, ...]) -> tuple[Cell, ...]:
            return tuple(row[at] for at in kept)

        total = some(self.total) if self.total else None
        return Grid(tuple(self.fields[at] for at in kept), tuple(map(some, self.rows)), total)

    @property
    def width(self) -> float:
        """How many points it takes."""
        return sum(field.room + GAP for field in self.fields)

    def cells(self, at: int) -> list[Cell]:
        """What stands in a column."""
        return [row[at] for row in (*self.rows, *([self.total] if self.total else []))]


def fitted(grid: Grid) -> Grid:
    """The grid with measured columns: words wrap as far as they must, bars take what is left or go."""
    count = range(len(grid.fields))
    rooms = [natural(grid, at) for at in count]
    least = [narrowest(grid, at) for at in count]
    bars = [at for at in count if grid.fields[at].kind == "bar"]
    over = sum(rooms) + GAP * (len(rooms) - len(bars)) - ROOM
    while over > 0 and (wide := [at for at in count if rooms[at] > least[at]]):
        at = max(wide, key=lambda at: rooms[at])
        step = min(over, rooms[at] - least[at], 1.0)
        rooms[at], over = rooms[at] - step, over - step
    if over > 0:  # it will be in parts, where words need not wrap so soon
        rooms = [min(natural(grid, at), max(least[at], 2 * LEAST_WORDS)) for at in count]
    for at in bars:
        rest = -over - GAP
        rooms[at], over = (
            (min(rest, WIDEST_BAR), over + min(rest, WIDEST_BAR) + GAP) if rest >= LEAST_BAR else (0, over)
        )
    made = replace(grid, fields=tuple(replace(grid.fields[at], room=rooms[at]) for at in count))
    return made.with_columns([at for at in count if at not in bars or rooms[at]])


def natural(grid: Grid, at: int) -> float:
    """The points a column needs if nothing wraps but a long heading over numbers."""
    field = grid.fields[at]
    cells, name = max((measure(cell) for cell in grid.cells(at)), default=0.0), measure(field.name)
    return max(cells, name if field.kind == "left" else min(name, max(LEAST_WORDS, unbroken(field.name))))


def narrowest(grid: Grid, at: int) -> float:
    """The points a column needs if words wrap; numbers do not."""
    field = grid.fields[at]
    if field.kind != "left":
        return natural(grid, at)
    words = (unbroken(cell) if isinstance(cell, str) else measure(cell) for cell in (field.name, *grid.cells(at)))
    return min(natural(grid, at), max(LEAST_WORDS, *words))


def measure(cell: Cell) -> float:
    """How wide a cell is in one line; a bar takes what it gets."""
    if isinstance(cell, Formula):
        return math_width(cell.latex)
    return width(cell) if isinstance(cell, str) else 0.0


def wraps(field: Field, cell: Cell) -> bool:
    """Whether a cell takes several lines."""
    return measure(cell) > field.room + 0.01


def panels(grid: Grid) -> list[Grid]:
    """The grid, or parts of it that fit side by side, each beginning with the columns that name its rows."""
    if grid.width <= ROOM:
        return [grid]
    kinds = [field.kind for field in grid.fields]
    named = kinds.index("left") + 1 if "left" in kinds[:-1] else 1
    room = ROOM - sum(field.room + GAP for field in grid.fields[:named])
    others = range(named, len(kinds))
    fewest = len(side_by_side(grid, others, room, len(others)))
    parts = side_by_side(grid, others, room, ceil(len(others) / fewest))
    return [grid.with_columns([*range(named), *part]) for part in parts]


def side_by_side(grid: Grid, columns: Sequence[int], room: float, most: int) -> list[list[int]]:
    """Columns in groups that have room, of so many columns at most."""
    parts: list[list[int]] = [[]]
    for at in columns:
        wide = sum(grid.fields[k].room + GAP for k in (*parts[-1], at))
        if parts[-1] and (wide > room or len(parts[-1]) == most):
            parts.append([])
        parts[-1].append(at)
    return parts


def pages(grid: Grid) -> list[Grid]:
    """The grid, or parts of it that each fit on a page, the last with the sums."""
    pieces: list[list[tuple[Cell, ...]]] = [[]]
    lines = 0
    for row in grid.rows:
        high = max(ceil(1.3 * measure(c) / f.room) if wraps(f, c) else 1 for f, c in zip(grid.fields, row, strict=True))
        if pieces[-1] and lines + high > LINES:
            pieces.append([])
            lines = 0
        pieces[-1].append(row)
        lines += high
    return [grid.with_rows(piece, total=piece is pieces[-1]) for piece in pieces]
