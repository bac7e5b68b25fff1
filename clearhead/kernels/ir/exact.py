"""Rounding to whole numbers and remainders of floats as vectors: exact, so that they need no program in the definition.

Decides how they are done with additions alone: instructions that round are missing from the oldest processors, and
LLVM would call a library instead.
"""

import math
from collections.abc import Callable

import llvmlite.ir as ir

from clearhead.kernels.ir.math import constants
from clearhead.kernels.ir.simd import Function, Value


def intrinsic(f: Function, name: str, *vectors: Value) -> Value:
    """One of LLVM's functions of vectors."""
    return f.intrinsic(f"llvm.{name}.v{f.lanes}{f.element.name}", f.vector, *vectors)


def size(f: Function, x: Value) -> Value:
    """|x|."""
    return intrinsic(f, "fabs", x)


def copysign(f: Function, x: Value, sign: Value) -> Value:
    """|x| with the sign of another."""
    return intrinsic(f, "copysign", x, sign)


def whole_size(f: Function, x: Value) -> tuple[Value, Value]:
    """|x|, and |x| rounded to the nearest whole number, halves to even: floats that are large have none in between."""
    b, own = f.block, size(f, x)
    large = f.constant(2.0 ** constants(f).mantissa_bits)
    rounded = b.fsub(b.fadd(own, large), large)
    return own, b.select(b.fcmp_ordered("<", own, large), rounded, own)


def nearest(f: Function, x: Value) -> Value:
    """x rounded to a whole number, halves to even, with the sign of x."""
    return copysign(f, whole_size(f, x)[1], x)


def toward_zero(f: Function, x: Value) -> Value:
    """x without what stands behind the point."""
    b = f.block
    own, rounded = whole_size(f, x)
    return copysign(f, b.select(b.fcmp_ordered(">", rounded, own), b.fsub(rounded, f.constant(1.0)), rounded), x)


def floor(f: Function, x: Value) -> Value:
    """The largest whole number that is not above x."""
    b, rounded = f.block, nearest(f, x)
    return b.select(b.fcmp_ordered(">", rounded, x), b.fsub(rounded, f.constant(1.0)), rounded)


def ceil(f: Function, x: Value) -> Value:
    """The smallest whole number that is not below x; −0 from −1 on."""
    b, rounded = f.block, nearest(f, x)
    raised = copysign(f, b.fadd(rounded, f.constant(1.0)), x)
    return b.select(b.fcmp_ordered("<", rounded, x), raised, rounded)


def fmod(f: Function, x: Value, y: Value) -> Value:
    """What is left of x when |y| is taken away as often as it can be, with the sign of x.

    Each round takes away whole multiples of |y|·2ᵏ that a float's digits count exactly, until no lane has |y| left.
    """
    b, zero = f.block, f.constant(0.0)
    start, step = size(f, x), size(f, y)
    possible = b.and_(b.fcmp_ordered("<", start, f.constant(math.inf)), b.fcmp_ordered(">", step, zero))
    start = b.select(possible, start, zero)  # so that lanes without an answer are done at once
    before, head, inside, after = b.block, *(f.ir.append_basic_block(name) for name in ("head", "inside", "after"))
    b.branch(head)
    b.position_at_end(head)
    left = b.phi(f.vector)
    left.add_incoming(start, before)
    waiting = b.fcmp_ordered(">=", left, step)
    flags = ir.IntType(f.lanes)
    b.cbranch(b.icmp_unsigned("!=", b.bitcast(waiting, flags), ir.Constant(flags, 0)), inside, after)
    b.position_at_end(inside)
    left.add_incoming(b.select(waiting, taken_away(f, left, step), left), b.block)
    b.branch(head)
    b.position_at_end(after)
    return copysign(f, b.select(possible, left, f.constant(math.nan)), x)


def taken_away(f: Function, left: Value, step: Value) -> Value:
    """`left` without a multiple of `step`, for left ≥ step: most of what it has, or all."""
    b, bits = f.block, constants(f).mantissa_bits
    most = f.constant(2.0 ** (constants(f).bias - 7))
    for _ in range(2):  # quotients may be larger than any float
        beyond = b.fcmp_ordered("==", b.fdiv(left, step), f.constant(math.inf))
        step = b.select(beyond, b.fmul(step, most), step)
    quotient = b.fdiv(left, step)
    exponent = b.and_(b.bitcast(quotient, f.integers), f.integer(-1 << bits))
    factor = b.fmul(b.bitcast(exponent, f.vector), f.constant(2.0 ** (2 - bits)))  # a power of two
    step = b.fmul(step, b.select(b.fcmp_ordered(">", factor, f.constant(1.0)), factor, f.constant(1.0)))
    times = toward_zero(f, b.fdiv(left, step))
    rest = f.fma(b.fneg(times), step, left)
    return b.select(b.fcmp_ordered("<", rest, f.constant(0.0)), b.fadd(rest, step), rest)


def remainder(f: Function, x: Value, y: Value) -> Value:
    """Python's %: what floor division leaves, with the sign of y."""
    b, zero = f.block, f.constant(0.0)
    left = fmod(f, x, y)
    apart = b.xor(b.fcmp_ordered("<", left, zero), b.fcmp_ordered("<", y, zero))
    moved = b.select(apart, b.fadd(left, y), left)
    return b.select(b.fcmp_ordered("==", left, zero), copysign(f, zero, y), moved)


def floor_division(f: Function, x: Value, y: Value) -> Value:
    """Python's //: the quotient of x without its remainder, which is whole but for rounding; by 0 the quotient."""
    b, zero, one = f.block, f.constant(0.0), f.constant(1.0)
    left, quotient = fmod(f, x, y), b.fdiv(x, y)
    whole = b.fdiv(b.fsub(x, left), y)
    apart = b.xor(b.fcmp_ordered("<", left, zero), b.fcmp_ordered("<", y, zero))
    apart = b.and_(apart, b.fcmp_unordered("!=", left, zero))
    whole = b.select(apart, b.fsub(whole, one), whole)
    below = floor(f, whole)
    below = b.select(b.fcmp_ordered(">", b.fsub(whole, below), f.constant(0.5)), b.fadd(below, one), below)
    below = b.select(b.fcmp_ordered("==", whole, zero), copysign(f, zero, quotient), below)
    return b.select(b.fcmp_ordered("==", y, zero), quotient, below)


FUNCTIONS: dict[str, Callable[..., Value]] = {
    "floor": floor,
    "ceil": ceil,
    "round": nearest,
    "trunc": toward_zero,
    "copysign": copysign,
    "fmod": fmod,
}
