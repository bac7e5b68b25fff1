"""What a LaTeX page says, held to the page in Markdown: every paragraph, every formula, every cell of every part."""

import re
import unicodedata
from collections.abc import Sequence

from tests.explain.judge.ranges import UntrueError
from tests.explain.judge.reading import BARS, FORMULA, Page, Prose, Table, squeezed, unescaped

SIGNS = {
    r"\textbackslash{}": "\\", r"{\char34}": '"', r"\textasciicircum{}": "^", r"\textasciitilde{}": "~", r"\`{}": "`",
    r"\ldots{}": "…", r"$\cdot$": "·", r"$\times$": "×", r"$\div$": "÷", r"$\surd$": "√", "$-$": "−", "$<$": "<",
    r"$\gets$": "←",
    "$>$": ">", "$|$": "|", "$^2$": "²", "$^T$": "ᵀ", r"$\le$": "≤", r"$\ge$": "≥", r"$\to$": "→", r"$\infty$": "∞",
    r"$\alpha$": "α", r"$\Sigma$": "Σ", "$_j$": "ⱼ", "$_i$": "ᵢ", "$_k$": "ₖ", "``": "“", "''": "”", r"$\approx$": "≈",
    "---": "—", "--": "–", "~": " ", r"\allowbreak{}": "", "{}": "",
    r"\pounds{}": "£", r"$^\circ$": "°", **{f"\\{sign}": sign for sign in "{}$&#%_"},
}  # fmt: skip
ACCENTS = {"'": "\u0301", "`": "\u0300", "^": "\u0302", '"': "\u0308", "~": "\u0303", "c": "\u0327", "v": "\u030c"}
COMMAND = re.compile(
    r"\\codepoint\{(?P<code>[0-9A-F]+)\}|\\(?P<accent>['`^\"~cv])\{\\?(?P<letter>[a-zA-Z])\}|\$_\{(?P<digits>\d+)\}\$|"
    r"\$\\(?P<greek>(?!alpha|cdot|times|div|surd|le|ge|to|infty|approx|Sigma)[A-Za-z]+)\$|"
    + "|".join(map(re.escape, sorted(SIGNS, key=len, reverse=True)))
)
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
BOLD = re.compile(r"\\textbf\{((?:\\[a-z]+\{\w*\}|\{\\char34\}|\{\}|\$_\{\d+\}\$|\\.\{\\?\w?\}|\\.|[^\\{}])*)\}")
HIDDEN = "·"
IN_PARTS = "In parts; each leaves out the rows that see none of its items."


def plain(text: str) -> str:
    """What LaTeX prints for a text."""

    def one(found: re.Match[str]) -> str:
        if found["code"]:
            return chr(int(found["code"], 16))
        if found["accent"]:
            return unicodedata.normalize("NFC", found["letter"] + ACCENTS[found["accent"]])
        if found["digits"]:
            return found["digits"].translate(SUBSCRIPTS)
        if found["greek"]:
            size = "SMALL" if found["greek"].islower() else "CAPITAL"
            return unicodedata.lookup(f"GREEK {size} LETTER {found['greek'].upper().replace('LAMBDA', 'LAMDA')}")
        return SIGNS[found.group()]

    return COMMAND.sub(one, text)


def cell_of(text: str) -> str:
    """A cell of a row: words, a formula, or a bar, which says nothing."""
    if re.fullmatch(r"\\rule\{[\d.]+pt\}\{1\.2ex\}|\\framebox\[[\d.]+pt\]\{\\rule\{0pt\}\{0\.6ex\}\}", text):
        return ""
    if found := re.fullmatch(r"\\parbox\[t\]\{[\d.]+pt\}\{\\ragged(?:right|left) (.*)\\strut\}", text):
        text = found[1]
    if re.fullmatch(r"\$[^$]*\$", text) and text not in SIGNS:
        return FORMULA + text[1:-1]
    return squeezed(plain(text))


def tabular_of(block: str) -> list[list[str]]:
    """The rows of one part, its headings first."""
    rows = re.search(r"\\begin\{tabular\}\{.*?\}\n(.*)\n\\end\{tabular\}", block, re.DOTALL)[1].split("\n")
    lines = [row.removeprefix(r"\hline \rule{0pt}{8pt}").removeprefix("{}").removesuffix(r" \\") for row in rows]
    return [[cell_of(cell) for cell in line.split(" & ")] for line in lines]


