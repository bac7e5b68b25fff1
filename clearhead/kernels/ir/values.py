"""Values of a kernel being written: whole numbers, floats, truths and addresses whose operators append instructions.

`lse + (head * queries + first) * size` is what an address looks like. Every value knows the builder that it was made
by; an operator appends one instruction there and gives its result. Python numbers become constants. No fast-math flag
is ever set, so floats keep the order in which they are written.

    Int    a whole number of 64 bits          Lanes    a vector of whole numbers
    Float  a number of the element's type     Vector   a vector of them
    Truth  one bit, or one for each lane      Pointer  an address, counted in bytes
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Self, TypeVar

import llvmlite.ir as ir

i1, i8, i16, i32, i64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
pointer = ir.PointerType()


@functools.lru_cache(maxsize=8192)
def shared_constant(kind: ir.Type, x: float, _: str) -> ir.Constant:
    """A constant, in every lane of a vector type; kept, since writing one out takes longer than most instructions.

    The last argument is the number's repr, by which 0.0 and −0.0 differ.
    """
    return ir.Constant(kind, [x] * kind.count if isinstance(kind, ir.VectorType) else x)


def constant(kind: ir.Type, x: float) -> ir.Constant:
    """A number as a constant of a type."""
    return shared_constant(kind, x, repr(x))


def call_intrinsic(build: ir.IRBuilder, name: str, result: ir.Type, arguments: Sequence[ir.Value]) -> ir.Value:
    """Call one of LLVM's own functions, declaring it on first use."""
    module = build.module
    signature = ir.FunctionType(result, [x.type for x in arguments])
    return build.call(module.globals.get(name) or ir.Function(module, signature, name), arguments)


def shaped(value: ir.Value, kind: ir.Type) -> ir.Type:
    """A scalar type, or as many of it as a value has lanes."""
    return ir.VectorType(kind, value.type.count) if isinstance(value.type, ir.VectorType) else kind


def scalar_of(kind: ir.Type) -> ir.Type:
    """A scalar type, or that of a vector's lanes."""
    return kind.element if isinstance(kind, ir.VectorType) else kind


class Value:
    """A result of an instruction, an argument or a constant, and the builder that appends what is made of it."""

    __slots__ = ("build", "ir")

    def __init__(self, build: ir.IRBuilder, value: ir.Value) -> None:
        self.build, self.ir = build, value

    def __bool__(self) -> bool:
        raise TypeError("a kernel's value is known only when the kernel runs: use f.when, f.either or choose")

    def new(self, value: ir.Value) -> Self:
        """Another value of the same kind."""
        return type(self)(self.build, value)

    def constant(self, x: float) -> ir.Value:
        """A number as a constant of this value's type, in every lane."""
        return constant(self.ir.type, x)

    def like(self, x: float) -> Self:
        """A number as a value of this type, in every lane."""
        return self.new(self.constant(x))

    def operand(self, x: Any) -> ir.Value:
        """The other side of an operator."""
        return x.ir if isinstance(x, Value) else self.constant(x)


V = TypeVar("V", bound=Value)


class Truth(Value):
    """Whether something holds: one bit, or one for each lane."""

    __slots__ = ()

    def __and__(self, other: Truth) -> Truth:
        return self.new(self.build.and_(self.ir, other.ir))

    def __or__(self, other: Truth) -> Truth:
        return self.new(self.build.or_(self.ir, other.ir))

    def __xor__(self, other: Truth) -> Truth:
        return self.new(self.build.xor(self.ir, other.ir))

    def __invert__(self) -> Truth:
        return self.new(self.build.not_(self.ir))

    def choose(self, a: V, other: V) -> V:
        """`a` where this holds, else the other."""
        return a.new(self.build.select(self.ir, a.ir, other.ir))

    def compare(self, how: str, other: Self) -> Truth:
        """One of <, <=, >, >=, ==, !=, with false below true."""
        return Truth(self.build, self.build.icmp_unsigned(how, self.ir, other.ir))

    def __lt__(self, other: Self) -> Truth:
        return self.compare("<", other)

    def __le__(self, other: Self) -> Truth:
        return self.compare("<=", other)

    def __gt__(self, other: Self) -> Truth:
        return self.compare(">", other)

    def __ge__(self, other: Self) -> Truth:
        return self.compare(">=", other)

    def __eq__(self, other: Self) -> Truth:  # type: ignore[override]
        return self.compare("==", other)

    def __ne__(self, other: Self) -> Truth:  # type: ignore[override]
        return self.compare("!=", other)

    __hash__ = None  # type: ignore[assignment]

    def number(self) -> Int:
        """1 or 0."""
        return Int(self.build, self.build.zext(self.ir, i64))

    def in_any_lane(self) -> Truth:
        """Whether it holds in one lane at least; one bit is its own answer."""
        return self.bits() != 0 if isinstance(self.ir.type, ir.VectorType) else self

    def bits(self) -> Bits:
        """A vector's truths as one integer: lane 0 is its lowest bit."""
        return Bits(self.build, self.build.bitcast(self.ir, ir.IntType(self.ir.type.count)))


