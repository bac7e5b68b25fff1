"""What plots and questions over layers take: weights, objects that behave like them, and a watch of a model."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

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
    if isinstance(w, WatchLike):
        raise InputError("this is a watch of many layers: choose one, as by seen.layer(0) or seen.layer(0).head(0).")
    weights = getattr(w, "weights", w)
    if not isinstance(weights, WeightsLike):
        raise InputError(
            f"this is {type(w).__name__}, not weights: make them with clearhead.weights(q, k), or take "
            "attend(q, k, v).weights."
        )
    return weights


@runtime_checkable
class WatchLike(Protocol):
    """The part of `clearhead.Watch` that questions over several layers use: its first sequence of the latest run."""

    def layers(self) -> Sequence[int]:
        """The numbers of the watched layers, rising."""

    def layer(self, number: int) -> Any:
        """One layer, with its `weights` and the numbers of its `heads`."""


class NumberedLayer(NamedTuple):
    """A layer's weights, (..., heads, queries, keys), and the numbers that the model gives to it and its heads."""

    number: int
    heads: Sequence[int]
    weights: Any


def numbered_layers(layers: Any) -> list[NumberedLayer]:
    """Layers from first to last, of a watch or a sequence of weights; without numbers of their own, 0, 1, 2 …"""
    if isinstance(layers, WatchLike):
        shown = [(number, layers.layer(number)) for number in layers.layers()]
        return [NumberedLayer(number, layer.heads, layer.weights) for number, layer in shown]
    one = getattr(layers, "weights", layers)
    if isinstance(one, WeightsLike) and one.ndim < 4:
        raise InputError(f"this is {type(layers).__name__}, of one layer: give a list of layers, [w], or a watch.")
    if not isinstance(layers, Iterable):
        raise InputError(
            f"{layers!r} has no layers: give a watch, or a list of weights, one for each layer from first to last."
        )
    each = [as_weights(w) for w in layers]
    return [NumberedLayer(number, range(w.shape[-3] if w.ndim > 2 else 1), w) for number, w in enumerate(each)]


def as_layers(layers: Any) -> list[Any]:
    """The weights of layers that follow one another; raises InputError for a watch with gaps."""
    numbered = numbered_layers(layers)
    numbers = [layer.number for layer in numbered]
    if numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise InputError(
            f"layers {numbers} do not follow one another, so what passes between them is unknown: watch all layers, or "
            "give [seen.layer(n).weights for n in seen.layers()] to leave the others out."
        )
    return [layer.weights for layer in numbered]
