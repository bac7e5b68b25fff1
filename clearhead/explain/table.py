"""Vectors written as lines of numbers, with any common separator.

Responsible for recognizing separators, headers, names and numbers:

- Cells are separated by tabs, semicolons, vertical bars, commas or blanks: the first of these that makes a table. If it
  is not the comma, numbers may have decimal commas.
- A first line without numbers is a header. So is one that counts 0, 1, 2 … under a heading of names, above names, or
  above numbers that are all written with decimal points. Any other line of numbers is a vector.
- A first column without numbers, or one whose heading is empty or a word such as word or index, holds names.
- A line that begins with # is a comment, and so is the rest of a line after a number, a blank and #.

Nothing is guessed silently: each decision that could have gone another way leaves a note.
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
NAME_HEADINGS = {"word", "token", "item", "name", "label", "index", "id"}  # of a first column of names
NUMBER_PATTERN = re.compile(
    r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|[+-]?(?:nan|inf(?:inity)?)", re.IGNORECASE
)
DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+(?:e[+-]?[0-9]+)?", re.IGNORECASE)
POINT_OR_EXPONENT = re.compile(r"[.e,]", re.IGNORECASE)  # distinguishes 1.0 and 1e0 from 1
LIKE_A_NUMBER = re.compile(r"[-+−.,'’_%\[\]\s]*\d[-+−.,'’_%\[\]\s\d]*")  # 1 000, 1.000,5 and [1
THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])")  # 1,234 and 1,234.5
TRAILING_COMMENT = re.compile(r"(?<=[\d.])[ \t]+(#.*)$")  # a comment at the end of a line
BLANK_CELL = re.compile(r'"(?:[^"]|"")*"(?=[ \t]|$)|[^ \t]+')

ParsedTable = tuple[npt.NDArray[np.float64], list[str] | None, tuple[str, ...]]


@dataclass(frozen=True)
class Line:
    """One line of a file, numbered from 1."""

    number: int
    text: str


@dataclass(frozen=True)
class Row:
    """The cells of one line, without the blanks around them."""

    number: int
    cells: list[str]


@dataclass(frozen=True)
class Form:
    """A format of lines: its name, the separator of cells, and the decimal point."""

    name: str
    separator: str
    decimal: str = "."

    def separates(self, line: Line) -> bool:
        """Whether a line contains the separator."""
        return self.separator in (line.text.strip() if self.separator == " " else line.text)

    def value(self, cell: str) -> float | None:
        """The number in a cell, or None.

        >>> Form("", ",").value("−1e3"), Form("", ";", ",").value("1,5"), Form("", ",").value("1_000")
        (-1000.0, 1.5, None)
        """
        cell = cell.replace("−", "-")
        if self.decimal == "," and DECIMAL_COMMA.fullmatch(cell):
            cell = cell.replace(",", ".")
        return float(cell) if NUMBER_PATTERN.fullmatch(cell) else None


FORMS = (
    Form("tab-separated", "\t"),
    Form("semicolon-separated", ";"),
    Form("separated by |", "|"),
    Form("comma-separated", ","),
    Form("space-separated", " "),
)
ONE_COLUMN = Form("one column", ",")


def read_table(path: Path, lines: Sequence[Line]) -> ParsedTable:
    """The vectors, names and notes in lines, by the first separator that makes a table; raises FileError."""
    content = [Line(line.number, TRAILING_COMMENT.sub("", line.text)) for line in lines if not is_comment(line)]
    trailing = [found[1] for line in lines if not is_comment(line) and (found := TRAILING_COMMENT.search(line.text))]
    if not content:
        raise FileError(f"{path} holds no vectors: write one line of numbers for each.")
    errors: list[tuple[int, FileError]] = []
    for form in [form for form in FORMS if any(map(form.separates, content))] or [ONE_COLUMN]:
        rows: list[Row] = []
        try:
            rows += bounded_rows(path, split_cells(path, form, content))
            x, names, notes = as_vectors(path, form, rows)
            width = x.shape[1] + (names is not None)
            left_out = [f"What follows # is left out, as {quoted_cell(trailing[0])}"] if trailing else []
            return x, names, (*notes, *left_out, *comment_notes(form, filter(is_comment, lines), width))
        except FileError as error:
            errors.append((len({len(row.cells) for row in rows}) or len(content), error))
    raise min(errors, key=lambda entry: entry[0])[1]  # that of the separator nearest to a table


def is_comment(line: Line) -> bool:
    """Whether a line is a comment; a # in quotes begins a name."""
    return line.text.lstrip().startswith("#")


