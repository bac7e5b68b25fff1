"""Word vectors from a file: GloVe's, word2vec's and fastText's text format, or safetensors with a vocabulary.

Decides how a file is read and brought to a length at which a score tells something; looking words up is left to
`vectors`.
"""

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clearhead.errors import FileError, reason
from clearhead.words.vectors import LENGTH, WordVectors

NAMES = ("vectors", "embeddings", "weight")  # of the tensor, where a file has several of two axes
VOCABULARIES = ("vocabulary.txt", "vocab.txt")  # beside a file that does not hold its own
LONGEST_LINE = 1 << 20  # characters
MOST_DIGITS = 7  # of a number below that
Matrix = npt.NDArray[np.float32]


def read_embeddings(path: Path) -> WordVectors:
    """The word vectors in a file, scaled by one factor so that their median length is √2.

    A text file has a line for each word, the word first and then its numbers; a line of two whole numbers may stand at
    its head. A safetensors file has a tensor (words, dim) and its vocabulary in its metadata (`vocabulary`), in a file
    of the same name that ends in .txt, or in vocabulary.txt beside it, a word a line. Raises FileError.
    """
    if not path.is_file():
        raise FileError(f"{path} is not there, or no file: check the path.")
    try:
        words, vectors, told = _from_safetensors(path) if path.suffix == ".safetensors" else _from_text(path)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path} cannot be read ({error.strerror or error}): check the path.") from None
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise FileError(f"{path}: the vector of “{words[row][:40]}” is not finite: replace it.")
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if not lengths.any():
        raise FileError(f"{path}: all vectors are zero: give vectors that were trained.")
    factor = LENGTH / float(np.median(lengths[lengths > 0]))
    scaled = (vectors * factor).astype(np.float32)
    scaled.setflags(write=False)
    count, dim = scaled.shape
    remark = f"Vectors: {path.name}, {count:,} words × {dim}, all times {factor:.4g}, so that their median length is √2"
    return WordVectors(words, scaled, remarks=(remark, *told, *_twice(words)))


def _twice(words: tuple[str, ...]) -> list[str]:
    """What must be said of words that stand in the file more than once."""
    seen, again = set[str](), list[str]()
    for word in words:
        if word in seen:
            again.append(word)
        seen.add(word)
    if not again:
        return []
    more = f" and {len(set(again)) - 1:,} more" if len(set(again)) > 1 else ""
    return [f"More than one line is there for “{again[0]}”{more}: the first is used"]


Held = tuple[tuple[str, ...], Matrix, list[str]]


def _from_text(path: Path) -> Held:
    words, rows = list[str](), list[npt.NDArray[np.float32]]()
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        lines = _lines(path, iter(lambda: file.readline(LONGEST_LINE), ""))
        dim, first, told = _dim(path, lines)
        for number, line in chain(first, lines):
            parts = line.split(" ")
            word = " ".join(parts[: len(parts) - dim])  # GloVe's largest file has words of several parts
            try:
                row = np.array(parts[len(parts) - dim :], np.float32)
            except ValueError:
                row = np.empty(0, np.float32)
            if len(row) != dim or not word:
                raise FileError(
                    f"{path}, line {number} is not a word and {dim} numbers, separated by spaces: give a GloVe, "
                    "word2vec or fastText file as text, not binary."
                )
            words.append(word)
            rows.append(row)
    if not rows:
        raise FileError(f"{path} holds no vectors: give a line for each word, the word and its numbers.")
    head = [f"Its head tells of {told:,} words; {len(words):,} are there"] if told not in (None, len(words)) else []
    return tuple(words), np.stack(rows), head


def _lines(path: Path, read: Iterator[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(read, 1):
        if "\0" in line or len(line) == LONGEST_LINE:
            raise FileError(f"{path} is not a text of word vectors: give a GloVe, word2vec or fastText file as text.")
        if line.strip():
            yield number, line.rstrip().replace("\t", " ")


def _dim(path: Path, lines: Iterator[tuple[int, str]]) -> tuple[int, list[tuple[int, str]], int | None]:
    """How many numbers a line has, and the line that was read to see it; or how many words it tells of."""
    first = next(lines, None)
    if first is None:
        raise FileError(f"{path} is empty: give a line for each word, the word and its numbers.")
    parts = first[1].split(" ")
    if len(parts) == 2 and all(part.isdecimal() for part in parts):
        if len(parts[1]) > MOST_DIGITS or not 0 < int(parts[1]) < LONGEST_LINE:
            told = parts[1][: MOST_DIGITS + 1]
            raise FileError(
                f"{path}, line {first[0]} tells of vectors of {told} numbers: give 1 to {LONGEST_LINE - 1}."
            )
        return int(parts[1]), [], int(parts[0])
    if len(parts) < 2:
        raise FileError(f"{path}, line {first[0]} holds a word and no numbers: give its vector, separated by spaces.")
    return len(parts) - 1, [first], None


def _from_safetensors(path: Path) -> Held:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            about = file.metadata() or {}
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            square = [name for name, shape in shapes.items() if len(shape) == 2 and 0 not in shape]
            named = [name for name in square if name in NAMES] or square
            if len(named) != 1:
                raise FileError(f"{path} has {len(named)} tensors (words, dim): keep one, or name it {NAMES[0]}.")
            held = file.get_tensor(named[0])
    except (SafetensorError, TypeError) as error:
        raise FileError(
            f"{path} is not a safetensors file that can be read ({reason(error)}): write it again."
        ) from None
    if held.dtype.kind != "f":
        raise FileError(f"{path}: {named[0]} holds {held.dtype}: give floating-point numbers.")
    words = _vocabulary(path, about)
    if len(words) != len(held):
        raise FileError(f"{path}: {len(words)} words for {len(held)} vectors: give each vector one word.")
    others = [f"Of its {len(shapes)} tensors, {named[0]} is read"] if len(shapes) > 1 else []
    return words, held.astype(np.float32), others


def _vocabulary(path: Path, about: dict[str, str]) -> tuple[str, ...]:
    told = about.get("vocabulary")
    if told is None:
        beside = (path.with_suffix(".txt"), *(path.with_name(name) for name in VOCABULARIES))
        file = next((file for file in beside if file.is_file()), None)
        if file is None:
            raise FileError(f"{path} holds no vocabulary: put {path.stem}.txt beside it, a word a line.")
        told = file.read_text("utf-8", errors="replace")
    if told.lstrip().startswith("["):
        try:
            return tuple(map(str, json.loads(told)))
        except ValueError:
            raise FileError(f"{path}: its vocabulary is no JSON list: write it again.") from None
    return tuple(told.removesuffix("\n").split("\n"))
