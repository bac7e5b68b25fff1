"""exp and log as machine code, step by step as `definition.elementary` writes them; tests hold the two together."""

import math

from clearhead.definition.elementary import CONSTANTS, LN2, LOG2E, Constants
from clearhead.kernels.simd import Function, Value


def constants(f: Function) -> Constants:
    """The numbers of the function's float type."""
    return CONSTANTS["float32" if f.element.bytes == 4 else "float64"]


def exp(f: Function, x: Value) -> Value:
    """exp(x) for x ≤ 0; 0 below the floor (−∞ included); not a number stays so."""
    c, b = constants(f), f.block
    shifted = f.fma(x, f.constant(LOG2E), f.constant(c.shift))
    r = f.fma(b.fsub(shifted, f.constant(c.shift)), f.constant(-LN2), x)
    p = f.constant(c.exp[-1])
    for coefficient in c.exp[-2::-1]:
        p = f.fma(p, r, f.constant(coefficient))
    power = b.bitcast(b.shl(b.bitcast(shifted, f.integers), f.integer(c.mantissa_bits)), f.vector)
    # A product, not integer addition to the exponent: it keeps every NaN a NaN.
    return b.select(b.fcmp_ordered("<", x, f.constant(c.exp_floor)), f.constant(0.0), b.fmul(p, power))


def log(f: Function, x: Value) -> Value:
    """ln x for normal x > 0; −∞ of 0; not a number stays so."""
    c, b = constants(f), f.block
    above = b.sub(b.bitcast(x, f.integers), f.integer(c.sqrt_half_bits))
    e = b.sitofp(b.ashr(above, f.integer(c.mantissa_bits)), f.vector)
    mantissa = b.add(b.and_(above, f.integer((1 << c.mantissa_bits) - 1)), f.integer(c.sqrt_half_bits))
    m = b.bitcast(mantissa, f.vector)
    s = b.fdiv(b.fsub(m, f.constant(1.0)), b.fadd(m, f.constant(1.0)))
    square = b.fmul(s, s)
    p = f.constant(1 / (2 * c.log_terms + 1))
    for n in range(c.log_terms - 1, 0, -1):
        p = f.fma(p, square, f.constant(1 / (2 * n + 1)))
    half = f.fma(e, f.constant(LN2 / 2), b.fadd(s, b.fmul(b.fmul(p, square), s)))
    nothing, lost = b.fcmp_ordered("==", x, f.constant(0.0)), b.fcmp_unordered("uno", x, x)
    return b.select(nothing, f.constant(-math.inf), b.select(lost, x, b.fadd(half, half)))
