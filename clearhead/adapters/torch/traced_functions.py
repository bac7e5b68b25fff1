"""The torch functions that a traced function may call, expressed in operations that kernels implement.

Decides what torch's functions and conversions mean for stand-ins, with torch's parameter names. Operations to which
torch gives the table's name are taken from the table.
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
    """An operation of the table, with torch's parameter names."""
    if len(OPERATIONS[op].signatures[0][0]) == 1:
        return lambda input: call(op, input)
    return lambda input, other: call(op, input, other)


def unary_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of one number, with torch's parameter name."""
    return lambda input: function(input)


def binary_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of two numbers, with torch's parameter names."""
    return lambda input, other: function(input, other)


def add_scaled(input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """input + alpha · other."""
    return input + (other if alpha == 1 else other * alpha)


def subtract_scaled(input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """input − alpha · other."""
    return input - (other if alpha == 1 else other * alpha)


def divide_rounded(input: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    """A quotient, exact, rounded down or truncated."""
    if rounding_mode != "trunc":
        return input / other if rounding_mode is None else input // other
    if any_float(input, other):
        return call("trunc", input / other)
    quotient = abs(input) // abs(other)
    return call("where", (input < 0) != (other < 0), -quotient, quotient)


def torch_power(input: Any, exponent: Any) -> Any:
    """A power; like torch, exponents ±0.5 use the square root, which gives NaN for −∞."""
    base, n = Traced(as_expression(input)), constant_value(exponent)
    if n in (0.5, -0.5):
        root = call("sqrt", base)
        return root if n == 0.5 else 1.0 / root
    return traced_power(base, exponent)


def clamp(input: Any, min: Any = None, max: Any = None) -> Any:
    """The number limited to [min, max]; None means no limit."""
    return compositions.clip(input, min, max)


def torch_sign(input: Any) -> Any:
    """−1, 0 or 1, with derivative 0; 0 for NaN."""
    below = call("where", input < 0, constant_like(input, -1), constant_like(input, 0))
    return call("where", input > 0, constant_like(input, 1), below)


def torch_softplus(input: Any, beta: Any = 1, threshold: Any = 20) -> Any:
    """log(1 + exp(beta · x)) / beta; x itself where beta · x exceeds the threshold."""
    return functions.softplus(as_float(input), beta, threshold)


def constant_like(input: Any, value: Any, dtype: torch.dtype | None = None, **_: Any) -> Traced:
    """A constant of the kind of `input`, or of a dtype."""
    return convert_kind(value, kind_of_operand(input if dtype is None else dtype))


# Conversions


def convert_kind(x: Any, kind: Kind) -> Traced:
    """A number as another kind; floats are truncated toward 0."""
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
    """`x.to(…)`: only arguments that are or have a dtype matter; devices and memory formats do not."""
    dtyped = (x for x in (*args, *options.values()) if isinstance(x, torch.dtype | torch.Tensor | Traced))
    kind = next(map(kind_of_operand, dtyped), kind_of_operand(input))
    return convert_kind(input, kind)


def conversion_to(kind: Kind) -> Callable[..., Traced]:
    """A conversion method named after a dtype, such as `x.float()`."""
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

UNARY_UFUNCS = ("square", "isnan", "isinf", "isfinite", "signbit", "logical_not")  # torch has these names too
BINARY_UFUNCS = ("fmin", "fmax", "fmod", "logical_and", "logical_or", "logical_xor")
ALIASES = {  # torch's names for operations of the table
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
    "sinc": unary_function(compositions.sinc),
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
    """The function of which a torch name is a form: add of `__radd__` and `add_`, erf of `special_erf`."""
    name = called.strip("_").removeprefix("special_")
    return name[1:] if called.startswith("__") and name not in FUNCTIONS else name


def works_in_place(called: str, options: dict[str, Any]) -> bool:
    """Whether a call changes its first argument; removes `inplace` from the options.

    >>> works_in_place("add_", {}), works_in_place("__iadd__", {}), works_in_place("__add__", {})
    (True, True, False)
    >>> works_in_place("relu", {"inplace": True})
    True
    """
    inplace = bool(options.pop("inplace", False))
    if called.startswith("__"):
        return called.strip("_") == f"i{base_name(called)}"
    return inplace or called.endswith("_")


def trace_torch_call(called: str, args: tuple[Any, ...], options: dict[str, Any]) -> Traced:
    """The result of a torch function, by name, for stand-ins and constants.

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
    """A stand-in with Python's operators instead of torch's."""
    return Traced(x.expression) if isinstance(x, Traced) else x
