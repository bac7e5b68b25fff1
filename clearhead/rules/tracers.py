"""Stand-ins for scores and positions: they record the operations that a rule applies to them.

Decides which Python and numpy operations can be recorded, and how kinds of numbers combine. `captured_arrays` has the
stand-ins for arrays; `rules.trace` calls functions with both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from clearhead.errors import TraceError
from clearhead.rules import compositions
from clearhead.rules.expression import Expression, Kind, fits_bits
from clearhead.rules.operations import OPERATIONS

KIND_OF_DTYPE: dict[str, Kind] = {"f": "float", "i": "int", "u": "int", "b": "bool"}
ADVICE = {
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
    "type": "the type of a position or a score cannot be inspected while a rule is traced",
    "catch": "an `except` cannot be traced, because stand-ins do not raise where numbers do: use np.where",
    "store": "a rule cannot store anything: give the new score back",
}


on_operation: Callable[[Expression], None] | None = None  # receives each operation while `blame` looks for a line


class Traced:
    """A stand-in for a number that differs from pair to pair."""

    __array_priority__ = 1000
    known = False  # whether it is the same for all pairs, with a value now

    def __init__(self, expression: Expression) -> None:
        self.expression = expression
        if on_operation is not None:
            on_operation(expression)

    def like(self, expression: Expression) -> Traced:
        """A stand-in of the same class for another expression."""
        return type(self)(expression)

    def __repr__(self) -> str:
        return repr(self.expression)

    def __bool__(self) -> bool:
        raise TraceError(ADVICE["bool"])

    def refuse_number(self, *_: Any) -> Any:
        """int(), float()."""
        raise TraceError(ADVICE["number"])

    __int__ = __float__ = __complex__ = refuse_number

    def __index__(self) -> int:
        raise TraceError(ADVICE["index"])

    def __iter__(self) -> Any:
        raise TraceError(ADVICE["iterate"])

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TraceError(ADVICE["array"])

    def __pos__(self) -> Any:
        return self

    def __hash__(self) -> int:
        raise TraceError(ADVICE["hash"])

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self

    def __pow__(self, exponent: Any) -> Any:
        return compositions.traced_power(self, exponent)

    def __rpow__(self, base: Any) -> Any:
        return compositions.traced_power(self.stand_in(base), self)

    def __floor__(self) -> Any:
        return compositions.as_int(apply("floor", self))

    def __ceil__(self) -> Any:
        return compositions.as_int(apply("ceil", self))

    def __trunc__(self) -> Any:
        return compositions.as_int(self)

    def __round__(self, digits: Any = None) -> Any:
        if digits is not None:
            raise TraceError(f"round(…, {digits!r}) rounds to decimal digits, which stand-ins cannot: use np.round")
        return compositions.as_int(apply("round", self))

    def __lshift__(self, by: Any) -> Any:
        return apply("mul", *shift_factor(self, by))

    def __rshift__(self, by: Any) -> Any:
        return apply("floordiv", *shift_factor(self, by))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if "out" in options:
            raise TraceError(ADVICE["store"])
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
        """A number as a stand-in."""
        return x if isinstance(x, Traced) else self.like(as_expression(x))

    def write(self, op: str, *inputs: Any) -> Traced:
        """Record an operation on this and other numbers."""
        return apply(op, *inputs)

    # Methods of numpy's numbers

    def clip(self, *limits: Any, **named: Any) -> Any:
        """The number limited to a range."""
        return np.clip(self, *limits, **named)

    def round(self, decimals: int = 0) -> Any:
        """The number rounded to decimals."""
        return compositions.round_to_decimals(self, decimals)

    def astype(self, dtype: Any) -> Any:
        """The number as another kind; floats are truncated to integers."""
        match np.dtype(dtype).name:
            case "bool":
                return compositions.as_bool(self)
            case "int32" | "int64":
                return compositions.as_int(self)
            case "float32" | "float64":
                return compositions.as_float(self)
        raise TraceError(f"{self!r} as {np.dtype(dtype)}: the kinds are bool, int32, int64, float32 and float64")


def operator_method(op: str, *, turned: bool = False) -> Callable[..., Any]:
    """A Python operator as an operation."""

    def method(self: Traced, *others: Any) -> Any:
        return apply(op, *others, self) if turned else apply(op, self, *others)

    return method


BINARY = {
    "add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "floordiv": "floordiv", "mod": "mod", "and": "and",
    "or": "or", "xor": "xor",
}  # fmt: skip
for name, op in BINARY.items():
    setattr(Traced, f"__{name}__", operator_method(op))
    setattr(Traced, f"__r{name}__", operator_method(op, turned=True))
for name in ("lt", "le", "gt", "ge", "eq", "ne", "neg", "abs"):
    setattr(Traced, f"__{name}__", operator_method(name))
setattr(Traced, "__invert__", operator_method("not"))  # noqa: B010

UFUNCS = {
    row.meaning.__name__: name
    for name, row in OPERATIONS.items()
    if isinstance(row.meaning, np.ufunc) and row.meaning.__name__ not in compositions.UFUNCS
} | {
    "fabs": "abs", "minimum": "min", "maximum": "max", "floor_divide": "floordiv", "remainder": "mod",
    "bitwise_and": "and", "bitwise_or": "or", "bitwise_xor": "xor", "invert": "not",
}  # fmt: skip
ROUNDING = ("floor", "ceil", "round", "trunc")  # which do not change integers


def apply(op: str, *inputs: Any) -> Traced:
    """Record one operation in the stand-ins' class; integers become floats where the operation needs floats."""
    stood = [x for x in inputs if isinstance(x, Traced)]
    own = min(stood, key=lambda x: x.known).like if stood else Traced
    args = [as_expression(x) for x in inputs]
    kinds = {a.kind for a in args}
    if op in ROUNDING and kinds == {"int"}:
        return own(args[0])
    if op in ("add", "sub", "neg") and kinds == {"bool"}:
        raise TraceError(f"conditions such as {args[0]!r} cannot be added or subtracted: use |, &, ^ or np.where")
    signature = OPERATIONS[op].signature([a.kind for a in args])
    if signature is None:
        raise TraceError(condition_message(op, args))
    takes, gives = signature
    args = [as_kind(a, kind) for a, kind in zip(args, takes, strict=True)]
    if op in ("min", "max") and (lost := next((a for a in args if a.value != a.value), None)) is not None:
        return own(lost)
    return own(Expression(op, gives, tuple(args)))


