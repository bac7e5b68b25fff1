"""The word vectors that ship with clearhead, and how a sentence becomes a matrix of them.

Decides which vector stands for an item, and what a reader must be told of it; tokens.py decides what the items are,
forms.py which other spellings a word has, pieces.py what an unknown word is made of. README.md tells how the vectors
were trained.
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

Array = npt.NDArray[np.float64]
How = Literal["known", "number", "accents", "spelling", "inflection", "stem", "compound", "letters", "nothing"]

NUMBER = "#"  # the vocabulary's entry for every number
LENGTH = 2**0.5  # of the vector of a word that is not frequent
SHARE_OF_STEM, SHARE_OF_HALVES = 0.4, 0.5  # of a composed vector; the rest comes from its letters
MOST_NAMED, MOST_SIGNS = 6, 24  # words and signs that a note names; the rest it counts

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
    """What stands for a token: its float64 `vector` (dim,), and `how` it was made of `sources` in the vocabulary."""

    token: str
    vector: Array
    how: How
    sources: tuple[str, ...]

    def __str__(self) -> str:
        shown = self.how not in ("number", "letters", "nothing", "known")
        return f"“{self.token}”" + (f" ({' + '.join(self.sources)})" if shown else "")


@dataclass(frozen=True, eq=False)
class Sentence:
    """A text as self-attention takes it: `x` (tokens, dim) in float64, a row each of `found`; signs are left out.

    `letters` tells whether these have a part in composed vectors.
    """

    found: tuple[Found, ...]
    x: Array
    left_out: tuple[str, ...] = ()
    letters: bool = True

    @property
    def tokens(self) -> tuple[str, ...]:
        """The items, in order."""
        return tuple(found.token for found in self.found)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know: one sentence for each way in which items have no vector of their very own.

        >>> for note in load().embed("The blorpy cat sat 3 times 😀!").notes:
        ...     print(note)
        Read as numbers, which share one vector: “3”
        Not in the vocabulary, so guessed from letters alone; the less sure the guess, the shorter the vector: “blorpy”
        No vector is known for it: all zeros, an item that carries no meaning: “😀”
        Left out, because signs have no vectors: “!”
        """
        said = []
        for how, words in NOTES.items():
            named = list(dict.fromkeys(str(found) for found in self.found if found.how == how))
            if named:
                said.append(f"{words.format(' and letters' if self.letters else '')}: {_listed(named)}")
        if self.left_out:
            said.append(f"{LEFT_OUT}: {_listed([f'“{sign}”' for sign in self.left_out], ' ', MOST_SIGNS)}")
        return tuple(said)


