"""The word vectors that ship with clearhead, and the matrix of vectors for a sentence.

Responsible for the choice of an item's vector, and for the notes that tell a reader about it. Not for the items
(tokens.py), the spellings of a word (forms.py) or the pieces of an unknown one (pieces.py). README.md describes how the
vectors were trained.
"""

import functools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal

import numpy as np
import numpy.typing as npt

from clearhead.errors import InputError, ShapeError
from clearhead.once import cached_property
from clearhead.words import forms, pieces, tokens

Vectors = npt.NDArray[np.float64]
How = Literal["known", "number", "accents", "spelling", "inflection", "stem", "compound", "letters", "nothing"]

NUMBER_ENTRY = "#"  # the vocabulary's entry for every number
TYPICAL_LENGTH = 2**0.5  # of a word's vector, unless the word is frequent
STEM_SHARE, COMPOUND_SHARE = 0.4, 0.5  # of the pieces in a composed vector; the rest comes from its letters
MOST_WORDS_NAMED, MOST_SIGNS_NAMED = 6, 24  # in a note, which counts the rest

NOTES: dict[How, str] = {
    "number": "Read as numbers, which share one vector",
    "accents": "Read without accents, which makes another word of some, above all of other languages",
    "spelling": "Read in another spelling",
    "inflection": "Not in the vocabulary, so another form of the word stands in",
    "stem": "Not in the vocabulary, so composed of a stem{}",
    "compound": "Not in the vocabulary, so composed of two words{}",
    "letters": "Not in the vocabulary, so guessed from letters alone; the less sure the guess, the shorter the vector",
    "nothing": "No vector is known for it: all zeros, an item that carries no meaning",
}
LEFT_OUT = "Left out, because signs have no vectors"


@dataclass(frozen=True, eq=False)
class Found:
    """A token's float64 `vector` (dim,), and `how` it was made from words of the vocabulary, its `sources`."""

    token: str
    vector: Vectors
    how: How
    sources: tuple[str, ...]

    def __str__(self) -> str:
        shows_sources = self.how not in ("number", "letters", "nothing", "known")
        return f"“{self.token}”" + (f" ({' + '.join(self.sources)})" if shows_sources else "")


