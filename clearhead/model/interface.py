"""The interface of a model that decoding, generating and scoring rely on."""

from collections.abc import Sequence
from typing import Protocol

from clearhead.model.block import Rotation
from clearhead.model.parameters import Matrix, Parameters
from clearhead.model.tokens import Tokenizer


class LanguageModel(Protocol):
    """A model that computes logits for tokens; `clearhead.model.Model` implements it."""

    @property
    def parameters(self) -> Parameters:
        """The trained parameters."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that belongs to the model."""

    def logits(self, tokens: Sequence[int]) -> Matrix:
        """Next-token scores (n, vocabulary)."""

    def unembedded(self, x: Matrix) -> Matrix:
        """Logits of a residual stream (n, dim)."""

    def checked(self, tokens: Sequence[int], already: int = 0) -> tuple[int, ...]:
        """The tokens as ints; raises InputError where one is unknown or the context is exceeded."""

    def turn(self, first: int, count: int) -> Rotation:
        """The rotation of `count` positions from `first`."""
