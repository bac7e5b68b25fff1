"""Stand-ins for numbers that differ from pair to pair: they write down what is done to them.

Decides which of Python's and numpy's operations can be written down, and how kinds of numbers meet; `captured_arrays`
has the stand-ins for arrays, `rules.trace` calls functions with both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from clearhead.errors import TraceError
from clearhead.rules import compositions
from clearhead.rules.expression import Expression, Kind, fits
from clearhead.rules.operations import OPERATIONS

KINDS: dict[str, Kind] = {"f": "float", "i": "int", "u": "int", "b": "bool"}
INSTEAD = {
    "bool": "a Python `if`, `and`, `or`, `not`, min() or max() needs one truth, but this differs from pair to pair: "
    "use np.where(condition, a, b), &, |, ~, np.minimum or np.maximum",
    "number": "int(), float() and math's functions need one number: use numpy's functions, as np.exp(score), and "
    "math.floor(), math.ceil(), math.trunc() or round() for whole numbers",
    "index": "only a numpy array can be indexed by a position, and only one that is made outside of the rule and has a "
    "name of its own: make one of a list, or of what an object holds; range() of a position is impossible",
    "array": "positions and scores cannot be put into an array, nor index one that is made inside of the rule or held "
    "by an object: make it outside, and give it a name of its own",
    "iterate": "positions and scores are single numbers, which cannot be unpacked or looped over",
    "hash": "a dict or a set needs one number to look up, but this differs from pair to pair: make an array of what it "
    "holds, and index that",
    "type": "what a position or a score is cannot be asked, for it is a stand-in while a rule is traced",
    "catch": "an `except` cannot be traced, for stand-ins do not fail where numbers do: use np.where",
    "store": "a rule cannot store anything: give the new score back",
}


noted: Callable[[Expression], None] | None = None  # told of each operation while its line is looked for


class Traced:
    """A stand-in for a number that differs from pair to pair."""

    __array_priority__ = 1000
    known = False  # whether it is one number after all

    def __init__(self, expression: Expression) -> None:
        self.expression = expression
        if noted is not None:
            noted(expression)

    def like(self, expression: Expression) -> Traced:
        """What is made of it."""
        return type(self)(expression)

    def __repr__(self) -> str:
        return repr(self.expression)

    def __bool__(self) -> bool:
        raise TraceError(INSTEAD["bool"])

    def refuse_number(self, *_: Any) -> Any:
        """int(), float()."""
        raise TraceError(INSTEAD["number"])

    __int__ = __float__ = __complex__ = refuse_number

    def __index__(self) -> int:
        raise TraceError(INSTEAD["index"])

    def __iter__(self) -> Any:
        raise TraceError(INSTEAD["iterate"])

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TraceError(INSTEAD["array"])

    def __pos__(self) -> Any:
        return self

    def __hash__(self) -> int:
        raise TraceError(INSTEAD["hash"])

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self

    def __pow__(self, exponent: Any) -> Any:
        return compositions.power(self, exponent)

    def __rpow__(self, base: Any) -> Any:
        return compositions.power(self.stand_in(base), self)

    def __floor__(self) -> Any:
        return compositions.whole(apply("floor", self))

    def __ceil__(self) -> Any:
        return compositions.whole(apply("ceil", self))

    def __trunc__(self) -> Any:
        return compositions.whole(self)

    def __round__(self, digits: Any = None) -> Any:
        if digits is not None:
            raise TraceError(f"round(…, {digits!r}) is of decimal digits, which floats have not: use np.round")
        return compositions.whole(apply("round", self))

    def __lshift__(self, by: Any) -> Any:
        return apply("mul", *shifted(self, by))

    def __rshift__(self, by: Any) -> Any:
        return apply("floordiv", *shifted(self, by))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if "out" in options:
            raise TraceError(INSTEAD["store"])
        if method != "__call__" or options:
            raise TraceError(f"np.{ufunc.__name__} can be traced only as np.{ufunc.__name__}(…) of what it works on")
        called = ufunc.__name__
        if called in compositions.UFUNCS:
            return compositions.UFUNCS[called](*map(self.stand_in, inputs))
        if called not in UFUNCS:
            names = ", ".join(sorted({*UFUNCS, *compositions.UFUNCS}))
            raise TraceError(f"np.{called} cannot be traced: the functions are {names}")
        return apply(UFUNCS[called], *inputs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        called = function.__name__
        if called not in compositions.FUNCTIONS or function is not getattr(np, called):
            names = ", ".join(f"np.{name}" for name in sorted(compositions.FUNCTIONS))
            raise TraceError(f"np.{called} cannot be traced: use {names} or arithmetic")
        try:
            return compositions.FUNCTIONS[called](*args, **kwargs)
        except TypeError:
            raise TraceError(f"np.{called} can be traced with numbers alone: leave its other options out") from None

    def stand_in(self, x: Any) -> Traced:
        """A number as a stand-in too."""
        return x if isinstance(x, Traced) else self.like(as_expression(x))

    def write(self, op: str, *inputs: Any) -> Traced:
        """Write down an operation on this and other numbers."""
        return apply(op, *inputs)

    # What numpy's own numbers have

    def clip(self, *limits: Any, **named: Any) -> Any:
        """A number between two."""
        return np.clip(self, *limits, **named)

    def round(self, decimals: int = 0) -> Any:
        """A float of so many decimals."""
        return compositions.rounded(self, decimals)

    def astype(self, dtype: Any) -> Any:
        """A number as another kind, cut toward 0 if that is a whole number."""
        match np.dtype(dtype).name:
            case "bool":
                return compositions.truth(self)
            case "int32" | "int64":
                return compositions.whole(self)
            case "float32" | "float64":
                return compositions.as_float(self)
        raise TraceError(f"{self!r} as {np.dtype(dtype)}: the kinds are bool, int32, int64, float32 and float64")


def operator(op: str, *, turned: bool = False) -> Callable[..., Any]:
    """A Python operator as an operation."""

    def method(self: Traced, *others: Any) -> Any:
        return apply(op, *others, self) if turned else apply(op, self, *others)

    return method


BINARY = {
    "add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "floordiv": "floordiv", "mod": "mod", "and": "and",
    "or": "or", "xor": "xor",
}  # fmt: skip
for name, op in BINARY.items():
    setattr(Traced, f"__{name}__", operator(op))
    setattr(Traced, f"__r{name}__", operator(op, turned=True))
for name in ("lt", "le", "gt", "ge", "eq", "ne", "neg", "abs"):
    setattr(Traced, f"__{name}__", operator(name))
setattr(Traced, "__invert__", operator("not"))  # noqa: B010

UFUNCS = {
    row.meaning.__name__: name
    for name, row in OPERATIONS.items()
    if isinstance(row.meaning, np.ufunc) and row.meaning.__name__ not in compositions.UFUNCS
} | {
    "fabs": "abs", "minimum": "min", "maximum": "max", "floor_divide": "floordiv", "remainder": "mod",
    "bitwise_and": "and", "bitwise_or": "or", "bitwise_xor": "xor", "invert": "not",
}  # fmt: skip
ROUNDING = ("floor", "ceil", "round", "trunc")  # which leave whole numbers as they are


def apply(op: str, *inputs: Any) -> Traced:
    """Write down one operation, of the stand-ins' class; whole numbers become floats where a float needs them."""
    stood = [x for x in inputs if isinstance(x, Traced)]
    own = min(stood, key=lambda x: x.known).like if stood else Traced
    args = [as_expression(x) for x in inputs]
    kinds = {a.kind for a in args}
    if op in ROUNDING and kinds == {"int"}:
        return own(args[0])
    if op in ("add", "sub", "neg") and kinds == {"bool"}:
        raise TraceError(f"conditions such as {args[0]!r} are no numbers to add or subtract: use |, &, ^ or np.where")
    signature = OPERATIONS[op].signature([a.kind for a in args])
    if signature is None:
        raise TraceError(needing_truth(op, args))
    takes, gives = signature
    args = [as_kind(a, kind) for a, kind in zip(args, takes, strict=True)]
    if op in ("min", "max") and (lost := next((a for a in args if a.value != a.value), None)) is not None:
        return own(lost)
    return own(Expression(op, gives, tuple(args)))


