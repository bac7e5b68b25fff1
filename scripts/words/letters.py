"""Vectors of letter sequences, from which a word without a vector of its own gets one.

Which rows of letters a word has is the look-up's affair (clearhead.words.pieces). The word's guess is the sum of their
vectors over the root of their number; the shorter the guess, the less sure.
"""

import numpy as np
import scipy.sparse as sp

from clearhead.words.pieces import letter_buckets
from words.linear import Matrix, sparse, sparse_ridge, unit

BUCKETS = 8192
PENALTY = 3.0  # against 1 measured on words held out: nearer guesses, and a length that tells more of how near
_HELD_OUT, _SEED = 2000, 0


def occurrence(words: list[str]) -> sp.csr_matrix:
    """Words × buckets: the matrix that times the bucket vectors gives the guesses."""
    rows, columns, values = [], [], []
    for row, word in enumerate(words):
        found = letter_buckets(word, BUCKETS)
        rows += [row] * len(found)
        columns += found.tolist()
        values += [len(found) ** -0.5] * len(found)
    return sparse(rows, columns, values, (len(words), BUCKETS))


def gram_vectors(words: list[str], directions: Matrix) -> Matrix:
    """The bucket vectors (BUCKETS, dim) whose guesses come nearest to the words' directions."""
    return sparse_ridge(occurrence(words), directions, PENALTY)


def held_out(words: list[str], directions: Matrix, not_shipped: list[int]) -> tuple[float, float]:
    """For words kept from the regression: mean cosine of guess and truth, its correlation with the guess's length."""
    rng = np.random.default_rng(_SEED)
    out = np.sort(rng.choice([i for i in not_shipped if len(words[i]) >= 4], _HELD_OUT, replace=False))
    seen = np.setdiff1d(np.arange(len(words)), out)
    vectors = gram_vectors([words[i] for i in seen], directions[seen])
    guesses = occurrence([words[i] for i in out]) @ vectors
    cosine = (unit(guesses) * directions[out]).sum(axis=1)
    return float(cosine.mean()), float(np.corrcoef(cosine, np.linalg.norm(guesses, axis=1))[0, 1])