def check_latex(judge, page: Page, latex: str) -> None:
    """The page in LaTeX, block by block."""
    judge.holds(latex.isascii() and latex.endswith("\n\n\\endgroup\n"), "not the LaTeX that needs no packages")
    title, *blocks = latex[latex.index(r"\section*") :].removesuffix("\n\n\\endgroup\n").split("\n\n")
    name, items = re.fullmatch(
        r"\\section\*\{(.*)\}\n\\begin\{quote\}\n(.*)\n\\end\{quote\}", title, re.DOTALL
    ).groups()
    same(name, page.title)
    same(BOLD.sub(r"\1", items), unescaped(page.items.replace("**", "")))
    for section in page.sections:
        if section.heading:
            check_heading(judge, section.heading, section.formula, blocks.pop(0))
        for block, after in zip(section.blocks, [*section.blocks[1:], None], strict=False):
            if isinstance(block, Prose):
                strong = re.fullmatch(r"\\textbf\{(.*)\}", blocks[0], re.DOTALL)
                judge.holds(bool(strong) == block.strong, "one format points out what the other does not")
                same(strong[1] if strong else blocks[0], block.text)
                blocks.pop(0)
            else:
                until = [squeezed(name) for name in after.head] if isinstance(after, Table) else None
                check_parts(judge, block, blocks, until, triangle=section.heading == "All rows")
    judge.holds(blocks in ([], [""]), f"LaTeX says more: {blocks}")  # "": rows in parts, of which nothing is seen


def check_heading(judge, heading: str, formula: str | None, block: str) -> None:
    """A heading and its formula, on one line or more."""
    found = re.fullmatch(
        r"\\subsection\*\{(.*?)\}(?:\n\\\[ (.*) \\\]|\n\\begin\{center\}\n\$(.*)\$\n\\end\{center\})?", block, re.DOTALL
    )
    same(found[1], heading)
    judge.holds((found[2] or found[3]) == formula, f"{heading} has the formula {block!r}")


def same(latex: str, text: str) -> None:
    """One text in both formats."""
    if squeezed(plain(latex)) != squeezed(text):
        raise UntrueError(f"LaTeX says {plain(latex)!r} where Markdown says {text!r}")


def check_parts(judge, table: Table, blocks: list[str], until: list[str] | None, *, triangle: bool) -> None:
    """A table's parts, up to the one that begins as the next table does: bars excepted, all columns are in one."""
    told = blocks.pop(0) if triangle and blocks[0] == IN_PARTS else None
    parts: list[list[list[str]]] = []
    while blocks and r"\begin{tabular}" in blocks[0]:
        head, *rows = tabular_of(blocks[0])
        if parts and until and head[:2] == until[:2]:
            break
        blocks.pop(0)
        if parts and parts[-1][0] == head:
            parts[-1] += rows
        else:
            parts.append([head, *rows])
    judge.holds(not triangle or bool(told) or len(parts) <= 1, "whether it is in parts")
    lines = [table.head, *table.rows, *([table.total] if table.total else [])]
    lines = [[cell if cell.startswith(FORMULA) else squeezed(cell) for cell in line] for line in lines]
    at = 2 if triangle else 0
    for head, *rows in parts:
        named = shared(lines[0], head)
        at = max(at, named)
        columns = [*range(named)]
        for name in head[named:]:
            while at < len(lines[0]) and lines[0][at] != name:
                judge.holds(
                    is_bar(table, at) or (triangle and is_hidden(table, at)),
                    f"LaTeX leaves out column {table.head[at]!r}",
                )
                at += 1
            columns.append(at)
            at += 1
        judge.holds(max(columns) < len(lines[0]), f"LaTeX has other columns: {head}")
        expected = [[line[k] for k in columns] for line in lines[1:]]
        if told:
            expected = [row for row in expected if any(cell != HIDDEN for cell in row[2:])]
        check_rows(rows, expected)
    out = range(at, len(lines[0]))
    judge.holds(all(is_bar(table, k) or is_hidden(table, k) for k in out), "LaTeX leaves out columns")


def shared(whole: Sequence[str], head: Sequence[str]) -> int:
    """How many columns a part begins with that all parts have."""
    return next((k for k, (a, b) in enumerate(zip(whole, head, strict=False)) if a != b), min(len(whole), len(head)))


def is_hidden(table: Table, at: int) -> bool:
    """Whether a column of a triangle has nothing that is seen: LaTeX leaves such rows and columns out."""
    return all(row[at] == HIDDEN for row in table.rows)


def is_bar(table: Table, at: int) -> bool:
    """Whether a column holds bars only."""
    return not table.head[at] and all(not BARS.sub("", row[at]) for row in table.rows)


def check_rows(rows: list[list[str]], expected: list[list[str]]) -> None:
    """The rows of a part."""
    for row, own in zip(rows, expected, strict=False):
        if row != own:
            raise UntrueError(f"a row of LaTeX says {row} where Markdown says {own}")
    if len(rows) != len(expected):
        raise UntrueError(f"a table of LaTeX has {len(rows)} rows, Markdown's has {len(expected)}")
