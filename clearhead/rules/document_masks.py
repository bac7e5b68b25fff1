"""Packed documents: several sequences one after another, each of which sees only itself.

Responsible for the lengths, and for the span of each document. Joined by `&`, a document is a span of its own and has
the bits that it would have alone; under | and ~ it is a formula like any mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.arrays import is_integer
from clearhead.errors import InputError, ShapeError
from clearhead.once import cached_property
from clearhead.rules.expression import Expression, Formula, immutable_copy
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.spans import Align, CallGeometry, Span, cut, query_offset


@dataclass(frozen=True)
class Documents(Mask):
    """Each query sees its own document; `documents(lengths)` makes one."""

    lengths: tuple[int, ...]
    queries: tuple[int, ...] | None = None

    @cached_property
    def formula(self) -> Formula:
        """Query and key are in the same document."""
        self.check_alike()
        ids = immutable_copy(np.repeat(np.arange(len(self.lengths)), self.lengths))
        own, other = (Expression("load", "int", (Expression(name, "int"),), array=0) for name in ("query", "key"))
        return Formula(Expression("eq", "bool", (own, other)), (ids,))

    def check_alike(self) -> None:
        """Raise InputError if queries have lengths of their own: one table of documents cannot serve both."""
        if self.queries is not None:
            raise InputError(
                f"{self!r} has lengths of its own for queries: it can be combined by &, but not by | or ~."
            )

    def check(self, at: CallGeometry) -> None:
        """Under | and ~, queries and keys share one numbering of items, so their positions must fit it."""
        self.check_alike()
        total = sum(self.lengths)
        if total != at.keys and not (at.placed and total > at.keys):
            raise ShapeError(
                f"{self!r} holds {total} items, but there are {at.keys} keys: make the lengths sum up to it."
            )
        if at.first < 0 or at.last >= total:
            raise ShapeError(
                f"{self!r} holds {total} items, but queries stand at {at.first} to {at.last}: give as many keys."
            )

    def spans(self, queries: int, keys: int, align: Align | None) -> tuple[Span, ...]:
        """One span for each document that has a query; `align` places its queries among its keys."""
        own = self.queries or self.lengths
        if (sum(own), sum(self.lengths)) != (queries, keys):
            raise ShapeError(
                f"{self!r} holds {sum(own)} queries and {sum(self.lengths)} keys, the arrays {queries} and {keys}: "
                "make the lengths sum up to those."
            )
        starts = zip(accumulate(own, initial=0), own, accumulate(self.lengths, initial=0), self.lengths, strict=False)
        return tuple(Span(q, n, k, m, k - q + query_offset(n, m, align, self)) for q, n, k, m in starts if n)

    def spans_at(self, at: int, queries: int, keys: int) -> tuple[Span, ...]:
        """One span for each document that has some of these queries, the first at position `at`, with its keys so far.

        The keys given are the first of the whole call's.
        """
        if self.queries is not None:
            raise InputError(
                f"{self!r} has lengths of its own for queries, among which at={at} has no place: give one list of "
                "lengths for both, or align within each document."
            )
        if max(at + queries, keys) > sum(self.lengths):
            raise ShapeError(
                f"{self!r} holds {sum(self.lengths)} items, but {queries} queries from {at} on and {keys} keys reach "
                "beyond them: give the lengths of all documents of the whole call."
            )
        places = zip(accumulate(self.lengths, initial=0), self.lengths, strict=False)
        whole = (Span(start, n, start, max(0, min(n, keys - start)), 0) for start, n in places)
        return cut(whole, at, at + queries)

    def __repr__(self) -> str:
        own = "" if self.queries is None else f", queries={shortened(self.queries)}"
        return f"documents({shortened(self.lengths)}{own})"


def checked_lengths(name: str, lengths: Sequence[int], count: int | None = None) -> tuple[int, ...]:
    """Document lengths as Python integers, or InputError."""
    if not np.iterable(lengths):
        raise InputError(f"documents' {name}={lengths!r} is not a list: give numbers, as in [5, 7, 3].")
    if any(not is_integer(n) or n < 0 for n in lengths) or count not in (None, len(lengths)):
        wanted = "" if count is None else f"{count} "
        raise InputError(
            f"documents' {name} {shortened(tuple(lengths))} are not lengths: give {wanted}numbers 0, 1, 2 …"
        )
    return tuple(int(n) for n in lengths)


def run_lengths(ids: npt.NDArray[Any]) -> tuple[int, ...]:
    """The lengths of the runs of equal numbers."""
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise InputError(
            f"documents' ids have shape {ids.shape} and dtype {ids.dtype}: give one whole number per item."
        )
    borders = np.flatnonzero(np.diff(ids, prepend=ids[:1] - 1)) if len(ids) else np.empty(0, int)
    if len(set(ids[borders].tolist())) < len(borders):
        raise InputError(
            "documents' ids come back after another document: sort the items, or use "
            "where(lambda batch, head, query, key: ids[query] == ids[key])."
        )
    return tuple(int(n) for n in np.diff(borders, append=len(ids)))


def shortened(numbers: tuple[int, ...]) -> str:
    """A list's text, shortened if it is long."""
    return (
        repr(list(numbers)) if len(numbers) <= 6 else f"[{', '.join(map(str, numbers[:4]))}, … {len(numbers)} in all]"
    )
