"""Where instructions go: the functions of a kernel's module, their loops, branches, memory and calls.

Decides how a Python function becomes IR: every value is SSA and loops carry theirs through phis. A function's
parameters are a NamedTuple of typed values, with which it is also called, so that arguments have names and types.
Leaves arithmetic to `values`, tile shapes to `abi.tiles`, and instructions to LLVM.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import llvmlite.ir as ir

from clearhead.kernels.abi.tiles import CACHE_LINE, Element, Tile
from clearhead.kernels.ir.parameters import Parameter, bound, machine_parameters, operands
from clearhead.kernels.ir.values import (
    Bits,
    Float,
    Int,
    Lanes,
    Pointer,
    Truth,
    Value,
    Vector,
    call_intrinsic,
    constant,
    i1,
    i32,
    i64,
    pointer,
)

V = TypeVar("V", bound=Value)
P = TypeVar("P", bound=tuple[Any, ...])


def float_type(element: Element) -> ir.Type:
    """LLVM's float or double."""
    return ir.FloatType() if element.bytes == 4 else ir.DoubleType()


def integer_type(element: Element) -> ir.IntType:
    """The integer as wide as the element."""
    return ir.IntType(8 * element.bytes)


@functools.lru_cache(maxsize=256)
def lane_order(order: tuple[int, ...]) -> ir.Constant:
    """The lanes that a shuffle takes."""
    return ir.Constant(ir.VectorType(i32, len(order)), list(order))


@functools.lru_cache(maxsize=64)
def undefined_vector(kind: ir.Type) -> ir.Constant:
    """A vector whose lanes are still to be filled."""
    return ir.Constant(kind, ir.Undefined)


@dataclass(frozen=True)
class Emitted(Generic[P]):
    """A finished function of the module; others call it with a P."""

    function: ir.Function


