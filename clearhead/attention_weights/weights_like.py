"""What can be drawn and followed through layers: weights, or what stands for them."""

from typing import Any, Protocol, runtime_checkable

from clearhead.arrays import Array
from clearhead.errors import InputError


@runtime_checkable
class WeightsLike(Protocol):
    """What `clearhead.Weights` offers to pictures; each part means what it means there."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(..., queries, keys)."""

    @property
    def ndim(self) -> int:
        """How many axes."""

    def row(self, i: int) -> Array:
        """What query i gives each key."""

    def map(self, rows: slice = ..., columns: slice = ..., *, size: Any = ..., reduce: Any = ...) -> Array:
        """A picture of a rectangle."""

    def summary(self, *names: str) -> Any:
        """Answers about all weights."""

    def __getitem__(self, index: Any) -> Any: ...


def as_weights(w: Any) -> Any:
    """Weights, or those of what stands for them: a tensor of `output_attentions`, a watched layer or head.

    >>> from clearhead import weights
    >>> w = weights([[0.0]], [[0.0]])
    >>> as_weights(w) is w
    True
    """
    found = getattr(w, "weights", w)
    if not isinstance(found, WeightsLike):
        raise InputError(
            f"this is {type(w).__name__}, not weights: make them by clearhead.weights(q, k), or take "
            "attend(q, k, v).weights."
        )
    return found
