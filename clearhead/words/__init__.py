"""Words as vectors: what ships with the package, so that a sentence can be explained without any set-up."""

from clearhead.words.vectors import Found, Sentence, WordVectors, load

__all__ = ["Found", "Sentence", "WordVectors", "load"]
