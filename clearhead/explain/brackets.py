"""Vectors from numpy's own text of an array, as it is printed or as its repr.

Decides which text that is; numbers are `table`'s.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from clearhead.errors import FileError
from clearhead.explain.table import Form, Found, Line, Row, bounded, check_widths, numbers

BRACKETS = Form("numpy's text of an array", "[")
BEGIN = re.compile(r"\s*(?:\w+\s*=\s*)?(?:(?:\w+\.)?(?:array|asarray|matrix|tensor)\(\s*)?(?=\[)")
END = re.compile(r"\](?:,[^\[\]]*)?\)?\s*$")  # after the last bracket a dtype or shape may follow
ROW = re.compile(r"\[([^\[\]]*)\]")


def read_brackets(path: Path, lines: Sequence[Line]) -> Found | None:
    """The vectors in brackets, or None for text that is something else; raises FileError.

    >>> x, names, notes = read_brackets(Path("x.txt"), [Line(1, "[[1. 0.]"), Line(2, " [0. 1.]]")])
    >>> x.tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    text = "\n".join(line.text for line in lines)
    begin = BEGIN.match(text)
    if not begin:
        return None
    end = END.search(text, begin.end())
    inner = text[begin.end() : end.start() + 1] if end else ""
    start = begin.end()
    if "..." in inner:
        raise FileError(
            f"{path}, line {lines[0].number} begins numpy's text of an array that leaves numbers out (...): print it "
            "after numpy.set_printoptions(threshold=10**9), or save it with numpy.save."
        )
    if nested := re.fullmatch(r"\[\s*(\[.*\])[\s,]*\]", inner, re.DOTALL):
        start, inner = start + nested.start(1), nested[1]
    if not inner or ROW.sub("", inner).strip(" \t\n,"):
        if begin[0].strip() or text.startswith("[[", begin.end()) or re.search(r"\][ \t]*(\n|$)", text):
            raise FileError(
                f"{path}, line {lines[0].number} begins like numpy's text of an array, but what follows is not one of "
                "two axes: copy all of it, or save it with numpy.save."
            )
        return None
    rows = list(bounded(path, rows_of(lines, text, start, start + len(inner))))
    check_widths(path, BRACKETS, rows)
    return numbers(path, BRACKETS, rows, 0), None, ()


def rows_of(lines: Sequence[Line], text: str, start: int, stop: int) -> Iterator[Row]:
    """The numbers between each pair of brackets."""
    at, passed = 0, 0
    for found in ROW.finditer(text, start, stop):
        passed, at = passed + text.count("\n", at, found.start()), found.start()
        cells = [cell.strip() for cell in (found[1].split(",") if "," in found[1] else found[1].split())]
        yield Row(lines[passed].number, cells)
