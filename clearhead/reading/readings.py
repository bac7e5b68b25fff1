"""A model's attention over one text: stacks of alike layers, their weights, and names for queries and keys.

Responsible for one form for everything that has attention to show. `sources` makes it of a watch, of weights and of the
small model; `models` of a folder.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from clearhead.arrays import Array
from clearhead.attention_weights.matrix import Weights
from clearhead.errors import InputError
from clearhead.once import cached_property
from clearhead.wording import count, listed

MOST_RANGES = 6  # of heads, listed in a message


@dataclass(frozen=True)
class Sees:
    """Which keys query i may see: those from i + offset + low to i + offset + high; None is without an end.

    With `other`, a further mask hides some of them.
    """

    low: int | None
    high: int | None
    offset: int
    other: bool = False


@dataclass(frozen=True)
class Agreement:
    """How well output rows recomputed from weights agree with the model's own; `said` tells why not."""

    rows: int = 0
    difference: float | None = None
    allowed: float | None = None
    said: str = ""


@dataclass(frozen=True)
class Grid:
    """An image's patches among the keys: `before` keys, then rows × columns of patches."""

    rows: int
    columns: int
    before: int


@dataclass(frozen=True)
class Code:
    """Python that computes what is shown: lines to begin with, then a head's weights and values.

    The latter hold LAYER, HEAD and PART in place of the layer's and the head's number and the part's name.
    """

    setup: tuple[str, ...] = ("# weights and values are what you have shown, with heads first",)
    weights: str = "w = weights[HEAD]"
    values: str = "v = values[HEAD]"


@dataclass(frozen=True, eq=False)
class StackLayer:
    """One layer: its heads' numbers in the model, the key head that each uses, and how to get at its numbers."""

    number: int
    heads: tuple[int, ...]
    key_heads: tuple[int, ...]
    queries: int
    keys: int
    sees: Sees
    find_weights: Callable[[], Weights] = field(repr=False)  # (heads, queries, keys); may raise TrustError
    find_values: Callable[[], Array] | None = field(default=None, repr=False)  # (heads, keys, value dim)
    find_agreement: Callable[[], Agreement] = field(default=Agreement, repr=False)
    edits: tuple[str, ...] = ()  # the interventions that made its weights what they are

    @cached_property
    def weights(self) -> Weights:
        """All weights, (heads, queries, keys); raises TrustError where they are not the model's."""
        return self.find_weights()

    @cached_property
    def value_lengths(self) -> Array:
        """The length of each value, (heads, keys); raises InputError where values were not kept."""
        if self.find_values is None:
            raise InputError(f"the values of layer {self.number} were not kept: choose weights alone.")
        values = self.find_values().astype(np.promote_types(np.float32, self.weights.dtype), copy=False)
        lengths: Array = np.sqrt((values * values).sum(axis=-1))
        return lengths

    def places(self, heads: Sequence[int]) -> list[int]:
        """Where heads, by their numbers in the model, stand among those kept; raises InputError for others."""
        for head in heads:
            if head not in self.heads:
                known = f"{self.heads[0]} to {self.heads[-1]}" if len(self.heads) > 1 else str(self.heads[0])
                raise InputError(f"there is no head {head} in layer {self.number}: give one of {known}.")
        return [self.heads.index(head) for head in heads]


@dataclass(frozen=True, eq=False)
class Stack:
    """A part of a model: layers that are alike, their queries' and keys' names, and each pass's number of queries."""

    name: str
    layers: Mapping[int, StackLayer]
    names: Callable[[StackLayer, str], Sequence[str]] = field(repr=False)  # of a layer's "queries" or "keys"
    steps: tuple[int, ...] = ()
    crosses: bool = False  # whether keys are of another text
    grid: Grid | None = None
    ids: Array | None = None  # the tokens' numbers, where queries and keys are the same tokens
    unit: str = "token"  # what an item is called

    def layer(self, number: int) -> StackLayer:
        """One layer by its number in the model; raises InputError if there is none."""
        if number not in self.layers:
            raise InputError(f"there is no layer {number}: give one of {', '.join(map(str, self.layers))}.")
        return self.layers[number]

    def head_ranges(self) -> str:
        """The heads that there are, layers of as many heads together."""
        numbers = list(self.layers)
        if len({one.heads for one in self.layers.values()}) == 1 and len(numbers) > MOST_RANGES:
            heads = next(iter(self.layers.values())).heads
            return (
                f"heads {heads[0]} to {heads[-1]} of layers {numbers[0]} to {numbers[-1]}, as {numbers[0]}.{heads[0]}"
            )
        return listed(
            [f"{n}.{x.heads[0]}" + f" to {n}.{x.heads[-1]}" * (len(x.heads) > 1) for n, x in self.layers.items()],
            MOST_RANGES,
        )

    def head(self, layer: int, head: int) -> Weights:
        """The weights (queries, keys) of one head, by its numbers in the model."""
        found = self.layers.get(layer)
        if found is None or head not in found.heads:
            raise InputError(f"there is no head {layer}.{head}: give --head one of {self.head_ranges()}.")
        chosen: Weights = found.weights[found.heads.index(head)]
        return chosen


@dataclass(frozen=True, eq=False)
class Reading:
    """A model's attention over one text; the first stack is the one that questions are usually about."""

    name: str  # of the model
    stacks: Mapping[str, Stack]
    title: str = ""  # of the text, where there are several
    notes: tuple[str, ...] = ()
    code: Code = Code()
    picture: bytes | None = field(default=None, repr=False)  # a PNG of what patches were cut from
    again: "Callable[[str], Reading] | None" = field(default=None, repr=False)  # the same model over another text

    def stack(self, name: str | None = None) -> Stack:
        """A part of the model; without a name, the usual one. Raises InputError if there is none."""
        if name is None:
            return next(iter(self.stacks.values()))
        if name not in self.stacks:
            raise InputError(f"there is no part {name[:40]}: give one of {', '.join(self.stacks)}.")
        return self.stacks[name]

    @property
    def tokens(self) -> Sequence[str]:
        """The names of the usual part's keys."""
        stack = self.stack()
        return stack.names(next(iter(stack.layers.values())), "keys")

    def __str__(self) -> str:
        stack = self.stack()
        heads = sum(len(layer.heads) for layer in stack.layers.values())
        sizes = ((len(self.tokens), "item"), (len(stack.layers), "layer"), (heads, "head"))
        return f"Attention of {self.name}: {', '.join(count(n, word) for n, word in sizes)}."
