"""From the sources to the vectors: three views of each word, joined and cut to 64 dimensions.

The views are what WordNet's relations say of a word, what stands beside it in WordNet's glosses, and the state of a
small language model that has just read it. Sizes and exponents were chosen by measuring; README.md of
clearhead/words tells the figures.
"""

import time
from dataclasses import dataclass

import numpy as np

from words.glosses import glosses
from words.letters import gram_vectors, held_out
from words.linear import Mask, Matrix, principal, ridge, truncated_svd, unit
from words.model import Model
from words.relations import relations
from words.sources import Sources
from words.vocabulary import Lists, candidates, shipped
from words.wordnet import WordNet

_CANDIDATES, _SHIPPED, _WITH_FORMS = 50_000, 24_000, 10_000
_RANK, _DIM = 200, 64  # of each view, of the vectors
_RELATIONS, _GLOSSES, _MODEL = 1.0, 0.7, 1.0  # the views' weights
_PENALTY = 5.0  # of the regression that fills a view's gaps
_LENGTH = np.sqrt(2)  # of a rare word's vector; a frequent one's is _LENGTH · √(_DAMPING / (_DAMPING + its share))
_DAMPING = 2e-4


@dataclass(frozen=True)
class Trained:
    """What ships: the words, the most usual first, a vector of each, and the vectors of letter sequences."""

    words: list[str]
    vectors: Matrix
    grams: Matrix
    irregular: list[tuple[str, str]]


def train(sources: Sources) -> Trained:
    """All steps; prints the CPU seconds of each."""
    wordnet, lists, model = WordNet(sources.wordnet), Lists(sources.scowl), Model(sources.model)
    words = candidates(wordnet, lists, model)
    _tell(f"{len(words)} candidates, of which the first {_CANDIDATES} are trained")
    words = words[:_CANDIDATES]
    directions = _directions(wordnet, lists, model, words)
    kept = shipped(words, wordnet, _SHIPPED, _WITH_FORMS)
    share = np.array([_times(wordnet, words[i]) for i in kept]) / wordnet.gloss_counts.total()
    length = _LENGTH * np.sqrt(_DAMPING / (_DAMPING + share))
    grams = gram_vectors(words, directions)
    cosine, told = held_out(words, directions, sorted(set(range(len(words))) - set(kept)))
    _tell(f"letters; a word held out: cosine {cosine:.3f}, correlation with the guess's length {told:.2f}")
    chosen = [words[i] for i in kept]
    vectors = directions[kept] * length[:, None].astype(np.float32)
    return Trained(chosen, vectors, grams, wordnet.irregular(chosen))


def _directions(wordnet: WordNet, lists: Lists, model: Model, words: list[str]) -> Matrix:
    """A unit row for each word."""
    matrix, related = relations(wordnet, words)
    by_relations = _view(*truncated_svd(matrix, _RANK), 0.5, related)
    _tell(f"relations: {related.sum()} words, {matrix.shape[1]} features")
    matrix, spoken = glosses(wordnet, words)
    by_glosses = _view(*truncated_svd(matrix, _RANK), 0.25, spoken)
    _tell(f"glosses: {spoken.sum()} words, {matrix.shape[1]} contexts")
    states = model.states([lists.written.get(word, word) for word in words])
    states = unit(states - states.mean(axis=0))
    every = unit(principal(states, _RANK, 0.5))  # every word has this view, so it fills the others
    by_model = unit(principal(states, _RANK, 0.25, drop=2))  # the first two tell how many tokens a word has
    _tell("the model's states")
    views = (
        _RELATIONS * _filled(by_relations, related, every),
        _GLOSSES * _filled(by_glosses, spoken, every),
        _MODEL * by_model,
    )
    return unit(principal(unit(np.concatenate(views, axis=1)), _DIM, 0.25))


def _times(wordnet: WordNet, word: str) -> int:
    """How often the glosses have the word, or the word that it contracts: glosses seldom say "you've"."""
    parts = [word.removesuffix(ending) for ending in ("n't", "'t", "'ve", "'ll", "'d", "'re", "'m")]
    return max(wordnet.gloss_counts[part] for part in (word, *parts))


def _view(u: Matrix, s: Matrix, power: float, known: Mask) -> Matrix:
    """Unit rows, centred; zero for a word that this view does not know."""
    x = u * s**power
    return unit(x - x[known].mean(axis=0)) * known[:, None]


def _filled(x: Matrix, known: Mask, by: Matrix) -> Matrix:
    """The rows a view lacks, foretold from another view by what the two have in common elsewhere."""
    filled = x.copy()
    filled[~known] = unit(by[~known] @ ridge(by[known], x[known], _PENALTY))
    return filled


def _tell(what: str) -> None:
    print(f"{time.process_time():6.0f} s  {what}", flush=True)
