"""Expressions: what masks and score rules come to, as data that can be read, calculated and turned into machine code.

Decides which leaves there are, and when two expressions are one. Leaves what operations mean to `rules.operations`,
values to `rules.evaluation`, tracing to `rules.trace`, and code to `kernels.ir.expressions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Literal

import numpy as np

from clearhead.arrays import Array

Kind = Literal["float", "int", "bool"]

LEAVES: dict[str, Kind] = {
    "score": "float",
    "batch": "int",
    "head": "int",
    "query": "int",  # position among the keys
    "row": "int",  # index among the queries
    "key": "int",
}
SYMBOLS = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "floordiv": "//", "mod": "%", "lt": "<", "le": "<=", "gt": ">",
    "ge": ">=", "eq": "==", "ne": "!=", "and": "&", "or": "|", "xor": "^",
}  # fmt: skip
MOST_WRITTEN = 200  # operations of an argument that are still written out


@dataclass(frozen=True, eq=False, repr=False)
class Expression:
    """One operation on others; leaves have no arguments.

    Equal digests are equal meaning. They and what else is asked of whole expressions is known from the start, for a
    part may be used many times: walked as a tree, an expression can be exponentially larger than it is.
    """

    op: str
    kind: Kind
    args: tuple[Expression, ...] = ()
    value: float | int | bool | None = None  # a constant's, or which axis of an array
    array: int | None = None  # which captured array, or which of the call's parameters
    digest: bytes = field(init=False)
    leaves: frozenset[str] = field(init=False)
    size: int = field(init=False)  # operations and leaves, counted each time they are written
    depth: int = field(init=False)

    def __post_init__(self) -> None:
        own = f"{self.op} {self.kind} {self.value!r} {self.array}".encode()
        digest = blake2b(b" ".join((own, *(a.digest for a in self.args))), digest_size=16).digest()
        own_leaf = frozenset({self.op} & LEAVES.keys())
        object.__setattr__(self, "digest", digest)
        object.__setattr__(self, "leaves", own_leaf.union(*(a.leaves for a in self.args)))
        object.__setattr__(self, "size", 1 + sum(a.size for a in self.args))
        object.__setattr__(self, "depth", 1 + max((a.depth for a in self.args), default=0))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        """The expression as one would type it, long arguments by their digests; kernels are kept under this text."""
        parts = [repr(a) if a.size <= MOST_WRITTEN else f"…{a.digest.hex()}" for a in self.args]
        match self.op:
            case "constant":
                return f"{self.value!r}"
            case "parameter":
                return f"c{self.array}"
            case "load":
                return f"a{self.array}[{', '.join(parts)}]"
            case "offset":
                return f"offset{self.array}.{self.value}({parts[0]})"
            case "size":
                return f"size{self.array}.{self.value}"
            case op if op in SYMBOLS:
                return f"({parts[0]} {SYMBOLS[op]} {parts[1]})"
        return f"{self.op}({', '.join(parts)})" if parts else self.op


@dataclass(frozen=True, eq=False)
class Formula:
    """An expression and the arrays it reads. Equal ones have equal expressions, and read the same memory."""

    expression: Expression
    arrays: tuple[Array, ...] = ()

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Formula)
            and self.expression == other.expression
            and len(self.arrays) == len(other.arrays)
            and all(map(same_memory, self.arrays, other.arrays))
        )

    def __hash__(self) -> int:
        return hash(self.expression)

    def combine(self, op: str, *others: Formula) -> Formula:
        """`and`, `or`, `not` of formulas."""
        arrays, parts = list(self.arrays), [self.expression]
        for other in others:
            parts.append(renumber(other.expression, len(arrays)))
            arrays += other.arrays
        return Formula(Expression(op, "bool", tuple(parts)), tuple(arrays))

    def after(self, first: Formula) -> Formula:
        """This rule applied to another's score."""
        moved = renumber(self.expression, len(first.arrays))
        return Formula(substitute(moved, first.expression), (*first.arrays, *self.arrays))


def same_memory(a: Array, b: Array) -> bool:
    """Whether two arrays show the same numbers, whatever becomes of them: one memory, or equal bytes for ever."""
    if a is b:
        return True
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.strides == b.strides and a.ctypes.data == b.ctypes.data:
        return True
    return constant(a) and constant(b) and a.tobytes() == b.tobytes()


def constant(array: Array) -> bool:
    """Whether an array's numbers cannot change: it stands on immutable bytes, as `unchanging` makes it.

    That it is read-only says little: it can be made writable again, or be changed through another array.
    """
    base = array.base
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, bytes)


def unchanging(array: Array) -> Array:
    """A copy that nobody can change.

    >>> unchanging(np.arange(3)).flags.writeable
    False
    """
    return np.ndarray(array.shape, array.dtype, array.tobytes())


def depends(e: Expression) -> frozenset[str]:
    """The leaves that an expression reads.

    >>> sorted(depends(Expression("add", "int", (Expression("query", "int"), Expression("key", "int")))))
    ['key', 'query']
    """
    return e.leaves


def parts(e: Expression) -> Iterator[Expression]:
    """Every part of an expression once, arguments before what is made of them.

    >>> key = Expression("key", "int")
    >>> list(parts(Expression("mul", "int", (key, key))))
    [key, (key * key)]
    """
    done: set[Expression] = set()
    waiting = [(e, False)]
    while waiting:
        part, ready = waiting.pop()
        if part in done:
            continue
        if ready:
            done.add(part)
            yield part
        else:
            waiting.append((part, True))
            waiting.extend((a, False) for a in reversed(part.args))


def rewrite(e: Expression, change: Callable[[Expression], Expression | None]) -> Expression:
    """The expression with `change` applied to each part once, from the leaves up; None leaves a part as it is."""
    new: dict[Expression, Expression] = {}
    for part in parts(e):
        moved = replace(part, args=tuple(new[a] for a in part.args)) if part.args else part
        new[part] = change(moved) or moved
    return new[e]


def renumber(e: Expression, by: int) -> Expression:
    """The same reading arrays with higher numbers."""
    return rewrite(e, lambda x: replace(x, array=(x.array or 0) + by) if x.op in ("load", "size") else None)


def substitute(e: Expression, score: Expression) -> Expression:
    """The same with another expression for its score."""
    return rewrite(e, lambda x: score if x.op == "score" else None)


def fits(value: int, bits: int = 64) -> bool:
    """Whether a whole number fits into so many bits.

    >>> fits(2**63 - 1), fits(2**63), fits(-(2**31), 32)
    (True, False, True)
    """
    return -(1 << bits - 1) <= value < 1 << bits - 1
