"""exp and log from additions, multiplications and integer shifts only: the same bits on every processor.

Decides the polynomials and their order of operations; `definition.canonical` states the same steps in numpy, and
tests hold the two together bit by bit. Fits are for |r| ≤ ln 2 / 2, relative error 3.1e-9 (f32) and 3.7e-18 (f64).
"""

import math
from dataclasses import dataclass

from clearhead.kernels.simd import Function, Value
from clearhead.kernels.tiles import F32, F64


@dataclass(frozen=True)
class Constants:
    """The numbers of one element type's exp and log."""

    round: float  # adding it leaves the nearest integer in the low bits of the mantissa
    log2e: float
    ln2: float
    exp: tuple[float, ...]  # coefficients of r⁰, r¹, r² …
    exp_floor: float  # below it exp is 0
    sqrt_half_bits: int  # the bits of √½: mantissas are taken from [√½, √2)
    log_terms: int  # of atanh's series, the coefficients being 1/3, 1/5, 1/7 …


EXP_F32 = (1.0, 1.0, 0.49999993432042483, 0.1666652039768532, 0.0416683907955985, 0.008368745272441481, 0.0013814540195009803)  # fmt: skip
EXP_F64 = (
    1.0, 1.0, 0.5000000000000011, 0.16666666666666408, 0.041666666666529704, 0.008333333333496618, 0.0013888888943767443,
    0.00019841269502458722, 2.4801492939809158e-05, 2.755758960298263e-06, 2.763031067089253e-07, 2.4999185659624294e-08,
)  # fmt: skip

LOG2E, LN2 = 1 / math.log(2), math.log(2)
CONSTANTS = {
    F32: Constants(1.5 * 2**23 + 127, LOG2E, LN2, EXP_F32, -87.0, 0x3F3504F3, 5),
    F64: Constants(1.5 * 2**52 + 1023, LOG2E, LN2, EXP_F64, -708.0, 0x3FE6A09E667F3BCD, 11),
}


def exp(f: Function, x: Value) -> Value:
    """exp(x) for x ≤ 0; 0 below the floor (−∞ included); not a number stays so."""
    c, b = CONSTANTS[f.element], f.block
    shifted = f.fma(x, f.constant(c.log2e), f.constant(c.round))  # its low bits: n + bias, n = round(x / ln 2)
    n = b.fsub(shifted, f.constant(c.round))
    r = f.fma(n, f.constant(-c.ln2), x)
    p = f.constant(c.exp[-1])
    for coefficient in c.exp[-2::-1]:
        p = f.fma(p, r, f.constant(coefficient))
    power = b.bitcast(b.shl(b.bitcast(shifted, f.integers), f.integer(f.element.mantissa_bits)), f.vector)  # 2ⁿ
    return b.select(b.fcmp_ordered("<", x, f.constant(c.exp_floor)), f.constant(0.0), b.fmul(p, power))


def log(f: Function, x: Value) -> Value:
    """The natural logarithm of x > 0, normal; −∞ of 0; not a number stays so.

    x = 2ᵉ·m with m in [√½, √2), and ln m = 2·atanh(s) = 2(s + s³/3 + s⁵/5 …) with s = (m − 1)/(m + 1).
    """
    c, b, e = CONSTANTS[f.element], f.block, f.element
    above = b.sub(b.bitcast(x, f.integers), f.integer(c.sqrt_half_bits))
    exponent = b.ashr(above, f.integer(e.mantissa_bits))
    mantissa = b.add(b.and_(above, f.integer((1 << e.mantissa_bits) - 1)), f.integer(c.sqrt_half_bits))
    m = b.bitcast(mantissa, f.vector)
    s = b.fdiv(b.fsub(m, f.constant(1.0)), b.fadd(m, f.constant(1.0)))
    square = b.fmul(s, s)
    p = f.constant(1 / (2 * c.log_terms + 1))
    for k in range(c.log_terms - 1, 0, -1):
        p = f.fma(p, square, f.constant(1 / (2 * k + 1)))
    tail = b.fmul(b.fmul(p, square), s)
    whole = f.fma(b.sitofp(exponent, f.vector), f.constant(c.ln2 / 2), b.fadd(s, tail))
    finite = b.fadd(whole, whole)
    nothing = b.fcmp_ordered("==", x, f.constant(0.0))
    lost = b.fcmp_unordered("uno", x, x)
    return b.select(nothing, f.constant(-math.inf), b.select(lost, x, finite))
