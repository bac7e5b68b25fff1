"""A word by its place in WordNet: a tf-idf matrix of words and what their meanings share with others."""

from collections import defaultdict
from functools import cache

import numpy as np
import scipy.sparse as sp

from words.linear import Mask, sparse
from words.wordnet import Key, WordNet, tokens

_SENSE = 0.5  # a sense counts this power of its rank
_FORM = 0.6  # the senses of what a word may be an inflection of, besides its own
_UP, _DEPTH = 0.75, 8  # a hypernym counts this power of its distance, up to a depth
_SPOKEN = 0.5  # a synonym, a word of the gloss
_RELATED = {  # pointer symbol (man 5 wninput) → what the meaning pointed to counts; its hypernyms half
    "&": 0.7,  # similar to
    "+": 0.7,  # derived from the same root
    "$": 0.6,  # verb group
    "\\": 0.6,  # of a noun, from an adjective
    "^": 0.5,  # also see
    "=": 0.5,  # attribute
    "*": 0.5,  # entails
    ">": 0.5,  # causes
    "!": 0.4,  # opposite
    ";c": 0.8,  # topic
    "#m": 0.5, "#p": 0.5, "#s": 0.5,  # member, part, substance of
    "%m": 0.5, "%p": 0.5, "%s": 0.5,  # has that member, part, substance
}  # fmt: skip
_SAY_NOTHING = (  # words of a gloss from which its meaning cannot be told
    "a an the of or and to in for by with that is are was be been being as on at from it its he she they you i his her "
    "their your my our we not no which who whom whose this these those than such so if when where how what into over "
    "under up down out off about very etc c e g esp especially usually one two used some any other another more most "
    "can may might will would has have had do does did something someone somebody"
)
_SILENT = frozenset(_SAY_NOTHING.split())

Feature = Key | str  # a meaning, or a word


def relations(wordnet: WordNet, words: list[str]) -> tuple[sp.csr_matrix, Mask]:
    """Words × features with rows of length 1, and which words have any."""

    @cache
    def features(key: Key) -> dict[Feature, float]:
        return _features(wordnet, key)

    columns: dict[Feature, int] = {}
    rows: list[int] = []
    cols: list[int] = []
    values: list[float] = []
    for row, word in enumerate(words):
        total: defaultdict[Feature, float] = defaultdict(float)
        for i, lemma in enumerate(wordnet.lemmas(word)[:3]):
            for key, rank in wordnet.senses[lemma]:
                weight = (_FORM if i else 1.0) * _SENSE ** min(rank, 6)
                for feature, value in features(key).items():
                    total[feature] += weight * value
        for feature, value in total.items():
            rows.append(row)
            cols.append(columns.setdefault(feature, len(columns)))
            values.append(value)
    return _tf_idf(sparse(rows, cols, values, (len(words), len(columns))))


def _features(wordnet: WordNet, key: Key) -> dict[Feature, float]:
    """What a meaning shares with others: itself, more general and related ones, its synonyms, its gloss's words."""
    synset = wordnet.synsets[key]
    found: defaultdict[Feature, float] = defaultdict(float)
    level = {key: 1.0}
    for _ in range(_DEPTH):
        above: dict[Key, float] = {}
        for each, weight in level.items():
            found[each] = max(found[each], weight)
            for hypernym in wordnet.synsets[each].hypernyms:
                above[hypernym] = max(above.get(hypernym, 0.0), weight * _UP)
        level = above
    for symbol, other in synset.pointers:
        if (weight := _RELATED.get(symbol, 0.0)) > 0:
            found[other] = max(found[other], weight)
            for hypernym in wordnet.synsets[other].hypernyms:
                found[hypernym] = max(found[hypernym], weight / 2)
    for word in dict.fromkeys(tokens(synset.gloss)):
        if word not in _SILENT and len(word) > 1:
            found[(wordnet.lemmas(word) or [word])[0]] += _SPOKEN
    for word in synset.words:
        found[word] += _SPOKEN
    return found


def _tf_idf(m: sp.csr_matrix) -> tuple[sp.csr_matrix, Mask]:
    """Features of two words and more, each by the logarithm of its rarity."""
    having = np.asarray((m > 0).sum(axis=0)).ravel()
    m = m[:, having > 1] @ sp.diags(np.log(m.shape[0] / having[having > 1]).astype(np.float32))
    length = np.sqrt(np.asarray(m.multiply(m).sum(axis=1)).ravel())
    return (sp.diags(1 / np.maximum(length, 1e-6)) @ m).tocsr().astype(np.float32), length > 0