def needing_truth(op: str, args: list[Expression]) -> str:
    """What is wrong with a number where an operation takes a condition alone."""
    if op == "where":
        return f"np.where needs a condition, but {args[0]!r} is a number: compare it with something"
    wrong = next(a for a in args if a.kind != "bool")
    return f"&, |, ^ and ~ join comparisons, but {wrong!r} is a number: compare it with something"


def as_kind(e: Expression, kind: Kind) -> Expression:
    """A number as another kind that holds it."""
    return e if e.kind == kind else Expression(kind, kind, (e,))


def shifted(x: Traced, by: Any) -> tuple[Traced, int]:
    """A whole number, and the power of two that moving its bits multiplies or divides it by."""
    whole = not isinstance(by, Traced) and isinstance(by, int | np.integer) and not isinstance(by, bool)
    if x.expression.kind == "float" or not whole or not 0 <= by < 63:
        raise TraceError(f"bits of {x!r} cannot be moved by {by!r}: whole numbers can, by 0 to 62; use * or //")
    return x, 1 << int(by)


def as_expression(x: Any) -> Expression:
    """A stand-in's expression, or a constant's."""
    if isinstance(x, Traced):
        return x.expression
    number = np.asarray(x)
    if number.ndim or number.dtype.kind not in KINDS:
        raise TraceError(f"{x!r} is no single number: index an array by positions, as in array[head]")
    kind = KINDS[number.dtype.kind]
    value = number.item()
    if kind == "int" and not fits(value):
        raise TraceError(f"{value} does not fit into 64 bits, which a rule's whole numbers have: make it a float")
    return Expression("constant", kind, value=value)
