"""Temporary: functions that still build IR by hand, on typed values."""

from clearhead.kernels.ir import math, simd
from clearhead.kernels.ir.code import Code
from clearhead.kernels.ir.values import Vector


def old(f: Code) -> simd.Function:
    """The function, for code that builds IR by hand."""
    g = object.__new__(simd.Function)
    g.module, g.tile, g.element, g.lanes, g.vector, g.integers, g.ir, g.block = (
        f.module, f.tile, f.element, f.lanes, f.vector, f.integers, f.ir, f.build,
    )  # fmt: skip
    return g


def exp(f: Code, x: Vector) -> Vector:
    """exp(x) for x ≤ 0."""
    return Vector(f.build, math.exp(old(f), x.ir))


def log(f: Code, x: Vector) -> Vector:
    """ln x for normal x > 0."""
    return Vector(f.build, math.log(old(f), x.ir))
