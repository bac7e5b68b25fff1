"""A page as a LaTeX snippet to \\input: no packages needed, every token escaped."""

import re
from collections.abc import Sequence

from clearhead.explain.blocks import Block, Cell, Formula, Heading, Prose, Table, Title, Triangle
from clearhead.explain.wording import number

BAR = 40  # millimetres of the longest bar

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%",
    "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", '"': r"{\char34}", "\u00a0": "~",
    "<": r"$<$", ">": r"$>$", "|": r"$|$", "“": "``", "”": "''", "…": r"\ldots{}", "�": "?",
    "·": r"$\cdot$", "×": r"$\times$", "÷": r"$\div$", "−": "$-$", "√": r"$\surd$", "²": "$^2$", "ᵀ": "$^T$",
    "≤": r"$\le$", "≥": r"$\ge$", "→": r"$\to$", "∞": r"$\infty$", "α": r"$\alpha$", "Σ": r"$\Sigma$",
    "←": r"$\leftarrow$", "ⱼ": "$_j$", "ᵢ": "$_i$", "ₖ": "$_k$",
}  # fmt: skip
DIGITS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")


def render(page: Sequence[Block]) -> str:
    """The page's LaTeX."""
    return "% to \\input into a document; no packages needed\n" + "\n\n".join(map(block_text, page)) + "\n"


def block_text(block: Block) -> str:
    """One block."""
    match block:
        case Title():
            items = [
                rf"\textbf{{{escape(t)}}}" if at == block.chosen else escape(t) for at, t in enumerate(block.items)
            ]
            return f"\\section*{{{escape(block.text)}}}\n\\begin{{quote}}\n{' '.join(items)}\n\\end{{quote}}"
        case Heading():
            formula = f"\n\\[ {block.formula.latex} \\]" if block.formula else ""
            return f"\\subsection*{{{escape(block.text)}}}{formula}"
        case Prose():
            return rf"\textbf{{{escape(block.text)}}}" if block.strong else escape(block.text)
        case Table():
            return table(block)
        case Triangle():
            return triangle(block)


def table(block: Table) -> str:
    """A table; its last row, the sums, under a rule."""
    rows = [row_text([escape(column.name) for column in block.columns]) + r" \hline"]
    rows += [row_text([cell_text(cell) for cell in row]) for row in block.rows]
    if block.total:
        rows.append(r"\hline " + row_text([cell_text(cell) for cell in block.total]))
    kinds = [column.kind for column in block.columns]
    words = f"p{{{0.8 / len(kinds):.2f}\\linewidth}}" if set(kinds) == {"left"} else "l"
    return tabular("".join("r" if kind == "right" else words for kind in kinds), rows)


def triangle(block: Triangle) -> str:
    """Every weight to four decimals, the hidden ones as dots."""
    n = block.weights.shape[1]
    rows = [row_text(["$i$", "item", *map(str, range(n))]) + r" \hline"]
    for i, item in enumerate(block.items):
        cells = [number(block.weights[i, j]) if block.seen[i, j] else r"$\cdot$" for j in range(n)]
        rows.append(row_text([str(i), escape(item), *cells]))
    return tabular("rl" + "r" * n, rows)


def tabular(columns: str, rows: list[str]) -> str:
    """A paragraph of its own that holds a table, in type small enough for the page."""
    body = "\n".join(rows)
    made = f"\\begin{{tabular}}{{{columns}}}\n{body}\n\\end{{tabular}}"
    return f"\\begin{{center}}\\footnotesize\n{made}\n\\end{{center}}"


def row_text(cells: list[str]) -> str:
    """One row; an opening bracket at its start must not look like an option of the row above."""
    return "{}" + " & ".join(cells) + r" \\"


def cell_text(cell: Cell) -> str:
    """One cell; a negative bar is hollow."""
    if isinstance(cell, Formula):
        return f"${cell.latex}$"
    if isinstance(cell, str):
        return escape(cell)
    width = f"{BAR * abs(cell):.1f}mm"
    return (
        rf"\rule{{{width}}}{{1.2ex}}" if cell > 0 else rf"\framebox[{width}]{{\rule{{0mm}}{{0.6ex}}}}" if cell else ""
    )


def escape(text: str) -> str:
    """Text that LaTeX prints as it stands.

    >>> escape("50 % of x₁₂ & a_b")
    '50 \\\\% of x$_{12}$ \\\\& a\\\\_b'
    """
    text = "".join(SPECIAL.get(character, character) for character in text)
    return re.sub("[₀-₉]+", lambda found: f"$_{{{found.group().translate(DIGITS)}}}$", text)
