"""Reading on from what has been read: a key/value cache for each layer, so that a new token costs one row.

Decides what is kept between tokens; the bits are those of a forward pass over the whole text.
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
    """A text that grows, as the model sees it.

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
        """Read more tokens; the logits (vocabulary,) of the one to come after them.

        Raises InputError beyond the model's context, and then nothing has been read.
        """
        known = self.model.checked(tokens, already=self.length)
        for first in range(0, len(known), FEW):  # so few share one kernel; for more, another would have to be compiled
            x = self._leaving(known[first : first + FEW])
        logits: Matrix = self.model.unembedded(x[-1:])[0]
        return logits

    def _leaving(self, tokens: Sequence[int]) -> Matrix:
        """What leaves the last layer for some tokens more, (n, dim)."""
        held = self.model.parameters
        turn = self.model.turn(self.length, len(tokens))
        x = held.embedding[list(tokens)]
        for layer, cache in zip(held.layers, self.caches, strict=True):
            x = layer_pass(x, layer, held.heads, turn, partial(attend, cache)).leaving
        self.length += len(tokens)
        return x


def attend(cache: KeyValueCache, q: Matrix, k: Matrix, v: Matrix) -> Matrix:
    """Attention of new queries over all keys so far, their own included."""
    cache.append(k, v)
    return attention(q, cache)
