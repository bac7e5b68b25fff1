"""A page as Markdown: tables with pipes, formulas between dollar signs, as GitHub and notebooks read it."""

import re
from collections.abc import Sequence

from clearhead.explain.blocks import Block, Cell, Formula, Heading, Prose, Table, Title, Triangle
from clearhead.wording import number

BAR = 20  # characters of the longest bar


def render(page: Sequence[Block]) -> str:
    """The page's Markdown."""
    return "\n\n".join(block_text(block) for block in page) + "\n"


def block_text(block: Block) -> str:
    """One block."""
    match block:
        case Title():
            items = [f"**{escape(t)}**" if at == block.chosen else escape(t) for at, t in enumerate(block.items)]
            return f"# {escape(block.text)}\n\n> {' '.join(items)}"
        case Heading():
            formula = f"\n\n$${block.formula.latex}$$" if block.formula else ""
            return f"## {escape(block.text)}{formula}"
        case Prose():
            return f"**{escape(block.text)}**" if block.strong else escape(block.text)
        case Table():
            return table(block)
        case Triangle():
            return triangle(block)


def table(block: Table) -> str:
    """A table; its last row, the sums, in bold."""
    rule = ["---:" if column.kind == "right" else ":---" for column in block.columns]
    rows = [[escape(column.name) for column in block.columns], rule]
    rows += [[cell_text(cell) for cell in row] for row in block.rows]
    if block.total:
        rows.append([f"**{cell_text(cell)}**" if cell else "" for cell in block.total])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def triangle(block: Triangle) -> str:
    """Every weight to four decimals, the hidden ones as dots."""
    n = block.weights.shape[1]
    rows = [["i", "item", *map(str, range(n))], ["---:", ":---", *["---:"] * n]]
    for i, item in enumerate(block.items):
        cells = [number(block.weights[i, j]) if block.seen[i, j] else "·" for j in range(n)]
        rows.append([str(i), escape(item), *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def cell_text(cell: Cell) -> str:
    """One cell; a negative bar is hollow."""
    if isinstance(cell, float):
        return ("█" if cell > 0 else "░") * max(1, round(BAR * abs(cell))) if cell else ""
    return f"${cell.latex}$" if isinstance(cell, Formula) else escape(cell)


def escape(text: str) -> str:
    """Text that Markdown leaves alone.

    >>> escape("a*b | <i>")
    'a\\\\*b \\\\| \\\\<i\\\\>'
    """
    return re.sub(r"([\\`*_{}\[\]<>#|$~&])", r"\\\1", text)
