"""Vectors written as text: lines of numbers, whatever stands between them, or numpy's own text of an array.

Decides what separates cells, which line is a header, which column holds names and what a number is:

- Cells are separated by tabs, semicolons, upright strokes, commas or blanks: by the first of these that makes a table.
  Where it is not the comma, numbers may have decimal commas.
- A first line without numbers is a header, and so is one that counts 0, 1, 2 … under a heading of names, above names or
  over numbers that are all written with decimal points. Elsewhere a line of numbers is a vector.
- A first column without numbers, or one that a header calls word, index or nothing, holds names.
- A line that begins with # is a comment, and so is what stands behind a number, a blank and #.

Nothing is guessed in silence: each decision that could have been another leaves a note.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clearhead.errors import FileError, reason
from clearhead.wording import count

MOST_VECTORS = 1 << 17  # in a file
MOST_NUMBERS = 1 << 24
HEADINGS = {"word", "token", "item", "name", "label", "index", "id"}  # of a first column that holds names
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|[+-]?(?:nan|inf(?:inity)?)", re.IGNORECASE)
DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+(?:e[+-]?[0-9]+)?", re.IGNORECASE)
WRITTEN_OUT = re.compile(r"[.e,]", re.IGNORECASE)  # what tells 1.0 and 1e0 from 1
LIKE_A_NUMBER = re.compile(r"[-+−.,'’_%\[\]\s]*\d[-+−.,'’_%\[\]\s\d]*")  # as 1 000, 1.000,5 and [1 are
THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])")  # 1,234 and 1,234.5
BEHIND = re.compile(r"(?<=[\d.])[ \t]+(#.*)$")  # a comment at the end of a line
BLANK_CELL = re.compile(r'"(?:[^"]|"")*"(?=[ \t]|$)|[^ \t]+')

Found = tuple[npt.NDArray[np.float64], list[str] | None, tuple[str, ...]]


@dataclass(frozen=True)
class Line:
    """One line of a file."""

    number: int  # from 1, as editors count
    text: str


@dataclass(frozen=True)
class Row:
    """The cells of one line, without the blanks around them."""

    number: int
    cells: list[str]


@dataclass(frozen=True)
class Form:
    """How a file is written: what it is called, what separates its cells, and what separates decimals."""

    name: str
    separator: str
    decimal: str = "."

    def separates(self, line: Line) -> bool:
        """Whether the separator stands between cells of a line."""
        return self.separator in (line.text.strip() if self.separator == " " else line.text)

    def value(self, cell: str) -> float | None:
        """The number in a cell, or None.

        >>> Form("", ",").value("−1e3"), Form("", ";", ",").value("1,5"), Form("", ",").value("1_000")
        (-1000.0, 1.5, None)
        """
        cell = cell.replace("−", "-")
        if self.decimal == "," and DECIMAL_COMMA.fullmatch(cell):
            cell = cell.replace(",", ".")
        return float(cell) if NUMBER.fullmatch(cell) else None


FORMS = (
    Form("tab-separated", "\t"),
    Form("semicolon-separated", ";"),
    Form("separated by |", "|"),
    Form("comma-separated", ","),
    Form("space-separated", " "),
)
ONE_COLUMN = Form("one column", ",")


def read_table(path: Path, lines: Sequence[Line]) -> Found:
    """The vectors, names and notes of lines, by the first separator that makes a table of them; raises FileError."""
    kept = [Line(line.number, BEHIND.sub("", line.text)) for line in lines if not is_comment(line)]
    behind = [found[1] for line in lines if not is_comment(line) and (found := BEHIND.search(line.text))]
    if not kept:
        raise FileError(f"{path} holds no vectors: write one line of numbers for each.")
    errors: list[tuple[int, FileError]] = []
    for form in [form for form in FORMS if any(map(form.separates, kept))] or [ONE_COLUMN]:
        rows: list[Row] = []
        try:
            rows += bounded(path, split(path, form, kept))
            x, names, notes = as_vectors(path, form, rows)
            width = x.shape[1] + (names is not None)
            left_out = [f"What stands behind # is left out, as {shown(behind[0])}"] if behind else []
            return x, names, (*notes, *left_out, *commented(form, filter(is_comment, lines), width))
        except FileError as error:
            errors.append((len({len(row.cells) for row in rows}) or len(kept), error))
    raise min(errors, key=lambda entry: entry[0])[1]  # of the separator that comes nearest to a table


def is_comment(line: Line) -> bool:
    """Whether a line is for readers only; in quotes, a # begins a name."""
    return line.text.lstrip().startswith("#")


