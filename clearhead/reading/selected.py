"""Some heads of a layer as one matrix: a single head, or the mean or the maximum of several.

With `measure` "value", a weight counts times the length of the value it is given to. Rows, columns and blocks are
computed where they are asked for.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from clearhead.arrays import Array
from clearhead.attention_weights.lazy import PART_BYTES
from clearhead.attention_weights.matrix import Weights
from clearhead.reading.readings import StackLayer

Join = Literal["one", "mean", "max"]
JOINS: tuple[Join, ...] = ("one", "mean", "max")
MEASURES = ("weight", "value")


@dataclass(frozen=True, eq=False)
class Selected:
    """The weights of some heads, (heads, queries, keys), the factor of each key, and how heads become one."""

    weights: Weights
    factors: Array | None  # (heads, keys)
    join: Join

    @property
    def shape(self) -> tuple[int, int]:
        """Queries and keys."""
        *_, queries, keys = self.weights.shape
        return queries, keys

    @property
    def commutes(self) -> tuple[str, ...]:
        """The kinds of pooling that can be done head by head, before heads are joined."""
        if self.factors is not None:
            return ()
        if len(self.weights) == 1:
            return ("max", "sum", "mean")
        return ("max",) if self.join == "max" else ("sum", "mean")

    def joined(self, x: Array, columns: slice = slice(None)) -> Array:
        """Weights (heads, …, keys), times their keys' factors, as one."""
        if self.factors is not None:
            factors = self.factors[:, columns]
            x = x * (factors if x.ndim == 2 else factors[:, None])
        pooled: Array = x.max(axis=0) if self.join == "max" else x.mean(axis=0)
        return pooled

    def row(self, i: int) -> Array:
        """What query i gives each key, (keys,)."""
        return self.joined(self.weights.row(i))

    def column(self, j: int) -> Array:
        """What each query gives key j, (queries,)."""
        x = self.weights.column(j)
        if self.factors is not None:
            x = x * self.factors[:, j, None]
        pooled: Array = x.max(axis=0) if self.join == "max" else x.mean(axis=0)
        return pooled

    def block(self, rows: slice, columns: slice) -> Array:
        """A rectangle, (rows, columns), which should be small."""
        return self.joined(self.weights.block(rows, columns), columns)

    def prepared(self, pairs: int) -> int:
        """Find log-sum-exps of further rows, of at most so many pairs; returns how many rows have theirs."""
        heads = self.weights.heads.reshape(-1)
        final = self.weights.source.lse_and_final[1][heads].all(axis=0)
        missing = np.flatnonzero(~final)
        some = missing[: max(1, pairs // max(1, len(heads) * self.shape[1]))]
        if len(some):
            self.weights.source.lse(some, heads)
        return int(final.sum()) + len(some)

    def rows_at_once(self, columns: int) -> int:
        """How many rows of so many columns take little memory."""
        return max(1, PART_BYTES // max(1, columns * len(self.weights) * self.weights.dtype.itemsize))


def selected(layer: StackLayer, heads: list[int], join: Join, measure: str) -> Selected:
    """Choose heads of a layer by their numbers in the model; raises InputError or TrustError.

    Join "one" takes the first of them.
    """
    places = layer.places(heads[:1] if join == "one" else heads)
    factors = layer.value_lengths[places] if measure == "value" else None
    return Selected(layer.weights[np.array(places)], factors, join)
