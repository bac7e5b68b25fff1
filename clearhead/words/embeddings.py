"""Word vectors from a file: the text format of GloVe, word2vec and fastText, or safetensors with a vocabulary.

Responsible for reading a file and scaling its vectors to lengths that give meaningful scores. Not for looking words
up, which is in `vectors`.
"""

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clearhead.errors import FileError, reason
from clearhead.words.vectors import TYPICAL_LENGTH, WordVectors

TENSOR_NAMES = ("vectors", "embeddings", "weight")  # looked for where a file has several two-dimensional tensors
VOCABULARY_FILES = ("vocabulary.txt", "vocab.txt")  # looked for in the folder of a file without a vocabulary
LONGEST_LINE = 1 << 20  # characters
MOST_DIGITS = 7  # of a vector size below LONGEST_LINE


def read_embeddings(path: Path) -> WordVectors:
    """Read the word vectors in a file, scaled by one factor so that their median length is √2.

    A text file has a line for each word: the word, then its numbers; a header of two whole numbers may come first. A
    safetensors file has a tensor (words, dim), and its vocabulary is in its metadata (`vocabulary`), in a file of the
    same name ending in .txt, or in vocabulary.txt in the same folder, one word per line. Raises FileError.
    """
    if not path.is_file():
        raise FileError(f"{path} is not there, or is not a file: check the path.")
    try:
        words, vectors, remarks = _from_safetensors(path) if path.suffix == ".safetensors" else _from_text(path)
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
    factor = TYPICAL_LENGTH / float(np.median(lengths[lengths > 0]))
    scaled = (vectors * factor).astype(np.float32)
    scaled.setflags(write=False)
    count, dim = scaled.shape
    remark = (
        f"Vectors: {path.name}, {count:,} words × {dim}, all multiplied by {factor:.4g} so that their median length "
        "is √2"
    )
    return WordVectors(words, scaled, remarks=(remark, *remarks, *_duplicates_note(words)))


def _duplicates_note(words: tuple[str, ...]) -> list[str]:
    """A remark on words that occur in the file more than once, if there are any."""
    seen, repeated = set[str](), list[str]()
    for word in words:
        if word in seen:
            repeated.append(word)
        seen.add(word)
    if not repeated:
        return []
    more = f" and {len(set(repeated)) - 1:,} more" if len(set(repeated)) > 1 else ""
    return [f"There is more than one line for “{repeated[0]}”{more}: the first is used"]


ParsedVectors = tuple[tuple[str, ...], npt.NDArray[np.float32], list[str]]  # words, vectors and remarks


def _from_text(path: Path) -> ParsedVectors:
    words, rows = list[str](), list[npt.NDArray[np.float32]]()
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        lines = _numbered_lines(path, iter(lambda: file.readline(LONGEST_LINE), ""))
        dim, first, declared = _vector_size(path, lines)
        for number, line in chain(first, lines):
            parts = line.split(" ")
            word = " ".join(parts[: len(parts) - dim])  # GloVe's largest file has words that contain spaces
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
    remarks = list[str]()
    if declared not in (None, len(words)):
        remarks.append(f"Its header announces {declared:,} words; the file has {len(words):,}")
    return tuple(words), np.stack(rows), remarks


def _numbered_lines(path: Path, read: Iterator[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(read, 1):
        if "\0" in line or len(line) == LONGEST_LINE:
            raise FileError(f"{path} is not a text of word vectors: give a GloVe, word2vec or fastText file as text.")
        if line.strip():
            yield number, line.rstrip().replace("\t", " ")


def _vector_size(path: Path, lines: Iterator[tuple[int, str]]) -> tuple[int, list[tuple[int, str]], int | None]:
    """How many numbers a vector has, the first line unless it is a header, and the count of words in the header."""
    first = next(lines, None)
    if first is None:
        raise FileError(f"{path} is empty: give a line for each word, the word and its numbers.")
    parts = first[1].split(" ")
    if len(parts) == 2 and all(part.isdecimal() for part in parts):
        if len(parts[1]) > MOST_DIGITS or not 0 < int(parts[1]) < LONGEST_LINE:
            size = parts[1][: MOST_DIGITS + 1]
            raise FileError(
                f"{path}, line {first[0]} announces vectors of {size} numbers: give 1 to {LONGEST_LINE - 1}."
            )
        return int(parts[1]), [], int(parts[0])
    if len(parts) < 2:
        raise FileError(f"{path}, line {first[0]} holds a word and no numbers: give its vector, separated by spaces.")
    return len(parts) - 1, [first], None


def _from_safetensors(path: Path) -> ParsedVectors:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            matrices = [name for name, shape in shapes.items() if len(shape) == 2 and 0 not in shape]
            named = [name for name in matrices if name in TENSOR_NAMES] or matrices
            if len(named) != 1:
                raise FileError(
                    f"{path} has {len(named)} tensors (words, dim): keep one, or name it {TENSOR_NAMES[0]}."
                )
            vectors = file.get_tensor(named[0])
    except (SafetensorError, TypeError) as error:
        raise FileError(
            f"{path} is not a safetensors file that can be read ({reason(error)}): write it again."
        ) from None
    if vectors.dtype.kind != "f":
        raise FileError(f"{path}: {named[0]} holds {vectors.dtype}: give floating-point numbers.")
    words = _vocabulary(path, metadata)
    if len(words) != len(vectors):
        raise FileError(f"{path} has {len(words)} words for {len(vectors)} vectors: give each vector one word.")
    remarks = [f"Of its {len(shapes)} tensors, {named[0]} is read"] if len(shapes) > 1 else []
    return words, vectors.astype(np.float32), remarks


def _vocabulary(path: Path, metadata: dict[str, str]) -> tuple[str, ...]:
    text = metadata.get("vocabulary")
    if text is None:
        candidates = (path.with_suffix(".txt"), *(path.with_name(name) for name in VOCABULARY_FILES))
        file = next((file for file in candidates if file.is_file()), None)
        if file is None:
            raise FileError(f"{path} has no vocabulary: put {path.stem}.txt next to it, one word per line.")
        text = file.read_text("utf-8", errors="replace")
    if text.lstrip().startswith("["):
        try:
            return tuple(map(str, json.loads(text)))
        except ValueError:
            raise FileError(f"{path} has a vocabulary that is not a valid JSON list: write it again.") from None
    return tuple(text.removesuffix("\n").split("\n"))
