"""Vectors from a file: .npy, or text in .csv, .tsv and .txt.

Responsible for which files are opened and how much of them is read; a file without vectors raises FileError. Not for
parsing text, which `table` and `brackets` do, nor for what can be explained, which `steps` checks.
"""

import io
import math
import re
import stat
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clearhead.errors import FileError
from clearhead.explain.brackets import read_brackets
from clearhead.explain.table import MOST_NUMBERS, MOST_VECTORS, Line, read_table

MOST_TEXT = 1 << 28  # bytes
MOST_HEADER = 1 << 14  # bytes; numpy accepts no longer .npy header
LONGEST_LINE = 1 << 22  # characters
MOST_LINES = 1 << 18
SIZE_ADVICE = f"keep at most {MOST_VECTORS} vectors and {MOST_NUMBERS} numbers"

SIGNATURES = {
    b"\xff\xfe\x00\x00": "is UTF-32 text: save it as UTF-8.",
    b"\x00\x00\xfe\xff": "is UTF-32 text: save it as UTF-8.",
    b"\xff\xfe": "is UTF-16 text: save it as UTF-8.",
    b"\xfe\xff": "is UTF-16 text: save it as UTF-8.",
    b"\x93NUMPY": "is what numpy.save writes: name it .npy.",
    b"PK\x03\x04": "is a zip archive, as spreadsheets are: save the sheet as csv.",
}  # first bytes of files whose contents do not match their names


@dataclass(frozen=True, eq=False)
class VectorsFile:
    """The vectors in a file, their names if it has any, and notes on how its lines were read."""

    x: npt.NDArray[np.float64]  # (n, d)
    names: list[str] | None
    notes: tuple[str, ...] = ()  # one sentence each


def read_vectors(path: Path) -> VectorsFile:
    """Read the vectors in a .csv, .tsv, .txt or .npy file, one per row, with their names if it has any.

    Text is separated by commas, tabs, semicolons or spaces, or is an array as numpy prints it. A header, a first column
    of names, decimal commas and # comments are recognized; where two readings are possible, the notes say which was
    taken (see `table`). Raises FileError, which names the file and the line.

    >>> path = getfixture("tmp_path") / "x.csv"
    >>> _ = path.write_text("word,a,b\\nthe,1,0\\nriver,0,2\\n")
    >>> read = read_vectors(path)
    >>> read.x.tolist(), read.names, read.notes
    ([[1.0, 0.0], [0.0, 2.0]], ['the', 'river'], ())
    """
    reader = {".npy": read_npy, ".csv": read_text_vectors, ".tsv": read_text_vectors, ".txt": read_text_vectors}.get(
        path.suffix.lower()
    )
    if reader is None:
        raise FileError(f"{path} is not .csv, .tsv, .txt or .npy: save the vectors as one of them, one per row.")
    try:
        check_regular(path)
        return reader(path)
    except FileError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        reason = getattr(error, "strerror", None) or error
        raise FileError(f"{path} cannot be read ({reason}): check the path and its permissions.") from error


def check_regular(path: Path) -> None:
    """Raise FileError for folders, and for pipes and devices, which may never end."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        what = "a folder: name a file in it" if stat.S_ISDIR(mode) else "not a regular file: write the vectors to one"
        raise FileError(f"{path} is {what}.")


def read_npy(path: Path) -> VectorsFile:
    """The array in a .npy file; its data is read only if its header is valid and fits the file's size."""
    with path.open("rb") as file:
        head = io.BytesIO(file.read(MOST_HEADER))
    if head.getvalue().startswith(b"PK"):
        raise FileError(f"{path} holds several arrays, as numpy.savez writes them: save one with numpy.save.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parse = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
                (3, 0): np.lib.format.read_array_header_2_0,
            }
            shape, fortran, dtype = parse[np.lib.format.read_magic(head)](head)
            count = math.prod(shape)
            if any(type(n) is not int or n < 0 for n in shape):  # numpy's parser accepts True as a size
                raise ValueError("its shape is invalid")
            if head.tell() + count * dtype.itemsize > path.stat().st_size:
                raise EOFError("it is shorter than its header says")
    except OSError:
        raise
    except Exception as error:  # numpy's parser raises many types for damaged bytes
        raise FileError(f"{path} is not a complete .npy file of numbers: write it again with numpy.save.") from error
    if dtype.kind not in "fiu":
        raise FileError(f"{path} holds {str(dtype)[:60]} and not real numbers: save x.astype(float).")
    if len(shape) != 2 or not count:
        raise FileError(f"{path} holds an array of shape {shape}: save one of shape (n, d), one vector per row.")
    if shape[0] > MOST_VECTORS or count > MOST_NUMBERS:
        raise FileError(f"{path} holds {shape[0]} vectors of {shape[1]} numbers: {SIZE_ADVICE}.")
    x = np.fromfile(path, dtype, count, offset=head.tell()).reshape(shape, order="F" if fortran else "C")
    return VectorsFile(np.array(x, dtype=np.float64, order="C"), None)


def read_text_vectors(path: Path) -> VectorsFile:
    """The vectors in a text file."""
    lines = list(text_lines(path))
    if not lines:
        raise FileError(f"{path} holds no vectors: write one line of numbers for each.")
    return VectorsFile(*(read_brackets(path, lines) or read_table(path, lines)))


def text_lines(path: Path) -> Iterator[Line]:
    """Every line that is not blank, without its line ending."""
    with path.open("rb") as file:
        first = file.read(8)
    for signature, said in SIGNATURES.items():
        if first.startswith(signature):
            raise FileError(f"{path} {said}")
    if (size := path.stat().st_size) > MOST_TEXT:
        raise FileError(f"{path} is {size >> 20} MiB of text: {SIZE_ADVICE}, or save them with numpy.save.")
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for number in range(1, MOST_LINES + 1):
            line = file.readline(LONGEST_LINE + 1)
            if not line:
                return
            if len(line) > LONGEST_LINE:
                raise FileError(f"{path}, line {number} is longer than any vector: write one line for each.")
            if "\0" in line:
                raise FileError(f"{path}, line {number} holds a NUL byte and is not UTF-8 text: save it as UTF-8.")
            if not line.isascii() and re.search("[\udc80-\udcff]", line):
                raise FileError(f"{path}, line {number} is not UTF-8 text: save it as UTF-8, or as .npy.")
            if line.strip():
                yield Line(number, line.rstrip("\n"))
    raise FileError(f"{path} has more than {MOST_LINES} lines: {SIZE_ADVICE}, or save them with numpy.save.")
