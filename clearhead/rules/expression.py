"""Expressions: what masks and score rules come to, as data that can be read, calculated and turned into machine code.

Decides the meaning of every operation. Floats are calculated in the computation's dtype, each operation rounded once;
whole numbers are 64 bits wide (in float32 kernels 32 bits where a vector holds them). Leaves tracing to `rules.trace`,
bounds to `rules.bounds` and code to `kernels.rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
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


@dataclass(frozen=True, eq=False)
class Expression:
    """One operation on others; leaves have no arguments. Equal text is equal meaning, so they compare by it."""

    op: str
    kind: Kind
    args: tuple[Expression, ...] = ()
    value: float | int | bool | None = None  # a constant's
    array: int | None = None  # which captured array, or which of the call's parameters
    text: str = field(init=False, repr=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", self.written())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return self.text

    def written(self) -> str:
        """The expression as one would type it."""
        parts = [a.text for a in self.args]
        match self.op:
            case "constant":
                return f"{self.value!r}"
            case "parameter":
                return f"c{self.array}"
            case "load":
                return f"a{self.array}[{', '.join(parts)}]"
            case "offset":
                return f"offset{self.array}.{self.value}({parts[0]})"
            case op if op in SYMBOLS:
                return f"({parts[0]} {SYMBOLS[op]} {parts[1]})"
        return f"{self.op}({', '.join(parts)})" if parts else self.op


@dataclass(frozen=True, eq=False)
class Formula:
    """An expression and the arrays it reads."""

    expression: Expression
    arrays: tuple[Array, ...] = ()

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


@cache
def depends(e: Expression) -> frozenset[str]:
    """The leaves that an expression reads.

    >>> sorted(depends(Expression("add", "int", (Expression("query", "int"), Expression("key", "int")))))
    ['key', 'query']
    """
    if e.op in LEAVES:
        return frozenset({e.op})
    return frozenset().union(*(depends(a) for a in e.args))


def rewrite(e: Expression, change: Callable[[Expression], Expression | None]) -> Expression:
    """The expression with `change` applied to each part, from the leaves up; None leaves a part as it is."""
    e = replace(e, args=tuple(rewrite(a, change) for a in e.args)) if e.args else e
    return change(e) or e


def renumber(e: Expression, by: int) -> Expression:
    """The same reading arrays with higher numbers."""
    return rewrite(e, lambda x: replace(x, array=(x.array or 0) + by) if x.op == "load" else None)


def substitute(e: Expression, score: Expression) -> Expression:
    """The same with another expression for its score."""
    return rewrite(e, lambda x: score if x.op == "score" else None)


def evaluate(formula: Formula, leaves: Mapping[str, Any], functions: Any = None, dtype: Any = np.float64) -> Array:
    """The formula's value for arrays of leaves, broadcast against each other; `functions` has exp, log, tanh, sigmoid.

    >>> evaluate(Formula(Expression("query", "int")), {"query": np.arange(3)}).tolist()
    [0, 1, 2]
    """
    known: dict[Expression, Any] = {}
    dtype = np.dtype(dtype)

    def value(e: Expression) -> Any:
        if e not in known:
            known[e] = operation(e, [value(a) for a in e.args])
        return known[e]

    def operation(e: Expression, args: list[Any]) -> Any:
        if e.op in leaves:
            return np.asarray(leaves[e.op])
        if e.op == "constant":
            return np.asarray(e.value, dtype if e.kind == "float" else None)
        if e.op == "load":
            return load(formula.arrays[e.array or 0], args, e.kind, dtype)
        if e.op in ("exp", "log", "tanh", "sigmoid"):
            return getattr(functions or Plain, e.op)(args[0])
        if e.op == "float":
            return np.asarray(args[0]).astype(dtype)
        return OPERATIONS[e.op](*args)

    with np.errstate(all="ignore"):
        result: Array = np.asarray(value(formula.expression))
    return result


def load(array: Array, index: list[Any], kind: Kind, dtype: Any) -> Array:
    """Elements of an array; an index below 0 counts from the end, and none leaves the array."""
    places = []
    for x, size in zip(index, array.shape, strict=True):
        x = np.where(x < 0, x + size, x)
        places.append(np.clip(x, 0, size - 1))
    found: Array = array[tuple(np.broadcast_arrays(*places))]
    return found.astype(dtype) if kind == "float" else found.astype(np.int64) if kind == "int" else found


class Plain:
    """numpy's own functions, for the definition."""

    exp, log, tanh = np.exp, np.log, np.tanh

    @staticmethod
    def sigmoid(x: Array) -> Array:
        """1 / (1 + exp(−x)) without overflow."""
        e = np.exp(-np.abs(x))
        result: Array = np.where(x >= 0, 1, e) / (1 + e)
        return result


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
    "min": lambda a, b: np.where(a < b, a, b), "max": lambda a, b: np.where(a > b, a, b), "sqrt": np.sqrt,
    "floordiv": floor_divide, "mod": modulo, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal, "and": np.logical_and, "or": np.logical_or,
    "xor": np.logical_xor, "not": np.logical_not, "where": np.where, "int": lambda a: np.asarray(a).astype(np.int64),
}  # fmt: skip


def simplify(e: Expression) -> Expression:
    """The same value to the bit with less work: constants folded, and what multiplies by 1 or chooses always left out.

    >>> simplify(Expression("mul", "int", (Expression("key", "int"), Expression("constant", "int", value=1))))
    key
    """
    return rewrite(e, simpler)


def simpler(e: Expression) -> Expression | None:
    """One step of `simplify`, the arguments being as simple as they can."""
    constants = [a.value for a in e.args if a.op == "constant"]
    if e.args and len(constants) == len(e.args) and all(a.kind != "float" for a in e.args) and e.kind != "float":
        folded = OPERATIONS[e.op](*(np.asarray(c) for c in constants)).item()
        return Expression("constant", e.kind, value=folded)
    if e.op == "float" and constants and float(constants[0] or 0) == constants[0]:
        return Expression("constant", "float", value=float(constants[0] or 0))
    if e.op in ("mul", "div", "floordiv") and e.args[1].op == "constant" and e.args[1].value == 1:
        return e.args[0]
    if e.op == "mul" and e.args[0].op == "constant" and e.args[0].value == 1:
        return e.args[1]
    if e.op in ("add", "sub") and e.kind == "int" and e.args[1].op == "constant" and e.args[1].value == 0:
        return e.args[0]
    if e.op in ("neg", "not") and e.args[0].op == e.op:
        return e.args[0].args[0]
    if e.op == "where" and e.args[0].op == "constant":
        return e.args[1] if e.args[0].value else e.args[2]
    if e.op in ("and", "or"):
        for a, other in (e.args, e.args[::-1]):
            if a.op == "constant":
                return other if bool(a.value) == (e.op == "and") else a
    return None
