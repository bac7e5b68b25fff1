"""The word vectors that ship with clearhead, and how a sentence becomes a matrix of them.

Decides what counts as a word and which vectors stand for it. Which other spellings a word may be read as is decided
in forms.py; how the vectors were trained is told in README.md beside this file and done by scripts/train_words.py.
"""

import difflib
import functools
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal

import numpy as np
import numpy.typing as npt

from clearhead.errors import InputError, ShapeError
from clearhead.words import forms

Vector = npt.NDArray[np.floating]
How = Literal["known", "number", "accent", "inflection", "compound"]

NUMBER = "#"  # the vocabulary's entry for every number


@dataclass(frozen=True, eq=False)
class Found:
    """Where a token's vector comes from: `source` names the vocabulary words, `vector` (dim,) is their mean."""

    token: str
    vector: npt.NDArray[np.float64]
    how: How
    source: tuple[str, ...]

    @property
    def note(self) -> str | None:
        """What a reader must know about this token, or None where the vocabulary has the very word."""
        match self.how:
            case "known":
                return None
            case "number":
                return f"“{self.token}” is taken as a number: all numbers share one vector"
            case "compound":
                return f"“{self.token}” is not in the vocabulary: taken as the mean of {_quoted(self.source)}"
            case _:
                return f"“{self.token}” is not in the vocabulary: taken as {_quoted(self.source)} ({self.how})"


@dataclass(frozen=True, eq=False)
class Sentence:
    """A text as self-attention takes it: `x` (tokens, dim) in float64, one row for each of `found`."""

    found: tuple[Found, ...]
    x: npt.NDArray[np.float64]

    @property
    def tokens(self) -> tuple[str, ...]:
        """The words, in order."""
        return tuple(found.token for found in self.found)

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for each word, told once, whose vector is not its own."""
        return tuple(dict.fromkeys(found.note for found in self.found if found.note))


@dataclass(frozen=True, eq=False)
class WordVectors:
    """A vocabulary and its vectors: `words`, most frequent first, and `vectors` (words, dim) in float32."""

    words: tuple[str, ...]
    vectors: npt.NDArray[np.float32]

    @staticmethod
    def tokens(text: str) -> list[str]:
        """The words of a text: lower-case, no punctuation; hyphens part words, apostrophes inside them stay.

        >>> WordVectors.tokens("The whale-ship didn’t sink, in 1,820 fathoms!")
        ['the', 'whale', 'ship', "didn't", 'sink', 'in', '1820', 'fathoms']
        """
        text = unicodedata.normalize("NFKC", text).lower()
        text = re.sub("[‘’ʼ`]", "'", text)
        text = re.sub(r"(?<=\d)[.,](?=\d)", "", text)
        text = "".join(c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in text)
        return [word for part in text.split() if (word := part.strip("'"))]

    def look_up(self, token: str) -> Found:
        """The vector that stands for one token, and how it was found.

        Raises InputError for a word that nothing in the vocabulary honestly stands for.

        >>> found = load().look_up("riverbanks")
        >>> found.how, found.source
        ('compound', ('river', 'banks'))
        """
        found = self._find(token)
        if found is None:
            raise self._unknown([token])
        return found

    def embed(self, text: str) -> Sentence:
        """A text's words as a matrix, one row a word, with notes on the words that are not known exactly.

        Raises InputError for a text without words, and one that names every unknown word.

        >>> sentence = load().embed("The river had flooded.")
        >>> sentence.tokens, sentence.x.shape
        (('the', 'river', 'had', 'flooded'), (4, 64))
        """
        tokens = self.tokens(text)
        if not tokens:
            raise InputError(f"There is no word in {text!r}. Give a sentence of at least one word.")
        found = {token: self._find(token) for token in tokens}
        if missing := [token for token, there in found.items() if there is None]:
            raise self._unknown(missing)
        row = tuple(there for token in tokens if (there := found[token]) is not None)
        return Sentence(row, np.stack([there.vector for there in row]))

    def nearest(self, vector: Vector, count: int = 5, exclude: Collection[str] = ()) -> list[tuple[str, float]]:
        """The `count` words whose vectors point most nearly the same way as `vector` (dim,), with their cosines.

        >>> [word for word, _ in load().nearest(load().look_up("river").vector, 2, exclude=["river"])]
        ['mississippi', 'rivers']
        """
        dim = self.vectors.shape[1]
        if vector.shape != (dim,):
            raise ShapeError(f"The vector has shape {vector.shape}, the words have ({dim},). Give one vector of {dim}.")
        length = np.linalg.norm(vector)
        if not 0 < length < np.inf:
            raise InputError(f"A vector of length {length} points nowhere. Give one with a direction.")
        cosine = self._unit @ (vector / length)  # (words, dim) @ (dim,) -> (words,)
        order = (int(i) for i in np.argsort(-cosine, kind="stable") if self.words[i] not in exclude)
        return [(self.words[i], float(cosine[i])) for i, _ in zip(order, range(count), strict=False)]

    @functools.cached_property
    def _index(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    @functools.cached_property
    def _unit(self) -> npt.NDArray[np.float64]:
        x = self.vectors.astype(np.float64)
        unit: npt.NDArray[np.float64] = x / np.linalg.norm(x, axis=1, keepdims=True)
        return unit

    def _find(self, token: str) -> Found | None:
        for how, source in self._readings(token):
            if all(word in self._index for word in source):
                rows = self.vectors[[self._index[word] for word in source]]
                return Found(token, rows.astype(np.float64).mean(axis=0), how, source)
        return None

    def _readings(self, token: str) -> Iterator[tuple[How, tuple[str, ...]]]:
        yield "known", (token,)
        if token[:1].isdecimal():
            yield "number", (NUMBER,)
        plain = forms.unaccented(token)
        yield "accent", (plain,)
        yield from (("inflection", (word,)) for word in forms.inflections(plain))
        yield from (("compound", pair) for pair in forms.halves(plain))

    def _unknown(self, tokens: list[str]) -> InputError:
        close = [word for token in tokens for word in difflib.get_close_matches(token, self.words, n=3)]
        hint = f" (closest in spelling: {', '.join(dict.fromkeys(close))})" if close else ""
        verb = "is" if len(tokens) == 1 else "are"
        return InputError(
            f"{_quoted(tokens)} {verb} not among the {len(self.words)} words that ship with clearhead{hint}. "
            "Use other words, or --vectors FILE for your own vectors."
        )


@functools.cache
def load() -> WordVectors:
    """The vectors that ship with the package, read once; they are read-only.

    >>> load().vectors.shape[0] == len(load().words)
    True
    """
    from safetensors.numpy import load as read

    here = resources.files("clearhead.words")
    words = tuple(here.joinpath("vocabulary.txt").read_text("utf-8").split())
    vectors = read(here.joinpath("words.safetensors").read_bytes())["vectors"].astype(np.float32)
    vectors.setflags(write=False)
    return WordVectors(words, vectors)


def _quoted(words: Sequence[str]) -> str:
    return " and ".join(f"“{word}”" for word in words)
