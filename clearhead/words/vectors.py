"""The word vectors that ship with clearhead, and how a sentence becomes a matrix of them.

Decides what counts as a word and which vector stands for it; forms.py decides under which other spellings a
word may be sought. README.md tells how the vectors were trained.
"""

import difflib
import functools
import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib import resources
from itertools import islice
from typing import Literal

import numpy as np
import numpy.typing as npt

from clearhead.errors import InputError, ShapeError
from clearhead.words import forms

How = Literal["known", "number", "accent", "inflection"]

NUMBER = "#"  # the vocabulary's entry for every number
_SHOWN = 5  # unknown words that an error names; the rest it counts


@dataclass(frozen=True, eq=False)
class Found:
    """What stands for a token: the float64 `vector` (dim,) of the word `source`, and `how` that was found."""

    token: str
    vector: npt.NDArray[np.float64]
    how: How
    source: str

    @property
    def note(self) -> str | None:
        """What a reader must know about this vector, or None where the vocabulary has the very word."""
        if self.how == "known":
            return None
        if self.how == "number":
            return f"“{self.token}” is a number; all numbers share one vector"
        other = f"“{self.source}”, without accents," if self.how == "accent" else f"its other form “{self.source}”"
        return f"“{self.token}” is not in the vocabulary; {other} stands for it"


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
        """One remark for each word whose vector is not its very own, however often it occurs."""
        return tuple(dict.fromkeys(found.note for found in self.found if found.note))


@dataclass(frozen=True, eq=False)
class WordVectors:
    """A vocabulary and its vectors: `words`, most frequent first, and `vectors` (words, dim) in float32."""

    words: tuple[str, ...]
    vectors: npt.NDArray[np.float32]

    @staticmethod
    def tokens(text: str) -> list[str]:
        """The words of a text in lower case, without punctuation; hyphens part words, inner apostrophes stay.

        >>> WordVectors.tokens("The whale-ship didn’t sink, in 1,820 fathoms!")
        ['the', 'whale', 'ship', "didn't", 'sink', 'in', '1820', 'fathoms']
        """
        text = unicodedata.normalize("NFKC", text).lower()
        text = re.sub("[‘’ʼ`]", "'", text)
        text = re.sub(r"(?<=\d)[.,](?=\d)", "", text)
        text = "".join(c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in text)
        return [word for part in text.split() if (word := part.strip("'"))]

    def look_up(self, token: str) -> Found:
        """The vector that stands for one token.

        Raises InputError for a word that no word of the vocabulary honestly stands for.

        >>> found = load().look_up("flooded")
        >>> found.how, found.source, found.vector.shape
        ('inflection', 'flood', (64,))
        """
        for how, source in _readings(token):
            if source in self._index:
                return Found(token, self.vectors[self._index[source]].astype(np.float64), how, source)
        raise self._unknown([token])

    def embed(self, text: str) -> Sentence:
        """A text's words as a matrix, one row a word, with notes on the words that are not known exactly.

        Raises InputError for a text without words, and one that names the unknown words, all at once.

        >>> sentence = load().embed("The river had flooded.")
        >>> sentence.tokens, sentence.x.shape
        (('the', 'river', 'had', 'flooded'), (4, 64))
        >>> sentence.notes
        ('“flooded” is not in the vocabulary; its other form “flood” stands for it',)
        """
        tokens = self.tokens(text)
        if not tokens:
            raise InputError(f"There is no word in {text!r}. Give a text of at least one word.")
        known = {token: any(source in self._index for _, source in _readings(token)) for token in tokens}
        if missing := [token for token in known if not known[token]]:
            raise self._unknown(missing)
        found = tuple(self.look_up(token) for token in tokens)
        return Sentence(found, np.stack([each.vector for each in found]))

    def nearest(
        self, vector: npt.NDArray[np.floating], count: int = 5, exclude: Collection[str] = ()
    ) -> list[tuple[str, float]]:
        """The `count` words whose vectors point most nearly where `vector` (dim,) does, with their cosines.

        Raises ShapeError for another shape, InputError for a vector without a direction.

        >>> [word for word, _ in load().nearest(load().look_up("bread").vector, 3, exclude=["bread"])]
        ['eat', 'drink', 'unleavened']
        """
        dim = self.vectors.shape[1]
        if vector.shape != (dim,):
            raise ShapeError(f"A vector of shape {vector.shape} is no word's. Give one of shape ({dim},).")
        length = np.linalg.norm(vector)
        if not 0 < length < np.inf:
            raise InputError(f"A vector of length {length} has no direction. Give one that is finite and not zero.")
        cosine = self._unit @ (vector / length)  # (words, dim) @ (dim,) -> (words,)
        order = (int(i) for i in np.argsort(-cosine, kind="stable") if self.words[i] not in exclude)
        return [(self.words[i], float(cosine[i])) for i in islice(order, count)]

    @functools.cached_property
    def _index(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    @functools.cached_property
    def _unit(self) -> npt.NDArray[np.float64]:
        x = self.vectors.astype(np.float64)
        unit: npt.NDArray[np.float64] = x / np.linalg.norm(x, axis=1, keepdims=True)
        return unit

    def _unknown(self, tokens: list[str]) -> InputError:
        named = []
        for token in tokens[:_SHOWN]:
            close = ", ".join(difflib.get_close_matches(token, self.words))
            named.append(f"“{token}”" + (f" (nearest in spelling: {close})" if close else ""))
        if len(tokens) > _SHOWN:
            named.append(f"{len(tokens) - _SHOWN} more")
        return InputError(
            f"The vocabulary of {len(self.words)} words lacks {', '.join(named)}. "
            "Use other words, or --vectors FILE for vectors of your own."
        )


@functools.cache
def load() -> WordVectors:
    """The vectors that ship with the package, read once and read-only.

    >>> words = load()
    >>> len(words.words) == len(words.vectors), words.vectors.dtype
    (True, dtype('float32'))
    """
    from safetensors.numpy import load as read

    here = resources.files(__package__)
    words = tuple(here.joinpath("vocabulary.txt").read_text("utf-8").split())
    vectors = read(here.joinpath("words.safetensors").read_bytes())["vectors"].astype(np.float32)
    vectors.setflags(write=False)
    return WordVectors(words, vectors)


def _readings(token: str) -> Iterator[tuple[How, str]]:
    """The vocabulary words a token may be sought under, the most faithful first."""
    yield "known", token
    if token[:1].isdecimal():
        yield "number", NUMBER
    plain = forms.unaccented(token)
    yield "accent", plain
    for form in forms.inflections(plain):
        yield "inflection", form
