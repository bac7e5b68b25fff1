"""One thread of a GPU as the kernel language's `Code`: a vector is one number, so the CPU's parts write for it.

Decides what a thread can do besides: read its own number, wait for its group, and copy to the memory they share.
Whole numbers have 32 bits, addresses count numbers of 4 bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import llvmlite.ir as ir

from clearhead.kernels.abi.tiles import F32
from clearhead.kernels.ir.code import Code
from clearhead.kernels.ir.parameters import bound, machine_parameters
from clearhead.kernels.ir.values import Int, Lanes, Pointer, Truth, Value, Vector, call_intrinsic, constant, i32, i64

P = TypeVar("P", bound=tuple[Any, ...])

f32 = ir.FloatType()
four = ir.VectorType(f32, 4)
GLOBAL, SHARED = 1, 3  # address spaces


class Index(Int):
    """A whole number of 32 bits; division is for those that are not negative."""

    __slots__ = ()

    def __floordiv__(self, other: Int | int) -> Index:
        return self.new(self.build.udiv(self.ir, self.operand(other)))

    def __mod__(self, other: Int | int) -> Index:
        return self.new(self.build.urem(self.ir, self.operand(other)))


class Floats(Pointer):
    """An address of numbers of 4 bytes; what is added to it counts them."""

    __slots__ = ()

    def __add__(self, offset: Int | int) -> Floats:
        step = constant(i32, offset) if isinstance(offset, int) else offset.ir
        return Floats(self.build, self.build.gep(self.ir, [step], source_etype=f32))


class Entries(tuple[Int, ...]):
    """A rule's constants and arrays, in the order of `Variant.at_array`."""

    def entry(self, index: int) -> Int:
        """One of them."""
        return self[index]