def comment_notes(form: Form, comments: Iterable[Line], width: int) -> list[str]:
    """A note on comments that look like a named vector: as wide, with numbers after the first cell."""
    rows = [Row(line.number, line.text.split(None if form.separator == " " else form.separator)) for line in comments]
    like = [
        row for row in rows if len(row.cells) == width > 1 and all(form.value(c) is not None for c in row.cells[1:])
    ]
    if not like:
        return []
    more = f" (and {count(len(like) - 1, 'line')} more)" if len(like) > 1 else ""
    return [f"Line {like[0].number} begins with # and is taken as a comment{more}: a name with # needs quotes"]


def split_cells(path: Path, form: Form, lines: Sequence[Line]) -> Iterator[Row]:
    """The cells of each line."""
    return blank_cells(lines) if form.separator == " " else quoted_cells(path, form, lines)


def bounded_rows(path: Path, rows: Iterable[Row]) -> Iterator[Row]:
    """The rows; raises FileError once they are more than can be explained."""
    total = 0
    for at, row in enumerate(rows):
        total += len(row.cells)
        if at > MOST_VECTORS or total > MOST_NUMBERS:
            held = f"{MOST_VECTORS} vectors" if at > MOST_VECTORS else f"{MOST_NUMBERS} numbers"
            raise FileError(f"{path} holds more than {held}, the most that can be explained: keep some of its lines.")
        yield row


def blank_cells(lines: Sequence[Line]) -> Iterator[Row]:
    """Cells separated by any number of blanks; quotes hold a cell together."""
    for line in lines:
        cells = BLANK_CELL.findall(line.text)
        yield Row(line.number, [c[1:-1].replace('""', '"') if c[0] == c[-1] == '"' != c else c for c in cells])


def quoted_cells(path: Path, form: Form, lines: Sequence[Line]) -> Iterator[Row]:
    """Cells with the csv module's quoting."""
    framed = form.separator == "|"  # Markdown puts | at both ends and a rule under the header
    lines = [line for line in lines if not (framed and set(line.text) <= set("|-: "))]
    texts = (f"{line.text.strip().strip('|') if framed else line.text}\n" for line in lines)
    reader = csv.reader(texts, delimiter=form.separator, skipinitialspace=True, strict=True)
    try:
        for cells in reader:
            yield Row(lines[reader.line_num - 1].number, [cell.strip() for cell in cells])
    except csv.Error as error:
        at = lines[max(0, reader.line_num - 1)].number
        raise FileError(f"{path}, line {at} is not {form.name} ({reason(error)}): check its quotes.") from error


def as_vectors(path: Path, form: Form, rows: list[Row]) -> ParsedTable:
    """The vectors, names and notes of rows."""
    form, notes = with_decimal_commas(form, rows)
    rows = without_empty_ends(rows)
    if len(rows) > 1:
        rows = with_corner(form, rows)
    check_widths(path, form, rows)
    headed, more = has_header(form, rows)
    body = rows[headed:]
    if not body:
        raise FileError(f"{path} holds no vectors but a header: write one line of numbers for each.")
    named, about_names = has_names(path, form, rows[0] if headed else None, body)
    x = row_numbers(path, form, body, int(named))
    more = more or comma_notes(form, headed, named, body)
    return x, [row.cells[0] for row in body] if named else None, (*notes, *more, *about_names)


def comma_notes(form: Form, headed: bool, named: bool, body: Sequence[Row]) -> list[str]:
    """A note where every line, two whole numbers and a comma, could be one number with a decimal comma.

    Nobody writes 1 as 1,0, so a 0 after the comma shows that they are two numbers.
    """
    pairs = [row.cells for row in body]
    if form.separator != "," or headed or named or len(pairs) < 2 or not all(len(pair) == 2 for pair in pairs):
        return []
    if not all(re.fullmatch(r"[-+]?\d+", a) and re.fullmatch(r"\d*[1-9]", b) for a, b in pairs):
        return []
    a, b = pairs[0]
    return [f"{a},{b} is read as two numbers: if commas are decimal points, write {a}.{b}"]


