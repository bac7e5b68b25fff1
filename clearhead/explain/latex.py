r"""A page as a LaTeX snippet to \input: ASCII, no packages, no line wider than article's.

Decides how blocks look; how a table fits the page is `grid`'s, how characters are spelled and measured is `tex`'s.
"""

from collections.abc import Sequence

from clearhead.explain.blocks import Block, Cell, Column, Formula, Heading, Prose, Table, Title, Triangle
from clearhead.explain.grid import ROOM, Field, Grid, fitted, pages, panels, wraps
from clearhead.explain.tex import BOXED, escape, math_width
from clearhead.wording import number

MOST_ITEMS = 40  # of which all weights are printed
LONGEST = 120  # characters of a cell
DOT = "·"  # for what is hidden
UNDER_A_RULE = r"\hline \rule{0pt}{8pt}"
FIRST = r"""% \input this into a document whose lines are 345pt or longer, as article's are; it needs no packages.
\begingroup\sloppy
"""


def render(page: Sequence[Block]) -> str:
    """The page's LaTeX."""
    body = "\n\n".join(block_text(block) for block in page)
    macro = f"{BOXED}\n" if r"\codepoint" in body else ""
    return f"{FIRST}{macro}{body}\n\n\\endgroup\n"


def block_text(block: Block) -> str:
    """One block."""
    match block:
        case Title():
            items = [
                rf"\textbf{{{escape(t)}}}" if at == block.chosen else escape(t) for at, t in enumerate(block.items)
            ]
            return f"\\section*{{{escape(block.text)}}}\n\\begin{{quote}}\n{' '.join(items)}\n\\end{{quote}}"
        case Heading():
            return f"\\subsection*{{{escape(block.text)}}}" + (display(block.formula) if block.formula else "")
        case Prose():
            return rf"\textbf{{{escape(block.text)}}}" if block.strong else escape(block.text)
        case Table():
            rows = [tuple(map(shortened, row)) for row in block.rows]
            return in_full(panels(fitted(Grid.of(block.columns, rows, block.total))))
        case Triangle():
            return triangle(block)


def display(formula: Formula) -> str:
    """A formula on a line of its own, or on several if it is long."""
    if 1.25 * math_width(formula.latex) <= ROOM:  # at 10 points
        return f"\n\\[ {formula.latex} \\]"
    return f"\n\\begin{{center}}\n${formula.latex}$\n\\end{{center}}"


def triangle(block: Triangle) -> str:
    """Every weight to four decimals, the hidden ones as dots; of many items, those of the last."""
    n, m = block.weights.shape
    rows, shown = range(max(0, n - MOST_ITEMS), n), range(max(0, m - MOST_ITEMS), m)
    columns = (Column("i"), Column("item", "left"), *(Column(str(j)) for j in shown))
    cells = [
        (str(i), block.items[i], *(number(block.weights[i, j]) if block.seen[i, j] else DOT for j in shown))
        for i in rows
    ]
    parts = panels(fitted(Grid.of(columns, cells)))
    said = []
    if len(rows) < n or len(shown) < m:
        which = f"rows {rows[0]} to {n - 1} of {n} and columns {shown[0]} to {m - 1} of {m}"
        said.append(escape(f"Printed here are {which}: --format json gives all."))
    if len(parts) > 1:
        parts = [part for part in map(without_dots, parts) if part.rows]
        said.append("In parts; each leaves out the rows that see none of its items.")
    return "\n\n".join([*said, in_full(parts)])


def without_dots(part: Grid) -> Grid:
    """A part of a triangle without the rows of which nothing is seen."""
    return part.with_rows([row for row in part.rows if any(cell != DOT for cell in row[2:])])


def shortened(cell: Cell) -> Cell:
    """A cell that fits a page."""
    return f"{cell[: LONGEST - 1]}…" if isinstance(cell, str) and len(cell) > LONGEST else cell


def in_full(parts: Sequence[Grid]) -> str:
    """The parts of a table, one after the other, none longer than a page."""
    return "\n\n".join(tabular(piece) for part in parts for piece in pages(part))


def tabular(grid: Grid) -> str:
    """A paragraph of its own that holds a table, in type of 8 points whatever the document's; the sums under a rule."""
    rows = [row_text(grid.fields, [field.name for field in grid.fields])]
    rows += [UNDER_A_RULE * (not at) + row_text(grid.fields, row) for at, row in enumerate(grid.rows)]
    if grid.total:
        rows.append(UNDER_A_RULE + row_text(grid.fields, grid.total))
    kinds = "".join("r" if field.kind == "right" else "l" for field in grid.fields)
    made = "\n".join([rf"\begin{{tabular}}{{{kinds}}}", *rows, r"\end{tabular}"])
    return f"\\begin{{center}}\\fontsize{{8}}{{9.5}}\\selectfont\\tabcolsep3pt\n{made}\n\\end{{center}}"


def row_text(fields: Sequence[Field], cells: Sequence[Cell]) -> str:
    """One row; an opening bracket at its start must not look like an option of the row above."""
    return "{}" + " & ".join(map(cell_text, fields, cells)) + r" \\"


def cell_text(field: Field, cell: Cell) -> str:
    """One cell; words wrap in a column that is too narrow for them, a negative bar is hollow."""
    if isinstance(cell, float):
        return bar(field.room * abs(cell), hollow=cell < 0) if cell else ""
    text = f"${cell.latex}$" if isinstance(cell, Formula) else escape(cell)
    if not wraps(field, cell):
        return text
    ragged = r"\raggedleft" if field.kind == "right" else r"\raggedright"
    return rf"\parbox[t]{{{field.room:.1f}pt}}{{{ragged} {text}\strut}}"


def bar(length: float, *, hollow: bool) -> str:
    """A bar of so many points."""
    return rf"\framebox[{length:.1f}pt]{{\rule{{0pt}}{{0.6ex}}}}" if hollow else rf"\rule{{{length:.1f}pt}}{{1.2ex}}"
