"""Elementary functions as machine code, step by step as `definition.elementary` writes them; tests hold them together.

`exp` and `log` are softmax's, for the arguments that occur there; FUNCTION_EMITTERS are those of score rules, for any
argument. The definition's PROGRAMS are written from its very steps.
"""

import math

from clearhead.definition.elementary import CONSTANTS, LN2, LOG2E, PROGRAMS, Constants
from clearhead.kernels.ir.code import Code
from clearhead.kernels.ir.programs import emitted_program
from clearhead.kernels.ir.values import Lanes, Vector, fma


def constants(f: Code) -> Constants:
    """The numbers of the function's float type."""
    return CONSTANTS["float32" if f.element.bytes == 4 else "float64"]


def exp(f: Code, x: Vector) -> Vector:
    """exp(x) for x ≤ 0, as 2ⁿ·exp(r); 0 below the floor (−∞ included); not a number stays so."""
    c = constants(f)
    # n = round(x / ln 2) in the low bits of `shifted`, and r = x − n·ln 2
    shifted = fma(x, f.constant(LOG2E), f.constant(c.shift))
    r = fma(shifted - c.shift, f.constant(-LN2), x)
    # A product, not integer addition to the exponent: it keeps every NaN a NaN.
    product = horner(f, r, c.exp) * power_of(f, shifted)
    return (x < c.exp_floor).choose(f.constant(0.0), product)


def log(f: Code, x: Vector) -> Vector:
    """ln x for normal x > 0, as e·ln 2 + 2·atanh((m − 1)/(m + 1)); −∞ of 0; not a number stays so."""
    c = constants(f)
    # x = 2ᵉ·m with √½ ≤ m < √2
    above = x.bits() - c.sqrt_half_bits
    e = (above >> c.mantissa_bits).rounded(f.vector)
    m = ((above & (1 << c.mantissa_bits) - 1) + c.sqrt_half_bits).floats()
    s = (m - 1.0) / (m + 1.0)
    # atanh(s) = s + s³/3 + s⁵/5 …
    square = s * s
    p = f.constant(1 / (2 * c.log_terms + 1))
    for n in range(c.log_terms - 1, 0, -1):
        p = fma(p, square, f.constant(1 / (2 * n + 1)))
    half = fma(e, f.constant(LN2 / 2), s + p * square * s)
    zero, lost = x == 0.0, x.is_nan()
    return zero.choose(f.constant(-math.inf), lost.choose(x, half + half))


def any_exp(f: Code, x: Vector) -> Vector:
    """exp(x) for every x."""
    c = constants(f)
    low, high = (f.constant(limit) for limit in c.exp_range)
    x = (x > high).choose(high, x)
    x = (x < low).choose(low, x)
    shifted = fma(x, f.constant(LOG2E), f.constant(c.shift))
    n = shifted - c.shift
    # ln 2 in two parts, of which the first has so few bits that its product with n is exact.
    r = fma(n, f.constant(-c.ln2_rest), fma(n, f.constant(-c.ln2), x))
    # 2ⁿ in two factors, so that a subnormal result is rounded once and ∞ comes of itself.
    whole = shifted.bits() - f.constant(c.shift).bits()
    half = whole >> 1
    return horner(f, r, c.exp) * power_of_two(f, half) * power_of_two(f, whole - half)


def tanh(f: Code, x: Vector) -> Vector:
    """tanh x, as h/(h + 1) of h = (exp(2|x|) − 1)/2 with the sign of x."""
    c = constants(f)
    sign = f.integer(-1 << (8 * f.element.bytes - 1))
    size = (x.bits() & ~sign).floats()
    most = f.constant(c.tanh_one)
    size = (size > most).choose(most, size)
    shifted = fma(size, f.constant(2 * LOG2E), f.constant(c.shift - 1))
    n = shifted - (c.shift - 1)
    r = fma(n, f.constant(-LN2 / 2), size)
    square = r * r
    even, odd = horner(f, square, c.tanh[::2]), horner(f, square, c.tanh[1::2])
    power = power_of(f, shifted)
    start = fma(power, r + r, power - 0.5)
    h = fma(power, fma(odd, r, even) * square, start)
    total = h + 1.0
    t = h / total
    # Where h is small, what was lost in the sum and in the quotient would be felt.
    lost = fma(-t, h - (total - 1.0), fma(-t, total, h))
    result = (h < 0.5).choose(fma(lost, 1.0 - t, t), t).bits()
    return (result & ~sign | x.bits() & sign).floats()


def sqrt(_: Code, x: Vector) -> Vector:
    """√x, which every processor rounds right."""
    return x.sqrt()


FUNCTION_EMITTERS = {"exp": any_exp, "tanh": tanh, "sqrt": sqrt}
FUNCTION_EMITTERS |= {name: emitted_program(program) for name, program in PROGRAMS.items()}


def horner(f: Code, r: Vector, coefficients: tuple[float, ...]) -> Vector:
    """Σ cᵢ·rⁱ by Horner's rule."""
    p = f.constant(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        p = fma(p, r, f.constant(coefficient))
    return p


def power_of(f: Code, shifted: Vector) -> Vector:
    """2ⁿ of what adding `shift` made of n."""
    return (shifted.bits() << constants(f).mantissa_bits).floats()


def power_of_two(f: Code, n: Lanes) -> Vector:
    """2ⁿ for whole n within the exponents."""
    c = constants(f)
    return (n + c.bias << c.mantissa_bits).floats()
