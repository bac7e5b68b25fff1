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
from clearhead.rules.compositions import any_float, as_float, call, constant_value, round_to_decimals, traced_power
from clearhead.rules.expression import Kind
from clearhead.rules.operations import OPERATIONS
from clearhead.rules.tracers import Traced, apply, as_expression

KIND_OF_TORCH_DTYPE: dict[torch.dtype, Kind] = {torch.int32: "int", torch.int64: "int", torch.bool: "bool"}


def table_function(op: str) -> Callable[..., Any]:
    """An operation as torch's function of the same name, under torch's names of what it takes."""
    if len(OPERATIONS[op].signatures[0][0]) == 1:
        return lambda input: call(op, input)
    return lambda input, other: call(op, input, other)


def unary_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of one number under torch's name of it."""
    return lambda input: function(input)


def binary_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of two numbers under torch's names of them."""
    return lambda input, other: function(input, other)


def add_scaled(input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """A sum."""
    return input + (other if alpha == 1 else other * alpha)


def subtract_scaled(input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """A difference."""
    return input - (other if alpha == 1 else other * alpha)


def divide_rounded(input: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    """A quotient, or its floor, or what stands before its point."""
    if rounding_mode != "trunc":
        return input / other if rounding_mode is None else input // other
    if any_float(input, other):
        return call("trunc", input / other)
    quotient = abs(input) // abs(other)
    return call("where", (input < 0) != (other < 0), -quotient, quotient)


def torch_power(input: Any, exponent: Any) -> Any:
    """A power; for 0.5 and −0.5 torch takes the square root, which is no number of −∞."""
    base, n = Traced(as_expression(input)), constant_value(exponent)
    if n in (0.5, -0.5):
        root = call("sqrt", base)
        return root if n == 0.5 else 1.0 / root
    return traced_power(base, exponent)


def clamp(input: Any, min: Any = None, max: Any = None) -> Any:
    """A number between two."""
    return compositions.clip(input, min, max)


def torch_sign(input: Any) -> Any:
    """−1, 0 or 1, whose derivative is 0, and 0 for what is not a number."""
    below = call("where", input < 0, constant_like(input, -1), constant_like(input, 0))
    return call("where", input > 0, constant_like(input, 1), below)


def torch_softplus(input: Any, beta: Any = 1, threshold: Any = 20) -> Any:
    """log(1 + exp(beta · x)) / beta, and x beyond a threshold."""
    return functions.softplus(as_float(input), beta, threshold)


def constant_like(input: Any, value: Any, dtype: torch.dtype | None = None, **_: Any) -> Traced:
    """A constant of a number's kind, or of a dtype's."""
    return convert_kind(value, kind_of_operand(input if dtype is None else dtype))


# Conversions


def convert_kind(x: Any, kind: Kind) -> Traced:
    """A number as another kind; a float is cut toward 0."""
    e = as_expression(x)
    if e.kind == kind:
        return Traced(e)
    return apply("ne", x, 0) if kind == "bool" else apply(kind, x)


def kind_of_operand(x: Any) -> Kind:
    """The kind of a number or a tensor, or of a dtype."""
    if isinstance(x, Traced):
        return x.expression.kind
    dtype = x if isinstance(x, torch.dtype) else x.dtype
    kind: Kind | None = "float" if dtype.is_floating_point else KIND_OF_TORCH_DTYPE.get(dtype)
    if kind is None:
        raise TraceError(f"{dtype} cannot be traced: use a float, torch.int32, torch.int64 or torch.bool")
    return kind


def convert_to(input: Any, *args: Any, **options: Any) -> Traced:
    """`x.to(…)`: what neither is a dtype nor has one tells of memory."""
    given = (x for x in (*args, *options.values()) if isinstance(x, torch.dtype | torch.Tensor | Traced))
    kind = next(map(kind_of_operand, given), kind_of_operand(input))
    return convert_kind(input, kind)


def conversion_to(kind: Kind) -> Callable[..., Traced]:
    """A method that is named after a dtype."""
    return lambda input, **_: convert_kind(input, kind)


CONVERSIONS: dict[str, Callable[..., Traced]] = {
    **dict.fromkeys(("to", "type", "type_as", "clone", "contiguous", "cpu", "item", "squeeze", "positive"), convert_to),
    **dict.fromkeys(("float", "double", "half", "bfloat16"), conversion_to("float")),
    **dict.fromkeys(("int", "long"), conversion_to("int")), "bool": conversion_to("bool"),
}  # fmt: skip
DTYPE_OF_METHOD = {
    "float": torch.float32, "double": torch.float64, "half": torch.float16, "bfloat16": torch.bfloat16,
    "int": torch.int32, "long": torch.int64, "bool": torch.bool,
}  # fmt: skip

UNARY_UFUNCS = ("square", "isnan", "isinf", "isfinite", "signbit", "logical_not")  # which torch calls so too
BINARY_UFUNCS = ("fmin", "fmax", "fmod", "logical_and", "logical_or", "logical_xor")
ALIASES = {  # torch's other names of operations in the table
    "negative": "neg", "absolute": "abs", "expit": "sigmoid", "multiply": "mul", "less": "lt", "less_equal": "le",
    "greater": "gt", "greater_equal": "ge", "equal": "eq", "not_equal": "ne", "maximum": "max", "minimum": "min",
    "floor_divide": "floordiv", "remainder": "mod", "bitwise_and": "and", "bitwise_or": "or", "bitwise_xor": "xor",
    "bitwise_not": "not", "invert": "not", "fix": "trunc", "arcsin": "asin", "arccos": "acos", "arctan": "atan",
    "arctan2": "atan2",
}  # fmt: skip
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: table_function(name) for name in OPERATIONS if name not in ("int", "float", "threefry")},
    **{alias: table_function(name) for alias, name in ALIASES.items()},
    **{name: unary_function(compositions.UFUNCS[name]) for name in UNARY_UFUNCS},
    **{name: binary_function(compositions.UFUNCS[name]) for name in BINARY_UFUNCS},
    "add": add_scaled, "sub": subtract_scaled, "subtract": subtract_scaled,
    "div": divide_rounded, "divide": divide_rounded, "true_divide": divide_rounded,
    "truediv": divide_rounded, "rsub": lambda input, other, *, alpha=1: subtract_scaled(other, input, alpha=alpha),
    "pow": torch_power,
    "float_power": lambda input, exponent: torch_power(convert_kind(input, "float"), exponent),
    "reciprocal": lambda input: 1.0 / input, "rsqrt": lambda input: 1.0 / call("sqrt", input),
    "round": lambda input, *, decimals=0: round_to_decimals(input, decimals), "sign": torch_sign, "sgn": torch_sign,
    "relu": functions.relu, "silu": functions.silu, "softplus": torch_softplus,
    "gelu": lambda input, *, approximate="none": functions.gelu(as_float(input), approximate),
    "log_sigmoid": lambda input: -call("softplus", -as_float(input)),
    "clamp": clamp, "clip": clamp,
    "clamp_min": lambda input, min: clamp(input, min), "clamp_max": lambda input, max: clamp(input, None, max),
    "where": lambda condition, input, other: call("where", condition, input, other),
    "masked_fill": lambda input, mask, value: call("where", mask, constant_like(input, value), input),
    "fill": lambda input, value: constant_like(input, value),
    "zeros_like": lambda input, **options: constant_like(input, 0, **options),
    "ones_like": lambda input, **options: constant_like(input, 1, **options),
    "full_like": lambda input, fill_value, **options: constant_like(input, fill_value, **options),
}  # fmt: skip


def base_name(called: str) -> str:
    """The function that one of torch's words is a form of: of `__radd__`, `add_` and `special_erf`, add and erf."""
    name = called.strip("_").removeprefix("special_")
    return name[1:] if called.startswith("__") and name not in FUNCTIONS else name


def works_in_place(called: str, options: dict[str, Any]) -> bool:
    """Whether a call changes its first argument; what says so is taken from its options.

    >>> works_in_place("add_", {}), works_in_place("__iadd__", {}), works_in_place("__add__", {})
    (True, True, False)
    >>> works_in_place("relu", {"inplace": True})
    True
    """
    said = bool(options.pop("inplace", False))
    if called.startswith("__"):
        return called.strip("_") == f"i{base_name(called)}"
    return said or called.endswith("_")


def trace_torch_call(called: str, args: tuple[Any, ...], options: dict[str, Any]) -> Traced:
    """What one of torch's functions, by its name, gives for stand-ins and constants.

    >>> from clearhead.rules.expression import Expression
    >>> key = Traced(Expression("key", "int"))
    >>> trace_torch_call("__rsub__", (key, 5), {}), trace_torch_call("clamp", (key,), {"max": 3})
    ((5 - key), min(key, 3))
    """
    name = base_name(called)
    args = tuple(map(as_traced, args))
    if called.startswith("__") and called.strip("_") == f"r{name}":
        args = args[::-1]
    known = CONVERSIONS.get(name) or FUNCTIONS.get(name)
    if known is None:
        raise TraceError(f"torch.{called} cannot be traced: the functions are {', '.join(sorted(FUNCTIONS))}")
    try:
        return Traced(as_expression(known(*args, **{key: as_traced(x) for key, x in options.items()})))
    except TypeError as error:
        why = str(error).partition(") ")[2] or str(error)
        raise TraceError(f"torch.{called} {why}: give it numbers alone, or call it outside") from None


def as_traced(x: Any) -> Any:
    """A stand-in with Python's own operators."""
    return Traced(x.expression) if isinstance(x, Traced) else x
