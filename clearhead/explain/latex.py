r"""A page as a LaTeX snippet to \input: ASCII, no packages, no line wider than article's.

Responsible for how blocks look. Not for fitting a table to the page, which is in `grid`, nor for spelling and measuring
characters, which is in `tex`.
"""

from collections.abc import Sequence

from clearhead.explain.blocks import Block, Cell, Column, Formula, Heading, Prose, Table, Title, Triangle
from clearhead.explain.grid import LINE_WIDTH, Field, Grid, fit_columns, split_columns, split_rows, wraps
from clearhead.explain.tex import BOXED, escape_latex, math_width
from clearhead.wording import number

MOST_TRIANGLE_ITEMS = 40  # whose weights are all printed
LONGEST_CELL = 120  # characters of a cell
HIDDEN_MARK = "·"
UNDER_A_RULE = r"\hline \rule{0pt}{8pt}"
PREAMBLE = r"""% \input this into a document whose lines are 345pt or longer, as article's are; it needs no packages.
\begingroup\sloppy
"""


def render(page: Sequence[Block]) -> str:
    """The page as LaTeX."""
    body = "\n\n".join(block_latex(block) for block in page)
    macro = f"{BOXED}\n" if r"\codepoint" in body else ""
    return f"{PREAMBLE}{macro}{body}\n\n\\endgroup\n"


def block_latex(block: Block) -> str:
    """One block as LaTeX."""
    match block:
        case Title():
            items = [
                rf"\textbf{{{escape_latex(t)}}}" if at == block.chosen else escape_latex(t)
                for at, t in enumerate(block.items)
            ]
            return f"\\section*{{{escape_latex(block.text)}}}\n\\begin{{quote}}\n{' '.join(items)}\n\\end{{quote}}"
        case Heading():
            return f"\\subsection*{{{escape_latex(block.text)}}}" + (
                display_formula(block.formula) if block.formula else ""
            )
        case Prose():
            return rf"\textbf{{{escape_latex(block.text)}}}" if block.strong else escape_latex(block.text)
        case Table():
            rows = [tuple(map(shorten_cell, row)) for row in block.rows]
            return tabulars(split_columns(fit_columns(Grid.of(block.columns, rows, block.total))))
        case Triangle():
            return triangle_latex(block)


def display_formula(formula: Formula) -> str:
    """A displayed formula, which may break across lines if it is long."""
    if 1.25 * math_width(formula.latex) <= LINE_WIDTH:  # at 10 points
        return f"\n\\[ {formula.latex} \\]"
    return f"\n\\begin{{center}}\n${formula.latex}$\n\\end{{center}}"


def triangle_latex(block: Triangle) -> str:
    """Every weight to four decimals, hidden ones as dots; where there are many items, only the last."""
    n, m = block.weights.shape
    rows, shown = range(max(0, n - MOST_TRIANGLE_ITEMS), n), range(max(0, m - MOST_TRIANGLE_ITEMS), m)
    columns = (Column("i"), Column("item", "left"), *(Column(str(j)) for j in shown))
    cells = [
        (str(i), block.items[i], *(number(block.weights[i, j]) if block.seen[i, j] else HIDDEN_MARK for j in shown))
        for i in rows
    ]
    parts = split_columns(fit_columns(Grid.of(columns, cells)))
    said = []
    if len(rows) < n or len(shown) < m:
        which = f"rows {rows[0]} to {n - 1} of {n} and columns {shown[0]} to {m - 1} of {m}"
        said.append(escape_latex(f"Printed here are {which}: --format json gives all."))
    if len(parts) > 1:
        parts = [part for part in map(drop_hidden_rows, parts) if part.rows]
        said.append("In parts; each leaves out the rows that see none of its items.")
    return "\n\n".join([*said, tabulars(parts)])


def drop_hidden_rows(part: Grid) -> Grid:
    """A part of a triangle without the rows in which every item is hidden."""
    return part.with_rows([row for row in part.rows if any(cell != HIDDEN_MARK for cell in row[2:])])


def shorten_cell(cell: Cell) -> Cell:
    """A cell, cut so that it fits a page."""
    return f"{cell[: LONGEST_CELL - 1]}…" if isinstance(cell, str) and len(cell) > LONGEST_CELL else cell


def tabulars(parts: Sequence[Grid]) -> str:
    """The parts of a table, one after another, none longer than a page."""
    return "\n\n".join(tabular(piece) for part in parts for piece in split_rows(part))


def tabular(grid: Grid) -> str:
    """A paragraph that holds a table, in 8-point type whatever the document's, with the sums under a rule."""
    rows = [row_latex(grid.fields, [field.name for field in grid.fields])]
    rows += [UNDER_A_RULE * (not at) + row_latex(grid.fields, row) for at, row in enumerate(grid.rows)]
    if grid.total:
        rows.append(UNDER_A_RULE + row_latex(grid.fields, grid.total))
    kinds = "".join("r" if field.kind == "right" else "l" for field in grid.fields)
    body = "\n".join([rf"\begin{{tabular}}{{{kinds}}}", *rows, r"\end{tabular}"])
    return f"\\begin{{center}}\\fontsize{{8}}{{9.5}}\\selectfont\\tabcolsep3pt\n{body}\n\\end{{center}}"


def row_latex(fields: Sequence[Field], cells: Sequence[Cell]) -> str:
    """One row; it begins with {} so that a bracket is not read as an option of the row above."""
    return "{}" + " & ".join(map(cell_latex, fields, cells)) + r" \\"


def cell_latex(field: Field, cell: Cell) -> str:
    """One cell; words wrap in a column that is too narrow for them, a negative bar is hollow."""
    if isinstance(cell, float):
        return bar_latex(field.room * abs(cell), hollow=cell < 0) if cell else ""
    text = f"${cell.latex}$" if isinstance(cell, Formula) else escape_latex(cell)
    if not wraps(field, cell):
        return text
    ragged = r"\raggedleft" if field.kind == "right" else r"\raggedright"
    return rf"\parbox[t]{{{field.room:.1f}pt}}{{{ragged} {text}\strut}}"


def bar_latex(length: float, *, hollow: bool) -> str:
    """A bar of a length in points."""
    return rf"\framebox[{length:.1f}pt]{{\rule{{0pt}}{{0.6ex}}}}" if hollow else rf"\rule{{{length:.1f}pt}}{{1.2ex}}"
