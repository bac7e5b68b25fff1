"""Which keys a cache kept, and where they stand: `KeyValueCache.keep` moves keys to new places, but not positions.

A place is a key's index in the pages, a position its index among all keys that were appended. Responsible for
translating places to positions, for checking the argument of `keep`, and for saying which keys a sequence holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array, Integers
from clearhead.errors import DtypeError, InputError, ShapeError
from clearhead.once import cached_property


@dataclass(frozen=True, eq=False)
class Kept:
    """The positions of one sequence's keys: of the first places from a table, of all later ones place + `dropped`."""

    positions: Integers  # (heads, places), ascending
    dropped: int = 0  # how many keys each head let go

    @classmethod
    def all(cls, heads: int) -> Kept:
        """Every key stands at its place."""
        return cls(np.zeros((heads, 0), np.int64))

    @property
    def places(self) -> int:
        """How many places the table covers."""
        return int(self.positions.shape[1])

    def of(self, first: int, stop: int) -> Integers:
        """The positions of the places from `first` up to `stop`: (heads, places).

        >>> Kept(np.array([[0, 4]]), 3).of(0, 4).tolist()
        [[0, 4, 5, 6]]
        """
        later = np.arange(max(first, self.places), stop) + self.dropped
        both = self.positions[:, first:stop], np.broadcast_to(later, (len(self.positions), len(later)))
        return np.concatenate(both, axis=1)

    def choose(self, places: Integers, count: int) -> Kept:
        """The same sequence, of `count` places, once only `places` (heads, kept) are left."""
        positions = np.take_along_axis(self.of(0, count), places, axis=1)
        return Kept(positions, count + self.dropped - places.shape[1])

    @cached_property
    def scattered(self) -> int:
        """The places before the last run of keys that every head kept without a gap."""
        ordered = self.positions == np.arange(self.places) + self.dropped
        return int(self.places - ordered.all(axis=0).sum())

    def passed(self, count: int, window: int) -> int:
        """How many of the first places hold only keys before the last `window` of `count` places.

        >>> Kept.all(2).passed(10, 4), Kept(np.array([[0, 1, 7], [0, 5, 7]]), 5).passed(5, 4)
        (7, 2)
        """
        least = count + self.dropped - window + 1  # the first position that the window still reaches
        in_table = (self.positions < least).all(axis=0).sum()
        return int(in_table) if in_table < self.places else max(self.places, least - self.dropped)


class Extent(NamedTuple):
    """Which keys a sequence holds: the places from `first` to its end, of `length` keys that it has seen."""

    length: int
    first: int  # always at the start of a page
    dropped: int  # keys that each head let go in `keep`


def without_weights(extents: Sequence[Extent]) -> InputError:
    """The error for weights of sequences of unequal length."""
    lengths, firsts, dropped = (sorted(set(numbers)) for numbers in zip(*extents, strict=True))
    if len(lengths) != 1:
        what = f"of lengths {lengths}"
    elif len(firsts) != 1:
        what = f"whose first keys are {firsts}"
    else:
        what = f"that let go {dropped} keys"
    return InputError(
        f"sequences {what} have no common weights: select one of them, by "
        "one = cache.fork(), one.reorder([i]) and attend(q[i : i + 1], one)."
    )


def chosen_places(keys: npt.ArrayLike, heads: int, counts: Sequence[int], firsts: Sequence[int]) -> list[Integers]:
    """The argument of `keep` as places (heads, kept) of each sequence, ascending; raises InputError.

    Sequence i holds the places from firsts[i] up to counts[i].
    """
    try:
        array = np.asarray(keys)
    except ValueError:
        raise ShapeError("keys has rows of different lengths: keep equally many keys in each head.") from None
    if not array.size:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iub":
        raise DtypeError(f"keys has dtype {array.dtype}: give whole numbers, or a boolean for each key.")
    try:
        every = np.broadcast_to(array, (len(counts), heads, *(array.shape[-1:] or (-1,))))
    except ValueError:
        raise ShapeError(
            f"keys of shape {array.shape} do not fit {len(counts)} sequences of {heads} key heads: give (kept,), "
            f"({heads}, kept) or ({len(counts)}, {heads}, kept), or booleans with one for each key."
        ) from None
    if every.dtype == np.bool_ and every.shape[-1] != max(counts):
        raise ShapeError(f"keys of shape {array.shape} do not fit {max(counts)} keys: give one boolean for each.")
    return [
        checked_places(true_places(part) if part.dtype == np.bool_ else part.astype(np.int64), number, first, count)
        for number, (part, first, count) in enumerate(zip(every, firsts, counts, strict=True))
    ]


def true_places(mask: npt.NDArray[np.bool_]) -> Integers:
    """Where a mask (heads, keys) is true: (heads, kept); raises InputError unless heads keep equally many."""
    counts = mask.sum(axis=-1)
    if len(set(counts.tolist())) > 1:
        raise InputError(f"keys marks {counts.tolist()} keys in the heads: keep equally many in each.")
    places: Integers = np.nonzero(mask)[1].reshape(len(mask), -1) if mask.any() else np.zeros((len(mask), 0), np.int64)
    return places


def checked_places(places: Integers, number: int, first: int, count: int) -> Integers:
    """Places (heads, kept) in ascending order; raises InputError for any twice, and for any that is not held."""
    ordered: Integers = np.sort(places, axis=-1)
    twice = ordered[..., 1:][np.diff(ordered, axis=-1) == 0]
    if twice.size:
        raise InputError(f"keys names key {twice[0]} twice for one head: give each key once.")
    outside: Array = ordered[(ordered < first) | (ordered >= count)]
    if outside.size:
        held = f"keys {first} to {count - 1}" if first < count else "no keys"
        raise InputError(f"keys names key {outside[0]}, but sequence {number} holds {held}: choose from those.")
    return ordered
