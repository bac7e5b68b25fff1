"""Which words get a vector, and in which order: the most usual first."""

import math
import re
import string
from collections import Counter
from pathlib import Path

from words.model import Model
from words.wordnet import NUMBER, WordNet, plain_forms

_LIST = re.compile(r"(english|american|british)-(words|contractions|upper|proper-names|abbreviations)\.(\d\d)")
_WORD = re.compile(r"[^\W\d_]+('[^\W\d_]+)?")
_LEVEL = 60  # SCOWL's levels go from 10, the most usual words, to 95; so far they are read,
_USUAL = 50  # and so far a level alone makes a word a candidate
_SEMCOR, _GLOSS = 30, 5  # what one occurrence in SemCor and in the glosses counts
_ENOUGH = 15  # so much a word must count to be taken for that alone
_CLOSED = 5000  # the rank that contractions and single letters have at least: few, everyday, rare in glosses
_WHOLE = 0.85  # what a rank among the model's whole words counts: its text is of today
_UNLISTED = 20  # so often a word occurs in the glosses that neither WordNet nor SCOWL lists


class Lists:
    """SCOWL's lists: each word's `level`, how it is `written`, and which are `contractions`."""

    def __init__(self, folder: Path) -> None:
        self.level: dict[str, int] = {}
        self.written: dict[str, str] = {}
        self.contractions: set[str] = set()
        files = [(file, kind) for file in folder.iterdir() if (kind := _LIST.fullmatch(file.name))]
        for file, kind in sorted(files, key=lambda entry: (entry[1][3], entry[0])):  # by level
            if int(kind[3]) > _LEVEL:
                break
            for listed in file.read_text("latin-1").split():
                word = listed.lower()
                self.level.setdefault(word, int(kind[3]))
                if listed == word or word not in self.written:
                    self.written[word] = listed
                if kind[2] == "contractions":
                    self.contractions.add(word)


def candidates(wordnet: WordNet, lists: Lists, model: Model) -> list[str]:
    """All words worth a vector, by the best of three ranks: WordNet's counts, SCOWL's levels, the model's tokens."""
    score = _scores(wordnet, lists)
    counted = sorted((word for word in score if score[word] >= _ENOUGH), key=lambda word: (-score[word], word))
    listed = [
        word
        for word, level in lists.level.items()
        if level <= _USUAL and _is_word(word) and (word in wordnet.senses or not wordnet.lemmas(word))
    ]
    pieces = dict(zip(listed, model.pieces([lists.written[word] for word in listed]), strict=True))
    listed.sort(key=lambda word: (lists.level[word], pieces[word], -score[word], word))
    whole = list(dict.fromkeys(word.lower() for word in model.whole_words()))
    whole = [word for word in whole if word in lists.level and _is_word(word)]
    best: dict[str, float] = {
        word: _CLOSED for word in {*string.ascii_lowercase, *lists.contractions} if not word.endswith("'s")
    }
    for order, weight in ((counted, 1), (listed, 1), (whole, _WHOLE)):
        for rank, word in enumerate(order):
            best[word] = min(best.get(word, math.inf), weight * rank)
    return sorted((word for word in best if not wordnet.is_slur(word)), key=lambda word: (best[word], word))


def shipped(words: list[str], wordnet: WordNet, count: int, with_forms: int) -> list[int]:
    """Which candidates are shipped; past the first `with_forms` no regular form of one that is: look-up finds those."""
    have = set(words[:with_forms])
    kept = list(range(min(with_forms, len(words))))
    for i in range(with_forms, len(words)):
        if len(kept) == count:
            break
        if words[i] in wordnet.senses or have.isdisjoint(plain_forms(words[i])):
            kept.append(i)
            have.add(words[i])
    return kept


def _is_word(word: str) -> bool:
    return bool(_WORD.fullmatch(word)) and not word.endswith("'s") and (len(word) > 1 or word in "aio")


def _scores(wordnet: WordNet, lists: Lists) -> Counter[str]:
    """How usual a word is by WordNet's own counts."""
    glosses = wordnet.gloss_counts
    score: Counter[str] = Counter()
    for word in {*lists.level, *glosses, *wordnet.senses}:
        known = word in lists.level or word in wordnet.senses or glosses[word] >= _UNLISTED or wordnet.lemmas(word)
        if known and _is_word(word):
            score[word] = _GLOSS * glosses[word] + _SEMCOR * wordnet.counts[word]
    score[NUMBER] = _SEMCOR * 10**6  # in every text
    return score