def without_empty_ends(rows: Sequence[Row]) -> list[Row]:
    """Rows from the first to the last that is not empty: spreadsheets add empty ones."""
    filled = [at for at, row in enumerate(rows) if any(row.cells)]
    return [*rows[filled[0] : filled[-1] + 1]] if filled else []


def check_widths(path: Path, form: Form, rows: Sequence[Row]) -> None:
    """Raise FileError unless every row is as wide as the first."""
    if not rows or not rows[0].cells:
        raise FileError(f"{path} holds no vectors: write one line of numbers for each.")
    width = len(rows[0].cells)
    for row in rows:
        if len(row.cells) != width:
            widths = f"{count(len(row.cells), 'column')} and line {rows[0].number} has {width}"
            step = widths_step(form, row if len(row.cells) > width else rows[0])
            raise FileError(f"{path}, line {row.number} has {widths} (read as {form.name}): {step}.")


def widths_step(form: Form, longer: Row) -> str:
    """A step for lines of different widths, by the likely cause: separators of thousands, or quotes."""
    if form.separator == "," and (match := THOUSANDS.search(",".join(longer.cells))):
        return f"if {match[0]} is one number, write {match[0].replace(',', '')}; else give every line as many"
    if any(cell[:1] in ("'", "‘", "“") for cell in longer.cells):
        return 'put a name that holds a separator in double quotes, as "a, b"'
    return "give every line as many"


def with_decimal_commas(form: Form, rows: Sequence[Row]) -> tuple[Form, list[str]]:
    """The form with decimal commas, if cells have them, none has a decimal point, and commas are not separators."""
    if form.separator == ",":
        return form, []
    cells = [cell.replace("−", "-") for row in rows for cell in row.cells]
    commas = [cell for cell in cells if "," in cell and DECIMAL_COMMA.fullmatch(cell)]
    if not commas or any("." in cell and NUMBER_PATTERN.fullmatch(cell) for cell in cells):
        return form, []
    decimal = Form(f"{form.name} with decimal commas", form.separator, ",")
    return decimal, [f"Commas are taken as decimal points: {commas[0]} is {decimal.value(commas[0])!r}"]


def with_corner(form: Form, rows: list[Row]) -> list[Row]:
    """The rows, with an empty cell added to a header that has none above the names, as R and pandas print it."""
    first, rest = rows[0], rows[1:]
    if {len(row.cells) for row in rest} != {len(first.cells) + 1}:
        return rows
    begins = [row.cells[0] for row in rest]
    over_names = not any(form.value(cell) is not None for cell in begins)
    over_index = (
        len(first.cells) > 1 and counts_up(begins) and (counts_up(first.cells) or not has_number(form, first.cells))
    )
    return [Row(first.number, ["", *first.cells]), *rest] if over_names or over_index else rows


def has_header(form: Form, rows: Sequence[Row]) -> tuple[bool, list[str]]:
    """Whether the first row is a header, and notes on that decision."""
    first, body = rows[0], rows[1:]
    corner, others = first.cells[0], first.cells[1:]
    if not has_number(form, first.cells):
        return True, []
    if not body:
        return False, []
    names = not any(form.value(row.cells[0]) is not None for row in body)
    points = all(any(form.value(c) is not None and POINT_OR_EXPONENT.search(c) for c in row.cells) for row in body)
    if form.value(corner) is not None:
        return counting_row(first, points=points, names=names)
    if corner == "":
        headed = counts_up(others) or not names
        return headed, [] if headed else [f"Line {first.number} is read as a vector with an empty name"]
    if not counts_up(others) or not (points or corner.casefold() in NAME_HEADINGS):
        return False, []
    if corner.casefold() in NAME_HEADINGS and (points or len(others) > 1):
        return True, [f"Line {first.number}, {corner!r} and numbers that count, is taken as a header, not as a vector"]
    return False, [f"Line {first.number} is read as a vector named {quoted_cell(corner)}: if it is a header, delete it"]