class Code:
    """One machine function being written, for the vectors of one tile; methods append instructions at the builder."""

    def __init__(
        self, module: ir.Module, name: str, parameters: Sequence[Parameter], tile: Tile, *, result: bool, together: int
    ) -> None:
        self.module, self.tile, self.element = module, tile, tile.element
        self.lanes = tile.lanes * together  # LLVM splits what is wider than the machine's vectors, step by step
        self.scalar = float_type(tile.element)
        self.vector = ir.VectorType(self.scalar, self.lanes)
        self.integers = ir.VectorType(integer_type(tile.element), self.lanes)
        kinds = [pointer if issubclass(p.kind, Pointer) else i64 for p in parameters]
        self.ir = ir.Function(module, ir.FunctionType(i64 if result else ir.VoidType(), kinds), name)
        # Without these two, LLVM splits 512-bit vectors in halves on processors that lower their clock for them.
        for attribute in ("prefer-vector-width", "min-legal-vector-width"):
            width = f'"{attribute}"="{tile.vector_bits}"'
            self.ir.attributes._known |= {width}
            self.ir.attributes.add(width)
        self.ir.attributes.add("nounwind")
        for argument, parameter in zip(self.ir.args, parameters, strict=True):
            argument.name = parameter.name
        self.build = ir.IRBuilder(self.ir.append_basic_block("entry"))

    # Constants, and scalars in every lane

    def i64(self, x: int) -> Int:
        """A Python number as a value."""
        return Int(self.build, constant(i64, x))

    def index(self, x: int) -> Int:
        """A Python number as loops count."""
        return self.i64(x)

    def number(self, x: float) -> Float:
        """One float."""
        return Float(self.build, constant(self.scalar, x))

    def constant(self, x: float) -> Vector:
        """A float in every lane."""
        return Vector(self.build, constant(self.vector, x))

    def integer(self, x: int) -> Lanes:
        """A whole number in every lane, as wide as the element."""
        return Lanes(self.build, constant(self.integers, x))

    def lane(self) -> Lanes:
        """Each lane's own number: 0, 1, 2 …"""
        return Lanes(self.build, ir.Constant(self.integers, list(range(self.lanes))))

    def bits(self, width: int, x: int) -> Bits:
        """A constant of so many bits."""
        return Bits(self.build, ir.Constant(ir.IntType(width), x))

    def null(self) -> Pointer:
        """The address that leads nowhere."""
        return self.i64(0).pointer()

    def splat(self, x: Float) -> Vector:
        """A number in every lane."""
        return Vector(self.build, self.spread(x.ir))

    def splat_int(self, x: Int) -> Lanes:
        """A whole number in every lane, narrowed to the lanes' width."""
        return Lanes(self.build, self.spread(x.ir if self.element.bytes == 8 else self.build.trunc(x.ir, i32)))

    def in_lanes(self, kind: ir.Type) -> ir.Type:
        """The type of as many as there are lanes."""
        return ir.VectorType(kind, self.lanes)

    def spread(self, scalar: ir.Value) -> ir.Value:
        """A scalar in every lane."""
        kind = self.in_lanes(scalar.type)
        undefined = undefined_vector(kind)
        one = self.build.insert_element(undefined, scalar, constant(i32, 0))
        return self.shuffled(one, undefined, [0] * self.lanes)

    def shuffled(self, a: ir.Value, b: ir.Value, order: Sequence[int]) -> ir.Value:
        """A vector of the lanes of a and b, in the given order."""
        return self.build.shuffle_vector(a, b, lane_order(tuple(order)))

    def shuffle(self, a: V, b: V, order: Sequence[int]) -> V:
        """A vector of the lanes of a and b, numbered through both, in the given order."""
        return a.new(self.shuffled(a.ir, b.ir, order))

    # Memory. User arrays may be misaligned, so no access to them claims more than one byte of alignment.

    def at(self, base: Pointer, row: Int | int, x: Int | int) -> Pointer:
        """The address of vector x in a row of a tile: rows hold one number for each of its queries."""
        in_row = x * (self.tile.vector_bits // 8)
        rows = row * self.tile.row
        if isinstance(rows, int):
            return base + (in_row if rows == 0 else rows + in_row)
        return base + (rows if isinstance(in_row, int) and in_row == 0 else rows + in_row)

    def load(self, address: Pointer) -> Vector:
        """A vector of floats from memory."""
        return Vector(self.build, self.read(address, self.vector))

    def load_lanes(self, address: Pointer) -> Lanes:
        """A vector of whole numbers, as wide as the element, from memory."""
        return Lanes(self.build, self.read(address, self.integers))

    def load_number(self, address: Pointer) -> Float:
        """One element from memory."""
        return Float(self.build, self.read(address, self.scalar))

    def load_bits(self, address: Pointer, width: int, align: int = 1) -> Bits:
        """An integer of so many bits from memory."""
        return Bits(self.build, self.read(address, ir.IntType(width), align))

    def read(self, address: Pointer, kind: ir.Type, align: int = 1) -> ir.Value:
        """A value of any type from memory."""
        return self.build.load(address.ir, typ=kind, align=align)

    def read_element(self, place: Int, kind: ir.Type) -> ir.Value:
        """One element of a user's array."""
        return self.read(place.pointer(), kind)

    def read_elements(self, places: Lanes, kind: ir.Type) -> ir.Value:
        """The elements of a user's array at as many addresses as there are lanes."""
        n, addresses = self.lanes, self.build.inttoptr(places.ir, self.in_lanes(pointer))
        name = {"half": "f16", "float": "f32", "double": "f64"}.get(str(kind), str(kind))
        name, result = f"llvm.masked.gather.v{n}{name}.v{n}p0", self.in_lanes(kind)
        all_lanes, align = ir.Constant(self.in_lanes(i1), [1] * n), constant(i32, 1)
        return call_intrinsic(self.build, name, result, [addresses, align, all_lanes, ir.Constant(result, None)])

    @property
    def converts_half(self) -> bool:
        """Whether the processor surely converts float16: each one with vectors of 256 bits does."""
        width: int = self.tile.vector_bits
        return width > 128

    def broadcast(self, address: Pointer) -> Vector:
        """One element from memory in every lane."""
        return self.splat(self.load_number(address))

    def store(self, x: Value, address: Pointer, align: int = 1) -> None:
        """A value to memory."""
        self.build.store(x.ir, address.ir, align=align)

    def stream(self, x: Vector, address: Pointer) -> None:
        """A vector to memory past the caches; the address must be a multiple of a vector's bytes."""
        store = self.build.store(x.ir, address.ir, align=self.tile.vector_bits // 8)
        store.set_metadata("nontemporal", self.module.add_metadata([ir.Constant(i32, 1)]))

    def prefetch(self, row: Pointer, size: Int) -> None:
        """Ask for the cache lines of a row that will be read soon; an address beyond memory does no harm."""
        for offset in self.range(0, size, CACHE_LINE):
            self.prefetch_line(row + offset)

    def prefetch_line(self, address: Pointer, *, to_write: bool = False) -> None:
        """Ask for one cache line, into all caches but the smallest, which holds too little of what comes next."""
        all_but_the_smallest, data = 2, 1  # LLVM's numbers
        how = [constant(i32, x) for x in (int(to_write), all_but_the_smallest, data)]
        call_intrinsic(self.build, "llvm.prefetch.p0", ir.VoidType(), [address.ir, *how])

    def fetch_add(self, address: Pointer, x: int, ordering: str) -> Int:
        """Add to an integer that threads share, in one step; what it was before."""
        return Int(self.build, self.build.atomic_rmw("add", address.ir, constant(i64, x), ordering))

    def publish(self, x: Int, address: Pointer) -> None:
        """Store an integer for other threads, after all that was written before."""
        self.build.atomic_rmw("xchg", address.ir, x.ir, "release")

    def acquire(self, address: Pointer) -> Int:
        """Load an integer that another thread publishes, with all that it wrote before."""
        return Int(self.build, self.build.load_atomic(address.ir, "acquire", 8, typ=i64))

    # Control flow

    def range(self, start: Int | int, stop: Int | int, step: Int | int = 1) -> Iterator[Int]:
        """`for i in f.range(…)`: the body is written once and runs for each i; it must neither break nor return."""
        inside = _Loop(self, start, stop, step, ())
        yield inside.index
        inside.close(())

    def loop(
        self,
        start: Int | int,
        stop: Int | int,
        step: Int | int,
        body: Callable[[Int, list[V]], Sequence[V]],
        carried: Sequence[V],
    ) -> list[V]:
        """for i in range(start, stop, step): carried = body(i, carried); the last carried values."""
        inside = _Loop(self, start, stop, step, carried)
        inside.close(body(inside.index, list(inside.carried)))
        return list(inside.carried)

    def unrolled_range(self, start: Int | int, stop: Int, times: int) -> Iterator[Int]:
        """`range` of step 1 whose body is written `times` times in a row, and once for what is left."""
        whole = stop - (stop - start) % times
        several = _Loop(self, start, whole, times, ())
        for step in range(times):
            yield several.index + step
        several.close(())
        yield from self.range(whole, stop)

    def unrolled(
        self,
        start: Int | int,
        stop: Int,
        times: int,
        body: Callable[[Int, list[V]], Sequence[V]],
        carried: Sequence[V] = (),
    ) -> list[V]:
        """`loop` of step 1 whose body is written `times` times in a row, and once for what is left."""

        def several(i: Int, values: list[V]) -> list[V]:
            for step in range(times):
                values = list(body(i + step, values))
            return values

        whole = stop - (stop - start) % times
        return self.loop(whole, stop, 1, body, self.loop(start, whole, times, several, carried))

    @contextmanager
    def when(self, condition: Truth) -> Iterator[None]:
        """`with f.when(…)`: run the instructions of the block only if the condition holds."""
        with self.build.if_then(condition.ir):
            yield

    @contextmanager
    def either(self, condition: Truth) -> Iterator[tuple[Any, Any]]:
        """`with f.either(…) as (then, otherwise)`: run those of `with then`, or those of `with otherwise`."""
        with self.build.if_else(condition.ir) as branches:
            yield branches

    def values_if(
        self, condition: Truth, values: Callable[[], Sequence[V]], otherwise: Sequence[V], *, rarely: bool = False
    ) -> list[V]:
        """What `values` writes if the condition holds, else the others; `rarely` moves it out of the way."""
        before = self.build.block
        with self.build.if_then(condition.ir, likely=False if rarely else None):
            found = values()
            inside = self.build.block
        results = []
        for value, other in zip(found, otherwise, strict=True):
            result = self.build.phi(value.ir.type)
            result.add_incoming(value.ir, inside)
            result.add_incoming(other.ir, before)
            results.append(value.new(result))
        return results

    def until_done(self, start: Vector, waiting: Callable[[Vector], Truth], step: Callable[[Vector], Vector]) -> Vector:
        """`start` with `step` applied again and again in those lanes that are `waiting`, until none is."""
        build, before = self.build, self.build.block
        head, inside, after = (self.ir.append_basic_block(name) for name in ("head", "inside", "after"))
        build.branch(head)
        build.position_at_end(head)
        value = start.new(build.phi(start.ir.type))
        value.ir.add_incoming(start.ir, before)
        unfinished = waiting(value)
        build.cbranch(unfinished.in_any_lane().ir, inside, after)
        build.position_at_end(inside)
        value.ir.add_incoming(unfinished.choose(step(value), value).ir, build.block)
        build.branch(head)
        build.position_at_end(after)
        return value

    def switch(self, number: Int, cases: Mapping[int, Callable[[], None]]) -> None:
        """Run the case of the number, the last one if there is none."""
        after = self.ir.append_basic_block("after")
        blocks = {n: self.ir.append_basic_block(f"case_{n}") for n in cases}
        switch = self.build.switch(number.ir, list(blocks.values())[-1])
        for n, block in blocks.items():
            switch.add_case(constant(i64, n), block)
            self.build.position_at_end(block)
            cases[n]()
            self.build.branch(after)
        self.build.position_at_end(after)

    # Calls

    def call(self, function: Emitted[P], arguments: P) -> None:
        """Call another function of the module."""
        self.build.call(function.function, list(operands(arguments)))

    def call_int(self, function: Emitted[P], arguments: P) -> Int:
        """Call another function of the module that gives a number."""
        return Int(self.build, self.build.call(function.function, list(operands(arguments))))


class _Loop:
    """A loop whose body is being written: its index and what it carries from one round to the next."""

    def __init__(self, f: Code, start: Int | int, stop: Int | int, step: Int | int, carried: Sequence[Any]) -> None:
        build, before = f.build, f.build.block
        start, stop, self.step = (f.index(n) if isinstance(n, int) else n for n in (start, stop, step))
        self.build = build
        self.head, inside, self.after = (f.ir.append_basic_block(name) for name in ("head", "inside", "after"))
        build.branch(self.head)
        build.position_at_end(self.head)
        self.index = start.new(build.phi(start.ir.type))
        self.index.ir.add_incoming(start.ir, before)
        self.carried = [c.new(build.phi(c.ir.type)) for c in carried]
        for value, initial in zip(self.carried, carried, strict=True):
            value.ir.add_incoming(initial.ir, before)
        build.cbranch((self.index < stop).ir, inside, self.after)
        build.position_at_end(inside)

    def close(self, results: Sequence[Any]) -> None:
        """Go round with these values, and go on after the loop."""
        build = self.build
        self.index.ir.add_incoming((self.index + self.step).ir, build.block)
        for value, result in zip(self.carried, results, strict=True):
            value.ir.add_incoming(result.ir, build.block)
        build.branch(self.head)
        build.position_at_end(self.after)


class Function(Code, Generic[P]):
    """A function whose arguments are a P; of its optional parameters it has those that are `present`.

    Unless it is `exported`, it is the module's own.
    """

    def __init__(
        self,
        module: ir.Module,
        tile: Tile,
        name: str,
        parameters: type[P],
        *,
        present: Sequence[str] = (),
        result: bool = False,
        together: int = 1,
        exported: bool = False,
    ) -> None:
        optional = frozenset(present)
        declared = machine_parameters(parameters, optional)
        super().__init__(module, name, declared, tile, result=result, together=together)
        if not exported:
            self.ir.linkage = "internal"
            self.ir.attributes.add("noinline")  # each part gets the registers for itself
        values = (p.kind(self.build, argument) for p, argument in zip(declared, self.ir.args, strict=True))
        self.arguments = bound(parameters, values, optional)

    def finish(self, value: Int | None = None) -> Emitted[P]:
        """Return from the function, and give it to its callers."""
        if value is None:
            self.build.ret_void()
        else:
            self.build.ret(value.ir)
        return Emitted(self.ir)
