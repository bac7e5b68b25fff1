"""Explanations from a user's input: a text or a file.

Responsible for the vectors and names that go in. Not for the numbers, which `steps` works out.
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from clearhead.errors import InputError
from clearhead.explain.matrices import read_qkv
from clearhead.explain.steps import Explanation, Origin, explain_vectors, position_index
from clearhead.explain.vectors import read_vectors
from clearhead.files.text import as_typed, read_text
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.masks import CAUSAL
from clearhead.rules.scores import Score
from clearhead.words import load, read_embeddings, split


def from_text(
    text: str,
    position: str = "-1",
    *,
    mask: Mask = CAUSAL,
    score: Sequence[Score] = (),
    embeddings: Path | None = None,
) -> Explanation:
    """Explain a text with the word vectors that ship with the package, or with those in a file.

    >>> from_text("the river bank", "river").position
    1
    """
    words = read_embeddings(embeddings) if embeddings else load()
    sentence = words.embed(text)
    at = item_position(position, sentence.tokens)
    origins = [Origin(found.how, found.sources) for found in sentence.found]
    found = sentence.found[at]
    return explain_vectors(
        sentence.x, sentence.tokens, at, mask=mask, score=score, origins=origins,
        nearest=partial(words.nearest, leave_out=(found.token, *found.sources)),
        notes=(*words.remarks, *sentence.notes),
    )  # fmt: skip


def from_words(words: Sequence[str], position: str = "-1", **options: Any) -> Explanation:
    """Explain the argument of the command: a text, the name of a file that holds one, or - for standard input."""
    if len(words) == 1 and Path(words[0]).suffix.lower() in (".npy", ".csv", ".tsv"):
        raise InputError(f"{words[0]} is the name of a file of vectors: give it as --vectors {words[0]}.")
    return from_text(read_text(words), position, **options)


def from_two_texts(
    text: str, other: str, position: str = "-1", *, mask: Mask | None = None, embeddings: Path | None = None
) -> Explanation:
    """Cross-attention: an item of `text` looks at the items of another text, at all of them unless a mask hides some.

    >>> e = from_two_texts("le chat", "the cat sat")
    >>> e.token, e.tokens, e.weights.shape
    ('chat', ('the', 'cat', 'sat'), (3,))
    """
    words = read_embeddings(embeddings) if embeddings else load()
    asking, looked_at = words.embed(text), words.embed(other)
    notes = dict.fromkeys((*words.remarks, *asking.notes, *looked_at.notes))
    return explain_vectors(
        asking.x, asking.tokens, item_position(position, asking.tokens), keys=looked_at.x, values=looked_at.x,
        key_tokens=looked_at.tokens, scale=1.0, mask=mask, notes=tuple(notes),
        origins=[Origin(found.how, found.sources) for found in looked_at.found],
    )  # fmt: skip


def from_qkv(path: Path, position: str = "-1", *, mask: Mask | None = None, score: Sequence[Score] = ()) -> Explanation:
    """Explain queries, keys and values from a .npz or .safetensors file, with scale 1/√d; errors name the file."""
    q, k, v = read_qkv(path)
    names = [f"q{j}" for j in range(len(q))]
    try:
        return explain_vectors(q, names, item_position(position, names), keys=k, values=v, mask=mask, score=score)
    except InputError as error:
        raise type(error)(f"{path}: {error}") from error


def from_file(path: Path, position: str = "-1", *, mask: Mask = CAUSAL, score: Sequence[Score] = ()) -> Explanation:
    """Explain the vectors in a file; errors name the file."""
    read = read_vectors(path)
    names = [f"x{j}" for j in range(len(read.x))] if read.names is None else read.names
    try:
        return explain_vectors(read.x, names, item_position(position, names), mask=mask, score=score, notes=read.notes)
    except InputError as error:
        raise type(error)(f"{path}: {error}") from error


def item_position(position: str, names: Sequence[str]) -> int:
    """The index of an item, given as an index from either end, as a name, or as a text that splits into that name.

    >>> item_position("-1", ["a", "rose"]), item_position("Rose!", ["a", "rose"]), item_position("1984", ["in", "1984"])
    (1, 1, 1)
    """
    position = as_typed(position)
    number = re.fullmatch(r"-?\d{1,18}", position)
    if number and (-len(names) <= int(position) < len(names) or position not in names):
        return position_index(int(position), names)
    if position.casefold() not in {name.casefold() for name in names}:
        alone = split(position).tokens
        position = alone[0] if len(alone) == 1 and alone[0] in names else position
    return position_index(position, names)
