"""The table of operations: all that masks and score rules are made of, one row each.

Decides what an operation takes, gives and means, how it rounds, its intervals, its derivative, and where it has no
value. Everything else that knows operations is a dictionary with their names as keys: machine code
(`kernels.ir.operations`), torch (`adapters.torch.reference`) and the scalar programs (`definition.elementary`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clearhead.once import cached_property
from clearhead.rules import intervals, meanings
from clearhead.rules.algebra import ONE, ZERO, choose, compare, function, less, minus, number, over, plus, times
from clearhead.rules.expression import Expression, Kind
from clearhead.rules.intervals import Interval, corners, each_end
from clearhead.rules.threefry import BITS, drawn

LETTERS: dict[str, Kind] = {"f": "float", "i": "int", "b": "bool"}
WIDTH: dict[Kind, int] = {"bool": 0, "int": 1, "float": 2}  # each kind becomes the next where that is asked for
EXACT = 0.5  # units in the last place: rounded once

Share = Expression | None
Shares = tuple[Share, ...]


@dataclass(frozen=True)
class Fault:
    """Where an operation on whole numbers has no value, and what to tell of it."""

    where: Callable[[Sequence[Expression], Sequence[tuple[int, int]]], Iterator[Expression]]
    what: str
    cure: str


@dataclass(frozen=True)
class Operation:
    """One row.

    `kinds` are the kinds that it takes and gives, as "ii>i ff>f"; the first is taken that the arguments can become.
    `derivative` has, of the derivative by the value, the value and the arguments, each argument's share (None: flat).
    """

    name: str
    kinds: str
    meaning: Callable[..., Any]  # on numpy's arrays
    ulp: float = EXACT
    interval: Callable[..., Interval] | None = None  # of whole numbers and truth; None: anything
    derivative: Callable[..., Shares] | None = None  # None: flat everywhere
    fault: Fault | None = None

    @cached_property
    def signatures(self) -> tuple[tuple[tuple[Kind, ...], Kind], ...]:
        """What it takes and gives."""
        sides = (text.split(">") for text in self.kinds.split())
        return tuple((tuple(LETTERS[x] for x in takes), LETTERS[gives]) for takes, gives in sides)

    @property
    def exact(self) -> bool:
        """Whether it is rounded once, so that every right implementation gives the same bits."""
        return self.ulp == EXACT

    def signature(self, given: Sequence[Kind]) -> tuple[tuple[Kind, ...], Kind] | None:
        """The first signature that arguments of such kinds can have."""
        for takes, gives in self.signatures:
            if all(WIDTH[own] <= WIDTH[kind] for own, kind in zip(given, takes, strict=True)):
                return takes, gives
        return None


def zero_divisor(args: Sequence[Expression], known: Sequence[tuple[int, int]]) -> Iterator[Expression]:
    """Where a whole divisor is 0."""
    if args[1].kind == "int" and known[1][0] <= 0 <= known[1][1]:
        yield Expression("eq", "bool", (args[1], Expression("constant", "int", value=0)))


DIVIDES = Fault(zero_divisor, "divides by 0", "let the divisor be another number, as by np.maximum(divisor, 1)")


def sign_of(d: Expression, a: Expression) -> Expression:
    """d with the sign of a, and 0 where a is 0."""
    return choose(compare("gt", a, ZERO), d, choose(compare("lt", a, ZERO), minus(d), ZERO))


def share_of(op: str) -> Callable[..., Shares]:
    """The side that an extreme takes has all of the derivative."""

    def shares(d: Expression, y: Expression, a: Expression, b: Expression) -> Shares:
        first = compare(op, a, b)
        return choose(first, d, ZERO), choose(first, ZERO, d)

    return shares


def beyond_64_bits(args: Sequence[Expression], known: Sequence[tuple[int, int]]) -> Iterator[Expression]:
    """Where a float is no number that 64 bits hold, cut to a whole one."""
    if args[0].kind == "float":
        held = compare("lt", function("abs", args[0]), number(2.0**63))
        yield Expression("not", "bool", (held,))


BEYOND = Fault(beyond_64_bits, "makes a whole number of a float that is none or too large", "bound it, as by np.clip")


def power_shares(d: Expression, y: Expression, a: Expression, n: Expression) -> Shares:
    """n·aⁿ⁻¹ and aⁿ·ln a; 0 for n = 0, and for the powers of 0."""
    by_base = times(d, times(n, function("pow", a, less(n, ONE))))
    by_power = times(d, times(y, function("log", a)))
    flat = Expression("and", "bool", (compare("eq", a, ZERO), compare("ge", n, ZERO)))
    return choose(compare("eq", n, ZERO), ZERO, by_base), choose(flat, ZERO, by_power)


def angle_shares(d: Expression, y: Expression, a: Expression, b: Expression) -> Shares:
    """b/(a² + b²) and −a/(a² + b²)."""
    square = plus(times(a, a), times(b, b))
    return over(times(d, b), square), minus(over(times(d, a), square))


def bell(d: Expression, x: Expression) -> Expression:
    """2/√π · exp(−x²)."""
    return times(d, times(number(2 / math.sqrt(math.pi)), function("exp", minus(times(x, x)))))


def leg(x: Expression) -> Expression:
    """√(1 − x²)."""
    return function("sqrt", times(less(ONE, x), plus(ONE, x)))


ROWS = (
    # Arithmetic
    Operation("add", "ii>i ff>f", np.add, interval=corners(np.add), derivative=lambda d, y, a, b: (d, d)),
    Operation("sub", "ii>i ff>f", np.subtract, interval=corners(np.subtract),
              derivative=lambda d, y, a, b: (d, minus(d))),
    Operation("mul", "ii>i ff>f", np.multiply, interval=corners(np.multiply),
              derivative=lambda d, y, a, b: (times(d, b), times(d, a))),
    Operation("div", "ff>f", np.divide, derivative=lambda d, y, a, b: (over(d, b), minus(over(times(d, y), b)))),
    Operation("floordiv", "ii>i ff>f", meanings.floor_divide, interval=intervals.of_quotient, fault=DIVIDES),
    Operation("mod", "ii>i ff>f", meanings.modulo, interval=intervals.of_remainder, fault=DIVIDES,
              derivative=lambda d, y, a, b: (d, minus(times(d, function("floordiv", a, b))))),
    Operation("fmod", "ff>f", np.fmod,
              derivative=lambda d, y, a, b: (d, minus(times(d, function("trunc", over(a, b)))))),
    Operation("neg", "i>i f>f", np.negative, interval=corners(np.negative), derivative=lambda d, y, a: (minus(d),)),
    Operation("abs", "i>i f>f", np.abs, interval=intervals.of_size, derivative=lambda d, y, a: (sign_of(d, a),)),
    Operation("min", "ii>i ff>f", meanings.least, interval=each_end(np.minimum), derivative=share_of("lt")),
    Operation("max", "ii>i ff>f", meanings.largest, interval=each_end(np.maximum), derivative=share_of("gt")),
    Operation("copysign", "ff>f", np.copysign,
              derivative=lambda d, y, a, b: (sign_of(times(d, function("copysign", ONE, b)), a), None)),
    # Rounding
    Operation("floor", "f>f", np.floor),
    Operation("ceil", "f>f", np.ceil),
    Operation("round", "f>f", np.rint),
    Operation("trunc", "f>f", np.trunc),
    # Comparisons, logic, choice
    Operation("lt", "ii>b ff>b", np.less, interval=intervals.less),
    Operation("le", "ii>b ff>b", np.less_equal, interval=intervals.less_equal),
    Operation("gt", "ii>b ff>b", np.greater, interval=lambda a, b: intervals.less(b, a)),
    Operation("ge", "ii>b ff>b", np.greater_equal, interval=lambda a, b: intervals.less_equal(b, a)),
    Operation("eq", "bb>b ii>b ff>b", np.equal, interval=intervals.of_equal),
    Operation("ne", "bb>b ii>b ff>b", np.not_equal,
              interval=lambda a, b: intervals.opposite(intervals.of_equal(a, b))),
    Operation("and", "bb>b", np.logical_and, interval=each_end(np.logical_and)),
    Operation("or", "bb>b", np.logical_or, interval=each_end(np.logical_or)),
    Operation("xor", "bb>b", np.logical_xor, interval=intervals.of_difference),
    Operation("not", "b>b", np.logical_not, interval=intervals.opposite),
    Operation("where", "bbb>b bii>i bff>f", np.where, interval=intervals.of_choice,
              derivative=lambda d, y, c, a, b: (None, choose(c, d, ZERO), choose(c, ZERO, d))),
    # Other kinds
    Operation("int", "b>i f>i", meanings.whole, interval=each_end(meanings.whole), fault=BEYOND),
    Operation("float", "b>f i>f", np.asarray),
    # Functions
    Operation("sqrt", "f>f", np.sqrt, derivative=lambda d, y, x: (over(d, plus(y, y)),)),
    Operation("cbrt", "f>f", np.cbrt, 2, derivative=lambda d, y, x: (over(d, times(number(3.0), times(y, y))),)),
    Operation("exp", "f>f", np.exp, 2, derivative=lambda d, y, x: (times(d, y),)),
    Operation("exp2", "f>f", np.exp2, 2, derivative=lambda d, y, x: (times(d, times(y, number(math.log(2)))),)),
    Operation("expm1", "f>f", np.expm1, 2, derivative=lambda d, y, x: (times(d, function("exp", x)),)),
    Operation("log", "f>f", np.log, 2, derivative=lambda d, y, x: (over(d, x),)),
    Operation("log2", "f>f", np.log2, 2, derivative=lambda d, y, x: (over(d, times(x, number(math.log(2)))),)),
    Operation("log10", "f>f", np.log10, 2, derivative=lambda d, y, x: (over(d, times(x, number(math.log(10)))),)),
    Operation("log1p", "f>f", np.log1p, 2, derivative=lambda d, y, x: (over(d, plus(ONE, x)),)),
    Operation("pow", "ff>f", np.power, 2, derivative=power_shares),
    Operation("sin", "f>f", np.sin, 2, derivative=lambda d, y, x: (times(d, function("cos", x)),)),
    Operation("cos", "f>f", np.cos, 2, derivative=lambda d, y, x: (minus(times(d, function("sin", x))),)),
    Operation("tan", "f>f", np.tan, 2, derivative=lambda d, y, x: (times(d, plus(ONE, times(y, y))),)),
    Operation("asin", "f>f", np.arcsin, 2, derivative=lambda d, y, x: (over(d, leg(x)),)),
    Operation("acos", "f>f", np.arccos, 2, derivative=lambda d, y, x: (minus(over(d, leg(x))),)),
    Operation("atan", "f>f", np.arctan, 2, derivative=lambda d, y, x: (over(d, plus(ONE, times(x, x))),)),
    Operation("atan2", "ff>f", np.arctan2, 2, derivative=angle_shares),
    Operation("sinh", "f>f", np.sinh, 2, derivative=lambda d, y, x: (times(d, function("cosh", x)),)),
    Operation("cosh", "f>f", np.cosh, 2, derivative=lambda d, y, x: (times(d, function("sinh", x)),)),
    Operation("tanh", "f>f", np.tanh, 2, derivative=lambda d, y, x: (times(d, less(ONE, times(y, y))),)),
    Operation("sigmoid", "f>f", meanings.sigmoid, 2,
              derivative=lambda d, y, x: (times(d, times(y, less(ONE, y))),)),
    Operation("softplus", "f>f", meanings.softplus, 2, derivative=lambda d, y, x: (times(d, function("sigmoid", x)),)),
    Operation("erf", "f>f", meanings.erf, 2, derivative=lambda d, y, x: (bell(d, x),)),
    Operation("erfc", "f>f", meanings.erfc, 2, derivative=lambda d, y, x: (minus(bell(d, x)),)),
    # Random numbers, from two words of a key and two of a counter
    Operation("threefry", "iiii>i", drawn, interval=lambda *_: (np.asarray(0), np.asarray((1 << BITS) - 1))),
)  # fmt: skip
OPERATIONS = {row.name: row for row in ROWS}
