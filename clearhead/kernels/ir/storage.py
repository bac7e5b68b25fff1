"""Numbers stored in 16 or 8 bits: widened exactly to float32, and those of 16 rounded once on their way back.

float16 is widened by the processor where it can, else by the same steps in integers; bfloat16 is float32's upper half.
Values of other operands are as wide as the computation's and pass unchanged.
"""

from typing import Any

import llvmlite.ir as ir

from clearhead.kernels.abi.tiles import STORED
from clearhead.kernels.ir.code import Code
from clearhead.kernels.ir.simd import Value
from clearhead.kernels.ir.values import Float, Pointer, Vector, i8, i16, i32

INTEGERS = {"float16": i16, "bfloat16": i16, "int8": i8}


def stored_bytes(f: Code, storage: str) -> int:
    """Bytes of one stored number."""
    return 1 if storage == "int8" else STORED.get(storage, f.element.bytes)


def load_vector(f: Code, storage: str, address: Pointer) -> Vector:
    """A vector of stored numbers, widened."""
    if not storage:
        return f.load(address)
    return Vector(f.build, widen(f, storage, f.read(address, ir.VectorType(INTEGERS[storage], f.lanes))))


def load_number(f: Code, storage: str, address: Pointer) -> Float:
    """One stored number, widened."""
    if not storage:
        return f.load_number(address)
    return Float(f.build, widen(f, storage, f.read(address, INTEGERS[storage])))


def store_rounded(f: Code, storage: str, x: Vector | Float, address: Pointer) -> None:
    """A vector or a number, rounded and stored."""
    f.build.store(narrow(f, storage, x.ir) if storage else x.ir, address.ir, align=1)


def widen(f: Any, storage: str, x: Value) -> Value:
    """16 or 8 bits as float32, exactly."""
    b = f.block
    if storage == "int8":
        return b.sitofp(b.sext(x, like(x, i32)), like(x, ir.FloatType()))
    if storage == "float16" and native(f):
        return b.fpext(b.bitcast(x, like(x, ir.HalfType())), like(x, ir.FloatType()))
    bits = b.zext(x, like(x, i32))
    if storage == "bfloat16":
        return b.bitcast(b.shl(bits, number(bits, 16)), like(x, ir.FloatType()))
    size = b.shl(b.and_(bits, number(bits, 0x7FFF)), number(bits, 13))
    scaled = b.fmul(b.bitcast(size, like(x, ir.FloatType())), floating(x, 2.0**112))  # from exponent bias 15 to 127
    beyond = b.or_(size, number(bits, 0x7F800000))  # infinities and what is not a number
    result = b.select(b.icmp_signed("<", size, number(bits, 0x7C00 << 13)), b.bitcast(scaled, bits.type), beyond)
    sign = b.shl(b.and_(bits, number(bits, 0x8000)), number(bits, 16))
    return b.bitcast(b.or_(result, sign), like(x, ir.FloatType()))


def narrow(f: Any, storage: str, x: Value) -> Value:
    """float32 in 16 bits, rounded to nearest, ties to even."""
    b = f.block
    if storage == "float16" and native(f):
        return b.bitcast(b.fptrunc(x, like(x, ir.HalfType())), like(x, i16))
    bits = b.bitcast(x, like(x, i32))
    if storage == "bfloat16":
        odd = b.and_(b.lshr(bits, number(bits, 16)), number(bits, 1))
        rounded = b.add(bits, b.add(odd, number(bits, 0x7FFF)))
        lost = b.or_(bits, number(bits, 0x400000))  # quiet, so that no payload rounds to infinity
        kept = b.select(b.fcmp_unordered("uno", x, x), lost, rounded)
        return b.trunc(b.lshr(kept, number(bits, 16)), like(x, i16))
    size = b.and_(bits, number(bits, 0x7FFFFFFF))
    odd = b.and_(b.lshr(size, number(bits, 13)), number(bits, 1))
    normal = b.lshr(b.add(size, b.add(odd, number(bits, 0xFFF - (112 << 23)))), number(bits, 13))
    # The processor's own addition rounds what becomes subnormal: 0.5's last bit is 2⁻²⁴, half's smallest number.
    shifted = b.fadd(b.bitcast(size, x.type), floating(x, 0.5))
    small = b.sub(b.bitcast(shifted, bits.type), number(bits, 0x3F000000))
    result = b.select(b.icmp_signed("<", size, number(bits, 113 << 23)), small, normal)
    result = b.select(b.icmp_signed("<", size, number(bits, 0x477FF000)), result, number(bits, 0x7C00))
    result = b.select(b.icmp_signed(">", size, number(bits, 0x7F800000)), number(bits, 0x7E00), result)
    sign = b.and_(b.lshr(bits, number(bits, 16)), number(bits, 0x8000))
    return b.trunc(b.or_(result, sign), like(x, i16))


def native(f: Any) -> bool:
    """Whether the processor surely converts float16: each one with vectors of 256 bits does."""
    width: int = f.tile.vector_bits
    return width > 128


def like(x: Value, kind: ir.Type) -> ir.Type:
    """A scalar's type, or as many of it as x has lanes."""
    return ir.VectorType(kind, x.type.count) if isinstance(x.type, ir.VectorType) else kind


def number(x: Value, n: int) -> Value:
    """An integer constant like x."""
    return ir.Constant(x.type, [n] * x.type.count if isinstance(x.type, ir.VectorType) else n)


def floating(x: Value, n: float) -> Value:
    """A float constant for each lane of x."""
    kind = like(x, ir.FloatType())
    return ir.Constant(kind, [n] * kind.count if isinstance(kind, ir.VectorType) else n)
