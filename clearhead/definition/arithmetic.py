"""The arithmetic that functions of score rules are written in: float64 steps, each rounded once, and 64-bit integers.

A function is written once, over an `Arithmetic`, with + − · / on its numbers; here it is computed by numpy, in
`kernels.ir.programs` it becomes instructions. Numbers of float32 are widened first, and the result is rounded once at
the end: `narrow` says that, so that a shorter polynomial will do and what is lost in a sum need not be kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from clearhead.arrays import Array
from clearhead.definition.fma import fma


class Arithmetic(Protocol):
    """What +, −, ·, / and comparisons of numbers do not say."""

    narrow: bool

    def number(self, x: float) -> Any:
        """A constant."""

    def integer(self, x: int) -> Any:
        """A constant of 64 bits."""

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a·b + c, rounded once."""

    def sqrt(self, x: Any) -> Any:
        """√x, rounded once."""

    def size(self, x: Any) -> Any:
        """|x|."""

    def signed(self, size: Any, x: Any) -> Any:
        """|size| with the sign of x."""

    def select(self, condition: Any, a: Any, b: Any) -> Any:
        """a where the condition holds, else b."""

    def bits(self, x: Any) -> Any:
        """The integer whose bits are those of x."""

    def of_bits(self, x: Any) -> Any:
        """The number whose bits are those of the integer x."""

    def shift_right(self, x: Any, by: Any) -> Any:
        """The bits of x moved to the right by 0 to 63, zeros coming from the left."""

    def rarely(self, condition: Any, program: Callable[..., Any], x: Any, otherwise: tuple[Any, ...]) -> Any:
        """program(arithmetic, x) where the condition holds, which costs nothing while it holds nowhere."""


class Numpy:
    """The steps on numpy's arrays."""

    fma, select = staticmethod(fma), staticmethod(np.where)
    sqrt, size, signed = staticmethod(np.sqrt), staticmethod(np.abs), staticmethod(np.copysign)
    number, integer = np.float64, np.int64

    def __init__(self, *, narrow: bool) -> None:
        self.narrow = narrow

    @staticmethod
    def bits(x: Any) -> Any:
        """The integer whose bits are those of x."""
        return np.asarray(x).view(np.int64)

    @staticmethod
    def of_bits(x: Any) -> Any:
        """The number whose bits are those of the integer x."""
        return np.asarray(x).view(np.float64)

    @staticmethod
    def shift_right(x: Any, by: Any) -> Any:
        """The bits of x moved to the right by 0 to 63, zeros coming from the left."""
        return (np.asarray(x).view(np.uint64) >> np.asarray(by, np.int64).view(np.uint64)).view(np.int64)

    def rarely(self, condition: Any, program: Callable[..., Any], x: Any, otherwise: tuple[Any, ...]) -> Any:
        """program(self, x) for those elements where the condition holds."""
        results = [np.array(np.broadcast_to(o, np.shape(condition))) for o in otherwise]
        for result, special in zip(results, program(self, np.asarray(x)[condition]), strict=True):
            result[condition] = special
        return results


@dataclass(frozen=True)
class Program:
    """A function of one or two numbers in steps; called with arrays of one float type, it is computed by numpy.

    >>> Program(lambda a, x, y: a.fma(x, y, 1.0))(np.float32([2, 3]), np.float32([4, 5])).tolist()
    [9.0, 16.0]
    """

    steps: Callable[..., Any]

    def __call__(self, *arguments: Array) -> Array:
        """The function's value, rounded to the arguments' dtype."""
        dtype = np.result_type(*arguments)
        with np.errstate(all="ignore"):
            wide = [np.asarray(x).astype(np.float64) for x in arguments]
            result: Array = np.asarray(self.steps(Numpy(narrow=dtype == np.float32), *wide)).astype(dtype)
        return result


class Fit(NamedTuple):
    """A polynomial's coefficients, lowest power first: for float64's accuracy and for float32's."""

    full: tuple[float, ...]
    narrow: tuple[float, ...]


def polynomial(a: Arithmetic, x: Any, fit: Fit) -> Any:
    """Σ cᵢ·xⁱ by Horner's rule."""
    coefficients = fit.narrow if a.narrow else fit.full
    p = a.fma(x, coefficients[-1], coefficients[-2])
    for coefficient in coefficients[-3::-1]:
        p = a.fma(p, x, coefficient)
    return p


SHIFT = 1.5 * 2.0**52  # a float this large has its whole numbers in the low bits
SHIFT_BITS = 0x4338000000000000


def nearest(a: Arithmetic, shifted: Any) -> tuple[Any, Any]:
    """The whole number that x was rounded to when SHIFT was added, as a float and as an integer."""
    return shifted - SHIFT, a.bits(shifted) - SHIFT_BITS


def as_float(a: Arithmetic, n: Any) -> Any:
    """An integer below 2⁵¹ in size, as a float."""
    return a.of_bits(n + SHIFT_BITS) - SHIFT


def two_to(a: Arithmetic, n: Any) -> Any:
    """2ⁿ for whole n from −1022 to 1023."""
    return a.of_bits((n + 1023) << 52)


def scale(a: Arithmetic, x: Any, n: Any) -> Any:
    """x·2ⁿ in two factors, so that a subnormal result is rounded once and ∞ comes of itself."""
    half = n >> 1
    return x * two_to(a, half) * two_to(a, n - half)


# Sums and products as two numbers: the rounded one, and what rounding lost, which float32 does without.


def two_sum(a: Arithmetic, x: Any, y: Any) -> tuple[Any, Any]:
    """x + y."""
    total = x + y
    if a.narrow:
        return total, 0.0
    from_y = total - x
    return total, (x - (total - from_y)) + (y - from_y)


def quick_sum(a: Arithmetic, x: Any, y: Any) -> tuple[Any, Any]:
    """x + y for |x| ≥ |y| or x = 0."""
    total = x + y
    return total, 0.0 if a.narrow else (x - total) + y


def product(a: Arithmetic, x: Any, y: Any) -> tuple[Any, Any]:
    """x·y."""
    p = x * y
    return p, 0.0 if a.narrow else a.fma(x, y, -p)
