"""A page for the terminal: aligned, as wide as there is room for, coloured where there are colours.

Decides what gives way when room is short: first bars, then dims, then the numbers of a triangle.
"""

import os
import sys
from collections.abc import Sequence

from rich.box import SIMPLE
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from clearhead.explain.blocks import Block, Cell, Formula, Heading, Prose, Table, Title, Triangle

WIDEST = 100  # columns; a longer line of prose is harder to read
INDENT = 3
GAP = 3  # columns between two columns of a table
LEAST_BAR, WIDEST_BAR = 8, 48  # columns; a shorter bar shows nothing, a longer one no more
SHADES = "░▒▓█"


def console() -> Console:
    """Standard output, its width and its colours; none where NO_COLOR is set or it is no terminal."""
    plain = bool(os.environ.get("NO_COLOR"))
    made = Console(file=sys.stdout, highlight=False, color_system=None if plain else "auto")
    made.width = min(made.width, WIDEST)
    return made


def dims_that_fit(width: int, tokens: Sequence[str]) -> int:
    """How many dims of a vector have room beside the items' names."""
    longest = max(map(cell_len, tokens))
    return max(1, min(6, (width - INDENT - longest - 26) // 9))


def show(page: Sequence[Block], to: Console) -> None:
    """Print a page, without the blanks that would fill its lines to the right."""
    with to.capture() as captured:
        lay_out(page, to)
    to.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def render(page: Sequence[Block], width: int = 80) -> str:
    """The page as plain text of a width."""
    to = Console(width=width, color_system=None, highlight=False, legacy_windows=False)
    with to.capture() as captured:
        lay_out(page, to)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def lay_out(page: Sequence[Block], to: Console) -> None:
    """Every block in its turn, blank lines between them."""
    for block in page:
        match block:
            case Title():
                show_title(block, to)
            case Heading():
                to.print()
                to.print(Text(block.text, "bold"))
                if block.formula:
                    indented(Text(block.formula.plain, "cyan"), to)
            case Prose():
                to.print()
                indented(Text(block.text, "yellow" if block.strong else ""), to)
            case Table():
                to.print()
                indented(grid(block, to.width - INDENT), to)
            case Triangle():
                to.print()
                show_triangle(block, to)


def indented(what: RenderableType, to: Console) -> None:
    """Print a block under its heading."""
    to.print(Padding(what, (0, 0, 0, INDENT), expand=False))


def show_title(block: Title, to: Console) -> None:
    """Print the page's name and its items, the chosen one pointed out."""
    items = Text(" ").join(
        Text(item, "bold reverse" if at == block.chosen else "italic") for at, item in enumerate(block.items)
    )
    to.print(Text(block.text, "bold"))
    to.print()
    indented(items, to)


def grid(block: Table, room: int) -> RenderableType:
    """A table; bars take what room words and numbers leave, or are left out.

    One that does not fit is shown in parts, one below the other; where no part fits, as a list.
    """
    widths = column_widths(block, room)
    if widths is None:
        parts = parted(block, room)
        return (
            Group(*(part for at, each in enumerate(parts) for part in [""] * bool(at) + [each]))
            if parts
            else listing(block)
        )
    made = RichTable(
        box=SIMPLE,
        show_footer=block.total is not None,
        show_edge=False,
        pad_edge=False,
        padding=(0, GAP - 1, 0, 0),
    )
    kept = [at for at, columns in enumerate(widths) if columns]
    for at in kept:
        head = block.columns[at]
        made.add_column(
            Text(head.name),
            plain(block.total[at]) if block.total else "",
            justify="right" if head.kind == "right" else "left",
            header_style="dim",
            footer_style="bold",
            width=widths[at],
        )
    low = min([0.0, *(cell for row in block.rows for cell in row if isinstance(cell, float))])
    for at, row in enumerate(block.rows):
        made.add_row(*(drawn(row[k], low, widths[k]) for k in kept), style="yellow" if at in block.strong else "")
    return made


def parted(block: Table, room: int) -> list[RenderableType]:
    """The table in parts that fit, each with the columns that name its rows; none if some column has no room."""
    named = 1 + next((at for at, head in enumerate(block.columns) if head.kind == "left"), 0)
    names, parts = [*range(named)], list[list[int]]()
    for at in range(named, len(block.columns)):
        if block.columns[at].kind == "bar":
            continue
        if parts and column_widths(columns_of(block, [*names, *parts[-1], at]), room) is not None:
            parts[-1].append(at)
        elif column_widths(columns_of(block, [*names, at]), room) is not None:
            parts.append([at])
        else:
            return []
    return [grid(columns_of(block, [*names, *part]), room) for part in parts]


def columns_of(block: Table, kept: Sequence[int]) -> Table:
    """The table with some of its columns only."""
    rows = tuple(tuple(row[at] for at in kept) for row in block.rows)
    total = tuple(block.total[at] for at in kept) if block.total else None
    return Table(tuple(block.columns[at] for at in kept), rows, total, block.strong)


def column_widths(block: Table, room: int) -> list[int] | None:
    """How wide each column is, 0 for bars that do not fit; None where words would break or numbers be cut."""
    count = range(len(block.columns))
    widths = [0 if block.columns[at].kind == "bar" else width(block, at) for at in count]
    least = [least_width(block, at) if widths[at] else 0 for at in count]
    rest = room - sum(widths) - GAP * (len(widths) - 1)
    if rest >= LEAST_BAR:
        return [columns or min(rest, WIDEST_BAR) for columns in widths]
    over = sum(widths) + GAP * (sum(map(bool, widths)) - 1) - room
    if over > sum(widths) - sum(least):
        return None
    for _ in range(over):
        widths[max(count, key=lambda at: widths[at] - least[at])] -= 1
    return widths


def listing(block: Table) -> Text:
    """A table as a paragraph a row, for a terminal too narrow: no number is ever broken or cut."""
    rows = [*block.rows, block.total] if block.total else block.rows
    lines = []
    for row in rows:
        cells = [(head, plain(cell)) for head, cell in zip(block.columns, row, strict=True) if plain(cell)]
        kept = [(head.name, cell if head.kind == "left" else cell.replace(" ", "\u00a0")) for head, cell in cells]
        lines.append(Text("; ".join(f"{name} {cell}".strip() for name, cell in kept)))
    return Text("\n").join(lines)


def column(block: Table, at: int) -> list[str]:
    """What stands under a column's heading."""
    return [plain(row[at]) for row in (*block.rows, *([block.total] if block.total else []))]


def width(block: Table, at: int) -> int:
    """The room a column needs if nothing wraps; 1 if it is empty."""
    return max(1, *map(cell_len, [block.columns[at].name, *column(block, at)]))


def least_width(block: Table, at: int) -> int:
    """The room a column needs if words wrap and numbers do not."""
    head, cells = block.columns[at], column(block, at)
    whole = cells if head.kind == "right" else [word for cell in cells for word in cell.split(" ")]
    return max(1, *map(cell_len, [*head.name.split(" "), *whole]))


def plain(cell: Cell) -> str:
    """What a cell says; a bar says nothing."""
    if isinstance(cell, Formula):
        return cell.plain
    return cell if isinstance(cell, str) else ""


def drawn(cell: Cell, low: float, room: int) -> Text:
    """A cell as it is printed; a bar as a part of what has room between `low`, 0 or less, and 1."""
    if not isinstance(cell, float):
        return Text(plain(cell), "cyan" if isinstance(cell, Formula) else "")
    left = round(room * low / (low - 1))  # the columns of negative bars
    if cell < 0:
        halves = max(1, round(2 * left * cell / low))
        return Text(("▐" * (halves % 2) + "█" * (halves // 2)).rjust(left), "red")
    eighths = max(1, round(8 * (room - left) * cell)) if cell else 0
    return Text(" " * left + "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8], "blue")


def show_triangle(block: Triangle, to: Console) -> None:
    """Print weights as numbers or, where these have no room, as shades; where neither has, the last items."""
    n, m = block.weights.shape
    margin = min(max(map(cell_len, block.items)), to.width // 3)
    digits = len(str(n - 1))
    room = to.width - INDENT - digits - margin - 3
    numbers = m * 5 <= room
    first = 0 if numbers else max(0, m - room)
    if numbers:
        indented(Text(" " * (digits + margin + 3) + "".join(f"{j:>5}" for j in range(m)), "dim"), to)
    for i in range(first if n == m else 0, n):
        row = Text().append(f"{i:>{digits}}  ", "dim")
        name = Text(block.items[i])
        name.truncate(margin, overflow="ellipsis", pad=True)
        row.append_text(name).append(" ")
        top = block.weights[i].max()
        for j in range(first, m):
            weight = block.weights[i, j]
            if not block.seen[i, j]:
                row.append("·".rjust(5 if numbers else 1), "dim")
                continue
            mark = in_figures(weight) if numbers else SHADES[min(3, int(4 * weight / top)) if top else 0]
            row.append(mark, "bold blue" if weight == top else "")
        indented(row, to)
    if not numbers:
        indented(Text(f"\n{' '.join(SHADES)}  by quarters of the largest weight in each row", "dim"), to)
    if first:
        indented(
            Text(f"Items {first} to {m - 1} of {m}: a wider terminal shows more, --format json all.", "dim"),
            to,
        )


def in_figures(weight: float) -> str:
    """A weight in five columns, never a rounded one that looks like 0."""
    return "  <.01"[-5:] if 0 < weight < 0.005 else f"{weight:5.2f}"
