"""Vectors from the text that numpy prints for an array, as str or repr.

Responsible for recognizing that text. Not for parsing numbers, which `table` does.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from clearhead.errors import FileError
from clearhead.explain.table import Form, Line, ParsedTable, Row, bounded_rows, check_widths, row_numbers

BRACKET_FORM = Form("numpy's text of an array", "[")
ARRAY_START = re.compile(r"\s*(?:\w+\s*=\s*)?(?:(?:\w+\.)?(?:array|asarray|matrix|tensor)\(\s*)?(?=\[)")
ARRAY_END = re.compile(r"\](?:,[^\[\]]*)?\)?\s*$")  # a dtype or shape may follow the last bracket
ROW_PATTERN = re.compile(r"\[([^\[\]]*)\]")


def read_brackets(path: Path, lines: Sequence[Line]) -> ParsedTable | None:
    """The vectors in brackets, or None for text that is not an array; raises FileError for a damaged one.

    >>> x, names, notes = read_brackets(Path("x.txt"), [Line(1, "[[1. 0.]"), Line(2, " [0. 1.]]")])
    >>> x.tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    text = "\n".join(line.text for line in lines)
    begin = ARRAY_START.match(text)
    if not begin:
        return None
    end = ARRAY_END.search(text, begin.end())
    inner = text[begin.end() : end.start() + 1] if end else ""
    start = begin.end()
    if "..." in inner:
        raise FileError(
            f"{path}, line {lines[0].number} begins numpy's text of an array that leaves numbers out (...): print it "
            "after numpy.set_printoptions(threshold=10**9), or save it with numpy.save."
        )
    if nested := re.fullmatch(r"\[\s*(\[.*\])[\s,]*\]", inner, re.DOTALL):
        start, inner = start + nested.start(1), nested[1]
    if not inner or ROW_PATTERN.sub("", inner).strip(" \t\n,"):
        if begin[0].strip() or text.startswith("[[", begin.end()) or re.search(r"\][ \t]*(\n|$)", text):
            raise FileError(
                f"{path}, line {lines[0].number} begins like numpy's text of an array, but what follows is not one of "
                "two axes: copy all of it, or save it with numpy.save."
            )
        return None
    rows = list(bounded_rows(path, bracket_rows(lines, text, start, start + len(inner))))
    check_widths(path, BRACKET_FORM, rows)
    return row_numbers(path, BRACKET_FORM, rows, 0), None, ()


def bracket_rows(lines: Sequence[Line], text: str, start: int, stop: int) -> Iterator[Row]:
    """One row of cells for each innermost pair of brackets."""
    at, newlines = 0, 0
    for match in ROW_PATTERN.finditer(text, start, stop):
        newlines, at = newlines + text.count("\n", at, match.start()), match.start()
        cells = [cell.strip() for cell in (match[1].split(",") if "," in match[1] else match[1].split())]
        yield Row(lines[newlines].number, cells)
