"""The edits of a model's attention: what each changes, in which layers, heads, queries and keys.

An edit is a value that never changes; the same one is meant in every pass. `rules` says what edits come to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clearhead.interventions.places import Positions
from clearhead.rules.masks import Mask

Layer = tuple[str, int]  # a part of the model, and the layer's number in it
EVERYTHING = Positions()


def from_first(numbers: Sequence[int], count: int) -> tuple[int, ...]:
    """Numbers among so many things, each once; negative ones count from the last, as in Python.

    >>> from_first([0, -1, 3], 4)
    (0, 3)
    """
    return tuple(dict.fromkeys(n + count if n < 0 else n for n in numbers))


@dataclass(frozen=True, eq=False, kw_only=True)
class Edit:
    """A change of some heads of some layers."""

    layers: tuple[Layer, ...]
    heads: tuple[int, ...] | None = None  # None: all
    queries: Positions = EVERYTHING
    sequence: int | None = None  # in the batch

    def of(self, layer: Layer) -> bool:
        """Whether it changes a layer."""
        return layer in self.layers

    def heads_of(self, count: int) -> tuple[int, ...]:
        """The heads that it changes, of so many; negative numbers count from the last."""
        return tuple(range(count)) if self.heads is None else from_first(self.heads, count)

    @property
    def details(self) -> list[str]:
        """Its own arguments, as written."""
        return []

    def __repr__(self) -> str:
        parts = sorted({part for part, _ in self.layers})
        numbers = [number for _, number in self.layers]
        words = [f"layer={numbers[0]}" if len(numbers) == 1 else f"layer={numbers}"]
        words += [] if self.heads is None else [f"heads={list(self.heads)}"]
        words += self.details
        words += [
            f"{name}={x}" for name in ("queries", "keys") if not (x := getattr(self, name, EVERYTHING)).everything
        ]
        words += [] if self.sequence is None else [f"sequence={self.sequence}"]
        words += [] if parts in (["self"], ["text"], ["decoder"], ["encoder"]) else [f"part={parts[0]!r}"]
        return f"{type(self).__name__.lower()}({', '.join(words)})"


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class PairEdit(Edit):
    """An edit of chosen pairs of queries and keys."""

    keys: Positions = EVERYTHING
    where: Mask | None = None  # of the pairs, only those that it shows; over positions


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Cut(PairEdit):
    """Hides pairs, as a mask does: the other weights of a row grow."""

    @property
    def details(self) -> list[str]:
        """The function that chooses pairs."""
        return [] if self.where is None else [f"where={self.where!r}"]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Scale(PairEdit):
    """Multiplies weights by factors (heads, queries, keys), axes of 1 for all, in the order of `heads`."""

    factor: Any  # a numpy array or torch tensor with three axes
    renormalize: bool = False

    @property
    def logs(self) -> Any:
        """The logarithms of the factors, which scores are raised by."""
        if hasattr(self.factor, "log"):
            return self.factor.log()
        with np.errstate(divide="ignore"):
            return np.log(self.factor)

    @property
    def details(self) -> list[str]:
        """Factor, function and whether rows sum to 1 again."""
        shape = tuple(self.factor.shape)
        factor = f"{float(self.factor.reshape(-1)[0]):g}" if shape == (1, 1, 1) else f"factors{shape}"
        words = [factor] + ([] if self.where is None else [f"where={self.where!r}"])
        return words + (["renormalize=True"] if self.renormalize else [])


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Uniform(Edit):
    """Gives all visible keys the same weight."""


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Sink(Edit):
    """Sets the sink's score: exp of it joins the softmax's denominator. None removes the model's own sink."""

    value: float | None

    @property
    def details(self) -> list[str]:
        """The score."""
        return [str(self.value)]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Patch(Edit):
    """Puts another run's weights, values or both in place of this run's."""

    source: Callable[[Layer, int], Any] = field(repr=False)  # (layer, sequence) to what was seen of it
    name: str
    pattern: bool = True
    values: bool = False

    @property
    def details(self) -> list[str]:
        """Where the weights or values come from."""
        words = [self.name] + ([] if self.pattern else ["pattern=False"])
        return words + (["values=True"] if self.values else [])


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Ablate(Edit):
    """Puts other numbers in place of heads' outputs."""

    output: Any  # a number, "mean", or an array (sequences or 1, heads or 1, queries or 1, value dim or 1)

    @property
    def details(self) -> list[str]:
        """What the outputs become."""
        plain = isinstance(self.output, float | str)
        return [f"to={self.output!r}" if plain else f"to=array{tuple(self.output.shape)}"]
