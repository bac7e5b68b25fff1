"""Which words get a vector, and in which order: the most usual first."""

import re
from collections import Counter
from pathlib import Path

from words.wordnet import NUMBER, WordNet

_LIST = re.compile(r"(english|american|british)-(words|contractions|upper|proper-names)\.(\d\d)")
_WORD = re.compile(r"[^\W\d_]+('[^\W\d_]+)?")
_LEVEL = 60  # SCOWL's levels go from 10, the most usual words, to 95; so far they are read,
_USUAL = 50  # and so far a level alone makes a word a candidate
_SEMCOR, _GLOSS = 30, 5  # what one occurrence in SemCor and in the glosses counts
_ENOUGH = 15  # so much a word must count to be taken for that alone
_UNLISTED = 20  # so often a word occurs in the glosses that neither WordNet nor SCOWL lists


class Lists:
    """SCOWL's lists: the `level` of each word in lower case, and which are `names`, never written small."""

    def __init__(self, folder: Path) -> None:
        self.level: dict[str, int] = {}
        small = set()
        for file in sorted(folder.iterdir()):
            kind = _LIST.fullmatch(file.name)
            if kind is None or int(kind[3]) > _LEVEL:
                continue
            for word in file.read_text("latin-1").split():
                self.level[word.lower()] = min(self.level.get(word.lower(), _LEVEL), int(kind[3]))
                if word.islower():
                    small.add(word)
        self.names = set(self.level) - small


def candidates(wordnet: WordNet, lists: Lists, pieces: list[str]) -> list[str]:
    """All words worth a vector, by the best of three ranks: WordNet's counts, SCOWL's levels, the model's vocabulary.

    `pieces` are the tokens of the model that are whole words, in its order.
    """
    score = _scores(wordnet, lists)
    counted = sorted((word for word in score if score[word] >= _ENOUGH), key=lambda word: (-score[word], word))
    listed = [
        word
        for word, level in lists.level.items()
        if level <= _USUAL and _is_word(word) and (word in wordnet.senses or not wordnet.lemmas(word))
    ]
    listed.sort(key=lambda word: (lists.level[word], -score[word], word))
    whole = list(dict.fromkeys(piece.lower() for piece in pieces))
    whole = [word for word in whole if word in lists.level and _is_word(word)]
    best: dict[str, int] = {}
    for order in (counted, listed, whole):
        for rank, word in enumerate(order):
            best[word] = min(best.get(word, rank), rank)
    return sorted(best, key=lambda word: (best[word], word))


def shipped(words: list[str], wordnet: WordNet, count: int, with_forms: int) -> list[int]:
    """Which candidates are shipped; past the first `with_forms` no inflection of one that is: look-up finds it."""
    have = set(words[:with_forms])
    kept = list(range(min(with_forms, len(words))))
    for i in range(with_forms, len(words)):
        if len(kept) == count:
            break
        if words[i] in wordnet.senses or not any(lemma in have for lemma in wordnet.lemmas(words[i])):
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
