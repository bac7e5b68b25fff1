"""Which rows of a sequence each process has: `Layout`.

Responsible for cutting a sequence into units of whole segments and for giving units to ranks. A segment is 2048 keys of
one document, which the definition sums on their own; keys travel in segments, so that sums keep their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, NamedTuple

import numpy as np

from clearhead.arrays import Integers, is_integer
from clearhead.definition.canonical import SEGMENT
from clearhead.errors import InputError
from clearhead.once import cached_property
from clearhead.rules.document_masks import checked_lengths, shortened

Order = Literal["zigzag", "contiguous"]


class Stretch(NamedTuple):
    """Neighbouring rows of one document, numbered from the sequence's first."""

    start: int
    stop: int
    document: int  # where the document starts
    rank: int

    @property
    def rows(self) -> int:
        """How many."""
        return self.stop - self.start


@dataclass(frozen=True)
class Layout:
    """Which rows of a sequence of `length` items each of `ranks` processes has, in ascending order.

    The sequence is cut into units of `unit` items, a multiple of 2048; the last one may be shorter, and ranks may be
    left with none. In the order "zigzag" the units go to ranks 0 1 … R−1 R−1 … 1 0 0 1 …, which balances the work under
    a causal mask; "contiguous" gives each rank neighbouring units. Packed `documents` (their lengths) begin units of
    their own. Raises InputError.

    >>> layout = Layout(10000, 2)
    >>> [(first, last) for first, last, *_ in layout.stretches(0)]
    [(0, 2048), (6144, 10000)]
    >>> layout.rows(1)[[0, -1]].tolist(), layout.count(1)
    ([2048, 6143], 4096)
    """

    length: int
    ranks: int
    unit: int = SEGMENT
    order: Order = "zigzag"
    documents: Sequence[int] | None = None

    def __post_init__(self) -> None:
        for name, number, least in (("length", self.length, 0), ("ranks", self.ranks, 1), ("unit", self.unit, SEGMENT)):
            if not is_integer(number) or number < least:
                raise InputError(f"Layout's {name}={number!r} is not a whole number from {least} on: give one.")
        if self.unit % SEGMENT:
            raise InputError(
                f"Layout's unit={self.unit} is not whole segments of keys: give a multiple of {SEGMENT}, as "
                f"{-(-self.unit // SEGMENT) * SEGMENT}."
            )
        if self.order not in ("zigzag", "contiguous"):
            raise InputError(f"Layout's order={self.order!r} is unknown: use 'zigzag' or 'contiguous'.")
        if self.documents is not None:
            lengths = checked_lengths("lengths", self.documents)
            if sum(lengths) != self.length:
                raise InputError(
                    f"documents of {shortened(lengths)} items are {sum(lengths)} together, but the length is "
                    f"{self.length}: make the lengths sum up to it."
                )
            object.__setattr__(self, "documents", lengths)  # a list given by the user would not be hashable

    @cached_property
    def units(self) -> tuple[Stretch, ...]:
        """All units in ascending order, each with its rank."""
        lengths = (self.length,) if self.documents is None else self.documents
        cuts = [
            (first, min(first + self.unit, start + length), start)
            for start, length in zip(accumulate(lengths, initial=0), lengths, strict=False)
            for first in range(start, start + length, self.unit)
        ]
        return tuple(Stretch(*cut, self.owner(n, len(cuts))) for n, cut in enumerate(cuts))

    def owner(self, unit: int, count: int) -> int:
        """The rank of one of `count` units."""
        if self.order == "contiguous":
            return unit * self.ranks // count if count > self.ranks else unit
        place = unit % (2 * self.ranks)
        return min(place, 2 * self.ranks - 1 - place)

    def stretches(self, rank: int) -> tuple[Stretch, ...]:
        """A rank's rows in ascending order, neighbouring units of a document joined."""
        return self.by_rank[self.checked_rank(rank)]

    @cached_property
    def by_rank(self) -> tuple[tuple[Stretch, ...], ...]:
        """The stretches of all ranks."""
        units: list[list[Stretch]] = [[] for _ in range(self.ranks)]
        for unit in self.units:
            units[unit.rank].append(unit)
        return tuple(map(joined, units))

    @cached_property
    def segments(self) -> tuple[Stretch, ...]:
        """All segments of keys in ascending order, each with its rank."""
        return tuple(
            Stretch(first, min(first + SEGMENT, unit.stop), unit.document, unit.rank)
            for unit in self.units
            for first in range(unit.start, unit.stop, SEGMENT)
        )

    def rows(self, rank: int) -> Integers:
        """The numbers of a rank's rows in the sequence, ascending."""
        parts = [np.arange(stretch.start, stretch.stop) for stretch in self.stretches(rank)]
        return np.concatenate(parts) if parts else np.arange(0)

    def count(self, rank: int) -> int:
        """How many rows a rank has."""
        return sum(stretch.rows for stretch in self.stretches(rank))

    def checked_rank(self, rank: Any) -> int:
        """A rank of this layout, or InputError."""
        if not is_integer(rank) or not 0 <= rank < self.ranks:
            raise InputError(f"rank {rank!r} is not in this layout of {self.ranks}: use 0 to {self.ranks - 1}.")
        return int(rank)


def joined(stretches: Iterable[Stretch]) -> tuple[Stretch, ...]:
    """Neighbouring stretches of a document as one, of the first one's rank."""
    runs: list[Stretch] = []
    for stretch in stretches:
        last = runs[-1] if runs else None
        if last is not None and (last.stop, last.document) == (stretch.start, stretch.document):
            runs[-1] = last._replace(stop=stretch.stop)
        else:
            runs.append(stretch)
    return tuple(runs)
