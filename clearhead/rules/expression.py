"""Expressions: masks and score rules as data that can be printed, evaluated and compiled.

Decides which leaves exist and when two expressions are equal. The meaning of operations is in `rules.operations`,
evaluation in `rules.evaluation`, tracing in `rules.trace` and code generation in `kernels.ir.expressions`.
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
MOST_PRINTED_OPERATIONS = 200  # a larger argument is printed as its digest


@dataclass(frozen=True, eq=False, repr=False)
class Expression:
    """One operation on others; leaves have no arguments.

    Equal digests mean equal expressions. Digest, leaves, size and depth are computed once from the arguments, because
    parts are shared: walking an expression as a tree can take exponential time.
    """

    op: str
    kind: Kind
    args: tuple[Expression, ...] = ()
    value: float | int | bool | None = None  # a constant's value, or the axis of an array's size
    array: int | None = None  # index of a captured array or of a call's parameter
    digest: bytes = field(init=False)
    leaves: frozenset[str] = field(init=False)
    size: int = field(init=False)  # number of operations and leaves, shared parts counted at each use
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
        """The expression as source text, large arguments as digests; this text is part of a kernel's cache key."""
        parts = [repr(a) if a.size <= MOST_PRINTED_OPERATIONS else f"…{a.digest.hex()}" for a in self.args]
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
    """An expression and the arrays it reads; equal if the expressions are equal and read the same memory."""

    expression: Expression
    arrays: tuple[Array, ...] = ()

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Formula)
            and self.expression == other.expression
            and len(self.arrays) == len(other.arrays)
            and all(map(always_equal, self.arrays, other.arrays))
        )

    def __hash__(self) -> int:
        return hash(self.expression)

    def combine(self, op: str, *others: Formula) -> Formula:
        """Join formulas by `and`, `or` or `not`."""
        arrays, parts = list(self.arrays), [self.expression]
        for other in others:
            parts.append(renumber(other.expression, len(arrays)))
            arrays += other.arrays
        return Formula(Expression(op, "bool", tuple(parts)), tuple(arrays))

    def after(self, first: Formula) -> Formula:
        """This rule applied to the score that `first` gives."""
        moved = renumber(self.expression, len(first.arrays))
        return Formula(substitute(moved, first.expression), (*first.arrays, *self.arrays))


def always_equal(a: Array, b: Array) -> bool:
    """Whether two arrays always hold the same numbers: the same memory, or equal immutable bytes."""
    if a is b:
        return True
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.strides == b.strides and a.ctypes.data == b.ctypes.data:
        return True
    return is_immutable(a) and is_immutable(b) and a.tobytes() == b.tobytes()


def is_immutable(array: Array) -> bool:
    """Whether an array's numbers cannot change: its memory is an immutable bytes object, as from `immutable_copy`.

    A read-only flag is not enough: it can be reset, and another array may write to the same memory.
    """
    base = array.base
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, bytes)


def immutable_copy(array: Array) -> Array:
    """A copy whose memory cannot be written.

    >>> immutable_copy(np.arange(3)).flags.writeable
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
    """Each subexpression once, arguments before the operations that use them.

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
    """Apply `change` to each part once, from the leaves up; None keeps a part."""
    new: dict[Expression, Expression] = {}
    for part in parts(e):
        moved = replace(part, args=tuple(new[a] for a in part.args)) if part.args else part
        new[part] = change(moved) or moved
    return new[e]


def renumber(e: Expression, by: int) -> Expression:
    """The expression with its array numbers raised by `by`."""
    return rewrite(e, lambda x: replace(x, array=(x.array or 0) + by) if x.op in ("load", "size") else None)


def substitute(e: Expression, score: Expression) -> Expression:
    """The expression with its score replaced."""
    return rewrite(e, lambda x: score if x.op == "score" else None)


def fits_bits(value: int, bits: int = 64) -> bool:
    """Whether a signed integer of `bits` bits can hold the value.

    >>> fits_bits(2**63 - 1), fits_bits(2**63), fits_bits(-(2**31), 32)
    (True, False, True)
    """
    return -(1 << bits - 1) <= value < 1 << bits - 1
