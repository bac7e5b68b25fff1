"""`definition.arithmetic` as instructions: its numbers are vectors of doubles, its integers vectors of 64 bits.

A vector has as many lanes as the function's, whatever their type: of float32, LLVM takes it in halves.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partialmethod
from typing import Any

import llvmlite.ir as ir

from clearhead.definition.arithmetic import Arithmetic
from clearhead.kernels.ir.simd import Function, Value, i64

FLOAT = {"+": "fadd", "-": "fsub", "*": "fmul", "/": "fdiv"}
INTEGER = {"+": "add", "-": "sub", "*": "mul", "&": "and_", "|": "or_", "<<": "shl", ">>": "ashr"}


class Lanes:
    """One vector, of numbers, integers or truths, with Python's operators."""

    def __init__(self, home: Instructions, value: Value) -> None:
        self.home, self.value = home, value

    def operation(self, name: str, other: Any) -> Lanes:
        """self name other."""
        names = FLOAT if self.value.type == self.home.floats else INTEGER
        return Lanes(self.home, getattr(self.home.block, names[name])(self.value, self.home.like(other, self)))

    def reversed(self, name: str, other: Any) -> Lanes:
        """other name self."""
        return Lanes(self.home, self.home.like(other, self)).operation(name, self)

    def compared(self, name: str, other: Any) -> Lanes:
        """Whether self name other; what is not a number is unequal, and nothing else."""
        block, other = self.home.block, self.home.like(other, self)
        if self.value.type == self.home.floats:
            compare = block.fcmp_unordered if name == "!=" else block.fcmp_ordered
        else:
            compare = block.icmp_signed
        return Lanes(self.home, compare(name, self.value, other))

    def __neg__(self) -> Lanes:
        return Lanes(self.home, self.home.block.fneg(self.value))

    def __invert__(self) -> Lanes:
        return Lanes(self.home, self.home.block.not_(self.value))

    __add__, __radd__ = partialmethod(operation, "+"), partialmethod(reversed, "+")
    __sub__, __rsub__ = partialmethod(operation, "-"), partialmethod(reversed, "-")
    __mul__, __rmul__ = partialmethod(operation, "*"), partialmethod(reversed, "*")
    __truediv__, __rtruediv__ = partialmethod(operation, "/"), partialmethod(reversed, "/")
    __and__, __or__ = partialmethod(operation, "&"), partialmethod(operation, "|")
    __lshift__, __rshift__ = partialmethod(operation, "<<"), partialmethod(operation, ">>")
    __lt__, __le__ = partialmethod(compared, "<"), partialmethod(compared, "<=")
    __gt__, __ge__ = partialmethod(compared, ">"), partialmethod(compared, ">=")
    __eq__, __ne__ = partialmethod(compared, "=="), partialmethod(compared, "!=")
    __hash__ = None  # type: ignore[assignment]


class Instructions:
    """The steps, written where a function's builder stands."""

    def __init__(self, f: Function) -> None:
        self.f, self.block, self.narrow = f, f.block, f.element.bytes == 4
        self.floats, self.integers = (ir.VectorType(kind, f.lanes) for kind in (ir.DoubleType(), i64))

    def like(self, x: Any, other: Lanes) -> Value:
        """The vector of x, or of a constant of the other's type."""
        return x.value if isinstance(x, Lanes) else ir.Constant(other.value.type, [x] * self.f.lanes)

    def vectors(self, *numbers: Any) -> list[Value]:
        """The vectors of numbers, some of which are constants."""
        return [(x if isinstance(x, Lanes) else self.number(x)).value for x in numbers]

    def number(self, x: float) -> Lanes:
        """A constant."""
        return Lanes(self, ir.Constant(self.floats, [float(x)] * self.f.lanes))

    def integer(self, x: int) -> Lanes:
        """A constant of 64 bits."""
        return Lanes(self, ir.Constant(self.integers, [x] * self.f.lanes))

    def intrinsic(self, name: str, *numbers: Any) -> Lanes:
        """One of LLVM's functions of doubles."""
        return Lanes(self, self.f.intrinsic(f"llvm.{name}.v{self.f.lanes}f64", self.floats, *self.vectors(*numbers)))

    fma, sqrt = partialmethod(intrinsic, "fma"), partialmethod(intrinsic, "sqrt")
    size, signed = partialmethod(intrinsic, "fabs"), partialmethod(intrinsic, "copysign")

    def select(self, condition: Lanes, a: Any, b: Any) -> Lanes:
        """a where the condition holds, else b."""
        return Lanes(self, self.block.select(condition.value, *self.vectors(a, b)))

    def bits(self, x: Lanes) -> Lanes:
        """The integer whose bits are those of x."""
        return Lanes(self, self.block.bitcast(x.value, self.integers))

    def of_bits(self, x: Lanes) -> Lanes:
        """The number whose bits are those of the integer x."""
        return Lanes(self, self.block.bitcast(x.value, self.floats))

    def shift_right(self, x: Lanes, by: Any) -> Lanes:
        """The bits of x moved to the right by 0 to 63, zeros coming from the left."""
        return Lanes(self, self.block.lshr(x.value, self.like(by, x)))

    def rarely(
        self, condition: Lanes, program: Callable[..., Any], x: Lanes, otherwise: tuple[Lanes, ...]
    ) -> list[Lanes]:
        """program(self, x) where the condition holds, behind a branch that is taken if it holds in any lane."""
        b = self.block
        any_lane = b.icmp_unsigned(
            "!=", b.bitcast(condition.value, ir.IntType(self.f.lanes)), ir.IntType(self.f.lanes)(0)
        )
        before = b.block
        with b.if_then(any_lane, likely=False):
            special = [self.select(condition, s, o).value for s, o in zip(program(self, x), otherwise, strict=True)]
            inside = b.block
        results = []
        for own, other in zip(special, otherwise, strict=True):
            phi = b.phi(own.type)
            phi.add_incoming(own, inside)
            phi.add_incoming(other.value, before)
            results.append(Lanes(self, phi))
        return results


def written(program: Callable[..., Any]) -> Callable[..., Value]:
    """A function of `definition.arithmetic` as one that writes it for vectors of the function's own float."""

    def write(f: Function, *vectors: Value) -> Value:
        a, wide = Instructions(f), f.element.bytes == 8
        arithmetic: Arithmetic = a
        result = program(arithmetic, *(Lanes(a, x if wide else f.block.fpext(x, a.floats)) for x in vectors))
        return result.value if wide else f.block.fptrunc(result.value, f.vector)

    return write
