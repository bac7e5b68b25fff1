"""Vectors from a file: csv (a header and a column of names are optional) or npy.

Decides which files hold vectors and names the line of what is wrong; what can be explained is left to steps.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clearhead.errors import FileError, InputError

NAME_HEADINGS = {
    "",
    "word",
    "token",
    "item",
    "name",
    "label",
}  # a first column under one of these holds names


@dataclass(frozen=True)
class Line:
    """One line of a csv file that is not blank."""

    number: int  # from 1, as editors count
    cells: list[str]


def read_vectors(path: Path) -> tuple[npt.NDArray[np.generic], list[str] | None]:
    """The vectors (n, d) in a .csv or .npy file, and their names if it has any.

    In csv a first line without any number is a header, and a first column without any is the names; a header
    that begins with `word`, or with nothing, makes names of numbers too. Errors name file and line.
    """
    readers = {".npy": read_npy, ".csv": read_csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise FileError(f"{path} is neither .csv nor .npy: save the vectors as one of them, one row each.")
    try:
        return reader(path)
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror or error}): check the path.") from error


def read_npy(path: Path) -> tuple[npt.NDArray[np.generic], None]:
    """The array in a .npy file, mapped, so that a file far too large costs nothing to refuse."""
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise FileError(f"{path} is no whole .npy file of numbers: write it again with numpy.save.") from error
    if not isinstance(loaded, np.ndarray):
        raise FileError(f"{path} holds several arrays: save one with numpy.save.")
    return loaded, None


def read_csv(path: Path) -> tuple[npt.NDArray[np.float64], list[str] | None]:
    """The rows of a .csv file, every one as wide as the first."""
    lines = csv_lines(path)
    header = bool(lines) and (lines[0].cells[0] == "" or not any(is_number(cell) for cell in lines[0].cells))
    body = lines[header:]
    if not body:
        raise FileError(f"{path} holds no vectors: write one line of numbers per item.")
    for line in lines:
        if len(line.cells) != len(lines[0].cells):
            raise FileError(
                f"{path}, line {line.number} has {len(line.cells)} columns and line {lines[0].number} has "
                f"{len(lines[0].cells)}: give every line as many."
            )
    named = has_names(path, lines[0] if header else None, body)
    vectors = [[number(path, line, column) for column in range(named, len(line.cells))] for line in body]
    if not vectors[0]:
        raise FileError(f"{path}, line {body[0].number} holds a name and no numbers: add the vector's numbers.")
    return np.array(vectors, dtype=np.float64), [line.cells[0] for line in body] if named else None


def csv_lines(path: Path) -> list[Line]:
    """Every line that is not blank, its cells without the blanks around them."""
    lines = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            for row in reader:
                cells = [cell.strip() for cell in row]
                if any(cells):
                    lines.append(Line(reader.line_num, cells))
        except csv.Error as error:
            raise FileError(f"{path}, line {reader.line_num} is not csv ({error}): check its quotes.") from error
        except UnicodeDecodeError as error:
            raise FileError(f"{path} is not UTF-8 text: save it as UTF-8, or as .npy.") from error
    return lines


def has_names(path: Path, header: Line | None, body: list[Line]) -> bool:
    """Whether the first column holds names; one of both names and numbers is ambiguous without a header."""
    if header and header.cells[0].lower() in NAME_HEADINGS:
        return True
    odd = [line for line in body if is_number(line.cells[0]) != is_number(body[0].cells[0])]
    if odd:
        raise InputError(
            f"{path}, line {odd[0].number} begins with {odd[0].cells[0]!r} and line {body[0].number} with "
            f"{body[0].cells[0]!r}: give numbers, or make them names by a header that begins with 'word'."
        )
    return not is_number(body[0].cells[0])


def is_number(cell: str) -> bool:
    """Whether a cell reads as a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def number(path: Path, line: Line, column: int) -> float:
    """The finite number in a cell."""
    cell = line.cells[column]
    if not is_number(cell):
        raise InputError(f"{path}, line {line.number}, column {column + 1}: {cell!r} is not a number: correct it.")
    if not np.isfinite(float(cell)):
        raise InputError(f"{path}, line {line.number}, column {column + 1}: {cell} is not finite: replace it.")
    return float(cell)