class Whole(Value):
    """Integer arithmetic, modulo 2ⁿ; division cuts towards 0."""

    __slots__ = ()

    def __add__(self, other: Self | int) -> Self:
        return self.new(self.build.add(self.ir, self.operand(other)))

    def __radd__(self, other: int) -> Self:
        return self.new(self.build.add(self.operand(other), self.ir))

    def __sub__(self, other: Self | int) -> Self:
        return self.new(self.build.sub(self.ir, self.operand(other)))

    def __rsub__(self, other: int) -> Self:
        return self.new(self.build.sub(self.operand(other), self.ir))

    def __neg__(self) -> Self:
        return 0 - self

    def __mul__(self, other: Self | int) -> Self:
        return self.new(self.build.mul(self.ir, self.operand(other)))

    def __rmul__(self, other: int) -> Self:
        return self.new(self.build.mul(self.operand(other), self.ir))

    def __floordiv__(self, other: Self | int) -> Self:
        return self.new(self.build.sdiv(self.ir, self.operand(other)))

    def __mod__(self, other: Self | int) -> Self:
        return self.new(self.build.srem(self.ir, self.operand(other)))

    def __and__(self, other: Self | int) -> Self:
        return self.new(self.build.and_(self.ir, self.operand(other)))

    def __or__(self, other: Self | int) -> Self:
        return self.new(self.build.or_(self.ir, self.operand(other)))

    def __xor__(self, other: Self | int) -> Self:
        return self.new(self.build.xor(self.ir, self.operand(other)))

    def __invert__(self) -> Self:
        return self.new(self.build.not_(self.ir))

    def __lshift__(self, other: Self | int) -> Self:
        return self.new(self.build.shl(self.ir, self.operand(other)))

    def __rshift__(self, other: Self | int) -> Self:
        """Bits moved to the right; copies of the sign follow."""
        return self.new(self.build.ashr(self.ir, self.operand(other)))

    def logical_right(self, other: Self | int) -> Self:
        """Bits moved to the right; zeros follow."""
        return self.new(self.build.lshr(self.ir, self.operand(other)))

    def resized(self, width: int, *, signed: bool = False) -> Self:
        """The same numbers in another width: the sign or zeros added, or the upper bits cut off."""
        now = scalar_of(self.ir.type).width
        if now == width:
            return self
        widen = self.build.sext if signed else self.build.zext
        return self.new((widen if now < width else self.build.trunc)(self.ir, shaped(self.ir, ir.IntType(width))))

    def bits_as(self, kind: ir.Type) -> ir.Value:
        """The same bits as a type of equal width, in as many lanes."""
        return self.build.bitcast(self.ir, shaped(self.ir, kind))

    def compare(self, how: str, other: Self | int) -> Truth:
        """One of <, <=, >, >=, ==, !=, as signed numbers."""
        return Truth(self.build, self.build.icmp_signed(how, self.ir, self.operand(other)))

    def __lt__(self, other: Self | int) -> Truth:
        return self.compare("<", other)

    def __le__(self, other: Self | int) -> Truth:
        return self.compare("<=", other)

    def __gt__(self, other: Self | int) -> Truth:
        return self.compare(">", other)

    def __ge__(self, other: Self | int) -> Truth:
        return self.compare(">=", other)

    def __eq__(self, other: Self | int) -> Truth:  # type: ignore[override]
        return self.compare("==", other)

    def __ne__(self, other: Self | int) -> Truth:  # type: ignore[override]
        return self.compare("!=", other)

    __hash__ = None  # type: ignore[assignment]


