"""Functions composed of several operations: the numpy functions that have no operation of their own.

Decides which operations each function expands to; each operation rounds once. It uses stand-ins only through Python's
operators, numpy's functions and `call`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from operator import mul
from typing import Any

import numpy as np

from clearhead.errors import TraceError
from clearhead.rules.operations import OPERATIONS

MOST_FACTORS = 8  # floats: higher powers use the pow operation instead of products
MOST_POWER = 64  # integers: 64 bits hold no higher power
SINC_NEAR = 1 / 64  # the series is used for (πx)² below this: six terms are accurate to 2⁻⁶⁰
SINC_SERIES = tuple((-1) ** n / math.factorial(2 * n + 1) for n in range(5, -1, -1))  # highest power first


def call(op: str, *args: Any) -> Any:
    """Trace an operation if an argument is a stand-in, else compute it.

    >>> call("erf", np.array([0.0])).tolist()
    [0.0]
    """
    standin = next((x for x in args if hasattr(x, "expression")), None)
    return standin.write(op, *args) if standin is not None else OPERATIONS[op].meaning(*map(np.asarray, args))


def kind_of(x: Any) -> str:
    """The kind of a number as numpy's letter: f, i or b."""
    expression = getattr(x, "expression", None)
    return str(np.asarray(x).dtype.kind) if expression is None else str(expression.kind)[0]


def any_float(*numbers: Any) -> bool:
    """Whether at least one number is a float."""
    return any(kind_of(x) == "f" for x in numbers)


def as_bool(x: Any) -> Any:
    """A number as a condition: whether it is not 0."""
    return x if kind_of(x) == "b" else x != 0


def as_float(x: Any) -> Any:
    """A number as a float."""
    return x if any_float(x) else call("float", x)


def as_int(x: Any) -> Any:
    """A number as an integer, truncated toward 0."""
    return x if kind_of(x) == "i" else call("int", x)


def clip(x: Any, low: Any = None, high: Any = None) -> Any:
    """Limit a number to [low, high]; None means no limit."""
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def sign_or_nan(x: Any) -> Any:
    """−1, 0 or 1; NaN for NaN."""
    return np.where(x > 0, 1, np.where(x < 0, -1, np.where(x == 0, 0, x)))


def round_to_decimals(x: Any, decimals: int = 0) -> Any:
    """Round to a number of decimals, halves to even."""
    if decimals == 0 or not any_float(x):
        return call("round", x)
    tens = 10.0 ** abs(decimals)
    return call("round", x * tens) / tens if decimals > 0 else call("round", x / tens) * tens


def truncated_remainder(x: Any, y: Any) -> Any:
    """The remainder of division toward 0, with the sign of x."""
    if any_float(x, y):
        return call("fmod", x, y)
    left = abs(x) % abs(y)
    return np.where(x < 0, -left, left)


def reciprocal(x: Any) -> Any:
    """1 / x."""
    if not any_float(x):
        raise TraceError(f"np.reciprocal gives whole numbers of whole numbers, such as {x!r}: write 1 / x")
    return 1.0 / x


def traced_power(base: Any, exponent: Any) -> Any:
    """A power: products, quotients or roots for small constant exponents, else the pow operation."""
    n = constant_value(exponent)
    if n is None:
        if not any_float(base, exponent):
            raise TraceError(
                f"{base!r} ** {exponent!r} is a whole number: use a float's power, as 2.0 ** key, or index a table of "
                "powers"
            )
        return call("exp2", exponent) if constant_value(base) == 2 else call("pow", base, exponent)
    if abs(n) == 0.5:
        return square_root(base) if n > 0 else 1.0 / square_root(base)
    if not any_float(base, exponent) and n >= 0:
        return integer_power(base, int(n))
    base = as_float(base)
    if abs(n) > MOST_FACTORS or not n.is_integer():
        return call("pow", base, n)
    if n == 0:
        return base.stand_in(1.0)
    product = reduce(mul, [base] * abs(int(n)))
    return product if n > 0 else 1.0 / product


def square_root(x: Any) -> Any:
    """x to the power 0.5 as in C: 0 for −0, ∞ for −∞."""
    return np.where(x == -math.inf, math.inf, call("sqrt", x) + 0.0)


def integer_power(base: Any, n: int) -> Any:
    """The power of an integer; products of integers are exact in any order."""
    if n > MOST_POWER:
        raise TraceError(f"{base!r} ** {n} does not fit into 64 bits: use a float's power, as (1.0 * x) ** {n}")
    if n <= MOST_FACTORS:
        return reduce(mul, [base] * n) if n else base.stand_in(1)
    half = integer_power(base, n // 2)
    return half * half * base if n % 2 else half * half


def sinc(x: Any) -> Any:
    """sin(πx) / (πx); near 0, its series in (πx)², because the derivatives of the quotient would cancel."""
    y = math.pi * as_float(x)
    square = y * y
    series = reduce(lambda total, c: total * square + c, SINC_SERIES)
    return np.where(square < SINC_NEAR, series, np.sin(y) / y)


def constant_value(x: Any) -> float | None:
    """The value of a constant, or None."""
    expression = getattr(x, "expression", None)
    if expression is None:
        return float(x)
    return float(expression.value) if expression.op == "constant" else None


def numpy_clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    """`clip` with numpy's parameter names."""
    return clip(a, a_min if min is None else min, a_max if max is None else max)


UFUNCS: dict[str, Callable[..., Any]] = {
    "square": lambda x: x * x,
    "power": traced_power,
    "float_power": lambda x, n: traced_power(as_float(x), n),
    "reciprocal": reciprocal,
    "left_shift": lambda x, by: x << by,
    "right_shift": lambda x, by: x >> by,
    "fmin": lambda x, y: np.where((x <= y) | (y != y), x, y),  # ignores NaN if the other is a number
    "fmax": lambda x, y: np.where((x >= y) | (y != y), x, y),
    "positive": lambda x: x,
    "sign": sign_or_nan,
    "fmod": truncated_remainder,
    "divmod": lambda x, y: (x // y, x % y),
    "isnan": lambda x: x != x,
    "isinf": lambda x: abs(as_float(x)) == math.inf,
    "isfinite": lambda x: abs(as_float(x)) < math.inf,
    "signbit": lambda x: call("copysign", 1.0, x) < 0 if any_float(x) else x < 0,
    "logical_and": lambda x, y: as_bool(x) & as_bool(y),
    "logical_or": lambda x, y: as_bool(x) | as_bool(y),
    "logical_xor": lambda x, y: as_bool(x) ^ as_bool(y),
    "logical_not": lambda x: ~as_bool(x),
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "where": lambda condition, x, y: call("where", condition, x, y),
    "clip": numpy_clip,
    "round": lambda a, decimals=0: round_to_decimals(a, decimals),
    "around": lambda a, decimals=0: round_to_decimals(a, decimals),
    "fix": lambda x: call("trunc", x),
    "sinc": sinc,
}
