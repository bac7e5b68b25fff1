"""The table of operations from which masks and score rules are built, one row each.

Decides an operation's argument and result kinds, meaning, rounding, intervals, derivative and faults. The other
implementations are dictionaries keyed by operation name: machine code (`kernels.ir.operations`), torch
(`adapters.torch.reference`) and the scalar programs (`definition.elementary`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clearhead.once import cached_property
from clearhead.rules import intervals, meanings
from clearhead.rules.algebra import (
    ONE,
    ZERO,
    compare,
    float_constant,
    float_operation,
    minus,
    negative,
    over,
    plus,
    times,
    where_or_same,
)
from clearhead.rules.expression import Expression, Kind
from clearhead.rules.intervals import Interval, increasing, monotone
from clearhead.rules.threefry import BITS, threefry_number

KIND_OF_LETTER: dict[str, Kind] = {"f": "float", "i": "int", "b": "bool"}
KIND_RANK: dict[Kind, int] = {
    "bool": 0,
    "int": 1,
    "float": 2,
}  # kinds convert upwards where an operation needs it
EXACT = 0.5  # units in the last place: rounded once

Share = Expression | None
Shares = tuple[Share, ...]


@dataclass(frozen=True)
class Fault:
    """Where an operation is invalid, and the error text for it."""

    where: Callable[[Sequence[Expression], Sequence[tuple[int, int]]], Iterator[Expression]]
    what: str
    cure: str


@dataclass(frozen=True)
class Operation:
    """One row of the table.

    `kinds` lists its signatures, as "ii>i ff>f"; the first that the arguments can convert to applies. `derivative` maps
    the derivative by the value, the value and the arguments to each argument's derivative (None: zero everywhere).
    """

    name: str
    kinds: str
    meaning: Callable[..., Any]  # on numpy arrays
    ulp: float = EXACT
    interval: Callable[..., Interval] | None = None  # of integers and booleans; None: unknown
    derivative: Callable[..., Shares] | None = None  # None: zero everywhere
    fault: Fault | None = None

    @cached_property
    def signatures(self) -> tuple[tuple[tuple[Kind, ...], Kind], ...]:
        """Argument kinds and result kind, for each signature."""
        sides = (text.split(">") for text in self.kinds.split())
        return tuple((tuple(KIND_OF_LETTER[x] for x in takes), KIND_OF_LETTER[gives]) for takes, gives in sides)

    @property
    def exact(self) -> bool:
        """Whether it is correctly rounded: every correct implementation gives the same bits."""
        return self.ulp == EXACT

    def signature(self, given: Sequence[Kind]) -> tuple[tuple[Kind, ...], Kind] | None:
        """The first signature to which arguments of the given kinds can convert."""
        for takes, gives in self.signatures:
            if all(KIND_RANK[own] <= KIND_RANK[kind] for own, kind in zip(given, takes, strict=True)):
                return takes, gives
        return None


def zero_divisor(args: Sequence[Expression], known: Sequence[tuple[int, int]]) -> Iterator[Expression]:
    """Where an integer divisor is 0."""
    if args[1].kind == "int" and known[1][0] <= 0 <= known[1][1]:
        yield Expression("eq", "bool", (args[1], Expression("constant", "int", value=0)))


DIVIDES = Fault(zero_divisor, "divides by 0", "let the divisor be another number, as by np.maximum(divisor, 1)")


def with_sign_of(d: Expression, a: Expression) -> Expression:
    """d with the sign of a, and 0 where a is 0."""
    return where_or_same(compare("gt", a, ZERO), d, where_or_same(compare("lt", a, ZERO), negative(d), ZERO))


def side_shares(op: str) -> Callable[..., Shares]:
    """Derivatives of min and max: the selected argument gets all of it."""

    def shares(d: Expression, y: Expression, a: Expression, b: Expression) -> Shares:
        first = compare(op, a, b)
        return where_or_same(first, d, ZERO), where_or_same(first, ZERO, d)

    return shares


def beyond_64_bits(args: Sequence[Expression], known: Sequence[tuple[int, int]]) -> Iterator[Expression]:
    """Where a float, truncated, does not fit into 64 bits."""
    if args[0].kind == "float":
        held = compare("lt", float_operation("abs", args[0]), float_constant(2.0**63))
        yield Expression("not", "bool", (held,))


BEYOND = Fault(beyond_64_bits, "makes a whole number of a float that is none or too large", "bound it, as by np.clip")


def power_shares(d: Expression, y: Expression, a: Expression, n: Expression) -> Shares:
    """n·aⁿ⁻¹ and aⁿ·ln a; 0 for n = 0, and for the powers of 0."""
    by_base = times(d, times(n, float_operation("pow", a, minus(n, ONE))))
    by_power = times(d, times(y, float_operation("log", a)))
    flat = Expression("and", "bool", (compare("eq", a, ZERO), compare("ge", n, ZERO)))
    return where_or_same(compare("eq", n, ZERO), ZERO, by_base), where_or_same(flat, ZERO, by_power)


def angle_shares(d: Expression, y: Expression, a: Expression, b: Expression) -> Shares:
    """b/(a² + b²) and −a/(a² + b²)."""
    square = plus(times(a, a), times(b, b))
    return over(times(d, b), square), negative(over(times(d, a), square))


def erf_share(d: Expression, x: Expression) -> Expression:
    """2/√π · exp(−x²)."""
    return times(d, times(float_constant(2 / math.sqrt(math.pi)), float_operation("exp", negative(times(x, x)))))


def sqrt_one_minus_square(x: Expression) -> Expression:
    """√(1 − x²)."""
    return float_operation("sqrt", times(minus(ONE, x), plus(ONE, x)))


ROWS = (
    # Arithmetic
    Operation("add", "ii>i ff>f", np.add, interval=monotone(np.add), derivative=lambda d, y, a, b: (d, d)),
    Operation("sub", "ii>i ff>f", np.subtract, interval=monotone(np.subtract),
              derivative=lambda d, y, a, b: (d, negative(d))),
    Operation("mul", "ii>i ff>f", np.multiply, interval=monotone(np.multiply),
              derivative=lambda d, y, a, b: (times(d, b), times(d, a))),
    Operation("div", "ff>f", np.divide, derivative=lambda d, y, a, b: (over(d, b), negative(over(times(d, y), b)))),
    Operation("floordiv", "ii>i ff>f", meanings.floor_divide, interval=intervals.quotient_interval, fault=DIVIDES),
    Operation("mod", "ii>i ff>f", meanings.modulo, interval=intervals.remainder_interval, fault=DIVIDES,
              derivative=lambda d, y, a, b: (d, negative(times(d, float_operation("floordiv", a, b))))),
    Operation("fmod", "ff>f", np.fmod,
              derivative=lambda d, y, a, b: (d, negative(times(d, float_operation("trunc", over(a, b)))))),
    Operation("neg", "i>i f>f", np.negative, interval=monotone(np.negative), derivative=lambda d, y, a: (negative(d),)),
    Operation("abs", "i>i f>f", np.abs, interval=intervals.absolute, derivative=lambda d, y, a: (with_sign_of(d, a),)),
    Operation("min", "ii>i ff>f", meanings.nan_minimum, interval=increasing(np.minimum), derivative=side_shares("lt")),
    Operation("max", "ii>i ff>f", meanings.nan_maximum, interval=increasing(np.maximum), derivative=side_shares("gt")),
    Operation("copysign", "ff>f", np.copysign,
              derivative=lambda d, y, a, b: (with_sign_of(times(d, float_operation("copysign", ONE, b)), a), None)),
    # Rounding
    Operation("floor", "f>f", np.floor),
    Operation("ceil", "f>f", np.ceil),
    Operation("round", "f>f", np.rint),
    Operation("trunc", "f>f", np.trunc),
    # Comparisons, logic, choice
    Operation("lt", "ii>b ff>b", np.less, interval=intervals.less_interval),
    Operation("le", "ii>b ff>b", np.less_equal, interval=intervals.less_equal_interval),
    Operation("gt", "ii>b ff>b", np.greater, interval=lambda a, b: intervals.less_interval(b, a)),
    Operation("ge", "ii>b ff>b", np.greater_equal, interval=lambda a, b: intervals.less_equal_interval(b, a)),
    Operation("eq", "bb>b ii>b ff>b", np.equal, interval=intervals.equal_interval),
    Operation("ne", "bb>b ii>b ff>b", np.not_equal,
              interval=lambda a, b: intervals.not_interval(intervals.equal_interval(a, b))),
    Operation("and", "bb>b", np.logical_and, interval=increasing(np.logical_and)),
    Operation("or", "bb>b", np.logical_or, interval=increasing(np.logical_or)),
    Operation("xor", "bb>b", np.logical_xor, interval=intervals.xor_interval),
    Operation("not", "b>b", np.logical_not, interval=intervals.not_interval),
    Operation("where", "bbb>b bii>i bff>f", np.where, interval=intervals.where_interval,
              derivative=lambda d, y, c, a, b: (None, where_or_same(c, d, ZERO), where_or_same(c, ZERO, d))),
    # Other kinds
    Operation("int", "b>i f>i", meanings.truncate_to_int, interval=increasing(meanings.truncate_to_int), fault=BEYOND),
    Operation("float", "b>f i>f", np.asarray),
    # Functions
    Operation("sqrt", "f>f", np.sqrt, derivative=lambda d, y, x: (over(d, plus(y, y)),)),
    Operation("cbrt", "f>f", np.cbrt, 2,
              derivative=lambda d, y, x: (over(d, times(float_constant(3.0), times(y, y))),)),
    Operation("exp", "f>f", np.exp, 2, derivative=lambda d, y, x: (times(d, y),)),
    Operation("exp2", "f>f", np.exp2, 2, derivative=lambda d, y, x: (times(d, times(y, float_constant(math.log(2)))),)),
    Operation("expm1", "f>f", np.expm1, 2, derivative=lambda d, y, x: (times(d, float_operation("exp", x)),)),
    Operation("log", "f>f", np.log, 2, derivative=lambda d, y, x: (over(d, x),)),
    Operation("log2", "f>f", np.log2, 2, derivative=lambda d, y, x: (over(d, times(x, float_constant(math.log(2)))),)),
    Operation("log10", "f>f", np.log10, 2,
              derivative=lambda d, y, x: (over(d, times(x, float_constant(math.log(10)))),)),
    Operation("log1p", "f>f", np.log1p, 2, derivative=lambda d, y, x: (over(d, plus(ONE, x)),)),
    Operation("pow", "ff>f", np.power, 2, derivative=power_shares),
    Operation("sin", "f>f", np.sin, 2, derivative=lambda d, y, x: (times(d, float_operation("cos", x)),)),
    Operation("cos", "f>f", np.cos, 2, derivative=lambda d, y, x: (negative(times(d, float_operation("sin", x))),)),
    Operation("tan", "f>f", np.tan, 2, derivative=lambda d, y, x: (times(d, plus(ONE, times(y, y))),)),
    Operation("asin", "f>f", np.arcsin, 2, derivative=lambda d, y, x: (over(d, sqrt_one_minus_square(x)),)),
    Operation("acos", "f>f", np.arccos, 2, derivative=lambda d, y, x: (negative(over(d, sqrt_one_minus_square(x))),)),
    Operation("atan", "f>f", np.arctan, 2, derivative=lambda d, y, x: (over(d, plus(ONE, times(x, x))),)),
    Operation("atan2", "ff>f", np.arctan2, 2, derivative=angle_shares),
    Operation("sinh", "f>f", np.sinh, 2, derivative=lambda d, y, x: (times(d, float_operation("cosh", x)),)),
    Operation("cosh", "f>f", np.cosh, 2, derivative=lambda d, y, x: (times(d, float_operation("sinh", x)),)),
    Operation("tanh", "f>f", np.tanh, 2, derivative=lambda d, y, x: (times(d, minus(ONE, times(y, y))),)),
    Operation("sigmoid", "f>f", meanings.sigmoid, 2,
              derivative=lambda d, y, x: (times(d, times(y, minus(ONE, y))),)),
    Operation("softplus", "f>f", meanings.softplus, 2,
              derivative=lambda d, y, x: (times(d, float_operation("sigmoid", x)),)),
    Operation("erf", "f>f", meanings.erf, 2, derivative=lambda d, y, x: (erf_share(d, x),)),
    Operation("erfc", "f>f", meanings.erfc, 2, derivative=lambda d, y, x: (negative(erf_share(d, x)),)),
    # Random numbers, from two words of a key and two of a counter
    Operation("threefry", "iiii>i", threefry_number, interval=lambda *_: (np.asarray(0), np.asarray((1 << BITS) - 1))),
)  # fmt: skip
OPERATIONS = {row.name: row for row in ROWS}