class Int(Whole):
    """A whole number of 64 bits: a count, an index, a number of bytes."""

    __slots__ = ()

    def pointer(self) -> Pointer:
        """The address of this number."""
        return Pointer(self.build, self.build.inttoptr(self.ir, pointer))

    def clamp(self, low: Int | int, high: Int | int) -> Int:
        """This number, but no smaller than `low` and no larger than `high`."""
        return most(low, least(self, high))


class Bits(Whole):
    """One integer of any width, mostly one bit for each lane."""

    __slots__ = ()

    def rotated(self, by: int) -> Bits:
        """32-bit words with their bits turned to the left."""
        kind = self.ir.type
        name = f"llvm.fshl.v{kind.count}i32" if isinstance(kind, ir.VectorType) else "llvm.fshl.i32"
        return self.new(call_intrinsic(self.build, name, kind, [self.ir, self.ir, self.constant(by)]))

    def truths(self) -> Truth:
        """Each bit as the truth of one lane."""
        return Truth(self.build, self.build.bitcast(self.ir, ir.VectorType(i1, self.ir.type.width)))

    def whole(self) -> Int:
        """The bits as a number of 64, zeros added."""
        return Int(self.build, self.resized(64).ir)

    def truth(self) -> Truth:
        """The lowest bit."""
        return Truth(self.build, self.build.trunc(self.ir, i1))


class Lanes(Whole):
    """A vector of whole numbers, as wide as the floats are, or wider."""

    __slots__ = ()

    def floats(self) -> Vector:
        """The bits as floats of the same width."""
        width = scalar_of(self.ir.type).width
        return Vector(self.build, self.bits_as(ir.FloatType() if width == 32 else ir.DoubleType()))

    def rounded(self, kind: ir.Type) -> Vector:
        """The numbers as floats."""
        return Vector(self.build, self.build.sitofp(self.ir, kind))


class Real(Value):
    """Floating-point arithmetic, each operation rounded once."""

    __slots__ = ()

    def __add__(self, other: Self | float) -> Self:
        return self.new(self.build.fadd(self.ir, self.operand(other)))

    def __radd__(self, other: float) -> Self:
        return self.new(self.build.fadd(self.operand(other), self.ir))

    def __sub__(self, other: Self | float) -> Self:
        return self.new(self.build.fsub(self.ir, self.operand(other)))

    def __rsub__(self, other: float) -> Self:
        return self.new(self.build.fsub(self.operand(other), self.ir))

    def __mul__(self, other: Self | float) -> Self:
        return self.new(self.build.fmul(self.ir, self.operand(other)))

    def __rmul__(self, other: float) -> Self:
        return self.new(self.build.fmul(self.operand(other), self.ir))

    def __truediv__(self, other: Self | float) -> Self:
        return self.new(self.build.fdiv(self.ir, self.operand(other)))

    def __rtruediv__(self, other: float) -> Self:
        return self.new(self.build.fdiv(self.operand(other), self.ir))

    def __neg__(self) -> Self:
        return self.new(self.build.fneg(self.ir))

    def compare(self, how: str, other: Self | float) -> Truth:
        """One of <, <=, >, >=, ==: false if either is not a number."""
        return Truth(self.build, self.build.fcmp_ordered(how, self.ir, self.operand(other)))

    def __lt__(self, other: Self | float) -> Truth:
        return self.compare("<", other)

    def __le__(self, other: Self | float) -> Truth:
        return self.compare("<=", other)

    def __gt__(self, other: Self | float) -> Truth:
        return self.compare(">", other)

    def __ge__(self, other: Self | float) -> Truth:
        return self.compare(">=", other)

    def __eq__(self, other: Self | float) -> Truth:  # type: ignore[override]
        return self.compare("==", other)

    def __ne__(self, other: Self | float) -> Truth:  # type: ignore[override]
        """Whether they differ, or either is not a number."""
        return Truth(self.build, self.build.fcmp_unordered("!=", self.ir, self.operand(other)))

    __hash__ = None  # type: ignore[assignment]

    def compare_or_nan(self, how: str, other: Self | float) -> Truth:
        """The same, but true if either is not a number."""
        return Truth(self.build, self.build.fcmp_unordered(how, self.ir, self.operand(other)))

    def is_nan(self) -> Truth:
        """Whether it is not a number."""
        return Truth(self.build, self.build.fcmp_unordered("uno", self.ir, self.ir))

    def intrinsic(self, name: str, *others: Self | float) -> Self:
        """One of LLVM's own functions of numbers of this type, such as `llvm.fma`; declared on first use."""
        kind = self.ir.type
        lanes, element = (f"v{kind.count}", kind.element) if isinstance(kind, ir.VectorType) else ("", kind)
        full = f"{name}.{lanes}{'f32' if isinstance(element, ir.FloatType) else 'f64'}"
        return self.new(call_intrinsic(self.build, full, kind, [self.ir, *(self.operand(x) for x in others)]))

    def size(self) -> Self:
        """|x|."""
        return self.intrinsic("llvm.fabs")

    def signed(self, sign: Self | float) -> Self:
        """|x| with the sign of another."""
        return self.intrinsic("llvm.copysign", sign)

    def sqrt(self) -> Self:
        """√x, which every processor rounds right."""
        return self.intrinsic("llvm.sqrt")