def counting_row(first: Row, *, points: bool, names: bool) -> tuple[bool, list[str]]:
    """The decision for a first row of numbers: it is a header if it counts from 0 above decimal points or names."""
    width = len(first.cells)
    if not counts_up(first.cells) or (width == 1 and not points):
        return False, []
    what = f"Line {first.number} counts {first.cells[0]} to {first.cells[-1]}"
    if width > 1 and first.cells[0] == "0" and (points or names):
        above = "names" if names else "numbers with decimal points"
        return True, [f"{what} above {above} and is taken as a header" + ": 0.0 would make it a vector" * (not names)]
    return False, [f"{what} and is read as a vector: if it is a header, delete it"]


def has_names(path: Path, form: Form, header: Row | None, body: Sequence[Row]) -> tuple[bool, list[str]]:
    """Whether the first column holds names, and notes on that decision."""
    numeric = [form.value(row.cells[0]) is not None for row in body]
    heading = header.cells[0].casefold() if header else None
    if heading is not None and (heading == "" or heading in NAME_HEADINGS):
        said = f"Column 1 holds numbers and is taken as names, because line {header.number} heads it {heading!r}"  # type: ignore[union-attr]
        return True, [said] if heading and all(numeric) else []
    if len(set(numeric)) > 1:
        odd = next(row for row, is_number in zip(body, numeric, strict=True) if is_number != numeric[0])
        for row in (body[0], odd):
            if THOUSANDS.match(row.cells[0]):
                line = f"{path}, line {row.number} begins with {quoted_cell(row.cells[0])} (read as {form.name})"
                raise FileError(f"{line}: write numbers without separators of thousands.")
        raise FileError(
            f"{path}, line {odd.number} begins with {quoted_cell(odd.cells[0])} and line {body[0].number} with "
            f"{quoted_cell(body[0].cells[0])} (read as {form.name}): give numbers, or make them names by a first line "
            "that begins with 'word'."
        )
    begins = [row.cells[0] for row in body]
    if not numeric[0] and all(map(LIKE_A_NUMBER.fullmatch, begins)):
        raise FileError(
            f"{path}, line {body[0].number} begins with {quoted_cell(begins[0])}, which is not a number (read as "
            f"{form.name}): correct it, or make it a name by a first line that begins with 'word'."
        )
    others = [cell for row in body for cell in row.cells[1:]]
    if (
        numeric[0]
        and len(body) > 1
        and counts_up(begins)
        and others
        and all(POINT_OR_EXPONENT.search(c) for c in others)
    ):
        said = f"Column 1 counts {begins[0]} to {begins[-1]} and is read as numbers of the vectors"
        return False, [f"{said}: if it is an index, give it a header that begins with 'index'"]
    return not numeric[0], []


def row_numbers(path: Path, form: Form, body: Sequence[Row], start: int) -> npt.NDArray[np.float64]:
    """The numbers of each row from column `start` on; raises FileError for a cell that is not a finite number."""
    width = len(body[0].cells)
    if width == start:
        raise FileError(
            f"{path}, line {body[0].number} holds a name and no numbers (read as {form.name}): add its numbers."
        )
    values = np.empty((len(body), width - start))
    for row, into in zip(body, values, strict=True):
        for column in range(start, width):
            value, cell = form.value(row.cells[column]), row.cells[column]
            at = f"{path}, line {row.number}, column {column + 1}: {quoted_cell(cell)}"
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


def counts_up(cells: Sequence[str]) -> bool:
    """Whether cells count 0, 1, 2 … or 1, 2, 3 …

    >>> counts_up(["0", "1"]), counts_up(["1", "2"]), counts_up(["1", "0"]), counts_up(["0.0", "1.0"])
    (True, True, False, False)
    """
    width = len(cells)
    return width > 0 and [*cells] in ([*map(str, range(width))], [*map(str, range(1, width + 1))])


def quoted_cell(cell: str) -> str:
    """A cell as quoted in a message, cut to 40 characters."""
    return repr(cell if len(cell) <= 40 else f"{cell[:39]}…")
