"""WordNet 3.0 as read from its database files, whose format `man 5 wndb` describes."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clearhead.words.forms import regular_stems

NUMBER = "#"  # stands for every number
_FILES = {"n": "noun", "v": "verb", "a": "adj", "s": "adj", "r": "adv"}  # a pointer's part of speech → whose files
_ENDINGS = (  # (an inflected word's ending, what stands there in its plain form)
    ("ies", "y"), ("es", ""), ("s", ""), ("ied", "y"), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", ""),
)  # fmt: skip
_COMPARATIVES = (("er", ""), ("est", ""), ("er", "e"), ("est", "e"))
_ETHNIC_SLUR = ("noun", "06718862")

Key = tuple[str, str]  # a synset's file and offset


def tokens(text: str) -> list[str]:
    """The words of a text: lower case, numbers as one word, possessives as their noun."""
    text = re.sub("[‘’ʼ`]", "'", unicodedata.normalize("NFKC", text).lower())
    text = re.sub(r"(?<=\d)[.,](?=\d)", "", text)
    words = re.findall(r"[^\W_]+(?:'[^\W_]+)*", text)
    return [NUMBER if word[0].isdecimal() else word.removesuffix("'s") for word in words]


@dataclass(frozen=True)
class Synset:
    """One meaning: its synonyms, its pointers (symbol, key) to other meanings, its gloss with examples."""

    words: list[str]
    pointers: list[tuple[str, Key]]
    gloss: str

    @property
    def hypernyms(self) -> list[Key]:
        """The more general meanings."""
        return [key for symbol, key in self.pointers if symbol in ("@", "@i")]


class WordNet:
    """All synsets by key; for each word its `senses` (key, rank, 0 the most usual) and `counts` in the SemCor text."""

    def __init__(self, folder: Path) -> None:
        self.synsets: dict[Key, Synset] = {}
        self.senses: dict[str, list[tuple[Key, int]]] = defaultdict(list)
        self.counts: Counter[str] = Counter()
        self._irregular: dict[str, list[str]] = defaultdict(list)
        ranks: dict[tuple[Key, str], int] = {}
        for file in ("noun", "verb", "adj", "adv"):
            self.synsets.update(_read_synsets(folder, file))
            ranks.update(_read_ranks(folder, file))
            for line in (folder / f"{file}.exc").read_text("ascii").splitlines():
                form, *plain = line.split()
                self._irregular[form] += plain
        for key, synset in self.synsets.items():
            for word in synset.words:
                self.senses[word].append((key, ranks.get((key, word), 9)))
        for line in (folder / "cntlist.rev").read_text("ascii").splitlines():
            sense, _, count = line.split()
            self.counts[sense.split("%")[0]] += int(count)
        self.gloss_counts = Counter(word for synset in self.synsets.values() for word in tokens(synset.gloss))

    def lemmas(self, word: str) -> list[str]:
        """The entries that a word may be a form of, itself first if it is one."""
        found = [word, *self._irregular.get(word, ()), *plain_forms(word)]
        if word not in self.senses:
            found += _stripped(word, _COMPARATIVES)
        return list(dict.fromkeys(lemma for lemma in found if lemma in self.senses))

    def irregular(self, words: list[str]) -> list[tuple[str, str]]:
        """Forms that no rule of the look-up brings back to one of `words`, each with that word: "ate" and "eat"."""
        known = set(words)
        pairs = ((form, plain) for form, bases in self._irregular.items() for plain in bases)
        return sorted(
            {
                (form, plain)
                for form, plain in pairs
                if form.isalpha()
                and len(form) > 1
                and plain in known
                and form != plain
                and plain not in regular_stems(form)
            }
        )

    def is_slur(self, word: str) -> bool:
        """Whether every meaning of the word is marked as an ethnic slur."""
        keys = [key for key, _ in self.senses.get(word, ())]
        return bool(keys) and all((";u", _ETHNIC_SLUR) in self.synsets[key].pointers for key in keys)


def plain_forms(word: str) -> list[str]:
    """What the word would come from, were it a regular plural or a regular form of a verb."""
    return _stripped(word, _ENDINGS)


def _stripped(word: str, endings: tuple[tuple[str, str], ...]) -> list[str]:
    found = []
    for ending, rest in endings:
        stem = word.removesuffix(ending)
        if stem == word or len(word) < 4:
            continue
        found.append(stem + rest)
        if ending in ("ed", "ing") and not rest and len(stem) > 3 and stem[-1] == stem[-2]:
            found.append(stem[:-1])  # stopped, from stop
    return [plain for plain in found if len(plain) > 2]


def _read_synsets(folder: Path, file: str) -> Iterator[tuple[Key, Synset]]:
    for line in (folder / f"data.{file}").read_text("latin-1").splitlines():
        if line.startswith(" "):  # the licence
            continue
        data, _, gloss = line.partition(" | ")
        fields = data.split()
        count = int(fields[3], 16)
        words = [re.sub(r"\(.*\)", "", word).replace("_", " ").lower() for word in fields[4 : 4 + 2 * count : 2]]
        start = 4 + 2 * count
        pointers = []
        for i in range(start + 1, start + 1 + 4 * int(fields[start]), 4):
            symbol, offset, speech, _ = fields[i : i + 4]
            pointers.append((symbol, (_FILES[speech], offset)))
        yield (file, fields[0]), Synset(list(dict.fromkeys(words)), pointers, gloss.strip())


def _read_ranks(folder: Path, file: str) -> Iterator[tuple[tuple[Key, str], int]]:
    for line in (folder / f"index.{file}").read_text("ascii").splitlines():
        if line.startswith(" "):
            continue
        fields = line.split()
        offsets = fields[-int(fields[2]) :]
        for rank, offset in enumerate(offsets):
            yield ((file, offset), fields[0].replace("_", " ")), rank