@dataclass(frozen=True, eq=False)
class Sentence:
    """A text as input to self-attention: `x` (tokens, dim) in float64, one row for each of `found`, without signs.

    `letters` is True where composed vectors include the vectors of letter sequences.
    """

    found: tuple[Found, ...]
    x: Vectors
    left_out: tuple[str, ...] = ()
    letters: bool = True

    @property
    def tokens(self) -> tuple[str, ...]:
        """The items, in order."""
        return tuple(found.token for found in self.found)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know: one sentence for each way in which items got a substitute vector.

        >>> for note in load().embed("The blorpy cat sat 3 times 😀!").notes:
        ...     print(note)
        Read as numbers, which share one vector: “3”
        Not in the vocabulary, so guessed from letters alone; the less sure the guess, the shorter the vector: “blorpy”
        No vector is known for it: all zeros, an item that carries no meaning: “😀”
        Left out, because signs have no vectors: “!”
        """
        notes = []
        for how, sentence in NOTES.items():
            named = list(dict.fromkeys(str(found) for found in self.found if found.how == how))
            if named:
                notes.append(f"{sentence.format(' and letters' if self.letters else '')}: {_abbreviated_list(named)}")
        if self.left_out:
            signs = [f"“{sign}”" for sign in self.left_out]
            notes.append(f"{LEFT_OUT}: {_abbreviated_list(signs, ' ', MOST_SIGNS_NAMED)}")
        return tuple(notes)


@dataclass(frozen=True, eq=False)
class WordVectors:
    """A vocabulary and its vectors.

    `words`, the most usual first, and `vectors` (words, dim) in float32. `grams` (buckets, dim) holds a vector for each
    run of letters, from which the vectors of unknown words are guessed, or is None. `remarks` go with every sentence.
    """

    words: tuple[str, ...]
    vectors: npt.NDArray[np.float32]
    grams: npt.NDArray[np.float32] | None = None
    remarks: tuple[str, ...] = ()

    def look_up(self, token: str) -> Found:
        """The vector of a token, known or not.

        >>> words = load()
        >>> [words.look_up(token).how for token in ("cat", "1944", "rivér", "unputdownable", "doomscrolling", "море")]
        ['known', 'number', 'accents', 'letters', 'compound', 'nothing']
        """
        for how, source in _lookup_keys(token):
            if source in self._index:
                return Found(token, self.vectors[self._index[source]].astype(np.float64), how, (source,))
        plain = forms.unaccented(token)
        if tokens.is_latin(token) and not tokens.is_number(token):
            for compose in (self._from_stem, self._from_halves, self._from_letters):
                found = compose(token, plain)
                if found:
                    return found
        return Found(token, np.zeros(self.vectors.shape[1]), "nothing", ())

    def embed(self, text: str) -> Sentence:
        """The matrix of a text, one row per item. Raises InputError for a text without any item.

        >>> sentence = load().embed("The river had flooded.")
        >>> sentence.tokens, sentence.x.shape, sentence.left_out
        (('the', 'river', 'had', 'flooded'), (4, 64), ('.',))
        """
        items = tokens.split(text)
        if not items.tokens:
            raise InputError(f"There is no word in {_shortened(text)!r}: give a text of at least one word.")
        by_token = {token: self.look_up(token) for token in dict.fromkeys(items.tokens)}
        found = tuple(by_token[token] for token in items.tokens)
        x = np.stack([item.vector for item in found])
        return Sentence(found, x, items.left_out, self.grams is not None)

    def nearest(
        self, vector: npt.NDArray[np.floating], count: int = 5, leave_out: Collection[str] = ()
    ) -> list[tuple[str, float]]:
        """The `count` words whose vectors have the largest cosine with `vector` (dim,), each with its cosine.

        Of the inflections of one word only the nearest is listed; words in `leave_out` are left out in every
        inflection. Raises ShapeError for another shape, InputError for a word, or a vector that is zero or not
        finite.

        >>> [word for word, _ in load().nearest(load().look_up("cat").vector, 3, leave_out=["cat"])]
        ['lion', 'wolf', 'feline']
        """
        dim = self.vectors.shape[1]
        if isinstance(vector, str):
            raise InputError(f"nearest asks for a vector, not a word: give look_up({vector!r}).vector.")
        if vector.shape != (dim,):
            raise ShapeError(f"vector has shape {vector.shape}, but words have vectors of shape ({dim},): give one.")
        largest = np.abs(vector).max(initial=0)
        if not 0 < largest < np.inf:
            raise InputError(
                f"vector has no direction, its largest number being {largest}: give one that is finite and not zero."
            )
        vector = vector / largest
        cosine = self._unit @ (vector / np.linalg.norm(vector))  # (words, dim) @ (dim,) -> (words,)
        excluded = {NUMBER_ENTRY}.union(*map(forms.family, leave_out))
        neighbours: list[tuple[str, float]] = []
        for i in np.argsort(-cosine, kind="stable").tolist():
            if len(neighbours) == count:
                break
            family = forms.family(self.words[i])
            if excluded.isdisjoint(family):
                neighbours.append((self.words[i], float(cosine[i])))
                excluded |= family
        return neighbours

    def _from_stem(self, token: str, plain: str) -> Found | None:
        root = pieces.stem(plain, self._index)
        return self._composed(token, plain, "stem", (root,), STEM_SHARE) if root else None

    def _from_halves(self, token: str, plain: str) -> Found | None:
        halves = pieces.compound(plain, self._index)
        return self._composed(token, plain, "compound", halves, COMPOUND_SHARE) if halves else None

    def _from_letters(self, token: str, plain: str) -> Found | None:
        """The letters' vector, whose length is kept: the less certain the guess, the shorter the vector."""
        guess = self._guess(plain)
        return None if guess is None else Found(token, TYPICAL_LENGTH * guess, "letters", ())

    def _composed(self, token: str, plain: str, how: How, sources: tuple[str, ...], share: float) -> Found:
        """The pieces' direction mixed with the letters'; without `grams`, the mean of the pieces."""
        rows = [self._index[source] for source in sources]
        guess = self._guess(plain)
        if guess is None:
            return Found(token, self.vectors[rows].mean(axis=0, dtype=np.float64), how, sources)
        mixed = share * _unit_vectors(self._unit[rows].sum(axis=0)) + (1 - share) * _unit_vectors(guess)
        return Found(token, TYPICAL_LENGTH * _unit_vectors(mixed), how, sources)

    def _guess(self, plain: str) -> Vectors | None:
        if self.grams is None:
            return None
        at = pieces.letter_buckets(plain, len(self.grams))
        guess: Vectors = self.grams[at].sum(axis=0, dtype=np.float64) / np.sqrt(len(at))
        return guess

    @cached_property
    def _index(self) -> dict[str, int]:
        """Each word's row; a capitalized word also stands for its lower case, unless that has a row of its own."""
        index: dict[str, int] = {}
        for i, word in enumerate(self.words):
            index.setdefault(word, i)
        for i, word in enumerate(self.words):
            index.setdefault(word.lower(), i)
        return index

    @cached_property
    def _unit(self) -> Vectors:
        return _unit_vectors(self.vectors.astype(np.float64))


@functools.cache
def load() -> WordVectors:
    """Load the vectors that ship with the package, read-only; the files are read only once.

    >>> words = load()
    >>> len(words.words) == len(words.vectors), words.vectors.dtype
    (True, dtype('float32'))
    """
    from safetensors.numpy import load as load_tensors

    folder = resources.files(__package__)
    words = tuple(folder.joinpath("vocabulary.txt").read_text("utf-8").split())
    tensors = load_tensors(folder.joinpath("words.safetensors").read_bytes())
    vectors = _dequantized(tensors["vectors"], tensors["scales"])
    grams = _dequantized(tensors["grams"], tensors["gram_scales"])
    return WordVectors(words, vectors, grams)


def _dequantized(rows: npt.NDArray[np.int8], scales: npt.NDArray[np.float16]) -> npt.NDArray[np.float32]:
    """Each row of integers times its scale; exact, because a product of 8 and 11 bits fits into float32's 24."""
    vectors: npt.NDArray[np.float32] = rows * scales.astype(np.float32)[:, None]
    vectors.setflags(write=False)
    return vectors


def _unit_vectors(x: Vectors) -> Vectors:
    """Vectors scaled to length 1 along the last axis; a zero vector stays zero."""
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    unit: Vectors = x / np.where(length == 0, 1, length)
    return unit


def _lookup_keys(token: str) -> Iterator[tuple[How, str]]:
    """The words under which to look a token up in the vocabulary, the most faithful first."""
    yield "known", token
    if tokens.is_number(token):
        yield "number", NUMBER_ENTRY
        return
    for spelled in forms.spellings(token):
        yield "accents" if spelled == forms.unaccented(token) else "spelling", spelled
    for form in forms.inflections(forms.unaccented(token)):
        yield "inflection", form


def _abbreviated_list(named: Sequence[str], between: str = ", ", most: int = MOST_WORDS_NAMED) -> str:
    more = f" and {len(named) - most:,} more" if len(named) > most else ""
    return between.join(named[:most]) + more


def _shortened(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
