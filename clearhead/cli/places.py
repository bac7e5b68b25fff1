"""Where the results of a run's steps go: the arrays of all heads, or the flat arrays of a part's piece.

A piece's arrays hold the part's rows by their numbers, so that neither depends on the steps.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from clearhead.arrays import Array
from clearhead.cli.steps import Order, Step, Stretch


class Places(Protocol):
    """Views of the results of one step; the leading axes are those of its heads."""

    def output(self, step: Step) -> Array:
        """(…, rows, value_dim)."""

    def lse(self, step: Step) -> Array:
        """(…, rows)."""

    def weights(self, step: Step) -> Iterator[tuple[int, Array]]:
        """Each asked row that the step has, ascending, and where its weights go, (…, keys)."""


@dataclass(frozen=True)
class WholePlaces:
    """The arrays of all heads."""

    order: Order
    asked: tuple[int, ...]  # the rows whose weights are wanted, from 0
    arrays: Mapping[str, Array]

    def _heads(self, name: str, step: Step) -> Array:
        array, lead = self.arrays[name], self.order.lead
        if self.order.together:
            return array
        place: tuple[Any, ...] = (*step.outer, step.heads)
        heads: Array = array.reshape((lead or (1,)) + array.shape[len(lead) :])[place]
        return heads

    def output(self, step: Step) -> Array:
        return self._heads("output", step)[..., slice(*step.rows), :]

    def lse(self, step: Step) -> Array:
        return self._heads("lse", step)[..., slice(*step.rows)]

    def weights(self, step: Step) -> Iterator[tuple[int, Array]]:
        for row, n in sorted((row, n) for n, row in enumerate(self.asked)):
            if step.rows[0] <= row < step.rows[1]:
                yield row, self._heads("weights", step)[..., n, :]


@dataclass(frozen=True)
class PiecePlaces:
    """The flat arrays of a piece, which hold the rows of its stretches one after another."""

    order: Order
    asked: tuple[int, ...]
    arrays: Mapping[str, Array]
    stretches: Sequence[Stretch]
    keys: int
    value_dim: int

    @property
    def sizes(self) -> dict[str, int]:
        """The length of each flat array."""
        rows, asked = (self.order.width * sum(count(*s) for s in self.stretches) for count in (span, self._asked))
        return {"output": rows * self.value_dim, "lse": rows, "weights": asked * self.keys}

    def _asked(self, start: int, stop: int) -> int:
        """How many rows of a stretch are asked for; one that is asked for twice counts twice."""
        return asked_before(self.order, self.asked, stop) - asked_before(self.order, self.asked, start)

    def _before(self, step: Step) -> Iterator[Stretch]:
        """What the stretches hold before a step."""
        for start, stop in self.stretches:
            yield start, min(max(step.start, start), stop)

    def output(self, step: Step) -> Array:
        return self._rows("output", step, (self.value_dim,))

    def lse(self, step: Step) -> Array:
        return self._rows("lse", step, ())

    def _rows(self, name: str, step: Step, shape: tuple[int, ...]) -> Array:
        first = sum(span(*before) for before in self._before(step))
        each = self.order.width * int(np.prod(shape))
        flat = self.arrays[name][first * each : (first + step.stop - step.start) * each]
        if self.order.together:
            return np.moveaxis(flat.reshape(step.stop - step.start, *self.order.lead, *shape), 0, -1 - len(shape))
        return flat.reshape(step.heads.stop - step.heads.start, step.rows[1] - step.rows[0], *shape)

    def weights(self, step: Step) -> Iterator[tuple[int, Array]]:
        ranked = sorted(self.asked)
        here = ranked[bisect_left(ranked, step.rows[0]) : bisect_left(ranked, step.rows[1])]
        if not here:
            return
        first = sum(self._asked(*before) for before in self._before(step))
        each = self.order.width * self.keys
        heads = () if self.order.together else (step.heads.stop - step.heads.start,)
        count = len(here) * int(np.prod(heads))
        block = self.arrays["weights"][first * each : (first + count) * each]
        if self.order.together:
            block = np.moveaxis(block.reshape(len(here), *self.order.lead, self.keys), 0, -2)
        else:
            block = block.reshape(*heads, len(here), self.keys)
        for n, row in enumerate(here):
            yield row, block[..., n, :]


def span(start: int, stop: int) -> int:
    """How many rows a stretch has."""
    return stop - start


def asked_before(order: Order, asked: tuple[int, ...], number: int) -> int:
    """How many rows whose weights are wanted have numbers below `number`."""
    whole, row = divmod(number, order.queries) if order.queries else (0, 0)
    return whole * len(asked) + bisect_left(sorted(asked), row)