def commented(form: Form, comments: Iterable[Line], width: int) -> list[str]:
    """A note on comments that are as wide as a vector and end in its numbers."""
    rows = [Row(line.number, line.text.split(None if form.separator == " " else form.separator)) for line in comments]
    like = [
        row for row in rows if len(row.cells) == width > 1 and all(form.value(c) is not None for c in row.cells[1:])
    ]
    if not like:
        return []
    more = f" (and {count(len(like) - 1, 'line')} more)" if len(like) > 1 else ""
    return [f"Line {like[0].number} begins with # and is taken as a comment{more}: a name with # needs quotes"]


def split(path: Path, form: Form, lines: Sequence[Line]) -> Iterator[Row]:
    """The cells of each line."""
    return blank_cells(lines) if form.separator == " " else quoted_cells(path, form, lines)


def bounded(path: Path, rows: Iterable[Row]) -> Iterator[Row]:
    """Rows, as long as they are no more than could be explained."""
    total = 0
    for at, row in enumerate(rows):
        total += len(row.cells)
        if at > MOST_VECTORS or total > MOST_NUMBERS:
            held = f"{MOST_VECTORS} vectors" if at > MOST_VECTORS else f"{MOST_NUMBERS} numbers"
            raise FileError(f"{path} holds more than {held}, the most that can be explained: keep some of its lines.")
        yield row


def blank_cells(lines: Sequence[Line]) -> Iterator[Row]:
    """Cells with any number of blanks between them; quotes hold a cell together."""
    for line in lines:
        cells = BLANK_CELL.findall(line.text)
        yield Row(line.number, [c[1:-1].replace('""', '"') if c[0] == c[-1] == '"' != c else c for c in cells])


def quoted_cells(path: Path, form: Form, lines: Sequence[Line]) -> Iterator[Row]:
    """Cells as csv has them."""
    framed = form.separator == "|"  # as Markdown has it, | at both ends and a rule under the header
    lines = [line for line in lines if not (framed and set(line.text) <= set("|-: "))]
    texts = (f"{line.text.strip().strip('|') if framed else line.text}\n" for line in lines)
    reader = csv.reader(texts, delimiter=form.separator, skipinitialspace=True, strict=True)
    try:
        for cells in reader:
            yield Row(lines[reader.line_num - 1].number, [cell.strip() for cell in cells])
    except csv.Error as error:
        at = lines[max(0, reader.line_num - 1)].number
        raise FileError(f"{path}, line {at} is not {form.name} ({reason(error)}): check its quotes.") from error


def as_vectors(path: Path, form: Form, rows: list[Row]) -> Found:
    """What rows hold once header and names are found."""
    form, notes = decimals(form, rows)
    rows = without_empty_ends(rows)
    if len(rows) > 1:
        rows = with_corner(form, rows)
    check_widths(path, form, rows)
    headed, more = has_header(form, rows)
    body = rows[headed:]
    if not body:
        raise FileError(f"{path} holds no vectors but a header: write one line of numbers for each.")
    named, about_names = has_names(path, form, rows[0] if headed else None, body)
    x = numbers(path, form, body, int(named))
    more = more or one_comma(form, headed, named, body)
    return x, [row.cells[0] for row in body] if named else None, (*notes, *more, *about_names)


def one_comma(form: Form, headed: bool, named: bool, body: Sequence[Row]) -> list[str]:
    """A note where every line is two whole numbers around one comma, and could be one number with a decimal comma.

    Nobody writes 1,0 for 1: that is a vector of two numbers.
    """
    pairs = [row.cells for row in body]
    if form.separator != "," or headed or named or len(pairs) < 2 or not all(len(pair) == 2 for pair in pairs):
        return []
    if not all(re.fullmatch(r"[-+]?\d+", a) and re.fullmatch(r"\d*[1-9]", b) for a, b in pairs):
        return []
    a, b = pairs[0]
    return [f"{a},{b} is read as two numbers: if commas are decimal points, write {a}.{b}"]


