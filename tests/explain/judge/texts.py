"""What a page says of the items of a text: whose vectors they have, what was left out, and which words are nearest."""

import functools
import re
import unicodedata
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np

from clearhead.words.forms import family
from tests.explain.judge.names import label, sub
from tests.explain.judge.ranges import rounded
from tests.explain.judge.reading import Table
from tests.explain.judge.sentences import Sentence, sentence

NUMBER = "#"  # the word that every number is read as
LENGTH = 2**0.5  # of a composed vector
KINDS = ("number", "accents", "spelling", "inflection", "stem", "compound", "letters", "nothing")
CLOSE = 1e-6  # of cosines: the vectors are of 32 bits


class Vocabulary:
    """Words and their vectors; `letters` where unknown words can be guessed from them."""

    def __init__(self, words: Sequence[str], vectors: np.ndarray, letters: bool) -> None:
        self.words, self.vectors, self.letters = list(words), vectors.astype(np.float64), letters
        norms = np.linalg.norm(self.vectors, axis=1, keepdims=True)
        self.unit = self.vectors / np.where(norms == 0, 1, norms)
        self.at: dict[str, int] = {}
        for spelled in (str, str.lower):
            for i, word in enumerate(self.words):
                self.at.setdefault(spelled(word), i)

    def own(self, token: str) -> bool:
        """Whether a token is a word of the vocabulary."""
        return token in self.at

    def of(self, word: str) -> np.ndarray:
        return self.vectors[self.at[word]]

    def check_neighbours(self, judge, table: Table) -> None:
        """Words, cosines and what is new, on the page and in JSON."""
        x, y = sub("x", judge.truth.i), sub("y", judge.truth.i)
        judge.holds(
            table.head == [f"before: nearest to {x}", "cosine", f"after: nearest to {y}", "cosine"], "other columns"
        )
        before, after = judge.json["before"], judge.json["after"]
        judge.holds(len(table.rows) == len(before) == len(after), "how many are named")
        known = frozenset[str]().union(*(family(one["word"]) for one in before))
        new = 0
        for (b, p, a, q), was, now in zip(table.rows, before, after, strict=True):
            fresh = known.isdisjoint(family(now["word"]))
            new += fresh
            judge.holds((b, a) == (label(was["word"]), label(now["word"]) + ("  (new)" if fresh else "")), f"{b}, {a}")
            rounded(p, was["cosine"], f"the cosine of {b}")
            rounded(q, now["cosine"], f"the cosine of {a}")
        judge.kept["new"] = new

    def check_nearest(self, judge) -> None:
        """The lists of words in JSON: their cosines, their order, and that no nearer word is passed over."""
        truth = judge.truth
        leave_out = [judge.tokens[truth.i], *judge.sources.get(truth.i, ())]
        middle = (truth.output[0] + truth.output[1]) / 2
        for name, vector in (("before", truth.x[truth.i]), ("after", middle)):
            told = judge.json[name]
            if not np.any(vector):
                judge.holds(not told or name == "after", "the zero vector has no neighbours")
                continue
            scaled = vector / np.abs(vector).max()
            cosines = self.unit @ (scaled / np.linalg.norm(scaled))
            words = [one["word"] for one in told]
            judge.holds(len(set(words)) == len(words) == min(5, len(words)), f"{name}: {words}")
            for one in told:
                judge.holds(one["word"] in self.words, f"{one['word']} is no word")
                at = self.words.index(one["word"])
                judge.holds(abs(one["cosine"] - cosines[at]) < CLOSE, f"{name}: the cosine of {one['word']}")
            values = [one["cosine"] for one in told]
            judge.holds(values == sorted(values, reverse=True), f"{name}: out of order")
            passed = {self.words[i] for i in np.flatnonzero(cosines > (values[-1] if len(values) == 5 else -2) + CLOSE)}
            related = frozenset([NUMBER]).union(*map(family, [*leave_out, *words]))
            for word in passed - set(words):
                judge.holds(not related.isdisjoint(family(word)), f"{name}: {word} is nearer")

    def check_own_vectors(self, judge) -> None:
        """A known word has its own vector, a number that of all numbers; the others are told of in notes."""
        for j, token in enumerate(judge.tokens):
            if self.own(token):
                judge.holds((judge.truth.x[j] == self.of(token)).all(), f"{token} has another vector")