class Float(Real):
    """One number of the element's type."""

    __slots__ = ()


class Vector(Real):
    """One number of the element's type in each lane."""

    __slots__ = ()

    def bits(self) -> Lanes:
        """The bits as whole numbers."""
        width = 32 if isinstance(scalar_of(self.ir.type), ir.FloatType) else 64
        return Lanes(self.build, self.build.bitcast(self.ir, shaped(self.ir, ir.IntType(width))))

    def first(self) -> Float:
        """Lane 0."""
        return self.lane(0)

    def lane(self, number: int) -> Float:
        """One lane."""
        return Float(self.build, self.build.extract_element(self.ir, constant(i64, number)))


R = TypeVar("R", bound=Real)


class Pointer(Value):
    """An address; what is added to it are bytes."""

    __slots__ = ()

    def __add__(self, offset: Int | int) -> Pointer:
        if isinstance(offset, int):
            if offset == 0:
                return Pointer(self.build, self.ir)
            return Pointer(self.build, self.build.gep(self.ir, [constant(i64, offset)], source_etype=i8))
        return Pointer(self.build, self.build.gep(self.ir, [offset.ir], source_etype=i8))

    def entry(self, index: Int | int) -> Int:
        """The index-th number of a table of 64-bit integers, which is ours and therefore aligned."""
        return Int(self.build, self.build.load((self + index * 8).ir, typ=i64, align=8))

    def set_entry(self, index: Int | int, x: Int | int) -> None:
        """Write the index-th number of a table."""
        number = constant(i64, x) if isinstance(x, int) else x.ir
        self.build.store(number, (self + index * 8).ir, align=8)

    def address(self) -> Int:
        """The address as a number."""
        return Int(self.build, self.build.ptrtoint(self.ir, i64))

    def is_null(self) -> Truth:
        """Whether it leads nowhere."""
        return self.address() == 0

    def given(self) -> Truth:
        """Whether it leads somewhere."""
        return self.address() != 0


def as_ints(a: Int | int, b: Int | int) -> tuple[Int, Int]:
    """Two numbers of which at least one is a kernel's."""
    if isinstance(a, int):
        assert isinstance(b, Int)
        return b.new(b.constant(a)), b
    return a, a.new(a.constant(b)) if isinstance(b, int) else b


def least(a: Int | int, b: Int | int) -> Int:
    """The smaller of a and b."""
    a, b = as_ints(a, b)
    return (a < b).choose(a, b)


def most(a: Int | int, b: Int | int) -> Int:
    """The larger of a and b."""
    a, b = as_ints(a, b)
    return (a < b).choose(b, a)


def least_of(numbers: Sequence[Int]) -> Int:
    """The smallest of several."""
    return functools.reduce(least, numbers)


def most_of(numbers: Sequence[Int]) -> Int:
    """The largest of several."""
    return functools.reduce(most, numbers)


def fma(a: R, b: R, c: R) -> R:
    """a·b + c, rounded once."""
    return a.intrinsic("llvm.fma", b, c)


def larger(a: R, b: R) -> R:
    """Lane by lane a where a > b, else b: one max instruction, and b where either is not a number."""
    return (a > b).choose(a, b)
