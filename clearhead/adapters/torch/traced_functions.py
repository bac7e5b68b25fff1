"""The words of torch that a traced function may use: each of its functions as operations that kernels know.

Decides what torch's functions and conversions mean on stand-ins, under torch's own names of parameters. What the
operations cannot say to a float's accuracy is missing here, and an error where it is met.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import torch

from clearhead.errors import TraceError
from clearhead.rules.expression import Expression, Kind
from clearhead.rules.tracers import Traced, apply, as_expression

KINDS: dict[torch.dtype, Kind] = {torch.int32: "int", torch.int64: "int", torch.bool: "bool"}


def unary(op: str) -> Callable[[Any], Traced]:
    """An operation as a function of one."""
    return lambda input: apply(op, input)


def binary(op: str) -> Callable[[Any, Any], Traced]:
    """An operation as a function of two."""
    return lambda input, other: apply(op, input, other)


def joining(op: str) -> Callable[[Any, Any], Traced]:
    """`and`, `or`, `xor` of what is not 0."""
    return lambda input, other: apply(op, converted(input, "bool"), converted(other, "bool"))


def add(input: Any, other: Any, *, alpha: Any = 1) -> Traced:
    """A sum."""
    return apply("add", input, other if alpha == 1 else apply("mul", other, alpha))


def subtract(input: Any, other: Any, *, alpha: Any = 1) -> Traced:
    """A difference."""
    return apply("sub", input, other if alpha == 1 else apply("mul", other, alpha))


def divide(input: Any, other: Any, *, rounding_mode: str | None = None) -> Traced:
    """A quotient; a rounded one is for whole numbers."""
    if rounding_mode != "trunc":
        return apply("div" if rounding_mode is None else "floordiv", input, other)
    quotient = apply("floordiv", apply("abs", input), apply("abs", other))
    differ = apply("ne", apply("lt", input, 0), apply("lt", other, 0))
    return apply("where", differ, apply("neg", quotient), quotient)


def inverse(x: Any) -> Traced:
    """1 / x."""
    return apply("div", 1.0, x)


def power(input: Any, exponent: Any) -> Traced:
    """A power from −8 to 8, a root, or what a positive constant to a power is."""
    base, by = as_expression(input), as_expression(exponent)
    if by.op != "constant":
        return exponential(base, by)
    n = float(by.value or 0)
    x = converted(input, "float" if by.kind == "float" or n < 0 else base.kind)
    if n in (0.5, -0.5):
        return apply("sqrt", x) if n > 0 else inverse(apply("sqrt", x))
    if not n.is_integer() or not -8 <= n <= 8:
        raise TraceError(f"** {exponent!r}: only −8 to 8, 0.5 and −0.5 can be traced; use torch.exp and torch.log")
    if n == 0:
        return like(x, 1)
    product = reduce(partial(apply, "mul"), [x] * abs(int(n)))
    return product if n > 0 else inverse(product)


def exponential(base: Expression, exponent: Expression) -> Traced:
    """A constant to a power that differs from pair to pair."""
    if base.kind == exponent.kind == "int":
        raise TraceError(f"{base!r} ** {exponent!r} is a whole number: use a float's power, or index a table of powers")
    if base.op != "constant" or not float(base.value or 0) > 0:
        raise TraceError(f"{base!r} ** {exponent!r}: only a positive constant has such powers; use torch.exp and log")
    return apply("exp", apply("mul", Traced(exponent), math.log(float(base.value or 0))))


def clamp(input: Any, min: Any = None, max: Any = None) -> Any:
    """A number between two."""
    above = input if min is None else apply("max", input, min)
    return above if max is None else apply("min", above, max)


def sign(input: Any) -> Traced:
    """−1, 0 or 1, whose derivative is 0."""
    below = apply("where", apply("lt", input, 0), like(input, -1), like(input, 0))
    return apply("where", apply("gt", input, 0), like(input, 1), below)


def log1p(input: Any) -> Traced:
    """log(1 + x); near 0 by x · log(w) / (w − 1) for w = 1 + x as it was rounded, which is accurate (Kahan)."""
    w = apply("add", input, 1.0)
    near = apply("div", apply("mul", input, apply("log", w)), apply("sub", w, 1.0))
    far = apply("where", apply("lt", apply("abs", input), 0.5), near, apply("log", w))
    return apply("where", apply("eq", w, 1.0), input, far)


def softplus(input: Any, beta: Any = 1, threshold: Any = 20) -> Traced:
    """log(1 + exp(beta · x)) / beta, and x beyond a threshold."""
    x = apply("mul", input, beta)
    return apply("where", apply("gt", x, threshold), input, apply("div", log1p(apply("exp", x)), beta))


def magnitude(x: Any) -> Traced:
    """|x| as a float."""
    return apply("abs", converted(x, "float"))


def like(input: Any, value: Any, dtype: torch.dtype | None = None, **_: Any) -> Traced:
    """A constant of a number's kind, or of a dtype's."""
    return converted(value, kind_of(input if dtype is None else dtype))


# Conversions


def converted(x: Any, kind: Kind) -> Traced:
    """A number as another kind."""
    e = as_expression(x)
    if e.kind == kind:
        return Traced(e)
    if kind == "bool":
        return apply("ne", x, 0)
    if kind == "int" and e.kind == "float":
        raise TraceError(
            f"{e!r} is a float, which kernels cannot cut to a whole number: use // of whole numbers, or index a table "
            "of whole numbers that is made outside"
        )
    return Traced(Expression(kind, kind, (e,)))


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
    **dict.fromkeys(("to", "type", "type_as", "clone", "contiguous", "cpu", "item", "squeeze"), to),
    **dict.fromkeys(("float", "double", "half", "bfloat16"), cast("float")),
    **dict.fromkeys(("int", "long"), cast("int")), "bool": cast("bool"),
}  # fmt: skip

FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: unary(name) for name in ("neg", "abs", "exp", "log", "tanh", "sqrt", "sigmoid")},
    **{name: binary(name) for name in ("mul", "lt", "le", "gt", "ge", "eq", "ne", "max", "min", "floordiv", "mod")},
    **{name: binary(name) for name in ("and", "or", "xor")},
    "negative": unary("neg"), "absolute": unary("abs"), "expit": unary("sigmoid"), "positive": lambda input: input,
    "multiply": binary("mul"), "less": binary("lt"), "less_equal": binary("le"), "greater": binary("gt"),
    "greater_equal": binary("ge"), "equal": binary("eq"), "not_equal": binary("ne"), "maximum": binary("max"),
    "minimum": binary("min"), "fmax": binary("max"), "fmin": binary("min"), "floor_divide": binary("floordiv"),
    "remainder": binary("mod"), "bitwise_and": binary("and"), "bitwise_or": binary("or"), "bitwise_xor": binary("xor"),
    "bitwise_not": unary("not"), "invert": unary("not"), "logical_and": joining("and"), "logical_or": joining("or"),
    "logical_xor": joining("xor"), "logical_not": lambda input: apply("not", converted(input, "bool")),
    "add": add, "sub": subtract, "subtract": subtract, "div": divide, "divide": divide, "true_divide": divide,
    "truediv": divide, "pow": power, "reciprocal": inverse, "rsqrt": lambda input: inverse(apply("sqrt", input)),
    "rsub": lambda input, other, *, alpha=1: subtract(other, input, alpha=alpha),
    "square": lambda input: apply("mul", input, input), "exp2": lambda input: power(2.0, input),
    "float_power": lambda input, exponent: power(converted(input, "float"), exponent),
    "log2": lambda input: apply("div", apply("log", input), math.log(2)), "log1p": log1p, "softplus": softplus,
    "silu": lambda input: apply("mul", input, apply("sigmoid", input)),
    "relu": lambda input: apply("max", input, 0), "sign": sign, "clamp": clamp, "clip": clamp,
    "clamp_min": lambda input, min: clamp(input, min), "clamp_max": lambda input, max: clamp(input, None, max),
    "where": lambda condition, input, other: apply("where", condition, input, other),
    "masked_fill": lambda input, mask, value: apply("where", mask, like(input, value), input),
    "isfinite": lambda input: apply("lt", magnitude(input), math.inf),
    "isinf": lambda input: apply("eq", magnitude(input), math.inf),
    "zeros_like": lambda input, **options: like(input, 0, **options),
    "ones_like": lambda input, **options: like(input, 1, **options),
    "full_like": lambda input, fill_value, **options: like(input, fill_value, **options),
}  # fmt: skip


def written(called: str, args: tuple[Any, ...], options: dict[str, Any]) -> Traced:
    """One of torch's functions, by its name, on stand-ins and constants.

    >>> key = Traced(Expression("key", "int"))
    >>> written("__rsub__", (key, 5), {}), written("clamp", (key,), {"max": 3})
    ((5 - key), min(key, 3))
    """
    name = called.strip("_").removeprefix("special_")
    turns = changes = False
    if called.startswith("__"):  # an operator: __radd__ is add with its sides turned, __iadd__ changes its first
        base = name if name in FUNCTIONS else name[1:]
        turns, changes, name = name == f"r{base}", name == f"i{base}", base
    elif called.endswith("_") or options.pop("inplace", False):
        changes = True
    if changes:
        raise TraceError(f"torch.{called} works in place, and a rule changes nothing: take what {name} gives")
    if turns:
        args = args[::-1]
    known = CONVERSIONS.get(name) or FUNCTIONS.get(name)
    if known is None:
        raise TraceError(f"torch.{called} cannot be traced: the functions are {', '.join(sorted(FUNCTIONS))}")
    try:
        return Traced(as_expression(known(*args, **options)))
    except TypeError as error:
        why = str(error).partition(") ")[2] or str(error)
        raise TraceError(f"torch.{called} {why}: give it numbers alone, or call it outside") from None
