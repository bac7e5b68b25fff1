"""The arithmetic of the score rules' functions: float64 steps, each rounded once, and 64-bit integers.

A function is written once over an `Arithmetic`, with + − · / on its numbers. Here numpy computes it;
`kernels.ir.programs` turns it into instructions. float32 numbers are widened to float64, and the result is rounded once
at the end; `narrow` says so, because a shorter polynomial then suffices and rounding errors of sums can be dropped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from clearhead.arrays import Array
from clearhead.definition.fma import fma


class Arithmetic(Protocol):
    """The steps that functions use besides +, −, ·, / and comparisons."""

    narrow: bool

    def number(self, x: float) -> Any:
        """A constant."""

    def integer(self, x: int) -> Any:
        """A 64-bit integer constant."""

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
        """The integer with the same bits as x."""

    def of_bits(self, x: Any) -> Any:
        """The number with the same bits as the integer x."""

    def shift_right(self, x: Any, by: Any) -> Any:
        """Shift the bits of x right by 0 to 63, filling with zeros."""

    def rarely(self, condition: Any, program: Callable[..., Any], x: Any, otherwise: tuple[Any, ...]) -> Any:
        """program(arithmetic, x) where the condition holds, else `otherwise`; costs nothing if it holds nowhere."""


class NumpyArithmetic:
    """The steps on numpy arrays."""

    fma, select = staticmethod(fma), staticmethod(np.where)
    sqrt, size, signed = staticmethod(np.sqrt), staticmethod(np.abs), staticmethod(np.copysign)
    number, integer = np.float64, np.int64

    def __init__(self, *, narrow: bool) -> None:
        self.narrow = narrow

    @staticmethod
    def bits(x: Any) -> Any:
        """The integer with the same bits as x."""
        return np.asarray(x).view(np.int64)

    @staticmethod
    def of_bits(x: Any) -> Any:
        """The number with the same bits as the integer x."""
        return np.asarray(x).view(np.float64)

    @staticmethod
    def shift_right(x: Any, by: Any) -> Any:
        """Shift the bits of x right by 0 to 63, filling with zeros."""
        return (np.asarray(x).view(np.uint64) >> np.asarray(by, np.int64).view(np.uint64)).view(np.int64)

    def rarely(self, condition: Any, program: Callable[..., Any], x: Any, otherwise: tuple[Any, ...]) -> Any:
        """program(self, x) for the elements where the condition holds, else `otherwise`."""
        results = [np.array(np.broadcast_to(o, np.shape(condition))) for o in otherwise]
        for result, special in zip(results, program(self, np.asarray(x)[condition]), strict=True):
            result[condition] = special
        return results


@dataclass(frozen=True)
class Program:
    """A function of one or two numbers, written in steps; calling it with float arrays computes it by numpy.

    >>> Program(lambda a, x, y: a.fma(x, y, 1.0))(np.float32([2, 3]), np.float32([4, 5])).tolist()
    [9.0, 16.0]
    """

    steps: Callable[..., Any]

    def __call__(self, *arguments: Array) -> Array:
        """The function's value, rounded to the arguments' dtype."""
        dtype = np.result_type(*arguments)
        with np.errstate(all="ignore"):
            wide = [np.asarray(x).astype(np.float64) for x in arguments]
            result: Array = np.asarray(self.steps(NumpyArithmetic(narrow=dtype == np.float32), *wide)).astype(dtype)
        return result


class Fit(NamedTuple):
    """A polynomial's coefficients, lowest power first, in float64's accuracy and in float32's."""

    full: tuple[float, ...]
    narrow: tuple[float, ...]


def polynomial(a: Arithmetic, x: Any, fit: Fit) -> Any:
    """Σ cᵢ·xⁱ by Horner's rule."""
    coefficients = fit.narrow if a.narrow else fit.full
    p = a.fma(x, coefficients[-1], coefficients[-2])
    for coefficient in coefficients[-3::-1]:
        p = a.fma(p, x, coefficient)
    return p


SHIFT = 1.5 * 2.0**52  # floats of this size hold integers in their low bits
SHIFT_BITS = 0x4338000000000000


def nearest_integer(a: Arithmetic, shifted: Any) -> tuple[Any, Any]:
    """The integer to which adding SHIFT rounded x, as a float and as an integer."""
    return shifted - SHIFT, a.bits(shifted) - SHIFT_BITS


def integer_as_float(a: Arithmetic, n: Any) -> Any:
    """An integer of magnitude below 2⁵¹ as a float."""
    return a.of_bits(n + SHIFT_BITS) - SHIFT


def power_of_two_float(a: Arithmetic, n: Any) -> Any:
    """2ⁿ for an integer n from −1022 to 1023."""
    return a.of_bits((n + 1023) << 52)


def scale_by_power_of_two(a: Arithmetic, x: Any, n: Any) -> Any:
    """x·2ⁿ by two factors: a subnormal result rounds once, and overflow gives ∞."""
    half = n >> 1
    return x * power_of_two_float(a, half) * power_of_two_float(a, n - half)


# Sums and products as two numbers: the rounded result and its rounding error, which float32 does not need.


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