def condition_message(op: str, args: list[Expression]) -> str:
    """The error text for a number where an operation needs a condition."""
    if op == "where":
        return f"np.where needs a condition, but {args[0]!r} is a number: compare it with something"
    wrong = next(a for a in args if a.kind != "bool")
    return f"&, |, ^ and ~ join comparisons, but {wrong!r} is a number: compare it with something"


def as_kind(e: Expression, kind: Kind) -> Expression:
    """An expression converted to another kind."""
    return e if e.kind == kind else Expression(kind, kind, (e,))


def shift_factor(x: Traced, by: Any) -> tuple[Traced, int]:
    """An integer, and the power of two by which a shift multiplies or divides it."""
    by = by.expression.value if isinstance(by, Traced) and by.expression.op == "constant" else by  # as ufuncs give it
    whole = isinstance(by, int | np.integer) and not isinstance(by, bool)
    if x.expression.kind == "float" or not whole or not 0 <= by < 63:
        raise TraceError(f"bits of {x!r} cannot be moved by {by!r}: whole numbers can, by 0 to 62; use * or //")
    return x, 1 << int(by)


def as_expression(x: Any) -> Expression:
    """The expression of a stand-in or a constant."""
    if isinstance(x, Traced):
        return x.expression
    number = np.asarray(x)
    if number.ndim or number.dtype.kind not in KIND_OF_DTYPE:
        raise TraceError(f"{x!r} is no single number: index an array by positions, as in array[head]")
    kind = KIND_OF_DTYPE[number.dtype.kind]
    value = number.item()
    if kind == "int" and not fits_bits(value):
        raise TraceError(f"{value} does not fit into 64 bits, which a rule's whole numbers have: make it a float")
    return Expression("constant", kind, value=value)