def without_empty_ends(rows: Sequence[Row]) -> list[Row]:
    """Rows from the first to the last that holds anything: spreadsheets add some that hold nothing."""
    filled = [at for at, row in enumerate(rows) if any(row.cells)]
    return [*rows[filled[0] : filled[-1] + 1]] if filled else []


def check_widths(path: Path, form: Form, rows: Sequence[Row]) -> None:
    """Every row is as wide as the first."""
    if not rows or not rows[0].cells:
        raise FileError(f"{path} holds no vectors: write one line of numbers for each.")
    width = len(rows[0].cells)
    for row in rows:
        if len(row.cells) != width:
            own = f"{count(len(row.cells), 'column')} and line {rows[0].number} has {width}"
            step = widths_step(form, row if len(row.cells) > width else rows[0])
            raise FileError(f"{path}, line {row.number} has {own} (read as {form.name}): {step}.")


def widths_step(form: Form, longer: Row) -> str:
    """What may have made a line longer than another."""
    if form.separator == "," and (found := THOUSANDS.search(",".join(longer.cells))):
        return f"if {found[0]} is one number, write {found[0].replace(',', '')}; else give every line as many"
    if any(cell[:1] in ("'", "‘", "“") for cell in longer.cells):
        return 'put a name that holds a separator in double quotes, as "a, b"'
    return "give every line as many"


def decimals(form: Form, rows: Sequence[Row]) -> tuple[Form, list[str]]:
    """The form with decimal commas, if there are any, no decimal point is written, and commas separate nothing."""
    if form.separator == ",":
        return form, []
    cells = [cell.replace("−", "-") for row in rows for cell in row.cells]
    commas = [cell for cell in cells if "," in cell and DECIMAL_COMMA.fullmatch(cell)]
    if not commas or any("." in cell and NUMBER.fullmatch(cell) for cell in cells):
        return form, []
    made = Form(f"{form.name} with decimal commas", form.separator, ",")
    return made, [f"Commas are taken as decimal points: {commas[0]} is {made.value(commas[0])!r}"]


def with_corner(form: Form, rows: list[Row]) -> list[Row]:
    """A header that leaves out the cell above the names, as R and pandas print it, gets that cell."""
    first, rest = rows[0], rows[1:]
    if {len(row.cells) for row in rest} != {len(first.cells) + 1}:
        return rows
    begins = [row.cells[0] for row in rest]
    over_names = not any(form.value(cell) is not None for cell in begins)
    over_index = len(first.cells) > 1 and counts(begins) and (counts(first.cells) or not has_number(form, first.cells))
    return [Row(first.number, ["", *first.cells]), *rest] if over_names or over_index else rows


def has_header(form: Form, rows: Sequence[Row]) -> tuple[bool, list[str]]:
    """Whether the first row is a header, and what must be said of it."""
    first, body = rows[0], rows[1:]
    corner, others = first.cells[0], first.cells[1:]
    if not has_number(form, first.cells):
        return True, []
    if not body:
        return False, []
    names = not any(form.value(row.cells[0]) is not None for row in body)
    points = all(any(form.value(c) is not None and WRITTEN_OUT.search(c) for c in row.cells) for row in body)
    if form.value(corner) is not None:
        return counting_row(first, points=points, names=names)
    if corner == "":
        headed = counts(others) or not names
        return headed, [] if headed else [f"Line {first.number} is read as a vector with an empty name"]
    if not counts(others) or not (points or corner.casefold() in HEADINGS):
        return False, []
    if corner.casefold() in HEADINGS and (points or len(others) > 1):
        return True, [f"Line {first.number}, {corner!r} and numbers that count, is taken as a header, not as a vector"]
    return False, [f"Line {first.number} is read as a vector named {shown(corner)}: if it is a header, delete it"]


