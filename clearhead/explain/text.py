"""A page for the terminal: aligned, fitted to its width, and coloured where it has colours.

Responsible for what gives way in a narrow terminal: first bars, then dims, then the numbers of a triangle.
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

MOST_COLUMNS = 100  # columns; a longer line of prose is harder to read
INDENT = 3
GAP = 3  # columns between the columns of a table
LEAST_BAR, WIDEST_BAR = 8, 48  # columns; a shorter bar is unreadable, a longer one shows no more
SHADES = "░▒▓█"


def console() -> Console:
    """Standard output with its width and colours; no colours where NO_COLOR is set or it is not a terminal."""
    plain = bool(os.environ.get("NO_COLOR"))
    output = Console(file=sys.stdout, highlight=False, color_system=None if plain else "auto")
    output.width = min(output.width, MOST_COLUMNS)
    return output


def dims_that_fit(width: int, tokens: Sequence[str]) -> int:
    """The number of dims of a vector that fit next to the items' names."""
    longest = max(map(cell_len, tokens))
    return max(1, min(6, (width - INDENT - longest - 26) // 9))


def print_page(page: Sequence[Block], to: Console) -> None:
    """Print a page without trailing blanks."""
    with to.capture() as captured:
        print_blocks(page, to)
    to.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def render(page: Sequence[Block], width: int = 80) -> str:
    """The page as plain text of at most `width` columns."""
    to = Console(width=width, color_system=None, highlight=False, legacy_windows=False)
    with to.capture() as captured:
        print_blocks(page, to)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def print_blocks(page: Sequence[Block], to: Console) -> None:
    """Print every block, with blank lines between them."""
    for block in page:
        match block:
            case Title():
                show_title(block, to)
            case Heading():
                to.print()
                to.print(Text(block.text, "bold"))
                if block.formula:
                    print_indented(Text(block.formula.plain, "cyan"), to)
            case Prose():
                to.print()
                print_indented(Text(block.text, "yellow" if block.strong else ""), to)
            case Table():
                to.print()
                print_indented(terminal_table(block, to.width - INDENT), to)
            case Triangle():
                to.print()
                show_triangle(block, to)


def print_indented(what: RenderableType, to: Console) -> None:
    """Print a block under its heading."""
    to.print(Padding(what, (0, 0, 0, INDENT), expand=False))


def show_title(block: Title, to: Console) -> None:
    """Print the page's title and its items, with the chosen one highlighted."""
    items = Text(" ").join(
        Text(item, "bold reverse" if at == block.chosen else "italic") for at, item in enumerate(block.items)
    )
    to.print(Text(block.text, "bold"))
    to.print()
    print_indented(items, to)


def terminal_table(block: Table, room: int) -> RenderableType:
    """A table; bars take the room that words and numbers leave, or are left out.

    A table that does not fit is shown in parts, one below the other, or as a list where no part fits.
    """
    widths = column_widths(block, room)
    if widths is None:
        parts = table_parts(block, room)
        return (
            Group(*(part for at, each in enumerate(parts) for part in [""] * bool(at) + [each]))
            if parts
            else listing(block)
        )
    table = RichTable(
        box=SIMPLE,
        show_footer=block.total is not None,
        show_edge=False,
        pad_edge=False,
        padding=(0, GAP - 1, 0, 0),
    )
    kept = [at for at, columns in enumerate(widths) if columns]
    for at in kept:
        head = block.columns[at]
        table.add_column(
            Text(head.name),
            cell_text(block.total[at]) if block.total else "",
            justify="right" if head.kind == "right" else "left",
            header_style="dim",
            footer_style="bold",
            width=widths[at],
        )
    low = min([0.0, *(cell for row in block.rows for cell in row if isinstance(cell, float))])
    for at, row in enumerate(block.rows):
        table.add_row(
            *(styled_cell(row[k], low, widths[k]) for k in kept), style="yellow" if at in block.strong else ""
        )
    return table


def table_parts(block: Table, room: int) -> list[RenderableType]:
    """The table in parts that fit, each with the columns that name its rows; empty if some column does not fit."""
    named = 1 + next((at for at, head in enumerate(block.columns) if head.kind == "left"), 0)
    names, parts = [*range(named)], list[list[int]]()
    for at in range(named, len(block.columns)):
        if block.columns[at].kind == "bar":
            continue
        if parts and column_widths(select_columns(block, [*names, *parts[-1], at]), room) is not None:
            parts[-1].append(at)
        elif column_widths(select_columns(block, [*names, at]), room) is not None:
            parts.append([at])
        else:
            return []
    return [terminal_table(select_columns(block, [*names, *part]), room) for part in parts]


def select_columns(block: Table, kept: Sequence[int]) -> Table:
    """The table with only some of its columns."""
    rows = tuple(tuple(row[at] for at in kept) for row in block.rows)
    total = tuple(block.total[at] for at in kept) if block.total else None
    return Table(tuple(block.columns[at] for at in kept), rows, total, block.strong)


def column_widths(block: Table, room: int) -> list[int] | None:
    """The width of each column, 0 for a bar that does not fit; None where words would break or numbers be cut."""
    count = range(len(block.columns))
    widths = [0 if block.columns[at].kind == "bar" else column_width(block, at) for at in count]
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
    """A table as one paragraph per row, for a very narrow terminal: no number is broken or cut."""
    rows = [*block.rows, block.total] if block.total else block.rows
    lines = []
    for row in rows:
        cells = [(head, cell_text(cell)) for head, cell in zip(block.columns, row, strict=True) if cell_text(cell)]
        kept = [(head.name, cell if head.kind == "left" else cell.replace(" ", "\u00a0")) for head, cell in cells]
        lines.append(Text("; ".join(f"{name} {cell}".strip() for name, cell in kept)))
    return Text("\n").join(lines)


def column_texts(block: Table, at: int) -> list[str]:
    """The texts of a column, without its heading."""
    return [cell_text(row[at]) for row in (*block.rows, *([block.total] if block.total else []))]


def column_width(block: Table, at: int) -> int:
    """The width a column needs if nothing wraps, at least 1."""
    return max(1, *map(cell_len, [block.columns[at].name, *column_texts(block, at)]))


def least_width(block: Table, at: int) -> int:
    """The width a column needs if words wrap and numbers do not."""
    head, cells = block.columns[at], column_texts(block, at)
    unbreakable = cells if head.kind == "right" else [word for cell in cells for word in cell.split(" ")]
    return max(1, *map(cell_len, [*head.name.split(" "), *unbreakable]))


def cell_text(cell: Cell) -> str:
    """The text of a cell; empty for a bar."""
    if isinstance(cell, Formula):
        return cell.plain
    return cell if isinstance(cell, str) else ""


def styled_cell(cell: Cell, low: float, room: int) -> Text:
    """A cell as printed; the room for a bar spans values from `low`, 0 or less, to 1."""
    if not isinstance(cell, float):
        return Text(cell_text(cell), "cyan" if isinstance(cell, Formula) else "")
    left = round(room * low / (low - 1))  # the columns of negative bars
    if cell < 0:
        halves = max(1, round(2 * left * cell / low))
        return Text(("▐" * (halves % 2) + "█" * (halves // 2)).rjust(left), "red")
    eighths = max(1, round(8 * (room - left) * cell)) if cell else 0
    return Text(" " * left + "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8], "blue")


def show_triangle(block: Triangle, to: Console) -> None:
    """Print weights as numbers, or as shades where numbers do not fit; only the last items where shades do not."""
    n, m = block.weights.shape
    margin = min(max(map(cell_len, block.items)), to.width // 3)
    digits = len(str(n - 1))
    room = to.width - INDENT - digits - margin - 3
    numbers = m * 5 <= room
    first = 0 if numbers else max(0, m - room)
    if numbers:
        print_indented(Text(" " * (digits + margin + 3) + "".join(f"{j:>5}" for j in range(m)), "dim"), to)
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
            mark = triangle_number(weight) if numbers else SHADES[min(3, int(4 * weight / top)) if top else 0]
            row.append(mark, "bold blue" if weight == top else "")
        print_indented(row, to)
    if not numbers:
        print_indented(Text(f"\n{' '.join(SHADES)}  by quarters of the largest weight in each row", "dim"), to)
    if first:
        print_indented(
            Text(f"Items {first} to {m - 1} of {m}: a wider terminal shows more, --format json all.", "dim"),
            to,
        )


def triangle_number(weight: float) -> str:
    """A weight in five columns; a small one is shown as <.01, not rounded to 0."""
    return "  <.01"[-5:] if 0 < weight < 0.005 else f"{weight:5.2f}"
