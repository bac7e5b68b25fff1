"""A word by its neighbours in WordNet's glosses and examples: positive pointwise mutual information."""

import numpy as np
import scipy.sparse as sp

from words.linear import Mask
from words.wordnet import WordNet, tokens

_WINDOW = 10  # neighbours up to this distance count, one at distance k for (_WINDOW + 1 − k) / _WINDOW
_SMOOTHING = 0.75  # exponent of the contexts' distribution
_OFTEN = 3  # a word occurs so often to have a row or to be a context


def glosses(wordnet: WordNet, words: list[str]) -> tuple[sp.csr_matrix, Mask]:
    """Words × contexts, and which words occur often enough."""
    counts, known = wordnet.gloss_counts, set(words)
    contexts = words + sorted(word for word in counts if counts[word] >= _OFTEN and word not in known)
    pairs = _pairs(_texts(wordnet), contexts)[: len(words)]
    return _ppmi(pairs), np.array([counts[word] >= _OFTEN for word in words])


def _texts(wordnet: WordNet) -> list[list[str]]:
    """Each part of a gloss and each example, and the synonyms with the first part."""
    texts = []
    for synset in wordnet.synsets.values():
        parts = [tokens(part) for part in synset.gloss.split(";")]
        texts += [*parts, tokens(" ".join(synset.words)) + parts[0]]
    return texts


def _pairs(texts: list[list[str]], contexts: list[str]) -> sp.csr_matrix:
    """How often each context has each other near it; near counts more."""
    index = {word: i for i, word in enumerate(contexts)}
    gap = [-1] * _WINDOW
    ids = np.array([i for text in texts for i in [*(index.get(word, -1) for word in text), *gap]])
    counts = sp.csr_matrix((len(contexts), len(contexts)), dtype=np.float32)
    for distance in range(1, _WINDOW + 1):
        left, right = ids[:-distance], ids[distance:]
        seen = (left >= 0) & (right >= 0)
        weight = np.full(seen.sum(), (_WINDOW + 1 - distance) / _WINDOW, np.float32)
        found = sp.coo_matrix((weight, (left[seen], right[seen])), shape=counts.shape).tocsr()
        counts = counts + found + found.T
    return counts


def _ppmi(counts: sp.csr_matrix) -> sp.csr_matrix:
    """max(0, log P(word, context) / (P(word) P(context))), contexts smoothed."""
    c = counts.tocoo()
    words = np.bincount(c.row, c.data.astype(np.float64), c.shape[0])
    contexts = np.bincount(c.col, c.data.astype(np.float64), c.shape[1]) ** _SMOOTHING
    information = np.log(c.data * contexts.sum() / (words[c.row] * contexts[c.col]))
    kept = information > 0
    return sp.csr_matrix((information[kept].astype(np.float32), (c.row[kept], c.col[kept])), shape=c.shape)
