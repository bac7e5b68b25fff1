"""exp and log from additions, multiplications and shifts only, so that every processor gives the same bits.

Decides their polynomials and their order of operations; `kernels.math` writes the same steps as machine code. The fits
of exp hold for |r| ≤ ln 2 / 2 with relative errors of 3.1e-9 (float32) and 3.7e-18 (float64) before rounding.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.definition.fma import fma

Array = npt.NDArray[Any]

LOG2E, LN2 = 1 / math.log(2), math.log(2)


@dataclass(frozen=True)
class Constants:
    """The numbers of one float type."""

    mantissa_bits: int
    shift: float  # adding it leaves round(x) + exponent bias in the low bits of the mantissa
    exp: tuple[float, ...]  # coefficients of r⁰, r¹, r² …
    exp_floor: float  # below it exp is 0
    sqrt_half_bits: int  # the bits of √½: log takes mantissas from [√½, √2)
    log_terms: int  # of atanh's series beyond the first, their coefficients being 1/3, 1/5, 1/7 …


CONSTANTS = {
    "float32": Constants(
        23, 1.5 * 2.0**23 + 127,
        (1.0, 1.0, 0.49999993432042483, 0.1666652039768532, 0.0416683907955985, 0.008368745272441481,
         0.0013814540195009803),
        -87.0, 0x3F3504F3, 5,
    ),
    "float64": Constants(
        52, 1.5 * 2.0**52 + 1023,
        (1.0, 1.0, 0.5000000000000011, 0.16666666666666408, 0.041666666666529704, 0.008333333333496618,
         0.0013888888943767443, 0.00019841269502458722, 2.4801492939809158e-05, 2.755758960298263e-06,
         2.763031067089253e-07, 2.4999185659624294e-08),
        -708.0, 0x3FE6A09E667F3BCD, 11,
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
        p = np.full_like(x, c.exp[-1])
        for coefficient in c.exp[-2::-1]:
            p = fma(p, r, of(coefficient))
        power = (bits(shifted) << c.mantissa_bits).view(x.dtype)  # 2ⁿ
        result: Array = np.where(x < of(c.exp_floor), of(0), p * power)
    return result


def log(x: Array) -> Array:
    """ln x for normal x > 0, as e·ln 2 + 2·atanh((m − 1)/(m + 1)) with x = 2ᵉ·m and √½ ≤ m < √2; −∞ of 0.

    >>> log(np.array([1.0, np.e, 0.0])).round(4).tolist()
    [0.0, 1.0, -inf]
    """
    c, of = CONSTANTS[x.dtype.name], x.dtype.type
    with np.errstate(all="ignore"):
        above = bits(x) - c.sqrt_half_bits
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


def bits(x: Array) -> npt.NDArray[Any]:
    """The integers whose bits are those of x."""
    return x.view(np.int32 if x.dtype == np.float32 else np.int64)
