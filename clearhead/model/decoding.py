"""Incremental decoding: a key/value cache for each layer, so that a new token costs one row.

Responsible for the state kept between tokens; the logits have the same bits as a forward pass over the whole text.
"""

from collections.abc import Sequence
from functools import partial

from clearhead.cache.key_value import KeyValueCache
from clearhead.engine.launch import FEW
from clearhead.functional import attention
from clearhead.model.block import layer_pass
from clearhead.model.interface import LanguageModel
from clearhead.model.parameters import Matrix


class Decoding:
    """The model's state after the tokens read so far; reading more tokens extends it.

    >>> from clearhead.model import load
    >>> model = load()
    >>> tokens = model.tokenizer.encode("The river was wide")
    >>> reading = Decoding(model)
    >>> for token in tokens:
    ...     logits = reading.read([token])
    >>> (logits == model.logits(tokens)[-1]).all()
    np.True_
    """

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.caches = [KeyValueCache() for _ in model.parameters.layers]
        self.length = 0  # tokens read

    def read(self, tokens: Sequence[int]) -> Matrix:
        """Read more tokens; returns the logits (vocabulary,) of the next one.

        Raises InputError beyond the model's context; nothing is read then.
        """
        checked = self.model.checked(tokens, already=self.length)
        for first in range(0, len(checked), FEW):  # up to FEW rows share one kernel; more would compile another
            x = self._leaving(checked[first : first + FEW])
        logits: Matrix = self.model.unembedded(x[-1:])[0]
        return logits

    def _leaving(self, tokens: Sequence[int]) -> Matrix:
        """The residual stream (n, dim) after the last layer for new tokens, which are appended to the caches."""
        parameters = self.model.parameters
        turn = self.model.turn(self.length, len(tokens))
        x = parameters.embedding[list(tokens)]
        for layer, cache in zip(parameters.layers, self.caches, strict=True):
            x = layer_pass(x, layer, parameters.heads, turn, partial(attend_cached, cache)).leaving
        self.length += len(tokens)
        return x


def attend_cached(cache: KeyValueCache, q: Matrix, k: Matrix, v: Matrix) -> Matrix:
    """Append new keys and values to the cache, then attend from the new queries to every key in it."""
    cache.append(k, v)
    return attention(q, cache)
