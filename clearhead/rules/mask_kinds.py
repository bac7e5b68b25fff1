"""The kinds of masks, and how `&`, `|` and `~` combine them: each is a formula over positions.

`masks` makes them after checking the arguments, `placement` says where queries stand, and `fused` decides how kernels
apply them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.arrays import ceil_div
from clearhead.errors import InputError, ShapeError
from clearhead.once import cached_property
from clearhead.rules.expression import Expression, Formula
from clearhead.rules.rule_tables import broadcast_index
from clearhead.rules.simplification import simplify
from clearhead.rules.spans import POSITIONS, Align, CallGeometry
from clearhead.rules.trace import trace
from clearhead.rules.uncalled import check_called

FAR = 1 << 62  # beyond all lengths; wider windows mean the same


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


def conjunction(mask: Mask) -> Iterator[Mask]:
    """The masks that `&` joins here."""
    if isinstance(mask, And):
        yield from conjunction(mask.a)
        yield from conjunction(mask.b)
    else:
        yield mask


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


def place_text(align: Align | None, at: int | None) -> tuple[str, ...]:
    """The arguments that say where queries stand, as they are written."""
    return tuple(f"{name}={x!r}" for name, x in (("align", align), ("at", at)) if x is not None)
