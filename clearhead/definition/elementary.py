"""softmax's exp and log and the functions of score rules in basic arithmetic: the same bits on every processor.

Defines the polynomials and the order of operations; `kernels.ir.math` emits the same steps as machine code. The score
rules' exp and tanh are computed here in the scores' dtype; their other functions are programs over
`definition.arithmetic`. The polynomials of exp hold for |r| ≤ ln 2 / 2, with relative errors of 3.1e-9 (float32) and
3.7e-18 (float64) before rounding.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array
from clearhead.definition import (
    error_function,
    exponentials,
    inverse_trigonometric,
    logarithms,
    powers,
    roots,
    trigonometric,
)
from clearhead.definition.arithmetic import Program
from clearhead.definition.fma import fma

LOG2E, LN2 = 1 / math.log(2), math.log(2)


@dataclass(frozen=True)
class Constants:
    """The constants of one float type."""

    mantissa_bits: int
    shift: float  # adding it puts round(x) + exponent bias into the low bits of the mantissa
    exp: tuple[float, ...]  # coefficients of r⁰, r¹, r² …
    exp_floor: float  # exp is 0 below it
    sqrt_half_bits: int  # the bits of √½: log takes mantissas from [√½, √2)
    log_terms: int  # terms of atanh's series after the first, with coefficients 1/3, 1/5, 1/7 …
    bias: int  # exponent bias
    ln2: float  # ln 2 with few bits: its product with n is exact
    ln2_rest: float
    exp_range: tuple[float, float]  # exp is 0 or ∞ outside it
    tanh_one: float  # tanh rounds to 1 beyond it

    @property
    def tanh(self) -> tuple[float, ...]:
        """Coefficients of exp(2r) − 1 from r² on: those of exp, times powers of two."""
        return tuple(x * 2.0**i for i, x in enumerate(self.exp) if i > 1)


CONSTANTS = {
    "float32": Constants(
        23, 1.5 * 2.0**23 + 127,
        (1.0, 1.0, 0.49999993432042483, 0.1666652039768532, 0.0416683907955985, 0.008368745272441481,
         0.0013814540195009803),
        -87.0, 0x3F3504F3, 5, 127,
        float.fromhex("0x1.62e4p-1"), float.fromhex("0x1.7f7d1cf79abcap-20"), (-105.0, 90.0), 9.25,
    ),
    "float64": Constants(
        52, 1.5 * 2.0**52 + 1023,
        (1.0, 1.0, 0.5000000000000011, 0.16666666666666408, 0.041666666666529704, 0.008333333333496618,
         0.0013888888943767443, 0.00019841269502458722, 2.4801492939809158e-05, 2.755758960298263e-06,
         2.763031067089253e-07, 2.4999185659624294e-08),
        -708.0, 0x3FE6A09E667F3BCD, 11, 1023,
        float.fromhex("0x1.62e42fefap-1"), float.fromhex("0x1.cf79abc9e3b3ap-40"), (-746.0, 711.0), 19.25,
    ),
}  # fmt: skip


def exp(x: Array) -> Array:
    """exp(x) for x ≤ 0, as 2ⁿ·exp(r) with n = round(x / ln 2) and r = x − n·ln 2; 0 below the floor.

    >>> exp(np.array([0.0, -1.0, -np.inf])).round(4).tolist()
    [1.0, 0.3679, 0.0]
    """
    c, of = CONSTANTS[x.dtype.name], x.dtype.type
    with np.errstate(all="ignore"):
        shifted = fma(x, of(LOG2E), of(c.shift))
        r = fma(shifted - of(c.shift), of(-LN2), x)
        p = horner(r, c.exp)
        power = (float_bits(shifted) << c.mantissa_bits).view(x.dtype)  # 2ⁿ
        result: Array = np.where(x < of(c.exp_floor), of(0), p * power)
    return result


def log(x: Array) -> Array:
    """ln x for normal x > 0, as e·ln 2 + 2·atanh((m − 1)/(m + 1)) with x = 2ᵉ·m and √½ ≤ m < √2; −∞ for 0.

    >>> log(np.array([1.0, np.e, 0.0])).round(4).tolist()
    [0.0, 1.0, -inf]
    """
    c, of = CONSTANTS[x.dtype.name], x.dtype.type
    with np.errstate(all="ignore"):
        above = float_bits(x) - c.sqrt_half_bits
        e = (above >> c.mantissa_bits).astype(x.dtype)
        m = ((above & ((1 << c.mantissa_bits) - 1)) + c.sqrt_half_bits).view(x.dtype)
        s = (m - of(1)) / (m + of(1))
        square = s * s
        p = np.full_like(x, 1 / (2 * c.log_terms + 1))
        for n in range(c.log_terms - 1, 0, -1):
            p = fma(p, square, of(1 / (2 * n + 1)))  # atanh(s) = s + s³/3 + s⁵/5 …
        half = fma(e, of(LN2 / 2), s + p * square * s)
        result: Array = np.where(x == 0, of(-np.inf), np.where(np.isnan(x), x, half + half))
    return result


class Functions:
    """The functions of score rules, accurate within 2 units in the last place for every score."""

    @staticmethod
    def exp(x: Array) -> Array:
        """exp(x): ∞ beyond the largest number, subnormal numbers and 0 below the smallest.

        >>> Functions.exp(np.array([1.0, -1000.0, 1000.0])).round(4).tolist()
        [2.7183, 0.0, inf]
        """
        c, of = CONSTANTS[x.dtype.name], x.dtype.type
        with np.errstate(all="ignore"):
            x = np.where(
                x < of(c.exp_range[0]), of(c.exp_range[0]), np.where(x > of(c.exp_range[1]), of(c.exp_range[1]), x)
            )
            shifted = fma(x, of(LOG2E), of(c.shift))
            n = shifted - of(c.shift)
            r = fma(n, of(-c.ln2_rest), fma(n, of(-c.ln2), x))
            p = horner(r, c.exp)
            # 2ⁿ in two factors: a subnormal result rounds once, and overflow gives ∞.
            whole = float_bits(shifted) - float_bits(of(c.shift))
            half = whole >> 1
            result: Array = p * power_of_two(half, x.dtype) * power_of_two(whole - half, x.dtype)
        return result

    @staticmethod
    def tanh(x: Array) -> Array:
        """tanh x, as h/(h + 1) of h = (exp(2|x|) − 1)/2 with the sign of x.

        >>> Functions.tanh(np.array([0.0, 1.0, -100.0])).round(4).tolist()
        [0.0, 0.7616, -1.0]
        """
        c, of = CONSTANTS[x.dtype.name], x.dtype.type
        with np.errstate(all="ignore"):
            size = np.abs(x)
            size = np.where(size > of(c.tanh_one), of(c.tanh_one), size)
            shifted = fma(size, of(2 * LOG2E), of(c.shift - 1))
            n = shifted - of(c.shift - 1)
            r = fma(n, of(-LN2 / 2), size)
            square = r * r
            even, odd = horner(square, c.tanh[::2]), horner(square, c.tanh[1::2])
            power = (float_bits(shifted) << c.mantissa_bits).view(x.dtype)  # 2ⁿ/2
            h = fma(power, fma(odd, r, even) * square, fma(power, r + r, power - of(0.5)))
            total = h + of(1)
            t = h / total
            # For small h, correct the rounding errors of the sum and the quotient.
            lost = fma(-t, h - (total - of(1)), fma(-t, total, h))
            result: Array = np.copysign(np.where(h < of(0.5), fma(lost, of(1) - t, t), t), x)
        return result

    exp2, expm1 = Program(exponentials.exp2), Program(exponentials.expm1)
    sigmoid, log = Program(exponentials.sigmoid), Program(logarithms.log)
    log2, log10, log1p = Program(logarithms.log2), Program(logarithms.log10), Program(logarithms.log1p)
    softplus, pow, cbrt = Program(logarithms.softplus), Program(powers.pow), Program(roots.cbrt)
    sin, cos, tan = Program(trigonometric.sin), Program(trigonometric.cos), Program(trigonometric.tan)
    asin, acos = Program(inverse_trigonometric.asin), Program(inverse_trigonometric.acos)
    atan, atan2 = Program(inverse_trigonometric.atan), Program(inverse_trigonometric.atan2)
    sinh, cosh = Program(exponentials.sinh), Program(exponentials.cosh)
    erf, erfc = Program(error_function.erf), Program(error_function.erfc)


PROGRAMS = {name: function.steps for name, function in vars(Functions).items() if isinstance(function, Program)}


def horner(r: Array, coefficients: tuple[float, ...]) -> Array:
    """Σ cᵢ·rⁱ by Horner's rule."""
    of = r.dtype.type
    p = np.full_like(r, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        p = fma(p, r, of(coefficient))
    return p


def power_of_two(n: Array, dtype: Any) -> Array:
    """2ⁿ for an integer n in the range of normal exponents."""
    c = CONSTANTS[np.dtype(dtype).name]
    power: Array = ((n + c.bias) << c.mantissa_bits).view(dtype)
    return power


def float_bits(x: Any) -> npt.NDArray[Any]:
    """The integers with the same bits as x."""
    return np.asarray(x).view(np.int32 if x.dtype == np.float32 else np.int64)
