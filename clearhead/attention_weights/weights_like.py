"""The interface that plots and rollouts need: weights, or objects that behave like them."""

from typing import Any, Protocol, runtime_checkable

from clearhead.arrays import Array
from clearhead.errors import InputError


@runtime_checkable
class WeightsLike(Protocol):
    """The part of `clearhead.Weights` that plots use, with the same meaning."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(..., queries, keys)."""

    @property
    def ndim(self) -> int:
        """Number of axes."""

    def row(self, i: int) -> Array:
        """The weights of query i."""

    def map(self, rows: slice = ..., columns: slice = ..., *, size: Any = ..., reduce: Any = ...) -> Array:
        """Pool a rectangle to a picture."""

    def summary(self, *names: str) -> Any:
        """Answer questions about all weights."""

    def __getitem__(self, index: Any) -> Any: ...


def as_weights(w: Any) -> Any:
    """Weights as given, or the `.weights` of a tensor of `output_attentions`, a watched layer or head.

    >>> from clearhead import weights
    >>> w = weights([[0.0]], [[0.0]])
    >>> as_weights(w) is w
    True
    """
    weights = getattr(w, "weights", w)
    if not isinstance(weights, WeightsLike):
        raise InputError(
            f"this is {type(w).__name__}, not weights: make them with clearhead.weights(q, k), or take "
            "attend(q, k, v).weights."
        )
    return weights
