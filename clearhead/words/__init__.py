"""Word vectors that ship with the package, so that any sentence can be explained without set-up."""

from clearhead.words.embeddings import read_embeddings
from clearhead.words.tokens import split
from clearhead.words.vectors import Found, Sentence, WordVectors, load

__all__ = ["Found", "Sentence", "WordVectors", "load", "read_embeddings", "split"]
