"""A Markdown page read back into blocks: the page that is judged, its names, cells and paragraphs whole.

Of the other formats only what they say counts, so they are compared with it without blanks, bars and rules: see
tex_page.py and terminal.py.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tests.explain.judge.ranges import UntrueError

BARS = re.compile("[█░▐▏▎▍▌▋▊▉]")
FORMULA = "\ue002"  # before a cell's formula
NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass
class Prose:
    """One paragraph."""

    text: str
    strong: bool


@dataclass
class Table:
    """Cells under headings; `total` is its last row, the sums."""

    head: list[str]
    rows: list[list[str]]
    total: list[str] | None = None


@dataclass
class Section:
    """A heading, its formula in LaTeX, and what stands under it."""

    heading: str
    formula: str | None = None
    blocks: list[Prose | Table] = field(default_factory=list)


@dataclass
class Page:
    """A page; `items` is its line of names as it stands, escapes and all."""

    title: str
    items: str
    sections: list[Section]


def unescaped(text: str) -> str:
    """What Markdown prints; a cell that is a formula is marked as one."""
    if len(text) > 2 and text[0] == text[-1] == "$":
        return FORMULA + text[1:-1]
    return re.sub(r"\\([\\`*_{}\[\]<>#|$~&])", r"\1", text)


def cells(line: str) -> list[str]:
    """The cells of a row as they stand."""
    found = re.findall(r"((?:\\.|[^\\|])*)\|", line.removeprefix("|"))
    return [cell[1:-1] if len(cell) > 1 else "" for cell in found]


def page_of(markdown: str) -> Page:
    """The blocks of a page."""
    first, items, *blocks = markdown.removesuffix("\n").split("\n\n")
    if not first.startswith("# ") or not items.startswith("> "):
        raise UntrueError(f"the page begins with {first!r} and {items!r}")
    page = Page(unescaped(first[2:]), items[2:], [Section("")])
    for block in blocks:
        here = page.sections[-1]
        if block.startswith("## "):
            page.sections.append(Section(unescaped(block[3:])))
        elif block.startswith("$$"):
            here.formula = block[2:-2]
        elif block.startswith("|"):
            here.blocks.append(table_of(block))
        else:
            strong = re.fullmatch(r"\*\*(.*)\*\*", block, re.DOTALL)
            here.blocks.append(Prose(unescaped(strong[1] if strong else block), bool(strong)))
    return page


def table_of(block: str) -> Table:
    """One table; its total is a last row in bold."""
    lines = [cells(line) for line in block.split("\n")]
    head, rule, *rows = lines
    if any(len(row) != len(head) for row in lines) or any(not re.fullmatch(r"-+:|:-+", cell) for cell in rule):
        raise UntrueError(f"no table: {block}")
    total = None
    if rows and any(re.fullmatch(r"\*\*(?:sum.*|mean)\*\*", cell) for cell in rows[-1]):
        total = [unescaped(cell.removeprefix("**").removesuffix("**")) for cell in rows.pop()]
    return Table([unescaped(cell) for cell in head], [[unescaped(cell) for cell in row] for row in rows], total)


def squeezed(text: str) -> str:
    """What is said, without blanks, bars and quotes; a minus is a minus, however long."""
    text = unicodedata.normalize("NFC", BARS.sub("", text))
    return re.sub(r"[\s“”‘’\"'`]+", "", text.replace("−", "-"))


def said(page: Page, spelled: Mapping[str, str] = NOTHING) -> list[str]:
    """Every line that a page says, squeezed; formulas in cells as they are spelled, those of headings left out."""
    lines = [page.title, unescaped(page.items.replace("**", ""))]
    for section in page.sections:
        lines += [section.heading] if section.heading else []
        for block in section.blocks:
            if isinstance(block, Prose):
                lines.append(block.text)
            else:
                rows = [block.head, *block.rows, *([block.total] if block.total else [])]
                lines += [
                    "".join(spelled.get(cell[1:], "") if is_formula(cell) else cell for cell in row) for row in rows
                ]
    return [line for line in map(squeezed, lines) if line]


def is_formula(cell: str) -> bool:
    """Whether a cell is a formula, which each format spells its own way."""
    return cell.startswith(FORMULA)


def paragraphs(text: str) -> list[list[str]]:
    """What stands between blank lines on a terminal."""
    return [block.split("\n") for block in re.split(r"\n\s*\n", text.strip("\n"))]
