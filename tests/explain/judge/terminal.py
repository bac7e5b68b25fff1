"""What a terminal shows, held to the page in Markdown: on a wide one line by line, on a narrow one word by word."""

import re
from collections import Counter
from dataclasses import replace

from rich.cells import cell_len

from tests.explain.judge.lessons import FORMULAS
from tests.explain.judge.ranges import NUMBER, Range, UntrueError
from tests.explain.judge.reading import Page, Prose, Table, paragraphs, said, squeezed
from tests.explain.judge.truth import Truth

SHADES = "░▒▓█"
QUARTERS = "░ ▒ ▓ █  by quarters of the largest weight in each row"
CUT = r"Items (\d+) to (\d+) of (\d+): a wider terminal shows more, --format json all\."


def compare(one: list[str], other: list[str], name: str) -> None:
    """Two formats say the same."""
    for a, b in zip(one, other, strict=False):
        if a != b:
            raise UntrueError(f"{name} says {b!r} where Markdown says {a!r}")
    if len(one) != len(other):
        raise UntrueError(f"{name} says {len(other)} things, Markdown {len(one)}")


def check_wide(judge, page: Page, text: str, formulas: list[str]) -> None:
    """A page that nothing is wrapped on: every line, every formula, and the triangle."""
    blocks = paragraphs(text)
    told, lines = [], []
    for at, block in enumerate(blocks):
        if is_heading(at, block):
            told += [line.strip() for line in block[1:]]
            block = block[:1]
        elif judge.matrix and at == len(blocks) - 1:
            check_triangle(judge, block)
            continue
        lines += [line for line in block if not re.fullmatch(r"[─\s]*", line)]
    compare(without_triangle(judge, page), [line for line in map(squeezed, lines) if line], "the terminal")
    judge.holds(told == formulas, f"the terminal's formulas are {told}, not {formulas}")


def without_triangle(judge, page: Page) -> list[str]:
    """What a page says besides the weights of all rows."""
    *sections, last = page.sections
    if judge.matrix:
        last = replace(last, blocks=[block for block in last.blocks if isinstance(block, Prose)])
    return said(replace(page, sections=[*sections, last]), FORMULAS)


def is_heading(at: int, block: list[str]) -> bool:
    """Whether a block is a heading and its formula: nothing else begins at the margin but the title."""
    return at > 0 and not block[0].startswith(" ")


def check_triangle(judge, lines: list[str]) -> None:
    """Weights in two decimals; a small one never looks like 0, a hidden one is a dot."""
    n = judge.truth.n
    judge.holds(lines[0].split() == [str(j) for j in range(n)] and len(lines) == n + 1, "rows or columns are missing")
    for i, line in enumerate(lines[1:]):
        cells = [line[len(line) - 5 * (n - j) :][:5].strip() for j in range(n)]
        judge.holds(line.split()[0] == str(i), f"row {i}")
        for j, cell in enumerate(cells):
            in_decimals(judge, judge.all_rows[i], i, j, cell)


def in_decimals(judge, row: Truth, i: int, j: int, cell: str) -> None:
    judge.holds((cell == "·") == (not row.seen[j]), f"whether item {i} sees item {j}: {cell}")
    if cell == "·":
        return
    judge.holds(bool(re.fullmatch(r"\d\.\d\d|<\.01", cell)), f"{cell!r} is no weight")
    told = Range(5e-324, 0.005) if cell == "<.01" else Range(float(cell) - 0.005, float(cell) + 0.005)
    told = Range(0.0, 0.0) if cell == "0.00" else told
    judge.holds(told.meets(row.weight(j)), f"the weight of items {i} and {j} is {row.weight(j)}, not {cell}")


def check_narrow(judge, page: Page, text: str, width: int) -> None:
    """A page that is wrapped: no line too long, every paragraph whole, no number broken."""
    judge.holds(all(cell_len(line) <= width for line in text.split("\n")), "a line is too long")
    blocks = paragraphs(text)[2:]
    for section in page.sections:
        if section.heading:
            heading = squeezed("".join(blocks.pop(0)))
            judge.holds(heading.startswith(squeezed(section.heading)), f"the heading {section.heading}")
        for block in section.blocks:
            if section.heading == "All rows" and isinstance(block, Table):
                check_narrow_triangle(judge, blocks)
                return
            lines = blocks.pop(0)
            if isinstance(block, Prose):
                compare([squeezed(block.text)], [squeezed("".join(lines))], "the narrow terminal")
            else:
                while blocks and goes_on(block, blocks[0]):
                    lines += blocks.pop(0)
                numbers_whole(judge, block, lines)
    judge.holds(not blocks, f"more than the page: {blocks}")


def goes_on(table: Table, block: list[str]) -> bool:
    """Whether a block is a further part of a table: it begins with the names of the columns that all parts have."""
    rule = next((at for at, line in enumerate(block) if set(line.strip()) == {"─"}), 0)
    names = table.head[0].split()
    return bool(names) and any(line.split()[: len(names)] == names for line in block[:rule])


def numbers_whole(judge, table: Table, lines: list[str]) -> None:
    """Every number of a table stands whole between blanks."""
    cells = [cell for row in [*table.rows, *([table.total] if table.total else [])] for cell in row]
    wanted = Counter(cell for cell in cells if re.fullmatch(NUMBER, cell))
    found = Counter(re.split(r"[\s;]+", " ".join(lines)))
    judge.holds(all(found[number] >= times for number, times in wanted.items()), f"broken: {wanted - found}")


def check_narrow_triangle(judge, blocks: list[list[str]]) -> None:
    """Weights as numbers where these have room, else as shades of the last items."""
    n, lines = judge.truth.n, blocks[0]
    if lines[0].split() == [str(j) for j in range(n)]:
        check_triangle(judge, lines)
        return
    below = " ".join(" ".join(blocks[1]).split())
    judge.holds(below.startswith(" ".join(QUARTERS.split())), "the shades are not explained")
    cut = re.search(CUT, below)
    first = int(cut[1]) if cut else 0
    judge.holds(not cut or (int(cut[2]), int(cut[3])) == (n - 1, n), "which items are shown")
    judge.holds(len(lines) == n - first, f"{len(lines)} rows from {first} to {n - 1}")
    for i, line in enumerate(lines, first):
        judge.holds(line.split()[0] == str(i), f"row {i}")
        row, weights = judge.all_rows[i], judge.json["matrix"]["weights"][i]
        top = max([weight for weight in weights if weight is not None], default=0) or 1.0
        for j, mark in zip(range(first, n), line[len(line) - (n - first) :], strict=True):
            judge.holds((mark == "·") == (not row.seen[j]), f"whether item {i} sees item {j}")
            if mark != "·":
                quarter = 4 * weights[j] / top
                judge.holds(SHADES.index(mark) <= quarter <= SHADES.index(mark) + 1, f"{mark} for {quarter} quarters")