def counting_row(first: Row, *, points: bool, names: bool) -> tuple[bool, list[str]]:
    """A first row of numbers; one that counts from 0 over points or names is a header, and is spoken of in any case."""
    width = len(first.cells)
    if not counts(first.cells) or (width == 1 and not points):
        return False, []
    what = f"Line {first.number} counts {first.cells[0]} to {first.cells[-1]}"
    if width > 1 and first.cells[0] == "0" and (points or names):
        above = "names" if names else "numbers with decimal points"
        return True, [f"{what} above {above} and is taken as a header" + ": 0.0 would make it a vector" * (not names)]
    return False, [f"{what} and is read as a vector: if it is a header, delete it"]


def has_names(path: Path, form: Form, header: Row | None, body: Sequence[Row]) -> tuple[bool, list[str]]:
    """Whether the first column holds names, and what must be said of it."""
    numeric = [form.value(row.cells[0]) is not None for row in body]
    heading = header.cells[0].casefold() if header else None
    if heading is not None and (heading == "" or heading in HEADINGS):
        said = f"Column 1 holds numbers and is taken as names, because line {header.number} heads it {heading!r}"  # type: ignore[union-attr]
        return True, [said] if heading and all(numeric) else []
    if len(set(numeric)) > 1:
        odd = next(row for row, own in zip(body, numeric, strict=True) if own != numeric[0])
        for row in (body[0], odd):
            if THOUSANDS.match(row.cells[0]):
                own = f"{path}, line {row.number} begins with {shown(row.cells[0])} (read as {form.name})"
                raise FileError(f"{own}: write numbers without separators of thousands.")
        raise FileError(
            f"{path}, line {odd.number} begins with {shown(odd.cells[0])} and line {body[0].number} with "
            f"{shown(body[0].cells[0])} (read as {form.name}): give numbers, or make them names by a first line that "
            "begins with 'word'."
        )
    begins = [row.cells[0] for row in body]
    if not numeric[0] and all(map(LIKE_A_NUMBER.fullmatch, begins)):
        raise FileError(
            f"{path}, line {body[0].number} begins with {shown(begins[0])}, which is no number (read as {form.name}): "
            "correct it, or make it a name by a first line that begins with 'word'."
        )
    others = [cell for row in body for cell in row.cells[1:]]
    if numeric[0] and len(body) > 1 and counts(begins) and others and all(WRITTEN_OUT.search(c) for c in others):
        said = f"Column 1 counts {begins[0]} to {begins[-1]} and is read as numbers of the vectors"
        return False, [f"{said}: if it is an index, give it a header that begins with 'index'"]
    return not numeric[0], []


def numbers(path: Path, form: Form, body: Sequence[Row], start: int) -> npt.NDArray[np.float64]:
    """The numbers of each row from a column on, every one finite."""
    width = len(body[0].cells)
    if width == start:
        raise FileError(
            f"{path}, line {body[0].number} holds a name and no numbers (read as {form.name}): add its numbers."
        )
    values = np.empty((len(body), width - start))
    for row, into in zip(body, values, strict=True):
        for column in range(start, width):
            value, cell = form.value(row.cells[column]), row.cells[column]
            at = f"{path}, line {row.number}, column {column + 1}: {shown(cell)}"
            how = f"(read as {form.name}, {count(width, 'column')})"
            if value is None:
                step = "write it without separators of thousands" if THOUSANDS.match(cell) else "correct it"
                step = "put the comment on a line of its own" if "#" in cell else step
                raise FileError(f"{at} is not a number {how}: {step}.")
            if not np.isfinite(value):
                raise FileError(f"{at} is not finite {how}: replace it.")
            into[column - start] = value
    return values


def has_number(form: Form, cells: Sequence[str]) -> bool:
    """Whether any cell holds a number."""
    return any(form.value(cell) is not None for cell in cells)


def counts(cells: Sequence[str]) -> bool:
    """Whether cells count 0, 1, 2 … or 1, 2, 3 …

    >>> counts(["0", "1"]), counts(["1", "2"]), counts(["1", "0"]), counts(["0.0", "1.0"])
    (True, True, False, False)
    """
    width = len(cells)
    return width > 0 and [*cells] in ([*map(str, range(width))], [*map(str, range(1, width + 1))])


def shown(cell: str) -> str:
    """A cell in a message."""
    return repr(cell if len(cell) <= 40 else f"{cell[:39]}…")