class Thread(Code, Generic[P]):
    """The program of one thread, for groups of `threads`; its arguments are a P with the optional fields `present`.

    Behind them come so many `entries` of rules.
    """

    spaces = (GLOBAL, SHARED)
    surroundings: Sequence[ir.Type] = ()  # parameters besides P

    def __init__(
        self,
        name: str,
        parameters: type[P],
        threads: int,
        groups: int,
        present: frozenset[str] = frozenset(),
        entries: int = 0,
    ) -> None:
        self.module, self.element, self.lanes = ir.Module(name), F32, 1
        self.scalar = self.vector = f32
        self.integers = i32
        self.global_pointer, self.shared_pointer = (ir.PointerType(addrspace=space) for space in self.spaces)
        kinds = {Floats: self.global_pointer, Index: i32, Int: i64, Vector: f32}
        declared = machine_parameters(parameters, present)
        signature = [*(kinds[p.kind] for p in declared), *[i64] * entries, *self.surroundings]
        self.ir = ir.Function(self.module, ir.FunctionType(ir.VoidType(), signature), name)
        for attribute in (f'"nvvm.maxntid"="{threads}"', f'"nvvm.minctasm"="{groups}"'):
            self.ir.attributes._known |= {attribute}
            self.ir.attributes.add(attribute)
        self.ir.attributes.add("nounwind")
        self.build = ir.IRBuilder(self.ir.append_basic_block("entry"))
        for argument, parameter in zip(self.ir.args, declared, strict=False):
            argument.name = parameter.name
        values = (p.kind(self.build, argument) for p, argument in zip(declared, self.ir.args, strict=False))
        self.arguments = bound(parameters, values, present)
        self.entries = Entries(Int(self.build, x) for x in self.ir.args[len(declared) : len(declared) + entries])
        self.thread, self.group, self.shared = self.place()

    def place(self) -> tuple[Index, Index, Floats]:
        """The thread's number in its group, the group's number, and the group's memory."""
        self.ir.calling_convention = "ptx_kernel"
        numbers = (
            Index(self.build, call_intrinsic(self.build, f"llvm.nvvm.read.ptx.sreg.{register}", i32, []))
            for register in ("tid.x", "ctaid.x")
        )
        memory = ir.GlobalVariable(self.module, ir.ArrayType(f32, 0), "shared_memory", addrspace=SHARED)
        memory.align, memory.linkage = 16, "external"
        memory.type = self.shared_pointer
        return next(numbers), next(numbers), Floats(self.build, memory)

    def index(self, x: int) -> Index:
        """A Python number in 32 bits."""
        return Index(self.build, constant(i32, x))

    # Vectors are numbers

    def in_lanes(self, kind: ir.Type) -> ir.Type:
        """The type itself."""
        return kind

    def spread(self, scalar: ir.Value) -> ir.Value:
        """The number itself."""
        return scalar

    # Memory

    @property
    def converts_half(self) -> bool:
        """Every card does."""
        return True

    def read_element(self, place: Int, kind: ir.Type) -> ir.Value:
        """One element of a user's array, which is aligned."""
        address = self.build.inttoptr(place.ir, self.global_pointer)
        return self.build.load(address, typ=kind, align=element_bytes(kind))

    def read_elements(self, places: Lanes, kind: ir.Type) -> ir.Value:
        """The same."""
        return self.read_element(Int(self.build, places.ir), kind)

    def load(self, address: Pointer) -> Vector:
        """A number."""
        return Vector(self.build, self.read(address, f32, 4))

    def store(self, x: Value, address: Pointer, align: int = 4) -> None:
        """Write a number."""
        super().store(x, address, align)

    def load_four(self, address: Pointer) -> list[Vector]:
        """Four numbers in a row, of which the first is aligned."""
        together = self.read(address, four, 16)
        return [Vector(self.build, self.build.extract_element(together, constant(i32, n))) for n in range(4)]

    def store_four(self, numbers: Sequence[Vector], address: Pointer) -> None:
        """Write four numbers in a row."""
        together: ir.Value = ir.Constant(four, ir.Undefined)
        for n, x in enumerate(numbers):
            together = self.build.insert_element(together, x.ir, constant(i32, n))
        self.build.store(together, address.ir, align=16)

    def raise_to(self, x: Vector, address: Floats) -> None:
        """Write a number ≥ 0 where all that is there is smaller; threads of all groups may do so at a time.

        Floats that are not negative have the order of their bits as whole numbers.
        """
        self.build.atomic_rmw("max", address.ir, x.bits().ir, "monotonic")

    def local(self, count: int) -> Floats:
        """Memory for so many numbers of this thread alone."""
        memory = self.build.alloca(ir.ArrayType(f32, count))
        memory.align, memory.type = 16, ir.PointerType()
        return Floats(self.build, memory)

    def copy_four(self, source: Floats, target: Floats) -> None:
        """Copy four numbers to shared memory while the thread goes on, until `arrived`."""
        self.call_void("llvm.nvvm.cp.async.cg.shared.global.16", target, source)

    def arrived(self) -> None:
        """Wait for this thread's copies; others see them after the next barrier."""
        self.call_void("llvm.nvvm.cp.async.wait.all")

    def in_any_thread(self, x: Truth) -> Truth:
        """Whether something holds in one of the group's threads, when all have come here."""
        number = self.build.zext(x.ir, i32)
        found = call_intrinsic(self.build, self.name_of("llvm.nvvm.barrier0.or"), i32, [number])
        return Int(self.build, found) != 0

    def barrier(self) -> None:
        """Wait for the group's other threads."""
        self.call_void("llvm.nvvm.barrier0")

    def call_void(self, name: str, *arguments: Value) -> None:
        """Call one of LLVM's own functions that gives nothing."""
        call_intrinsic(self.build, self.name_of(name), ir.VoidType(), [x.ir for x in arguments])

    @staticmethod
    def name_of(name: str) -> str:
        """What one of LLVM's functions for GPUs is called where this runs."""
        return name

    def write(self) -> str:
        """The IR of the finished program."""
        self.build.ret_void()
        return str(self.module)


def element_bytes(kind: ir.Type) -> int:
    """How many bytes a number of some type has in memory."""
    return {"float": 4, "double": 8}.get(str(kind)) or int(kind.width) // 8


def highest(a: Vector, b: Vector) -> Vector:
    """The larger one, and the number where one is not a number: a GPU has an instruction for that."""
    return a.intrinsic("llvm.maxnum", b)


def wide(x: Int) -> Int:
    """A number in 64 bits."""
    return Int(x.build, x.resized(64, signed=True).ir)
