"""A page as Markdown for GitHub and notebooks: tables with pipes, formulas between dollar signs."""

import re
from collections.abc import Sequence

from clearhead.explain.blocks import Block, Cell, Formula, Heading, Prose, Table, Title, Triangle
from clearhead.wording import number

BAR_CHARACTERS = 20  # length of the longest bar


def render(page: Sequence[Block]) -> str:
    """The page as Markdown."""
    return "\n\n".join(block_markdown(block) for block in page) + "\n"


def block_markdown(block: Block) -> str:
    """One block as Markdown."""
    match block:
        case Title():
            items = [
                f"**{escape_markdown(t)}**" if at == block.chosen else escape_markdown(t)
                for at, t in enumerate(block.items)
            ]
            return f"# {escape_markdown(block.text)}\n\n> {' '.join(items)}"
        case Heading():
            formula = f"\n\n$${block.formula.latex}$$" if block.formula else ""
            return f"## {escape_markdown(block.text)}{formula}"
        case Prose():
            return f"**{escape_markdown(block.text)}**" if block.strong else escape_markdown(block.text)
        case Table():
            return table_markdown(block)
        case Triangle():
            return triangle_markdown(block)


def table_markdown(block: Table) -> str:
    """A table, with its row of sums in bold."""
    rule = ["---:" if column.kind == "right" else ":---" for column in block.columns]
    rows = [[escape_markdown(column.name) for column in block.columns], rule]
    rows += [[cell_markdown(cell) for cell in row] for row in block.rows]
    if block.total:
        rows.append([f"**{cell_markdown(cell)}**" if cell else "" for cell in block.total])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def triangle_markdown(block: Triangle) -> str:
    """Every weight to four decimals, hidden ones as dots."""
    n = block.weights.shape[1]
    rows = [["i", "item", *map(str, range(n))], ["---:", ":---", *["---:"] * n]]
    for i, item in enumerate(block.items):
        cells = [number(block.weights[i, j]) if block.seen[i, j] else "·" for j in range(n)]
        rows.append([str(i), escape_markdown(item), *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def cell_markdown(cell: Cell) -> str:
    """One cell; a negative bar is hollow."""
    if isinstance(cell, float):
        return ("█" if cell > 0 else "░") * max(1, round(BAR_CHARACTERS * abs(cell))) if cell else ""
    return f"${cell.latex}$" if isinstance(cell, Formula) else escape_markdown(cell)


def escape_markdown(text: str) -> str:
    """Escape text so that Markdown prints it unchanged.

    >>> escape_markdown("a*b | <i>")
    'a\\\\*b \\\\| \\\\<i\\\\>'
    """
    return re.sub(r"([\\`*_{}\[\]<>#|$~&])", r"\\\1", text)
