"""Numbers stored in 16 or 8 bits: widened exactly to float32, and those of 16 rounded once on their way back.

float16 is widened by the processor where it can, else by the same steps in integers; bfloat16 is float32's upper half.
Operands as wide as the computation pass unchanged. All steps work on one number or on a vector of them.
"""

from typing import TypeAlias

import llvmlite.ir as ir

from clearhead.kernels.abi.tiles import STORED
from clearhead.kernels.ir.code import Code
from clearhead.kernels.ir.values import Bits, Float, Pointer, Real, Vector, Whole, i8, i16, i32, shaped

INTEGERS = {"float16": i16, "bfloat16": i16, "int8": i8}
SINGLE = ir.FloatType()

Number: TypeAlias = Vector | Float


def stored_bytes(f: Code, storage: str) -> int:
    """Bytes of one stored number."""
    return 1 if storage == "int8" else STORED.get(storage, f.element.bytes)


def load_vector(f: Code, storage: str, address: Pointer) -> Vector:
    """A vector of stored numbers, widened."""
    if not storage:
        return f.load(address)
    bits = Bits(f.build, f.read(address, ir.VectorType(INTEGERS[storage], f.lanes)))
    return Vector(f.build, widen(f, storage, bits).ir)


def load_number(f: Code, storage: str, address: Pointer) -> Float:
    """One stored number, widened."""
    if not storage:
        return f.load_number(address)
    return Float(f.build, widen(f, storage, Bits(f.build, f.read(address, INTEGERS[storage]))).ir)


def store_rounded(f: Code, storage: str, x: Number, address: Pointer) -> None:
    """A vector or a number, rounded and stored."""
    f.store(narrow(f, storage, x) if storage else x, address)


def widen(f: Code, storage: str, bits: Whole) -> Real:
    """16 or 8 bits as float32, exactly."""
    single = shaped(bits.ir, SINGLE)
    if storage == "int8":
        return Real(f.build, f.build.sitofp(bits.resized(32, signed=True).ir, single))
    if storage == "float16" and f.converts_half:
        return Real(f.build, f.build.fpext(bits.bits_as(ir.HalfType()), single))
    bits = bits.resized(32)
    if storage == "bfloat16":
        return Real(f.build, (bits << 16).bits_as(SINGLE))
    # Exponent and mantissa in float32's places; a multiplication moves the exponent's bias from 15 to 127.
    size = (bits & 0x7FFF) << 13
    scaled = Real(f.build, size.bits_as(SINGLE)) * 2.0**112
    beyond = size | 0x7F800000  # infinities and what is not a number
    result = (size < 0x7C00 << 13).choose(integers(scaled), beyond)
    sign = (bits & 0x8000) << 16
    return Real(f.build, (result | sign).bits_as(SINGLE))


def narrow(f: Code, storage: str, x: Number) -> Bits:
    """float32 in 16 bits, rounded to nearest, ties to even."""
    if storage == "float16" and f.converts_half:
        half = f.build.fptrunc(x.ir, shaped(x.ir, ir.HalfType()))
        return Bits(f.build, f.build.bitcast(half, shaped(x.ir, i16)))
    bits = integers(x)
    if storage == "bfloat16":
        odd = bits.logical_right(16) & 1
        rounded = bits + (odd + 0x7FFF)
        quiet = bits | 0x400000  # what is not a number stays so: no payload rounds to infinity
        return x.is_nan().choose(quiet, rounded).logical_right(16).resized(16)
    size = bits & 0x7FFFFFFF
    odd = size.logical_right(13) & 1
    normal = (size + (odd + (0xFFF - (112 << 23)))).logical_right(13)
    # The processor's own addition rounds what becomes subnormal: 0.5's last bit is 2⁻²⁴, half's smallest number.
    shifted = Real(f.build, size.bits_as(SINGLE)) + 0.5
    small = integers(shifted) - 0x3F000000
    result = (size < 113 << 23).choose(small, normal)
    result = (size < 0x477FF000).choose(result, result.like(0x7C00))
    result = (size > 0x7F800000).choose(result.like(0x7E00), result)
    sign = bits.logical_right(16) & 0x8000
    return (result | sign).resized(16)


def integers(x: Real) -> Bits:
    """The bits of float32 numbers."""
    return Bits(x.build, x.build.bitcast(x.ir, shaped(x.ir, i32)))
