"""The training objective: the loss of each token of a text, −log p, and its mean.

Responsible for cutting a long text into parts, and for the units in which the loss is reported.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clearhead.displayed import Brief
from clearhead.errors import InputError
from clearhead.model.interface import LanguageModel
from clearhead.model.parameters import Matrix

Nats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class Loss(Brief):
    """The `tokens` of a text after `<s>`, the −log p of each in `nats`, and their mean in several units."""

    tokens: tuple[int, ...]
    nats: Nats
    characters: int
    vocabulary: int

    @property
    def mean(self) -> float:
        """Nats per token: the cross-entropy that training minimizes."""
        return float(self.nats.mean())

    @property
    def perplexity(self) -> float:
        """exp(mean): the number of equally likely tokens that would be as uncertain."""
        return math.exp(self.mean)

    @property
    def bits_per_character(self) -> float:
        """The size of the text when compressed with this model; comparable between vocabularies."""
        return float(self.nats.sum()) / math.log(2) / self.characters

    @property
    def uniform(self) -> float:
        """Nats per token of a guess that gives every token the same probability, log(vocabulary)."""
        return math.log(self.vocabulary)


def loss(model: LanguageModel, text: str) -> Loss:
    """The loss of a text; a text longer than the context is cut into parts, each read after `<s>`.

    Raises InputError for an empty text.
    """
    start, *tokens = model.tokenizer.encode(text)
    if not tokens:
        raise InputError("An empty text has no loss: give at least one character.")
    context = model.parameters.context
    parts = [tokens[i : i + context] for i in range(0, len(tokens), context)]
    nats = np.concatenate([token_losses(model.logits([start, *part[:-1]]), part) for part in parts])
    return Loss(tuple(tokens), nats, len(text), len(model.tokenizer))


def token_losses(logits: Matrix, tokens: list[int]) -> Nats:
    """−log softmax(logits) at the tokens that came, (n,) in float64, from logits (n, vocabulary).

    >>> token_losses(np.zeros((1, 4), np.float32), [2]).round(3)   # log 4
    array([1.386])
    """
    scores = logits.astype(np.float64)
    top = scores.max(axis=-1)
    total = np.log(np.exp(scores - top[:, None]).sum(axis=-1)) + top
    nats: Nats = total - scores[np.arange(len(tokens)), tokens]
    return nats
