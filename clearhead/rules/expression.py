"""Expressions: what masks and score rules come to, as data that can be read, calculated and turned into machine code.

Decides the meaning of every operation. Floats are calculated in the computation's dtype, each operation rounded once;
whole numbers are 64 bits wide. An expression has a value everywhere: what divides by 0 is 0, and what leaves an array
reads its first or last element; `rules.faults` finds the pairs where Python has none. Leaves tracing to `rules.trace`,
bounds to `rules.bounds` and code to `kernels.ir.expressions`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Literal

import numpy as np

from clearhead.arrays import Array
from clearhead.rules.threefry import drawn

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


def evaluate(formula: Formula, leaves: Mapping[str, Any], functions: Any = None, dtype: Any = np.float64) -> Array:
    """The formula's value for arrays of leaves, broadcast against each other; `functions` has exp, log, tanh, sigmoid.

    Floats are calculated in the score's dtype, or in `dtype` where there is no score.

    >>> evaluate(Formula(Expression("query", "int")), {"query": np.arange(3)}).tolist()
    [0, 1, 2]
    """
    dtype = np.asarray(leaves["score"]).dtype if "score" in leaves else np.dtype(dtype)
    types = {"float": dtype, "int": np.dtype(np.int64), "bool": np.dtype(np.bool_)}
    known: dict[Expression, Any] = {}

    def operation(e: Expression, args: list[Any]) -> Any:
        if e.op in LEAVES:
            return np.asarray(leaves[e.op], types[e.kind])
        if e.op == "constant":
            return np.asarray(e.value, types[e.kind])
        if e.op == "load":
            return load(formula.arrays[e.array or 0], args).astype(types[e.kind])
        if e.op == "size":
            return np.asarray(formula.arrays[e.array or 0].shape[int(e.value or 0)])
        if e.op in ("exp", "log", "tanh", "sigmoid"):
            return getattr(functions or Plain, e.op)(args[0])
        if e.op in ("float", "int"):
            return args[0].astype(types[e.kind])
        return OPERATIONS[e.op](*args)

    with np.errstate(all="ignore"):
        for part in parts(formula.expression):
            known[part] = np.asarray(operation(part, [known[a] for a in part.args]))
    result: Array = known[formula.expression]
    return result


def load(array: Array, index: list[Any]) -> Array:
    """Elements of an array; an index below 0 counts from the end, and none leaves the array."""
    places = []
    for x, size in zip(index, array.shape, strict=True):
        x = np.where(x < 0, x + size, x)
        places.append(np.clip(x, 0, size - 1))
    return np.asarray(array[tuple(np.broadcast_arrays(*places))])


class Plain:
    """numpy's own functions, for the definition."""

    exp, log, tanh = np.exp, np.log, np.tanh

    @staticmethod
    def sigmoid(x: Array) -> Array:
        """1 / (1 + exp(−x)) without overflow."""
        e = np.exp(-np.abs(x))
        result: Array = np.where(x >= 0, 1, e) / (1 + e)
        return result


def least(a: Array, b: Array) -> Array:
    """The smaller of two; not a number if either is none."""
    return np.where((a < b) | (a != a), a, b)


def largest(a: Array, b: Array) -> Array:
    """The larger of two; not a number if either is none."""
    return np.where((a > b) | (a != a), a, b)


def floor_divide(a: Array, b: Array) -> Array:
    """Python's //, and 0 where b is 0."""
    safe = np.where(b == 0, 1, b)
    return np.where(b == 0, 0, a // safe)


def modulo(a: Array, b: Array) -> Array:
    """Python's %, and 0 where b is 0."""
    safe = np.where(b == 0, 1, b)
    return np.where(b == 0, 0, a % safe)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative, "abs": np.abs,
    "min": least, "max": largest, "sqrt": np.sqrt,
    "floordiv": floor_divide, "mod": modulo, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal, "and": np.logical_and, "or": np.logical_or,
    "xor": np.logical_xor, "not": np.logical_not, "where": np.where, "int": lambda a: np.asarray(a).astype(np.int64),
    "threefry": drawn,
}  # fmt: skip


EXACT: dict[str, Callable[..., Any]] = {  # operations that may make whole numbers too large
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "neg": operator.neg, "abs": abs,
}  # fmt: skip


def fits(value: int, bits: int = 64) -> bool:
    """Whether a whole number fits into so many bits.

    >>> fits(2**63 - 1), fits(2**63), fits(-(2**31), 32)
    (True, False, True)
    """
    return -(1 << bits - 1) <= value < 1 << bits - 1


def simplify(e: Expression) -> Expression:
    """The same value to the bit with less work: constants folded, and what multiplies by 1 or chooses always left out.

    >>> simplify(Expression("mul", "int", (Expression("key", "int"), Expression("constant", "int", value=1))))
    key
    """
    return rewrite(e, simpler)


def simpler(e: Expression) -> Expression | None:
    """One step of `simplify`, the arguments being as simple as they can."""
    constants = [a.value for a in e.args if a.op == "constant"]
    if e.op in OPERATIONS and len(constants) == len(e.args) and all(a.kind != "float" for a in (e, *e.args)):
        value = EXACT[e.op](*constants) if e.op in EXACT else OPERATIONS[e.op](*map(np.asarray, constants)).item()
        return Expression("constant", e.kind, value=value) if fits(value) else None
    if e.op == "float" and constants and float(constants[0] or 0) == constants[0]:
        return Expression("constant", "float", value=float(constants[0] or 0))
    if e.op in ("neg", "not") and e.args[0].op == e.op:
        return e.args[0].args[0]
    if e.op == "where" and e.args[0].op == "constant":
        return e.args[1] if e.args[0].value else e.args[2]
    if e.op in ("and", "or"):
        for a, other in (e.args, e.args[::-1]):
            if a.op == "constant":
                return other if bool(a.value) == (e.op == "and") else a
    return without_neutral(e)


def without_neutral(e: Expression) -> Expression | None:
    """What times 1, divided by 1, plus or minus 0 is; −0.0 + 0.0 is another number, so that floats keep their + 0."""
    if e.op not in ("add", "sub", "mul", "div", "floordiv"):
        return None
    neutral = ("0", "0.0") if e.op == "sub" else ("0",) if e.op == "add" else ("1", "1.0")
    a, b = e.args
    if b.op == "constant" and repr(b.value) in neutral:
        return a
    if e.op in ("add", "mul") and a.op == "constant" and repr(a.value) in neutral:
        return b
    return None
