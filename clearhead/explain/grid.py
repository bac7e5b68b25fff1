"""Fits a table to a printed page: the widths of its columns, and the parts it is cut into.

Responsible for what gives way: bars shrink first, then words wrap, then the columns are split into parts, each with the
names of its rows; a part longer than a page is cut too. Nothing is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from clearhead.explain.blocks import Cell, Column, Formula
from clearhead.explain.tex import math_width, text_width, widest_part

LINE_WIDTH = 345.0  # points: a line of article at 10 points; at 11 and 12 it is longer
GAP = 6.0  # points between columns
LEAST_BAR, WIDEST_BAR = 30.0, 114.0
LEAST_WORD_WIDTH = 60.0  # points; narrower columns do not wrap
PAGE_LINES = 45  # on a page


@dataclass(frozen=True)
class Field:
    """A column: its heading, its kind and its width in points."""

    name: str
    kind: str
    room: float = 0.0


@dataclass(frozen=True)
class Grid:
    """A table or a part of one."""

    fields: tuple[Field, ...]
    rows: tuple[tuple[Cell, ...], ...]
    total: tuple[Cell, ...] | None = None

    @staticmethod
    def of(
        columns: Sequence[Column], rows: Sequence[tuple[Cell, ...]], total: tuple[Cell, ...] | None = None
    ) -> "Grid":
        """A table whose columns have no widths yet."""
        return Grid(tuple(Field(column.name, column.kind) for column in columns), tuple(rows), total)

    def with_rows(self, rows: Sequence[tuple[Cell, ...]], *, total: bool = True) -> "Grid":
        """The same columns over other rows."""
        return replace(self, rows=tuple(rows), total=self.total if total else None)

    def with_columns(self, columns: Sequence[int]) -> "Grid":
        """Only some of the columns."""

        def select(row: tuple[Cell, ...]) -> tuple[Cell, ...]:
            return tuple(row[at] for at in columns)

        total = select(self.total) if self.total else None
        return Grid(tuple(self.fields[at] for at in columns), tuple(map(select, self.rows)), total)

    @property
    def width(self) -> float:
        """The width in points."""
        return sum(field.room + GAP for field in self.fields)

    def cells(self, at: int) -> list[Cell]:
        """The cells of a column."""
        return [row[at] for row in (*self.rows, *([self.total] if self.total else []))]


def fit_columns(grid: Grid) -> Grid:
    """The grid with column widths: words wrap as far as they must; bars take the rest, or are dropped."""
    count = range(len(grid.fields))
    rooms = [natural_width(grid, at) for at in count]
    least = [narrowest_width(grid, at) for at in count]
    bars = [at for at in count if grid.fields[at].kind == "bar"]
    over = sum(rooms) + GAP * (len(rooms) - len(bars)) - LINE_WIDTH
    while over > 0 and (shrinkable := [at for at in count if rooms[at] > least[at]]):
        at = max(shrinkable, key=lambda at: rooms[at])
        step = min(over, rooms[at] - least[at], 1.0)
        rooms[at], over = rooms[at] - step, over - step
    if over > 0:  # the grid will be split, so words need not wrap as far
        rooms = [min(natural_width(grid, at), max(least[at], 2 * LEAST_WORD_WIDTH)) for at in count]
    for at in bars:
        rest = -over - GAP
        rooms[at], over = (
            (min(rest, WIDEST_BAR), over + min(rest, WIDEST_BAR) + GAP) if rest >= LEAST_BAR else (0, over)
        )
    fitted = replace(grid, fields=tuple(replace(grid.fields[at], room=rooms[at]) for at in count))
    return fitted.with_columns([at for at in count if at not in bars or rooms[at]])


def natural_width(grid: Grid, at: int) -> float:
    """The width a column needs if nothing wraps except a long heading over numbers."""
    field = grid.fields[at]
    cells, name = max((cell_width(cell) for cell in grid.cells(at)), default=0.0), cell_width(field.name)
    return max(cells, name if field.kind == "left" else min(name, max(LEAST_WORD_WIDTH, widest_part(field.name))))


def narrowest_width(grid: Grid, at: int) -> float:
    """The width a column needs if words wrap and numbers do not."""
    field = grid.fields[at]
    if field.kind != "left":
        return natural_width(grid, at)
    words = (widest_part(cell) if isinstance(cell, str) else cell_width(cell) for cell in (field.name, *grid.cells(at)))
    return min(natural_width(grid, at), max(LEAST_WORD_WIDTH, *words))


def cell_width(cell: Cell) -> float:
    """The width of a cell on one line; 0 for a bar, which takes the room that is left."""
    if isinstance(cell, Formula):
        return math_width(cell.latex)
    return text_width(cell) if isinstance(cell, str) else 0.0


def wraps(field: Field, cell: Cell) -> bool:
    """Whether a cell needs several lines."""
    return cell_width(cell) > field.room + 0.01


def split_columns(grid: Grid) -> list[Grid]:
    """The grid, or parts of its columns that fit the line, each beginning with the columns that name its rows."""
    if grid.width <= LINE_WIDTH:
        return [grid]
    kinds = [field.kind for field in grid.fields]
    named = kinds.index("left") + 1 if "left" in kinds[:-1] else 1
    room = LINE_WIDTH - sum(field.room + GAP for field in grid.fields[:named])
    others = range(named, len(kinds))
    fewest = len(group_columns(grid, others, room, len(others)))
    parts = group_columns(grid, others, room, ceil(len(others) / fewest))
    return [grid.with_columns([*range(named), *part]) for part in parts]


def group_columns(grid: Grid, columns: Sequence[int], room: float, most: int) -> list[list[int]]:
    """Group columns so that each group fits `room` and has at most `most` columns."""
    parts: list[list[int]] = [[]]
    for at in columns:
        width = sum(grid.fields[k].room + GAP for k in (*parts[-1], at))
        if parts[-1] and (width > room or len(parts[-1]) == most):
            parts.append([])
        parts[-1].append(at)
    return parts


def split_rows(grid: Grid) -> list[Grid]:
    """The grid, or parts of its rows that each fit on a page; the last part has the sums."""
    pieces: list[list[tuple[Cell, ...]]] = [[]]
    lines = 0
    for row in grid.rows:
        high = max(
            ceil(1.3 * cell_width(c) / f.room) if wraps(f, c) else 1 for f, c in zip(grid.fields, row, strict=True)
        )
        if pieces[-1] and lines + high > PAGE_LINES:
            pieces.append([])
            lines = 0
        pieces[-1].append(row)
        lines += high
    return [grid.with_rows(piece, total=piece is pieces[-1]) for piece in pieces]