@dataclass(frozen=True, eq=False)
class WordVectors:
    """A vocabulary and its vectors.

    `words`, most usual first, and `vectors` (words, dim) in float32; `grams` (buckets, dim) holds a vector for each
    run of letters, by which unknown words are guessed, or is None. `remarks` are said of every sentence.
    """

    words: tuple[str, ...]
    vectors: npt.NDArray[np.float32]
    grams: npt.NDArray[np.float32] | None = None
    remarks: tuple[str, ...] = ()

    def look_up(self, token: str) -> Found:
        """The vector that stands for one token, whatever the token is.

        >>> words = load()
        >>> [words.look_up(token).how for token in ("cat", "1944", "rivér", "unputdownable", "doomscrolling", "море")]
        ['known', 'number', 'accents', 'letters', 'compound', 'nothing']
        """
        for how, source in _readings(token):
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
        """A text's items as a matrix, one row an item. Raises InputError for a text without any.

        >>> sentence = load().embed("The river had flooded.")
        >>> sentence.tokens, sentence.x.shape, sentence.left_out
        (('the', 'river', 'had', 'flooded'), (4, 64), ('.',))
        """
        items = tokens.split(text)
        if not items.tokens:
            raise InputError(f"There is no word in {_shortened(text)!r}: give a text of at least one word.")
        known = {token: self.look_up(token) for token in dict.fromkeys(items.tokens)}
        found = tuple(known[token] for token in items.tokens)
        return Sentence(found, np.stack([each.vector for each in found]), items.left_out, self.grams is not None)

    def nearest(
        self, vector: npt.NDArray[np.floating], count: int = 5, leave_out: Collection[str] = ()
    ) -> list[tuple[str, float]]:
        """The `count` words whose vectors point most nearly where `vector` (dim,) does, with their cosines.

        Of the inflections of one word only the nearest is named; words of `leave_out` are left out in all of theirs.
        Raises ShapeError for another shape, InputError for a vector without a direction.

        >>> [word for word, _ in load().nearest(load().look_up("cat").vector, 3, leave_out=["cat"])]
        ['lion', 'wolf', 'feline']
        """
        dim = self.vectors.shape[1]
        if vector.shape != (dim,):
            raise ShapeError(f"A vector of shape {vector.shape} is no word's. Give one of shape ({dim},).")
        largest = np.abs(vector).max(initial=0)
        if not 0 < largest < np.inf:
            raise InputError(f"A vector of length {largest} has no direction. Give one that is finite and not zero.")
        vector = vector / largest
        cosine = self._unit @ (vector / np.linalg.norm(vector))  # (words, dim) @ (dim,) -> (words,)
        barred = {NUMBER}.union(*map(forms.family, leave_out))
        found: list[tuple[str, float]] = []
        for i in np.argsort(-cosine, kind="stable").tolist():
            if len(found) == count:
                break
            family = forms.family(self.words[i])
            if barred.isdisjoint(family):
                found.append((self.words[i], float(cosine[i])))
                barred |= family
        return found

    def _from_stem(self, token: str, plain: str) -> Found | None:
        root = pieces.stem(plain, self._index)
        return self._composed(token, plain, "stem", (root,), SHARE_OF_STEM) if root else None

    def _from_halves(self, token: str, plain: str) -> Found | None:
        halves = pieces.compound(plain, self._index)
        return self._composed(token, plain, "compound", halves, SHARE_OF_HALVES) if halves else None

    def _from_letters(self, token: str, plain: str) -> Found | None:
        """The letters' own vector, not brought to a length: the less sure it is, the shorter."""
        guess = self._guess(plain)
        return None if guess is None else Found(token, LENGTH * guess, "letters", ())

    def _composed(self, token: str, plain: str, how: How, sources: tuple[str, ...], share: float) -> Found:
        """The pieces' direction mixed with that of the letters; without letters, the pieces' mean."""
        rows = [self._index[source] for source in sources]
        guess = self._guess(plain)
        if guess is None:
            return Found(token, self.vectors[rows].mean(axis=0, dtype=np.float64), how, sources)
        mixed = share * _direction(self._unit[rows].sum(axis=0)) + (1 - share) * _direction(guess)
        return Found(token, LENGTH * _direction(mixed), how, sources)

    def _guess(self, plain: str) -> Array | None:
        if self.grams is None:
            return None
        at = pieces.letters(plain, len(self.grams))
        guess: Array = self.grams[at].sum(axis=0, dtype=np.float64) / np.sqrt(len(at))
        return guess

    @cached_property
    def _index(self) -> dict[str, int]:
        """Where each word stands; a word written with capitals answers for its lower case too, if nothing else does."""
        index: dict[str, int] = {}
        for i, word in enumerate(self.words):
            index.setdefault(word, i)
        for i, word in enumerate(self.words):
            index.setdefault(word.lower(), i)
        return index

    @cached_property
    def _unit(self) -> Array:
        return _direction(self.vectors.astype(np.float64))


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
    held = read(here.joinpath("words.safetensors").read_bytes())
    vectors, grams = (_widened(held[x], held[y]) for x, y in (("vectors", "scales"), ("grams", "gram_scales")))
    return WordVectors(words, vectors, grams)


def _widened(rows: npt.NDArray[np.int8], scales: npt.NDArray[np.float16]) -> npt.NDArray[np.float32]:
    """Each row of whole numbers times its scale: exact, for 8 and 11 bits fit into 24."""
    wide: npt.NDArray[np.float32] = rows * scales.astype(np.float32)[:, None]
    wide.setflags(write=False)
    return wide


def _direction(x: Array) -> Array:
    """Vectors of length 1 along the last axis; a vector of zeros stays one."""
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    unit: Array = x / np.where(length == 0, 1, length)
    return unit


def _readings(token: str) -> Iterator[tuple[How, str]]:
    """The vocabulary's words that a token may be sought under, the most faithful first."""
    yield "known", token
    if tokens.is_number(token):
        yield "number", NUMBER
        return
    for spelled in forms.spellings(token):
        yield "accents" if spelled == forms.unaccented(token) else "spelling", spelled
    for form in forms.inflections(forms.unaccented(token)):
        yield "inflection", form


def _listed(named: Sequence[str], between: str = ", ", most: int = MOST_NAMED) -> str:
    more = f" and {len(named) - most} more" if len(named) > most else ""
    return between.join(named[:most]) + more


def _shortened(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