@functools.cache
def shipped() -> Vocabulary:
    """The words that ship with the package."""
    from safetensors.numpy import load

    here = resources.files("clearhead.words")
    held = load(here.joinpath("words.safetensors").read_bytes())
    vectors = held["vectors"] * held["scales"].astype(np.float32)[:, None]
    return Vocabulary(here.joinpath("vocabulary.txt").read_text("utf-8").split(), vectors, letters=True)


def from_file(path: Path) -> Vocabulary:
    """GloVe's format: a word a line, and its numbers; brought to a median length of √2."""
    lines = [line.split(" ") for line in path.read_text("utf-8").splitlines()]
    vectors = np.array([[np.float32(cell) for cell in line[1:]] for line in lines])
    return Vocabulary([line[0] for line in lines], (vectors * factor(vectors)).astype(np.float32), letters=False)


def factor(vectors: np.ndarray) -> float:
    """What brings vectors to a median length of √2, zero vectors left out."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    return LENGTH / float(np.median(lengths[lengths > 0]))


def left_out(text: str, tokens: Sequence[str]) -> list[str]:
    """The visible characters of a text that belong to no token, each once."""
    text = unicodedata.normalize("NFKC", text.translate({ord(c): "'" for c in "‘’ʼ`´"})).lower()
    text = "".join(c for c in text if unicodedata.category(c) != "Cf" or c in "\u200d\u200c")
    rest, at = "", 0
    for token in tokens:
        found = text.index(token, at)
        rest, at = rest + text[at:found], found + len(token)
    hidden = {"Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co", "Cn"}
    return list(dict.fromkeys(c for c in rest + text[at:] if unicodedata.category(c) not in hidden))


def marks(judge) -> None:
    judge.claim("marks", any(judge.names.made), "no item is marked")


def made_of(judge, how: str, words: str) -> None:
    """The words of a note: every one of this kind is named, up to six, and its vector is made as the note says."""
    judge.claim(f"note {how}", True, "")
    *named, more = re.fullmatch(r"(.*?)(?: and (\d+) more)?", words).groups()
    found = re.findall(r"“([^“”]+)”(?: \(([^()“”]+)\))?(?:, |$)", named[0])
    judge.holds(", ".join(f"“{t}”" + (f" ({s})" if s else "") for t, s in found) == named[0], f"{words!r} is no list")
    of_kind = list(dict.fromkeys(one["token"] for one in judge.origins if one["how"] == how))
    judge.holds([token for token, _ in found] == of_kind[:6], f"of this kind are {of_kind}")
    judge.holds((int(more) if more else 0) == max(0, len(of_kind) - 6), f"of this kind are {len(of_kind)}")
    for token, sources in found:
        is_made(judge, how, token, sources.split(" + ") if sources else [])


def composed(judge, how: str, letters: bool, words: str) -> None:
    judge.holds(letters == judge.vocabulary.letters, "whether letters have a part in it")
    made_of(judge, how, words)


def is_made(judge, how: str, token: str, told: list[str]) -> None:
    """One word of a note: whether its vector is what the note says."""
    vocabulary = judge.vocabulary
    judge.holds(not vocabulary.own(token), f"{token} is in the vocabulary")
    at = judge.tokens.index(token)
    vector, sources = judge.truth.x[at], judge.sources[at]
    judge.holds(
        told == ([] if how in ("number", "letters", "nothing") else list(sources)), f"{token} is made of {sources}"
    )
    judge.holds(all(map(vocabulary.own, sources)), f"{sources} are not in the vocabulary")
    if how in ("number", "accents", "spelling", "inflection"):
        judge.holds((vector == vocabulary.of(sources[0])).all(), f"{token} has not the vector of {sources[0]}")
    if how in ("accents", "spelling"):
        plain = "".join(c for c in unicodedata.normalize("NFD", token) if not unicodedata.combining(c))
        judge.holds((plain == sources[0] and plain != token) == (how == "accents"), f"{token} is {sources[0]}")
    if how == "number":
        judge.holds(token[0].isdecimal() and sources == [NUMBER], f"{token} is no number")
    if how in ("stem", "compound"):
        judge.holds(len(sources) == 1 + (how == "compound"), f"{token} is made of {sources}")
        pieces = sum(vocabulary.unit[vocabulary.at[word]] for word in sources)
        cosine = vector @ pieces / np.linalg.norm(vector) / np.linalg.norm(pieces)
        judge.holds(cosine > 0.4, f"{token} has nothing of {sources}")
        letters = cosine < 1 - 1e-6 and abs(np.linalg.norm(vector) - LENGTH) < CLOSE
        judge.holds(letters == vocabulary.letters, f"whether {token} has letters")
    if how == "letters":
        judge.holds(0 < np.linalg.norm(vector) < 2 * LENGTH and vocabulary.letters, f"{token} is not guessed")
    if how == "nothing":
        judge.holds(not vector.any(), f"{token} has a vector")


def numeric_names(judge) -> None:
    read = [re.fullmatch(r"[+-]?\d[\d.]*(?:e[+-]?\d+)?", token) for token in judge.tokens]
    judge.claim("numeric names", all(read), "a name that is no number")


def signs(judge, listed: str) -> None:
    judge.claim("signs", True, "")
    *named, more = re.fullmatch(r"((?:“.” ?)+?)(?: ?and (\d+) more)?", listed, re.DOTALL).groups()
    expected = left_out(judge.text, judge.tokens)
    judge.holds(re.findall("“(.)”", named[0], re.DOTALL) == expected[:24], f"left out are {expected}")
    judge.holds((int(more) if more else 0) == max(0, len(expected) - 24), f"{len(expected)} are left out")


def other_vectors(judge, name: str, words: str, dims: str, times: str) -> None:
    vocabulary = judge.vocabulary
    judge.claim("remark", name == judge.embeddings.name, "another file")
    judge.holds((int(words), int(dims)) == vocabulary.vectors.shape, f"they are {vocabulary.vectors.shape}")
    read = np.array([line.split(" ")[1:] for line in judge.embeddings.read_text("utf-8").splitlines()], np.float32)
    judge.holds(abs(float(times) / factor(read) - 1) < 1e-3, f"the factor is {factor(read)}")


def check_origins(judge) -> None:
    """Which items JSON says are made, and how: all that are not in the vocabulary; those have their own vectors."""
    for one in judge.origins:
        judge.holds(one["token"] == judge.tokens[one["item"]] and one["how"] in KINDS, f"{one}")
    items = [one["item"] for one in judge.origins]
    judge.holds(items == [j for j, made in enumerate(judge.names.made) if made], "items of their own vector")
    judge.vocabulary.check_own_vectors(judge)
    judge.sources.update({one["item"]: one["of"] for one in judge.origins})


def required(judge) -> list[str]:
    """The notes that must stand on a page."""
    if judge.text is None:
        return []
    needed = [f"note {how}" for how in KINDS if any(one["how"] == how for one in judge.origins)]
    return [
        *needed,
        *["marks"] * any(judge.names.made),
        *["signs"] * bool(left_out(judge.text, judge.tokens)),
        *["remark"] * bool(judge.embeddings),
    ]


NOTES: list[Sentence] = [
    sentence("≈ marks an item that has no vector of its own here.", marks),
    sentence("Read as numbers, which share one vector: <some>.", made_of, "number"),
    sentence(
        "Read without accents, which makes another word of some, above all of other languages: <some>.",
        made_of, "accents",
    ),
    sentence("Read in another spelling: <some>.", made_of, "spelling"),
    sentence("Not in the vocabulary, so another form of the word stands in: <some>.", made_of, "inflection"),
    *(
        sentence(f"Not in the vocabulary, so composed of {pieces}{letters}: <some>.", composed, how, bool(letters))
        for how, pieces in (("stem", "a stem"), ("compound", "two words"))
        for letters in ("", " and letters")
    ),
    sentence(
        "Not in the vocabulary, so guessed from letters alone; the less sure the guess, the shorter the vector: "
        "<some>.",
        made_of, "letters",
    ),
    sentence("No vector is known for it: all zeros, an item that carries no meaning: <some>.", made_of, "nothing"),
    sentence("Column 1 holds numbers and is taken as names, because line 1 heads it 'word'.", numeric_names),
    sentence("Left out, because signs have no vectors: <some>.", signs),
    sentence(
        "Vectors: <some>, <count> words × <count>, all multiplied by <some> so that their median length is √2.",
        other_vectors,
    ),
]  # fmt: skip
