"""What training made small: how surprised the model is by each token of a text, −log p, and the mean of it.

Decides how a long text is cut, and the units in which surprise is told.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clearhead.errors import InputError
from clearhead.model.interface import LanguageModel
from clearhead.model.parameters import Matrix

Nats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Loss:
    """The `tokens` of a text after `<s>`, each one's −log p in `nats`, and what these come to."""

    tokens: tuple[int, ...]
    nats: Nats
    characters: int
    vocabulary: int

    @property
    def mean(self) -> float:
        """Nats a token: the cross-entropy that training makes small."""
        return float(self.nats.mean())

    @property
    def perplexity(self) -> float:
        """exp(mean): as unsure as among so many tokens of equal chance."""
        return math.exp(self.mean)

    @property
    def bits_per_character(self) -> float:
        """What the text would take up, written with this model: comparable between vocabularies."""
        return float(self.nats.sum()) / math.log(2) / self.characters

    @property
    def uniform(self) -> float:
        """Nats a token of a guess that gives every token the same chance, log(vocabulary)."""
        return math.log(self.vocabulary)


def loss(model: LanguageModel, text: str) -> Loss:
    """The loss of a text; one longer than the context is cut into parts, each read after `<s>` alone.

    Raises InputError for a text without a character.
    """
    start, *tokens = model.tokenizer.encode(text)
    if not tokens:
        raise InputError("A text of no characters has no loss: give at least one.")
    most = model.parameters.context
    parts = [tokens[i : i + most] for i in range(0, len(tokens), most)]
    nats = np.concatenate([surprise(model.logits([start, *part[:-1]]), part) for part in parts])
    return Loss(tuple(tokens), nats, len(text), len(model.tokenizer))


def surprise(logits: Matrix, tokens: list[int]) -> Nats:
    """−log softmax(logits) (n, vocabulary) of the token that came (n,), in float64.

    >>> surprise(np.zeros((1, 4), np.float32), [2]).round(3)   # log 4
    array([1.386])
    """
    scores = logits.astype(np.float64)
    top = scores.max(axis=-1)
    total = np.log(np.exp(scores - top[:, None]).sum(axis=-1)) + top
    nats: Nats = total - scores[np.arange(len(tokens)), tokens]
    return nats
