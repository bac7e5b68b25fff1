"""Scores as a lazy matrix per head: what the softmax makes weights of."""

from dataclasses import dataclass

from clearhead.arrays import Integers
from clearhead.attention_weights.lazy import LazyMatrix


@dataclass(frozen=True, eq=False)
class Scores(LazyMatrix):
    """The scores of attention, (..., queries, keys), as `weights(q, k).scores` gives them.

    Each is scale · q·k after the score rules, with the bits that the forward pass computes; −∞ where the query does not
    see the key. Index as `Weights`. They need no log-sum-exp:

    >>> from clearhead import weights
    >>> scores = weights([[1.0], [2.0]], [[3.0], [4.0]]).scores
    >>> scores, scores[0], scores[1]
    (Scores(shape=(2, 2), dtype=float64), array([  3., -inf]), array([6., 8.]))
    """

    name, consumer, hidden = "scores", "scores", -float("inf")

    def of_heads(self, heads: Integers) -> "Scores":
        """The scores of some heads."""
        return Scores(self.source, heads)

    def __repr__(self) -> str:
        return f"Scores(shape={self.shape}, dtype={self.dtype.name})"
