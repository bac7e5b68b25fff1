"""What reading, generating and scoring need of a model."""

from collections.abc import Sequence
from typing import Protocol

from clearhead.model.block import Turn
from clearhead.model.parameters import Matrix, Parameters
from clearhead.model.tokens import Tokenizer


class LanguageModel(Protocol):
    """A model that gives logits for tokens; `clearhead.model.Model` is one, with these meanings."""

    @property
    def parameters(self) -> Parameters:
        """What training found."""

    @property
    def tokenizer(self) -> Tokenizer:
        """From text to tokens and back."""

    def logits(self, tokens: Sequence[int]) -> Matrix:
        """Scores (n, vocabulary) of each token to come next."""

    def unembedded(self, x: Matrix) -> Matrix:
        """Logits of a residual stream (n, dim)."""

    def checked(self, tokens: Sequence[int], already: int = 0) -> tuple[int, ...]:
        """Tokens that the model knows and has room for."""

    def turn(self, first: int, count: int) -> Turn:
        """The angles of some positions."""
