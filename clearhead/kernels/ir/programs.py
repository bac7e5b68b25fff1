"""`definition.arithmetic` as instructions: its numbers are vectors of doubles, its integers vectors of 64 bits.

A vector has as many lanes as the function's, whatever their type: of float32, LLVM takes it in halves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.ir as ir

from clearhead.definition.arithmetic import Arithmetic
from clearhead.kernels.ir.code import Code
from clearhead.kernels.ir.values import Lanes, Truth, Vector, constant, fma, i64


class Instructions:
    """The steps, written where a function's builder stands."""

    def __init__(self, f: Code) -> None:
        self.f, self.build, self.narrow = f, f.build, f.element.bytes == 4
        self.doubles = f.in_lanes(ir.DoubleType())

    def number(self, x: Vector | float) -> Vector:
        """A number, or a constant."""
        return x if isinstance(x, Vector) else Vector(self.build, constant(self.doubles, float(x)))

    def integer(self, x: int) -> Lanes:
        """A constant of 64 bits."""
        return Lanes(self.build, constant(self.f.in_lanes(i64), x))

    def fma(self, a: Vector | float, b: Vector | float, c: Vector | float) -> Vector:
        """a·b + c, rounded once."""
        return fma(self.number(a), self.number(b), self.number(c))

    def sqrt(self, x: Vector) -> Vector:
        """√x, rounded once."""
        return x.sqrt()

    def size(self, x: Vector) -> Vector:
        """|x|."""
        return x.size()

    def signed(self, size: Vector | float, x: Vector) -> Vector:
        """|size| with the sign of x."""
        return self.number(size).signed(x)

    def select(self, condition: Truth, a: Any, b: Any) -> Any:
        """a where the condition holds, else b."""
        return condition.choose(self.value(a), self.value(b))

    def bits(self, x: Vector) -> Lanes:
        """The integer whose bits are those of x."""
        return x.bits()

    def of_bits(self, x: Lanes) -> Vector:
        """The number whose bits are those of the integer x."""
        return x.floats()

    def shift_right(self, x: Lanes, by: Lanes | int) -> Lanes:
        """The bits of x moved to the right by 0 to 63, zeros coming from the left."""
        return x.logical_right(by)

    def rarely(
        self, condition: Truth, program: Callable[..., Any], x: Vector, otherwise: tuple[Vector | Lanes | float, ...]
    ) -> list[Any]:
        """program(self, x) where the condition holds, behind a branch that is taken if it holds in any lane."""
        others = [self.value(o) for o in otherwise]

        def special() -> list[Any]:
            return [condition.choose(self.value(s), o) for s, o in zip(program(self, x), others, strict=True)]

        return self.f.values_if(condition.in_any_lane(), special, others, rarely=True)

    def value(self, x: Any) -> Any:
        """Numbers and integers as they are, a float as a constant."""
        return x if isinstance(x, Lanes) else self.number(x)


def emitted_program(program: Callable[..., Any]) -> Callable[..., Vector]:
    """A function of `definition.arithmetic` as one that writes it for vectors of the function's own float."""

    def write(f: Code, *vectors: Vector) -> Vector:
        a = Instructions(f)
        arithmetic: Arithmetic = a
        if not a.narrow:
            return a.number(program(arithmetic, *vectors))
        widened = (Vector(f.build, f.build.fpext(x.ir, a.doubles)) for x in vectors)
        return Vector(f.build, f.build.fptrunc(program(arithmetic, *widened).ir, f.vector))

    return write
