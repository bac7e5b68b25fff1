"""Elementary functions as machine code, step by step as `definition.elementary` writes them; tests hold them together.

`exp` and `log` are softmax's own, for the arguments that it has; FUNCTIONS are those of score rules, for any. Those of
PROGRAMS are written from the very steps of the definition.
"""

import math

from clearhead.definition.elementary import CONSTANTS, LN2, LOG2E, PROGRAMS, Constants
from clearhead.kernels.ir.lanes import written
from clearhead.kernels.ir.simd import Function, Value


def constants(f: Function) -> Constants:
    """The numbers of the function's float type."""
    return CONSTANTS["float32" if f.element.bytes == 4 else "float64"]


def exp(f: Function, x: Value) -> Value:
    """exp(x) for x ≤ 0; 0 below the floor (−∞ included); not a number stays so."""
    c, b = constants(f), f.block
    shifted = f.fma(x, f.constant(LOG2E), f.constant(c.shift))
    r = f.fma(b.fsub(shifted, f.constant(c.shift)), f.constant(-LN2), x)
    # A product, not integer addition to the exponent: it keeps every NaN a NaN.
    product = b.fmul(polynomial(f, r, c.exp), power_of(f, shifted))
    return b.select(b.fcmp_ordered("<", x, f.constant(c.exp_floor)), f.constant(0.0), product)


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


def any_exp(f: Function, x: Value) -> Value:
    """exp(x) for every x."""
    c, b = constants(f), f.block
    low, high = (f.constant(limit) for limit in c.exp_range)
    x = b.select(b.fcmp_ordered(">", x, high), high, x)
    x = b.select(b.fcmp_ordered("<", x, low), low, x)
    shifted = f.fma(x, f.constant(LOG2E), f.constant(c.shift))
    n = b.fsub(shifted, f.constant(c.shift))
    r = f.fma(n, f.constant(-c.ln2_rest), f.fma(n, f.constant(-c.ln2), x))
    whole = b.sub(b.bitcast(shifted, f.integers), b.bitcast(f.constant(c.shift), f.integers))
    half = b.ashr(whole, f.integer(1))
    return b.fmul(b.fmul(polynomial(f, r, c.exp), two_to(f, half)), two_to(f, b.sub(whole, half)))


def tanh(f: Function, x: Value) -> Value:
    """tanh x."""
    c, b = constants(f), f.block
    sign = f.integer(-1 << (8 * f.element.bytes - 1))
    size = b.bitcast(b.and_(b.bitcast(x, f.integers), b.not_(sign)), f.vector)
    most, one = f.constant(c.tanh_one), f.constant(1.0)
    size = b.select(b.fcmp_ordered(">", size, most), most, size)
    shifted = f.fma(size, f.constant(2 * LOG2E), f.constant(c.shift - 1))
    n = b.fsub(shifted, f.constant(c.shift - 1))
    r = f.fma(n, f.constant(-LN2 / 2), size)
    square = b.fmul(r, r)
    even, odd = polynomial(f, square, c.tanh[::2]), polynomial(f, square, c.tanh[1::2])
    power = power_of(f, shifted)
    start = f.fma(power, b.fadd(r, r), b.fsub(power, f.constant(0.5)))
    h = f.fma(power, b.fmul(f.fma(odd, r, even), square), start)
    total = b.fadd(h, one)
    t = b.fdiv(h, total)
    lost = f.fma(b.fneg(t), b.fsub(h, b.fsub(total, one)), f.fma(b.fneg(t), total, h))
    t = b.bitcast(b.select(b.fcmp_ordered("<", h, f.constant(0.5)), f.fma(lost, b.fsub(one, t), t), t), f.integers)
    signed = b.or_(b.and_(t, b.not_(sign)), b.and_(b.bitcast(x, f.integers), sign))
    return b.bitcast(signed, f.vector)


def sqrt(f: Function, x: Value) -> Value:
    """√x, which every processor rounds right."""
    return f.intrinsic(f"llvm.sqrt.v{f.lanes}{f.element.name}", f.vector, x)


FUNCTIONS = {"exp": any_exp, "tanh": tanh, "sqrt": sqrt}
FUNCTIONS |= {name: written(program) for name, program in PROGRAMS.items()}


def polynomial(f: Function, r: Value, coefficients: tuple[float, ...]) -> Value:
    """Σ cᵢ·rⁱ by Horner's rule."""
    p = f.constant(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        p = f.fma(p, r, f.constant(coefficient))
    return p


def power_of(f: Function, shifted: Value) -> Value:
    """2ⁿ of what adding `shift` made of n."""
    whole = f.block.bitcast(shifted, f.integers)
    return f.block.bitcast(f.block.shl(whole, f.integer(constants(f).mantissa_bits)), f.vector)


def two_to(f: Function, n: Value) -> Value:
    """2ⁿ for whole n within the exponents."""
    c = constants(f)
    return f.block.bitcast(f.block.shl(f.block.add(n, f.integer(c.bias)), f.integer(c.mantissa_bits)), f.vector)
