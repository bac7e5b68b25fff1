"""From what a user gives, a sentence or a file, to an explanation.

Decides which vectors and names go in; the numbers are worked out in steps.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from clearhead.errors import FileError, InputError
from clearhead.explain.steps import CAUSAL, Explanation, explain
from clearhead.explain.vectors import read_vectors
from clearhead.rules.masks import Mask
from clearhead.rules.scores import Score


def from_text(text: str, position: int | str = -1, *, mask: Mask = CAUSAL, score: Sequence[Score] = ()) -> Explanation:
    """Explain a sentence by the word vectors that ship with the package; "-" is standard input.

    >>> from_text("the river bank", "river").position
    1
    """
    from clearhead.words import load

    words = load()
    sentence = words.embed(from_standard_input() if text == "-" else text)
    return explain(
        sentence.x, sentence.tokens, position, mask=mask, score=score, nearest=words.nearest, notes=sentence.notes
    )


def from_file(path: Path, position: int | str = -1, *, mask: Mask = CAUSAL, score: Sequence[Score] = ()) -> Explanation:
    """Explain the vectors in a csv or npy file; every error names the file."""
    x, tokens = read_vectors(path)
    try:
        return explain(x, tokens, position, mask=mask, score=score)
    except InputError as error:
        raise type(error)(f"{path}: {error}") from error


def from_standard_input() -> str:
    """All of standard input as text."""
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise FileError("Standard input is not UTF-8 text: convert it first.") from error
