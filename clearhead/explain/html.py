"""A page as self-contained HTML: one element with its own style, for a notebook or a file.

Responsible for how blocks look in a browser, light and dark; every token is escaped.
"""

from collections.abc import Sequence
from html import escape

from clearhead.explain.blocks import Block, Cell, Column, Formula, Heading, Prose, Table, Title, Triangle
from clearhead.wording import number

BAR_EM = 12  # length of the longest bar
STYLE = """
.clearhead { font: 15px/1.5 system-ui, sans-serif; max-width: 52rem; color: #1a1a1a; color-scheme: light dark; }
.clearhead .scroll { overflow-x: auto; }
.clearhead table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .7rem 0; }
.clearhead th, .clearhead td { padding: .12rem .7rem .12rem 0; text-align: right; border-bottom: 1px solid #8884; }
.clearhead .left { text-align: left; } .clearhead .total td { font-weight: 600; }
.clearhead .bar { display: inline-block; height: .7em; background: #0072b2; } .clearhead .less { background: #d55e00; }
.clearhead .strong { border-left: 3px solid #d55e00; padding-left: .6rem; }
.clearhead mark { background: #0072b2; color: #fff; border-radius: 3px; padding: 0 .2em; }
@media (prefers-color-scheme: dark) { .clearhead { color: #e8e8e8; } .clearhead .bar { background: #56b4e9; } }
"""


def render(page: Sequence[Block]) -> str:
    """The page as one HTML element."""
    blocks = "\n".join(map(block_html, page))
    return f'<div class="clearhead"><style>{STYLE}</style>\n{blocks}\n</div>\n'


def block_html(block: Block) -> str:
    """One block as HTML."""
    match block:
        case Title():
            items = [escape(item) for item in block.items]
            if block.chosen is not None:
                items[block.chosen] = f"<mark>{items[block.chosen]}</mark>"
            return f"<h2>{escape(block.text)}</h2><p>{' '.join(items)}</p>"
        case Heading():
            formula = f"<p><code>{escape(block.formula.plain)}</code></p>" if block.formula else ""
            return f"<h3>{escape(block.text)}</h3>{formula}"
        case Prose():
            strong = ' class="strong"' if block.strong else ""
            return f"<p{strong}>{escape(block.text)}</p>"
        case Table():
            return table_html(block)
        case Triangle():
            return triangle_html(block)


def table_html(block: Table) -> str:
    """A table, with its row of sums in bold."""
    head = "".join(f"<th{align_class(column)}>{escape(column.name)}</th>" for column in block.columns)
    rows = [row_html(block.columns, cells) for cells in block.rows]
    if block.total:
        rows.append(row_html(block.columns, block.total, "total"))
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def row_html(columns: Sequence[Column], cells: Sequence[Cell], kind: str = "") -> str:
    """One row of a table."""
    inner = "".join(
        f"<td{align_class(column)}>{cell_html(cell)}</td>" for column, cell in zip(columns, cells, strict=True)
    )
    return f'<tr class="{kind}">{inner}</tr>'


def align_class(column: Column) -> str:
    """The class attribute that aligns words and bars to the left."""
    return "" if column.kind == "right" else ' class="left"'


def cell_html(cell: Cell) -> str:
    """One cell; a negative bar has another colour."""
    if isinstance(cell, float):
        less = " less" if cell < 0 else ""
        return f'<span class="bar{less}" style="width:{BAR_EM * abs(cell):.2f}em"></span>' if cell else ""
    return f"<code>{escape(cell.plain)}</code>" if isinstance(cell, Formula) else escape(cell)


def triangle_html(block: Triangle) -> str:
    """Every weight to four decimals, hidden ones as dots."""
    n = block.weights.shape[1]
    columns = (Column("i"), Column("item", "left"), *(Column(str(j)) for j in range(n)))
    rows = tuple(
        (str(i), item, *(number(w) if seen else "·" for w, seen in zip(block.weights[i], block.seen[i], strict=True)))
        for i, item in enumerate(block.items)
    )
    return table_html(Table(columns, rows))
