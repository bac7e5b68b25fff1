"""The words of torch that a traced function may use: each of its functions as operations that kernels know.

Decides what torch's functions and conversions mean on stand-ins, under torch's own names of parameters. An operation of
the table that torch calls by the table's name needs no word here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from clearhead.errors import TraceError
from clearhead.rules import compositions, functions
from clearhead.rules.compositions import as_float, call, constant_of, is_float, power, rounded
from clearhead.rules.expression import Kind
from clearhead.rules.operations import OPERATIONS
from clearhead.rules.tracers import Traced, apply, as_expression

KINDS: dict[torch.dtype, Kind] = {torch.int32: "int", torch.int64: "int", torch.bool: "bool"}


def of_table(op: str) -> Callable[..., Any]:
    """An operation as torch's function of the same name, under torch's names of what it takes."""
    if len(OPERATIONS[op].signatures[0][0]) == 1:
        return lambda input: call(op, input)
    return lambda input, other: call(op, input, other)


def one(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of one number under torch's name of it."""
    return lambda input: function(input)


def two(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of two numbers under torch's names of them."""
    return lambda input, other: function(input, other)


def add(input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """A sum."""
    return input + (other if alpha == 1 else other * alpha)


def subtract(input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """A difference."""
    return input - (other if alpha == 1 else other * alpha)


def divide(input: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    """A quotient, or its floor, or what stands before its point."""
    if rounding_mode != "trunc":
        return input / other if rounding_mode is None else input // other
    if is_float(input, other):
        return call("trunc", input / other)
    quotient = abs(input) // abs(other)
    return call("where", (input < 0) != (other < 0), -quotient, quotient)


def to_power(input: Any, exponent: Any) -> Any:
    """A power; for 0.5 and −0.5 torch takes the square root, which is no number of −∞."""
    base, n = Traced(as_expression(input)), constant_of(exponent)
    if n in (0.5, -0.5):
        root = call("sqrt", base)
        return root if n == 0.5 else 1.0 / root
    return power(base, exponent)


def clamp(input: Any, min: Any = None, max: Any = None) -> Any:
    """A number between two."""
    return compositions.clip(input, min, max)


def sign(input: Any) -> Any:
    """−1, 0 or 1, whose derivative is 0, and 0 for what is not a number."""
    below = call("where", input < 0, like(input, -1), like(input, 0))
    return call("where", input > 0, like(input, 1), below)


def softplus(input: Any, beta: Any = 1, threshold: Any = 20) -> Any:
    """log(1 + exp(beta · x)) / beta, and x beyond a threshold."""
    return functions.softplus(as_float(input), beta, threshold)


def like(input: Any, value: Any, dtype: torch.dtype | None = None, **_: Any) -> Traced:
    """A constant of a number's kind, or of a dtype's."""
    return converted(value, kind_of(input if dtype is None else dtype))


# Conversions


def converted(x: Any, kind: Kind) -> Traced:
    """A number as another kind; a float is cut toward 0."""
    e = as_expression(x)
    if e.kind == kind:
        return Traced(e)
    return apply("ne", x, 0) if kind == "bool" else apply(kind, x)


def kind_of(x: Any) -> Kind:
    """The kind of a number or a tensor, or of a dtype."""
    if isinstance(x, Traced):
        return x.expression.kind
    dtype = x if isinstance(x, torch.dtype) else x.dtype
    kind: Kind | None = "float" if dtype.is_floating_point else KINDS.get(dtype)
    if kind is None:
        raise TraceError(f"{dtype} cannot be traced: use a float, torch.int32, torch.int64 or torch.bool")
    return kind


def to(input: Any, *args: Any, **options: Any) -> Traced:
    """`x.to(…)`: what neither is a dtype nor has one tells of memory."""
    given = (x for x in (*args, *options.values()) if isinstance(x, torch.dtype | torch.Tensor | Traced))
    kind = next(map(kind_of, given), kind_of(input))
    return converted(input, kind)


def cast(kind: Kind) -> Callable[..., Traced]:
    """A method that is named after a dtype."""
    return lambda input, **_: converted(input, kind)


CONVERSIONS: dict[str, Callable[..., Traced]] = {
    **dict.fromkeys(("to", "type", "type_as", "clone", "contiguous", "cpu", "item", "squeeze", "positive"), to),
    **dict.fromkeys(("float", "double", "half", "bfloat16"), cast("float")),
    **dict.fromkeys(("int", "long"), cast("int")), "bool": cast("bool"),
}  # fmt: skip
OWN_DTYPES = {
    "float": torch.float32, "double": torch.float64, "half": torch.float16, "bfloat16": torch.bfloat16,
    "int": torch.int32, "long": torch.int64, "bool": torch.bool,
}  # fmt: skip

NUMPYS_OF_ONE = ("square", "isnan", "isinf", "isfinite", "signbit", "logical_not")  # which torch calls so too
NUMPYS_OF_TWO = ("fmin", "fmax", "fmod", "logical_and", "logical_or", "logical_xor")
ALIASES = {  # torch's other names of operations in the table
    "negative": "neg", "absolute": "abs", "expit": "sigmoid", "multiply": "mul", "less": "lt", "less_equal": "le",
    "greater": "gt", "greater_equal": "ge", "equal": "eq", "not_equal": "ne", "maximum": "max", "minimum": "min",
    "floor_divide": "floordiv", "remainder": "mod", "bitwise_and": "and", "bitwise_or": "or", "bitwise_xor": "xor",
    "bitwise_not": "not", "invert": "not", "fix": "trunc", "arcsin": "asin", "arccos": "acos", "arctan": "atan",
    "arctan2": "atan2",
}  # fmt: skip
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: of_table(name) for name in OPERATIONS if name not in ("int", "float", "threefry")},
    **{alias: of_table(name) for alias, name in ALIASES.items()},
    **{name: one(compositions.UFUNCS[name]) for name in NUMPYS_OF_ONE},
    **{name: two(compositions.UFUNCS[name]) for name in NUMPYS_OF_TWO},
    "add": add, "sub": subtract, "subtract": subtract, "div": divide, "divide": divide, "true_divide": divide,
    "truediv": divide, "rsub": lambda input, other, *, alpha=1: subtract(other, input, alpha=alpha),
    "pow": to_power,
    "float_power": lambda input, exponent: to_power(converted(input, "float"), exponent),
    "reciprocal": lambda input: 1.0 / input, "rsqrt": lambda input: 1.0 / call("sqrt", input),
    "round": lambda input, *, decimals=0: rounded(input, decimals), "sign": sign, "sgn": sign,
    "relu": functions.relu, "silu": functions.silu, "softplus": softplus,
    "sinc": one(compositions.sinc),
    "gelu": lambda input, *, approximate="none": functions.gelu(as_float(input), approximate),
    "log_sigmoid": lambda input: -call("softplus", -as_float(input)),
    "clamp": clamp, "clip": clamp,
    "clamp_min": lambda input, min: clamp(input, min), "clamp_max": lambda input, max: clamp(input, None, max),
    "where": lambda condition, input, other: call("where", condition, input, other),
    "masked_fill": lambda input, mask, value: call("where", mask, like(input, value), input),
    "fill": lambda input, value: like(input, value),
    "zeros_like": lambda input, **options: like(input, 0, **options),
    "ones_like": lambda input, **options: like(input, 1, **options),
    "full_like": lambda input, fill_value, **options: like(input, fill_value, **options),
}  # fmt: skip


def name_of(called: str) -> str:
    """The function that one of torch's words is a form of: of `__radd__`, `add_` and `special_erf`, add and erf."""
    name = called.strip("_").removeprefix("special_")
    return name[1:] if called.startswith("__") and name not in FUNCTIONS else name


def in_place(called: str, options: dict[str, Any]) -> bool:
    """Whether a call changes its first argument; what says so is taken from its options.

    >>> in_place("add_", {}), in_place("__iadd__", {}), in_place("__add__", {}), in_place("relu", {"inplace": True})
    (True, True, False, True)
    """
    said = bool(options.pop("inplace", False))
    if called.startswith("__"):
        return called.strip("_") == f"i{name_of(called)}"
    return said or called.endswith("_")


def written(called: str, args: tuple[Any, ...], options: dict[str, Any]) -> Traced:
    """What one of torch's functions, by its name, gives for stand-ins and constants.

    >>> from clearhead.rules.expression import Expression
    >>> key = Traced(Expression("key", "int"))
    >>> written("__rsub__", (key, 5), {}), written("clamp", (key,), {"max": 3})
    ((5 - key), min(key, 3))
    """
    name = name_of(called)
    args = tuple(map(plain, args))
    if called.startswith("__") and called.strip("_") == f"r{name}":
        args = args[::-1]
    known = CONVERSIONS.get(name) or FUNCTIONS.get(name)
    if known is None:
        raise TraceError(f"torch.{called} cannot be traced: the functions are {', '.join(sorted(FUNCTIONS))}")
    try:
        return Traced(as_expression(known(*args, **{key: plain(x) for key, x in options.items()})))
    except TypeError as error:
        why = str(error).partition(") ")[2] or str(error)
        raise TraceError(f"torch.{called} {why}: give it numbers alone, or call it outside") from None


def plain(x: Any) -> Any:
    """A stand-in with Python's own operators."""
    return Traced(x.expression) if isinstance(x, Traced) else x
