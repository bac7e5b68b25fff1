"""Where the queries and keys of a model's pass stand in their sequence, and the positions that an edit chooses.

Positions count a sequence's own tokens from 0; padding has none. Negative ones count back from the newest token of the
pass, as in Python's lists.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Integers, is_integer
from clearhead.errors import InputError

Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Places:
    """The positions of a pass's queries and keys, (sequences, n), −1 at padding, and the numbers of tokens so far."""

    query: Integers
    key: Integers
    query_count: Integers  # (sequences,)
    key_count: Integers
    sequences: Integers  # their numbers in the batch

    def part(self, sequence: int, queries: Any, keys: Any) -> Places:
        """Some queries and keys of one sequence."""
        own = slice(sequence, sequence + 1)
        return replace(
            self,
            query=self.query[own, queries],
            key=self.key[own, keys],
            query_count=self.query_count[own],
            key_count=self.key_count[own],
            sequences=self.sequences[own],
        )


def in_order(queries: int, keys: int, *, first: int = 0, sequence: int = 0) -> Places:
    """The places of one sequence without padding, whose queries begin at a position."""
    query, key = np.arange(first, first + queries)[None], np.arange(keys)[None]
    return Places(query, key, query[:, -1:].max(1, initial=-1) + 1, np.array([keys]), np.array([sequence]))


@dataclass(frozen=True)
class Positions:
    """Positions that an edit chooses: all, a slice, or a list of them."""

    bounds: tuple[int | None, int | None, int | None] | None = None  # of a slice
    listed: tuple[int, ...] | None = None

    @property
    def everything(self) -> bool:
        """Whether all tokens are chosen."""
        return self.bounds is None and self.listed is None

    def chosen(self, places: Integers, counts: Integers) -> Booleans:
        """Which places (sequences, n) are chosen; never padding."""
        chosen = places >= 0
        if self.everything:
            return chosen
        for row, own, count in zip(chosen, places, counts, strict=True):
            table = np.zeros(int(count), bool)
            if self.bounds is not None:
                table[slice(*self.bounds)] = True
            else:
                table[[n for n in self.listed or () if -count <= n < count]] = True
            row[row] = table[own[row]]
        return chosen

    def met(self, places: Integers, counts: Integers) -> set[int]:
        """The listed positions that occur among some places."""
        present = [set(own[own >= 0].tolist()) for own in places]
        pairs = list(zip(present, counts.tolist(), strict=True))
        return {n for n in self.listed or () if any((n + count if n < 0 else n) in own for own, count in pairs)}

    def __repr__(self) -> str:
        if self.bounds is None:
            return str(list(self.listed)) if self.listed is not None else "None"
        start, stop, step = self.bounds
        return f"slice({start}, {stop})" if step is None else f"slice({start}, {stop}, {step})"


def positions(given: Any, name: str) -> Positions:
    """Positions given as None, a number, a slice, a range or a list.

    >>> positions(slice(0, 10), "keys"), positions([-1], "queries"), positions(None, "keys")
    (slice(0, 10), [-1], None)
    """
    if given is None:
        return Positions()
    if isinstance(given, slice):
        parts = given.start, given.stop, given.step
        if all(part is None or is_integer(part) for part in parts) and given.step != 0:
            return Positions(bounds=tuple(None if n is None else int(n) for n in parts))  # type: ignore[arg-type]
    elif is_integer(given):
        return Positions(listed=(int(given),))
    elif isinstance(given, Iterable) and not isinstance(given, str | bytes):
        listed = list(given)
        if listed and all(is_integer(n) for n in listed):
            return Positions(listed=tuple(dict.fromkeys(int(n) for n in listed)))
    raise InputError(
        f"{name}={given!r} are not positions: give a number, a list as {name}=[0, -1], a slice, or None for all."
    )


def by_position(table: Any, places: Places) -> Any:
    """A table (heads, queries, keys) by positions, axes of 1 for all, as (sequences or 1, heads, …) of a pass.

    Works for numpy's arrays and torch's tensors. Padding reads position 0.
    """
    rows, columns = (np.maximum(x, 0) for x in (places.query, places.key))
    _, queries, keys = table.shape
    if all((x == x[:1]).all() for x, n in ((rows, queries), (columns, keys)) if n > 1):
        rows, columns = rows[:1], columns[:1]
    if queries > 1 and keys > 1:
        taken = table[:, rows[:, :, None], columns[:, None, :]]
    elif queries > 1:
        taken = table[:, rows]
    elif keys > 1:
        taken = table[:, 0][:, columns][:, :, None]
    else:
        taken = table[:, None]
    return taken.swapaxes(0, 1)
