"""Masks: which keys a query may see, as formulas over positions.

Decides what each mask means for any pair of lengths, and how `&`, `|` and `~` combine masks; `rules.fused` decides how
kernels apply them. Key j has position j. A query's position is its index plus an offset; with align="end" the last
query has the last key's position, with at=p the first has position p: the queries are a piece of a longer call, whose
tables they read. The last leading axis counts heads; batch counts over all other leading axes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from types import FunctionType
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from clearhead.arrays import ceil_div
from clearhead.errors import InputError, ShapeError, TraceError, reason
from clearhead.once import cached_property
from clearhead.rules import functions
from clearhead.rules.evaluation import evaluate
from clearhead.rules.expression import Expression, Formula, immutable_copy
from clearhead.rules.simplification import simplify
from clearhead.rules.trace import function_description, trace

Align = Literal["start", "end"]
POSITIONS = ("batch", "head", "query", "key")
FAR = 1 << 62  # beyond all lengths; wider windows mean the same
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


class Mask:
    """A mask; combine masks by `&`, `|` and `~`."""

    def __and__(self, other: Mask) -> Mask:
        return And(self, checked_mask(other))

    def __or__(self, other: Mask) -> Mask:
        return Or(self, checked_mask(other))

    def __invert__(self) -> Mask:
        return Not(self)

    def parts(self) -> Iterator[Mask]:
        """The mask, or the masks that it combines."""
        yield self

    def check(self, at: CallGeometry) -> None:
        """Raise ShapeError if the mask does not cover every pair of a call."""

    @property
    def formula(self) -> Formula:
        """Whether (batch, head, query, key) is seen."""
        raise NotImplementedError


@dataclass(frozen=True)
class Causal(Mask):
    """Each query sees the keys up to its own position; `causal()` makes one."""

    align: Align | None = None
    at: int | None = None

    @cached_property
    def formula(self) -> Formula:
        """key ≤ query."""
        return trace(lambda batch, head, query, key: key <= query, POSITIONS)

    def __repr__(self) -> str:
        return f"causal({', '.join(place_text(self.align, self.at))})"


@dataclass(frozen=True)
class Full(Mask):
    """Every query sees every key; `full()` makes one."""

    at: int | None = None

    @cached_property
    def formula(self) -> Formula:
        """Always."""
        return trace(lambda batch, head, query, key: key >= 0, POSITIONS)

    def __repr__(self) -> str:
        return f"full({', '.join(place_text(None, self.at))})"


@dataclass(frozen=True)
class Window(Mask):
    """Each query sees its neighbours; `window(left, right)` makes one."""

    left: int | None
    right: int | None
    align: Align | None = None
    at: int | None = None

    @cached_property
    def formula(self) -> Formula:
        """query − left ≤ key ≤ query + right."""
        left, right = (None if n is None else min(n, FAR) for n in (self.left, self.right))

        def seen(batch: Any, head: Any, query: Any, key: Any) -> Any:
            inside = key >= 0
            inside = inside if left is None else inside & (key >= query - left)
            return inside if right is None else inside & (key <= query + right)

        return trace(seen, POSITIONS)

    def __repr__(self) -> str:
        return f"window({', '.join((str(self.left), str(self.right), *place_text(self.align, self.at)))})"


@dataclass(frozen=True)
class Prefix(Mask):
    """Every query sees the first keys; `prefix(n)` makes one."""

    length: int

    @cached_property
    def formula(self) -> Formula:
        """key < length."""
        length = min(self.length, FAR)
        return trace(lambda batch, head, query, key: key < length, POSITIONS)

    def __repr__(self) -> str:
        return f"prefix({self.length})"


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


@dataclass(frozen=True, eq=False)
class Blocks(Mask):
    """Whole squares of pairs are visible or hidden; `blocks(array, size)` makes one."""

    array: npt.NDArray[np.bool_] = field(repr=False)
    size: int

    @cached_property
    def formula(self) -> Formula:
        """array[…, query // size, key // size]."""
        size = Expression("constant", "int", value=min(self.size, FAR))
        lead = broadcast_index(self.array.shape[:-2], ("batch", "head"))
        inside = (Expression("floordiv", "int", (Expression(name, "int"), size)) for name in ("query", "key"))
        return Formula(simplify(Expression("load", "bool", (*lead, *inside), array=0)), (self.array,))

    def check(self, at: CallGeometry) -> None:
        """The blocks must cover every query and key position."""
        own = zip(self.array.shape[-3::-1], (at.heads, at.batches), strict=False)
        rows, columns = (n * self.size for n in self.array.shape[-2:])
        if at.first < 0 or not (all(n in (1, size) for n, size in own) and rows > at.last and columns >= at.keys):
            where = f"queries at {at.first} to {at.last}" if at.first else f"{at.last + 1} queries"
            raise ShapeError(
                f"{self!r} does not fit this attention: it needs {ceil_div(at.last + 1, self.size)} × "
                f"{ceil_div(at.keys, self.size)} blocks of {self.size}, for {where}, {at.keys} keys and {at.heads} "
                "heads."
            )

    def __repr__(self) -> str:
        return f"blocks(array{self.array.shape}, {self.size})"


@dataclass(frozen=True, eq=False)
class Dense(Mask):
    """A boolean table, read in place, marks the visible pairs; `dense(array)` makes one."""

    array: npt.NDArray[np.bool_] = field(repr=False)

    @cached_property
    def formula(self) -> Formula:
        """array[batch, head, query, key], axes of size 1 broadcast; queries are indexed by row."""
        index = broadcast_index(self.array.shape, ("batch", "head", "row", "key"))
        return Formula(Expression("load", "bool", index, array=0), (self.array,))

    def check(self, at: CallGeometry) -> None:
        """The table must have one entry per pair; axes of size 1 broadcast."""
        if not at.holds(self.array.shape):
            raise ShapeError(f"{self!r} does not fit this attention: it needs {at.wanted}.")

    def __repr__(self) -> str:
        return f"dense(array{self.array.shape})"


@dataclass(frozen=True, eq=False)
class Where(Mask):
    """A Python function decides which pairs are visible; `where(function)` makes one."""

    function: Callable[..., Any]
    traced: Formula = field(repr=False)

    @property
    def formula(self) -> Formula:
        """The traced function."""
        return self.traced

    def __repr__(self) -> str:
        return f"where({getattr(self.function, '__name__', self.function)})"


@dataclass(frozen=True)
class And(Mask):
    """Pairs visible in both masks."""

    a: Mask
    b: Mask

    @cached_property
    def formula(self) -> Formula:
        """a and b."""
        return self.a.formula.combine("and", self.b.formula)

    def parts(self) -> Iterator[Mask]:
        """The masks of both sides."""
        yield from self.a.parts()
        yield from self.b.parts()

    def __repr__(self) -> str:
        return " & ".join(f"({x!r})" if isinstance(x, Or) else repr(x) for x in (self.a, self.b))


@dataclass(frozen=True)
class Stepped(Mask):
    """Each query sees the keys at multiples of a step before and after it."""

    step: int

    @cached_property
    def formula(self) -> Formula:
        """(query − key) mod step = 0."""
        step = min(self.step, FAR)
        return trace(lambda batch, head, query, key: (query - key) % step == 0, POSITIONS)

    def __repr__(self) -> str:
        return f"stepped({self.step})"


@dataclass(frozen=True)
class Dilated(And):
    """Each query sees itself and the keys at multiples of a step before it; `dilated(step)` makes one.

    It is causal & stepped: kernels handle the causal part by loop bounds, and code that aligns queries finds it.
    """

    a: Causal
    b: Stepped

    def __repr__(self) -> str:
        return f"dilated({', '.join((str(self.b.step), *place_text(self.a.align, self.a.at)))})"


@dataclass(frozen=True)
class Or(Mask):
    """Pairs visible in either mask."""

    a: Mask
    b: Mask

    @cached_property
    def formula(self) -> Formula:
        """a or b."""
        return self.a.formula.combine("or", self.b.formula)

    def parts(self) -> Iterator[Mask]:
        """The masks of both sides."""
        yield from self.a.parts()
        yield from self.b.parts()

    def __repr__(self) -> str:
        return f"{self.a!r} | {self.b!r}"


@dataclass(frozen=True)
class Not(Mask):
    """Pairs hidden by the other mask."""

    a: Mask

    @cached_property
    def formula(self) -> Formula:
        """not a."""
        return self.a.formula.combine("not")

    def parts(self) -> Iterator[Mask]:
        """The masks of the negated one."""
        yield from self.a.parts()

    def __repr__(self) -> str:
        joined = isinstance(self.a, And | Or) and not isinstance(self.a, Dilated)
        return f"~({self.a!r})" if joined else f"~{self.a!r}"


def causal(*, align: Align | None = None, at: int | None = None) -> Causal:
    """Let each item see itself and the items before it.

    `align` is required if the numbers of queries and keys differ: "end" if the queries are the last items
    (chunked prompts, key/value caches), "start" if they are the first. `at=p` says instead that the queries are a
    piece of a longer call, the first at position p among its keys; rules then read positions, and rows of `dense` and
    `bias` tables, of that call. Queries before the first key, as the first of more queries than keys with align="end",
    see nothing: their output is 0. Raises InputError for other words, positions below 0, or both.

    >>> visible(causal(align="end"), queries=2, keys=4).astype(int)
    array([[1, 1, 1, 0],
           [1, 1, 1, 1]])
    >>> visible(causal(at=1), queries=2, keys=4).astype(int)
    array([[1, 1, 0, 0],
           [1, 1, 1, 0]])
    >>> visible(causal(align="end"), queries=3, keys=2).astype(int)
    array([[0, 0],
           [1, 0],
           [1, 1]])
    """
    return Causal(checked_align(align), checked_at(at, align))


def full(*, at: int | None = None) -> Full:
    """Let every item see every item; `at`, the first query's position, matters to rules as for `causal`.

    >>> visible(full(), queries=1, keys=3).astype(int)
    array([[1, 1, 1]])
    """
    return Full(checked_at(at))


def window(left: int | None, right: int | None = 0, *, align: Align | None = None, at: int | None = None) -> Window:
    """Let each item see `left` items before it, itself, and `right` items after it; None means no limit.

    `window(255)` is a sliding window of 256 items as in Mistral's models. `align` and `at` as for `causal`.

    >>> visible(window(1), queries=3, keys=3).astype(int)
    array([[1, 0, 0],
           [1, 1, 0],
           [0, 1, 1]])
    """
    for name, x in (("left", left), ("right", right)):
        if x is not None and (not is_integer(x) or x < 0):
            raise InputError(f"window's {name}={x!r} is not a number of items: use 0, 1, 2 … or None for no limit.")
    before, behind = (None if n is None else int(n) for n in (left, right))
    return Window(before, behind, checked_align(align), checked_at(at, align))


def dilated(step: int, *, align: Align | None = None, at: int | None = None) -> Dilated:
    """Let each item see itself and those 1, 2, 3 … times `step` items before it.

    `dilated(4) & window(400)` sees 101 of them. `align` and `at` as for `causal`. Raises InputError for a step below 1.

    >>> visible(dilated(2), queries=4, keys=4).astype(int)
    array([[1, 0, 0, 0],
           [0, 1, 0, 0],
           [1, 0, 1, 0],
           [0, 1, 0, 1]])
    """
    if not is_integer(step) or step < 1:
        raise InputError(f"dilated's step={step!r} is not a distance between items: use 1, 2, 3 …")
    return Dilated(causal(align=align, at=at), Stepped(int(step)))


def prefix(length: int) -> Prefix:
    """Let every item see the first `length` items; `causal() | prefix(n)` is a prefix language model.

    >>> visible(causal() | prefix(2), queries=3, keys=3).astype(int)
    array([[1, 1, 0],
           [1, 1, 0],
           [1, 1, 1]])
    """
    if not is_integer(length) or length < 0:
        raise InputError(f"prefix({length!r}) is not a number of items: use 0, 1, 2 …")
    return Prefix(int(length))


def documents(
    lengths: Sequence[int] | None = None,
    *,
    ids: Sequence[int] | npt.NDArray[Any] | None = None,
    queries: Sequence[int] | None = None,
) -> Documents:
    """Let items see only their own document, where several documents are packed one after another.

    Give the documents' `lengths`, or each item's document number as `ids`, equal numbers adjacent. If documents have
    different numbers of queries and keys, `lengths` counts keys, `queries` counts queries, and `causal` and `window`
    align within each document. Combined by `&`, each document gives the same bits as it would alone.

    >>> visible(documents([1, 2]) & causal(), queries=3, keys=3).astype(int)
    array([[1, 0, 0],
           [0, 1, 0],
           [0, 1, 1]])
    """
    if (lengths is None) == (ids is None):
        raise InputError("documents() needs either lengths or ids: give one of them.")
    if ids is not None:
        lengths = run_lengths(np.asarray(ids))
    assert lengths is not None  # noqa: S101
    own = None if queries is None else checked_lengths("queries", queries, len(lengths))
    return Documents(checked_lengths("lengths", lengths), own)


def blocks(array: npt.ArrayLike, size: int) -> Blocks:
    """Show or hide squares of `size` × `size` pairs, as array[…, query // size, key // size] says.

    `array` is bool with axes (rows, columns), optionally preceded by heads and batches; it is copied.

    >>> visible(blocks([[True, False], [True, True]], 2), queries=3, keys=3).astype(int)
    array([[1, 1, 0],
           [1, 1, 0],
           [1, 1, 1]])
    """
    table = immutable_copy(bool_table(array, "blocks()", 2))
    if not is_integer(size) or size < 1:
        raise InputError(f"blocks() got size={size!r}, which is not a positive whole number: use 1, 2, 3 …")
    return Blocks(table, int(size))


def dense(array: npt.ArrayLike) -> Dense:
    """Let each query see the keys that a boolean table marks; (queries, keys), optionally after batches and heads.

    Axes of size 1 broadcast. Every call reads the table in place, with any strides. Beside a mask with `at=…`, it is
    the whole call's table.

    >>> visible(dense([[True, False]]), queries=1, keys=2).astype(int)
    array([[1, 0]])
    """
    return Dense(bool_table(array, "dense()", 2))


def where(function: Callable[..., Any]) -> Where:
    """Let function(batch, head, query, key) decide which pairs are visible; it is traced once and compiled.

    It may compare positions, compute with them and use them to index captured arrays, which are copied now. If it
    reads `query`, and there are fewer queries than keys or more, say where the queries stand, as by
    `where(f) & window(None, None, align="end")`. Raises TraceError for code that cannot be traced, such as a Python
    `if` on a position.

    >>> visible(where(lambda batch, head, query, key: (key - query) % 2 == 0), queries=2, keys=2).astype(int)
    array([[1, 0],
           [0, 1]])
    """
    check_called(function, "where's function")
    if not callable(function):
        raise InputError(f"where({function!r}) is not given a function: give one of (batch, head, query, key).")
    traced = trace(function, POSITIONS)
    if traced.expression.kind != "bool":
        raise TraceError(
            f"{function_description(function)} gives numbers, not conditions: compare something, as in key <= query."
        )
    return Where(function, Formula(traced.expression, tuple(map(immutable_copy, traced.arrays))))


def broadcast_index(shape: tuple[int, ...], names: tuple[str, ...]) -> tuple[Expression, ...]:
    """The index at which a pair reads an array of this shape; its axes are the last of `names`, size 1 broadcasts.

    >>> broadcast_index((8, 1, 5), ("batch", "head", "row", "key"))
    (head, 0, key)
    """
    zero = Expression("constant", "int", value=0)
    leaves = (Expression(name, "int") for name in names[len(names) - len(shape) :])
    return tuple(zero if n == 1 else leaf for n, leaf in zip(shape, leaves, strict=True))


def visible(
    mask: Mask,
    queries: int,
    keys: int,
    rows: npt.NDArray[np.integer] | None = None,
    lead: tuple[int, ...] = (),
) -> npt.NDArray[np.bool_]:
    """The mask as a boolean (queries, keys) table, or some of its rows: the definition of its meaning.

    If it depends on head or batch, the table also has the leading axes `lead`.

    >>> visible(causal(), queries=3, keys=3).astype(int)
    array([[1, 0, 0],
           [1, 1, 0],
           [1, 1, 1]])
    """
    spans, rest = split_documents(mask, queries, keys)
    check_fits(mask, lead, queries, keys)
    rows = np.arange(queries) if rows is None else np.asarray(rows)
    seen = np.zeros((len(rows), keys), bool)
    for span in spans:
        mine = (rows >= span.first_query) & (rows < span.first_query + span.queries)
        part = np.zeros(keys, bool)
        part[span.first_key : span.first_key + span.keys] = True
        inside = mine[:, None] & part
        for factor in rest:
            inside = inside & factor_table(factor, rows, span, keys, lead)
        seen = seen | inside
    return seen


def factor_table(
    mask: Mask, rows: npt.NDArray[Any], span: Span, keys: int, lead: tuple[int, ...]
) -> npt.NDArray[np.bool_]:
    """One mask's formula over some rows and all keys."""
    batches, heads = int(np.prod(lead[:-1])), lead[-1] if lead else 1
    leaves = {
        "batch": np.arange(batches)[:, None, None, None],
        "head": np.arange(heads)[:, None, None],
        "row": rows[:, None] + span.row,
        "query": rows[:, None] + span.offset,
        "key": np.arange(keys),
    }
    seen = np.asarray(evaluate(mask.formula, leaves), bool)
    if seen.ndim <= 2:
        return np.broadcast_to(seen, (len(rows), keys))
    return np.broadcast_to(seen, (batches, heads, len(rows), keys)).reshape(*lead, len(rows), keys)


def at_end(mask: Mask) -> Mask:
    """The mask with queries aligned to the last keys, as with a key/value cache, unless it says where they stand."""
    if placed_at(mask) is not None:
        return mask
    aligned = aligned_at_end(mask)
    if states_place(aligned):
        return aligned
    parts = (part for x in conjunction(mask) if not isinstance(x, Documents) for part in x.parts())
    return And(mask, Window(None, None, "end")) if any(reads_query(part) for part in parts) else mask


def aligned_at_end(mask: Mask) -> Mask:
    """The mask with all that aligns queries aligned to the last keys, unless it is aligned already."""
    match mask:
        case Causal(None):
            return Causal("end")
        case Window(left, right, None):
            return Window(left, right, "end")
        case And(a, b) | Or(a, b):
            return type(mask)(aligned_at_end(a), aligned_at_end(b))
        case Not(a):
            return Not(aligned_at_end(a))
    return mask


def split_documents(mask: Mask, queries: int, keys: int) -> tuple[tuple[Span, ...], list[Mask]]:
    """The spans of a mask's documents, or one span of everything, and the masks that apply inside them."""
    factors = list(conjunction(mask))
    packed = [x for x in factors if isinstance(x, Documents)]
    aligns = {x.align for x in mask.parts() if isinstance(x, Causal | Window)}
    words = aligns - {None}
    if len(words) > 1:
        raise InputError(f"{mask!r} aligns at both start and end: use one of them throughout.")
    align, at = words.pop() if words else None, placed_at(mask)
    if align is not None and at is not None:
        raise InputError(f"{mask!r} says align={align!r} and at={at}: use one of them throughout.")
    if at is not None and not packed:
        return cut([Span(0, at + queries, 0, keys, 0)], at, at + queries), factors
    if not packed:
        lone = query_offset(queries, keys, align, mask) if aligns else 0
        return (Span(0, queries, 0, keys, lone),), factors
    if len(packed) > 1:
        raise InputError(f"{mask!r} has several documents(...): use one.")
    if at is not None:
        return packed[0].spans_at(at, queries, keys), [x for x in factors if x is not packed[0]]
    return packed[0].spans(queries, keys, align if aligns else "start"), [x for x in factors if x is not packed[0]]


def placed_at(mask: Mask) -> int | None:
    """The first query's position that a mask states by at=…, if it does."""
    places = {part.at for part in mask.parts() if isinstance(part, Causal | Full | Window) and part.at is not None}
    if len(places) > 1:
        raise InputError(f"{mask!r} has queries at {' and at '.join(map(str, sorted(places)))}: use one place.")
    return places.pop() if places else None


def check_fits(mask: Mask, lead: tuple[int, ...], queries: int, keys: int) -> CallGeometry:
    """Raise ShapeError if a mask, or a mask that it combines, does not fit a call; gives what tables must fit."""
    spans, factors = split_documents(mask, queries, keys)
    places = [(s.first_query + s.offset, s.first_query + s.queries - 1 + s.offset) for s in spans if s.queries]
    firsts, lasts = zip(*places, strict=True) if places else ((0,), (-1,))
    heads = lead[-1] if lead else 1
    placed = placed_at(mask) is not None
    ambiguous = not states_place(mask) and any(s.queries not in (0, s.keys) for s in spans)
    at = CallGeometry(int(np.prod(lead[:-1])), heads, queries, keys, min(firsts), max(lasts), ambiguous, placed)
    for factor in factors:  # `split_documents` has checked and removed a conjoined documents(...)
        for part in factor.parts():
            check_placed(part, mask, at)
            part.check(at)
    return at


def states_place(mask: Mask) -> bool:
    """Whether a mask states where queries stand among a different number of keys."""
    return any(getattr(part, "align", None) or getattr(part, "at", None) is not None for part in mask.parts())


def reads_query(rule: Any) -> bool:
    """Whether a mask or a score rule depends on a query's position; tables of pairs are read by its row."""
    return "query" in rule.formula.expression.leaves


def check_placed(rule: Any, mask: Mask, at: CallGeometry) -> None:
    """Raise ShapeError if a rule reads a query's position, and nothing states it."""
    if at.ambiguous and reads_query(rule):
        reader = "" if rule is mask else f", and {rule!r} reads their positions"
        raise ShapeError(
            f"{mask!r} does not say where {at.queries} queries stand among {at.keys} keys{reader}: say "
            "align='end' if they are the last ones (as with a key/value cache) or align='start' if they are the first, "
            "as by & window(None, None, align='end')."
        )


def conjunction(mask: Mask) -> Iterator[Mask]:
    """The masks that `&` joins here."""
    if isinstance(mask, And):
        yield from conjunction(mask.a)
        yield from conjunction(mask.b)
    else:
        yield mask


def query_offset(queries: int, keys: int, align: Align | None, mask: Mask) -> int:
    """A query's position among the keys minus its index."""
    if align is None and queries != keys:
        raise ShapeError(
            f"{mask!r} is ambiguous for {queries} queries and {keys} keys: give it align='end' if "
            "the queries are the last ones (as with a key/value cache) or align='start' if they are the first."
        )
    return keys - queries if align == "end" else 0


def checked_mask(mask: object) -> Mask:
    """The mask, or InputError if it is not one."""
    if isinstance(mask, Mask):
        return mask
    check_called(mask, "mask")
    called, cure = repr(mask), "causal(), full(), window(…) and their like"
    if isinstance(mask, np.ndarray):
        called, cure = "a ndarray", "dense(array)"
    elif callable(mask):
        cure = "where(function)"
    raise InputError(f"mask is {called}, which is not a mask: use clearhead.{cure}.")


def check_called(given: object, name: str) -> None:
    """Raise InputError for one of our own functions, given in place of the mask or rule that it makes or works in."""
    if not isinstance(given, FunctionType) or not given.__module__.startswith("clearhead.rules."):
        return
    called = given.__name__
    if getattr(sys.modules[given.__module__], called, None) is not given:  # a function that an example made there
        return
    if given.__module__ == functions.__name__:
        raise InputError(f"{name} is clearhead.functions.{called}, which works on numbers: call it inside a rule.")
    raise InputError(f"{name} is clearhead.{called} itself, not what it makes: call it, as clearhead.{called}(…).")


def checked_align(align: Any) -> Align | None:
    """The alignment, or InputError."""
    if align not in (None, "start", "end"):
        raise InputError(f"align={align!r} is not an alignment: use 'start' or 'end'.")
    return align  # type: ignore[no-any-return]


def checked_at(at: Any, align: Align | None = None) -> int | None:
    """The first query's position, or InputError."""
    if at is None:
        return None
    if align is not None:
        raise InputError(f"align={align!r} and at={at!r} both say where the queries stand: give one of them.")
    if not is_integer(at) or not 0 <= at < FARTHEST:
        raise InputError(f"at={at!r} is not the position of a query among the keys: use 0, 1, 2 …, below 2⁴⁰.")
    return int(at)


def place_text(align: Align | None, at: int | None) -> tuple[str, ...]:
    """The arguments that say where queries stand, as they are written."""
    return tuple(f"{name}={x!r}" for name, x in (("align", align), ("at", at)) if x is not None)


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


def bool_table(array: npt.ArrayLike, name: str, least: int) -> npt.NDArray[np.bool_]:
    """A boolean array with `least` to 4 axes, or InputError."""
    table = plain_array(array, name)
    if table.dtype != np.bool_ or not least <= table.ndim <= 4:
        raise InputError(
            f"{name} got an array of shape {table.shape} and dtype {table.dtype}: give booleans, (queries, keys) or "
            "with heads and batches before."
        )
    return table


def plain_array(array: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    """A rule's array as numpy, in native byte order, or InputError."""
    if isinstance(array, np.ma.MaskedArray):
        raise InputError(f"{name} got a masked array, whose mask would be ignored: give x.filled(...).")
    try:
        table = np.asarray(array)
    except (TypeError, RuntimeError) as error:  # torch's, of tensors on a card, in bfloat16, or with gradients
        raise InputError(
            f"{name} got a {type(array).__name__} that numpy cannot read ({reason(error).rstrip('.')}): give an array, "
            "for a tensor x as x.detach().cpu().numpy(), after x.float() in bfloat16; or give torch's flex_attention a "
            "function, which reads tensors where they are."
        ) from None
    except ValueError as error:
        raise InputError(
            f"{name} got rows of different lengths or types ({error}): give a rectangular array."
        ) from None
    if not table.dtype.isnative:
        raise InputError(f"{name} got {table.dtype.str}, a foreign byte order: give x.astype({table.dtype.name!r}).")
    return table


def is_integer(x: object) -> bool:
    """Whether x is an integer and not a bool."""
    return isinstance(x, int | np.integer) and not isinstance(x, bool)


def shortened(numbers: tuple[int, ...]) -> str:
    """A list's text, shortened if it is long."""
    return (
        repr(list(numbers)) if len(numbers) <= 6 else f"[{', '.join(map(str, numbers[:4]))}, … {len(numbers)} in all]"
    )


CAUSAL = causal()
