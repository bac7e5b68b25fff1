"""Vectors of letter sequences, from which a word without a vector of its own gets one.

A word in angle brackets falls into n-grams of 3 to 5 letters; crc32 assigns each one of BUCKETS rows. The word's
guess is the sum of these rows over the root of their number; the shorter the guess, the less sure.
"""

import zlib

import scipy.sparse as sp

from words.linear import Matrix, sparse, sparse_ridge

BUCKETS = 8192
PENALTY = 3.0


def grams(word: str) -> list[str]:
    """The n-grams of a word, shorter ones first: of "cat", <ca, cat, at>, <cat and cat>."""
    bounded = f"<{word}>"
    found = [bounded[i : i + n] for n in (3, 4, 5) for i in range(len(bounded) - n + 1) if n < len(bounded)]
    return found or [bounded]


def occurrence(words: list[str]) -> sp.csr_matrix:
    """Words × buckets: the matrix that times the bucket vectors gives the guesses."""
    rows, columns, values = [], [], []
    for row, word in enumerate(words):
        found = grams(word)
        rows += [row] * len(found)
        columns += [zlib.crc32(gram.encode()) % BUCKETS for gram in found]
        values += [len(found) ** -0.5] * len(found)
    return sparse(rows, columns, values, (len(words), BUCKETS))


def gram_vectors(words: list[str], directions: Matrix) -> Matrix:
    """The bucket vectors (BUCKETS, dim) whose guesses come nearest to the words' directions."""
    return sparse_ridge(occurrence(words), directions, PENALTY)
