"""Spans: which queries stand where among which keys, of a call, of a document, or of a piece of either.

Key j has position j. A query's position is its index plus an offset; with align="end" the last query has the last
key's position, with at=p the first has position p: the queries are a piece of a longer call, whose tables they read.
The last leading axis counts heads; batch counts over all other leading axes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from clearhead.errors import ShapeError

Align = Literal["start", "end"]
POSITIONS = ("batch", "head", "query", "key")
FARTHEST = 1 << 40  # beyond all positions


class Span(NamedTuple):
    """A range of queries and the keys that they may see: everything, or one document."""

    first_query: int
    queries: int
    first_key: int
    keys: int
    offset: int  # a query's position among the keys is its index plus this
    row: int = 0  # its row in tables of pairs is its index plus this

    def cut(self, first: int, stop: int) -> Span:
        """Those of its queries from index `first` to before `stop`, counted from `first`; perhaps none."""
        begin, end = max(first, self.first_query), min(stop, self.first_query + self.queries)
        return self._replace(
            first_query=begin - first, queries=end - begin, offset=self.offset + first, row=self.row + first
        )


def cut(spans: Iterable[Span], first: int, stop: int) -> tuple[Span, ...]:
    """The spans of the queries from `first` to before `stop`, each at its own position and row of tables."""
    return tuple(span for span in (whole.cut(first, stop) for whole in spans) if span.queries > 0)


class CallGeometry(NamedTuple):
    """The shape that a mask must fit: batches, heads and lengths of a call, and its range of query positions."""

    batches: int
    heads: int
    queries: int
    keys: int
    first: int
    last: int
    ambiguous: bool  # whether queries and keys differ in number, and no mask states how they align
    placed: bool  # whether the call is a piece of a longer one, by at=…, whose tables it reads

    @property
    def table(self) -> tuple[int, int, int, int]:
        """The axes of a table of all pairs: batches, heads, rows, keys; of a longer call's table, the least."""
        return self.batches, self.heads, self.last + 1 if self.placed else self.queries, self.keys

    def holds(self, shape: tuple[int, ...]) -> bool:
        """Whether a table of pairs has an entry for each one; axes of size 1 broadcast."""
        axes = zip(reversed(shape), reversed(self.table), (self.placed, self.placed, False, False), strict=False)
        return all(n in (1, size) or (longer and n > size) for n, size, longer in axes)

    @property
    def wanted(self) -> str:
        """What a table of pairs must be like, for errors."""
        longer = ", of the whole call: rows and keys may be more" if self.placed else ""
        return f"(batch, heads, queries, keys) = {self.table}, each axis that size or 1{longer}"


def query_offset(queries: int, keys: int, align: Align | None, mask: object) -> int:
    """A query's position among the keys minus its index."""
    if align is None and queries != keys:
        raise ShapeError(
            f"{mask!r} is ambiguous for {queries} queries and {keys} keys: give it align='end' if "
            "the queries are the last ones (as with a key/value cache) or align='start' if they are the first."
        )
    return keys - queries if align == "end" else 0
