"""Vectors, loops and memory over LLVM IR: the words in which the kernels are written.

Decides how a Python function becomes IR: every value is SSA, loops carry their values through phis, no fast-math
flag is ever set, and addresses are counted in bytes. Leaves tile shapes to `abi.tiles`, instructions to LLVM.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import llvmlite.ir as ir

from clearhead.kernels.abi.tiles import Element, Tile

i1, i8, i16, i32, i64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
pointer = ir.PointerType()
Value: TypeAlias = Any  # an ir.Value; llvmlite carries no types
Int: TypeAlias = Any  # an ir.Value of 64 bits, or a Python int


def float_type(element: Element) -> ir.Type:
    """LLVM's float or double."""
    return ir.FloatType() if element.bytes == 4 else ir.DoubleType()


def integer_type(element: Element) -> ir.IntType:
    """The integer as wide as the element."""
    return ir.IntType(8 * element.bytes)


class Function:
    """One machine function being written, for the vectors of one tile.

    `parameters` are names and types in order; methods append instructions where the builder stands.
    """

    def __init__(
        self,
        module: ir.Module,
        name: str,
        parameters: dict[str, ir.Type],
        tile: Tile,
        result: ir.Type | None = None,
        together: int = 1,
    ) -> None:
        self.module, self.tile, self.element = module, tile, tile.element
        self.lanes = tile.lanes * together  # LLVM splits what is wider than the machine's vectors, step by step
        self.vector = ir.VectorType(float_type(tile.element), self.lanes)
        self.integers = ir.VectorType(integer_type(tile.element), self.lanes)
        self.ir = ir.Function(module, ir.FunctionType(result or ir.VoidType(), list(parameters.values())), name)
        # Without these two, LLVM splits 512-bit vectors in halves on processors that lower their clock for them.
        for name in ("prefer-vector-width", "min-legal-vector-width"):
            width = f'"{name}"="{tile.vector_bits}"'
            self.ir.attributes._known |= {width}
            self.ir.attributes.add(width)
        self.ir.attributes.add("nounwind")
        for argument, parameter in zip(self.ir.args, parameters, strict=True):
            argument.name = parameter
        self.block = ir.IRBuilder(self.ir.append_basic_block("entry"))

    @property
    def arguments(self) -> tuple[Value, ...]:
        """The parameters' values, in order."""
        return tuple(self.ir.args)

    # Integers and addresses

    def i64(self, x: Int) -> Value:
        """A 64-bit integer value of a Python number, or the value itself."""
        return ir.Constant(i64, x) if isinstance(x, int) else x

    def add(self, a: Int, b: Int) -> Value:
        """a + b."""
        return self.block.add(self.i64(a), self.i64(b))

    def sub(self, a: Int, b: Int) -> Value:
        """a − b."""
        return self.block.sub(self.i64(a), self.i64(b))

    def mul(self, a: Int, b: Int) -> Value:
        """a · b."""
        return self.block.mul(self.i64(a), self.i64(b))

    def less(self, a: Int, b: Int) -> Value:
        """Whether a < b."""
        return self.block.icmp_signed("<", self.i64(a), self.i64(b))

    def least(self, a: Int, b: Int) -> Value:
        """The smaller of a and b."""
        return self.block.select(self.less(a, b), self.i64(a), self.i64(b))

    def most(self, a: Int, b: Int) -> Value:
        """The larger of a and b."""
        return self.block.select(self.less(a, b), self.i64(b), self.i64(a))

    def lowest_of(self, numbers: Sequence[Value]) -> Value:
        """The smallest of several."""
        return functools.reduce(self.least, numbers)

    def highest_of(self, numbers: Sequence[Value]) -> Value:
        """The largest of several."""
        return functools.reduce(self.most, numbers)

    def clamp(self, x: Int, low: Int, high: Int) -> Value:
        """x, but no smaller than low and no larger than high."""
        return self.most(low, self.least(x, high))

    def at(self, base: Value, offset: Int) -> Value:
        """The address `offset` bytes behind `base`."""
        return self.block.gep(base, [self.i64(offset)], source_etype=i8)

    def in_row(self, base: Value, row: Int, x: Int) -> Value:
        """The address of vector x in a row of a tile."""
        return self.at(base, self.add(self.mul(row, self.tile.row), self.mul(x, self.tile.vector_bits // 8)))

    def load_int(self, base: Value, index: Int) -> Value:
        """The index-th 64-bit integer of a table."""
        return self.block.load(self.at(base, self.mul(index, 8)), typ=i64, align=8)

    # Vectors. User arrays may be misaligned, so no access claims more than one byte of alignment.

    def constant(self, x: float) -> Value:
        """A vector of x in every lane."""
        return ir.Constant(self.vector, [x] * self.lanes)

    def integer(self, x: int) -> Value:
        """A vector of the integer x in every lane."""
        return ir.Constant(self.integers, [x] * self.lanes)

    def lane(self) -> Value:
        """Each lane's own number: 0, 1, 2 …"""
        return ir.Constant(self.integers, list(range(self.lanes)))

    def splat(self, scalar: Value) -> Value:
        """A vector of one scalar in every lane."""
        kind = ir.VectorType(scalar.type, self.lanes)
        one = self.block.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(i32, 0))
        return self.shuffle(one, ir.Constant(kind, ir.Undefined), [0] * self.lanes)

    def splat_int(self, x: Value) -> Value:
        """A vector of one 64-bit integer, narrowed to the lanes' width."""
        return self.splat(x if self.element.bytes == 8 else self.block.trunc(x, i32))

    def load(self, address: Value) -> Value:
        """A vector from memory."""
        return self.block.load(address, typ=self.vector, align=1)

    def store(self, x: Value, address: Value) -> None:
        """A vector to memory."""
        self.block.store(x, address, align=1)

    def stream(self, x: Value, address: Value) -> None:
        """A vector to memory past the caches; the address must be a multiple of a vector's bytes."""
        store = self.block.store(x, address, align=self.tile.vector_bits // 8)
        store.set_metadata("nontemporal", self.module.add_metadata([ir.Constant(i32, 1)]))

    def load_scalar(self, address: Value) -> Value:
        """One element from memory."""
        return self.block.load(address, typ=float_type(self.element), align=1)

    def store_scalar(self, x: Value, address: Value) -> None:
        """One element to memory."""
        self.block.store(x, address, align=1)

    def broadcast(self, address: Value) -> Value:
        """One element from memory in every lane."""
        return self.splat(self.load_scalar(address))

    def call(self, function: ir.Function, *arguments: Value) -> Value:
        """Call another function of the module."""
        return self.block.call(function, arguments)

    def intrinsic(self, name: str, result: ir.Type, *arguments: Value) -> Value:
        """Call one of LLVM's own functions, declaring it on first use."""
        known = self.module.globals.get(name)
        kind = ir.FunctionType(result, [a.type for a in arguments])
        return self.block.call(known or ir.Function(self.module, kind, name), arguments)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a·b + c, rounded once, of vectors or scalars."""
        shape = f"v{self.lanes}" if isinstance(a.type, ir.VectorType) else ""
        return self.intrinsic(f"llvm.fma.{shape}{self.element.name}", a.type, a, b, c)

    def larger(self, a: Value, b: Value) -> Value:
        """Lane by lane a where a > b, else b: one max instruction, and b where either is not a number."""
        return self.block.select(self.block.fcmp_ordered(">", a, b), a, b)

    # Transposition: squares of 128-bit pieces within whole rows first, then whole pieces change places.

    def columns(self, vectors: Sequence[Value]) -> list[Value]:
        """As many vectors as each has lanes, transposed."""
        n = self.piece
        squares = [self.transpose_squares(vectors[i : i + n]) for i in range(0, self.lanes, n)]
        columns = [self.exchange_pieces([square[e] for square in squares]) for e in range(n)]
        return [columns[e][c] for c in range(self.lanes // n) for e in range(n)]

    @property
    def piece(self) -> int:
        """Elements in 128 bits, within which shuffles are cheapest."""
        return 16 // self.element.bytes

    def shuffle(self, a: Value, b: Value, order: Sequence[int]) -> Value:
        """A vector of the lanes of a and b, in the given order."""
        return self.block.shuffle_vector(a, b, ir.Constant(ir.VectorType(i32, len(order)), list(order)))

    def transpose_squares(self, rows: Sequence[Value]) -> list[Value]:
        """Transpose the n×n squares that n vectors hold in each of their 128-bit pieces."""
        if self.piece == 2:
            return self.interleave(rows[0], rows[1], 1)
        (a, b), (c, d) = self.interleave(rows[0], rows[1], 1), self.interleave(rows[2], rows[3], 1)
        return [*self.interleave(a, c, 2), *self.interleave(b, d, 2)]

    def interleave(self, a: Value, b: Value, size: int) -> list[Value]:
        """The lower halves of a's and b's pieces in turns of `size` elements, and the upper halves so."""
        n, half = self.piece, self.piece // 2
        turns = [source + at + e for at in range(0, half, size) for source in (0, self.lanes) for e in range(size)]
        return [
            self.shuffle(a, b, [piece + upper + turn for piece in range(0, self.lanes, n) for turn in turns])
            for upper in (0, half)
        ]

    def exchange_pieces(self, rows: Sequence[Value]) -> list[Value]:
        """Transpose 128-bit pieces among as many vectors as each holds pieces: 1, 2 or 4."""
        if len(rows) == 1:
            return list(rows)
        if len(rows) == 2:
            return [self.take_pieces(rows[0], rows[1], order) for order in ((0, 2), (1, 3))]
        halves = [
            (self.take_pieces(rows[0], rows[1], order), self.take_pieces(rows[2], rows[3], order))
            for order in ((0, 1, 4, 5), (2, 3, 6, 7))
        ]
        return [self.take_pieces(a, b, order) for a, b in halves for order in ((0, 2, 4, 6), (1, 3, 5, 7))]

    def take_pieces(self, a: Value, b: Value, order: Sequence[int]) -> Value:
        """A vector of 128-bit pieces of a and b, numbered through both."""
        return self.shuffle(a, b, [self.piece * piece + e for piece in order for e in range(self.piece)])

    def prefetch(self, row: Value, size: Value) -> None:
        """Ask for the cache lines of a row that will be read soon; an address beyond memory does no harm."""
        self.loop(0, size, 64, lambda offset, _: self.prefetch_line(self.at(row, offset)))

    def prefetch_line(self, address: Value) -> None:
        """Ask for one cache line."""
        how = (ir.Constant(i32, x) for x in (0, 3, 1))  # to read, into every cache, data
        self.intrinsic("llvm.prefetch.p0", ir.VoidType(), address, *how)

    # Control flow

    def loop(
        self,
        start: Int,
        stop: Int,
        step: Int,
        body: Callable[[Value, list[Value]], Sequence[Value] | None],
        carried: Sequence[Value] = (),
    ) -> list[Value]:
        """for i in range(start, stop, step): carried = body(i, carried); the last carried values."""
        build, before = self.block, self.block.block
        head, inside, after = (self.ir.append_basic_block(name) for name in ("head", "inside", "after"))
        build.branch(head)
        build.position_at_end(head)
        index = build.phi(i64)
        index.add_incoming(self.i64(start), before)
        values = [build.phi(c.type) for c in carried]
        for value, initial in zip(values, carried, strict=True):
            value.add_incoming(initial, before)
        build.cbranch(self.less(index, stop), inside, after)
        build.position_at_end(inside)
        results = body(index, values) or ()
        index.add_incoming(self.add(index, step), build.block)
        for value, result in zip(values, results, strict=True):
            value.add_incoming(result, build.block)
        build.branch(head)
        build.position_at_end(after)
        return values

    def unrolled(
        self,
        start: Int,
        stop: Int,
        times: int,
        body: Callable[[Value, list[Value]], Sequence[Value] | None],
        carried: Sequence[Value] = (),
    ) -> list[Value]:
        """A loop of step 1 whose body stands `times` times in a row, and once for what is left."""

        def several(i: Value, values: list[Value]) -> Sequence[Value]:
            for step in range(times):
                values = list(body(self.add(i, step), values) or ())
            return values

        whole = self.sub(stop, self.block.srem(self.sub(stop, start), self.i64(times)))
        return self.loop(whole, stop, 1, body, self.loop(start, whole, times, several, carried))

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """Run the instructions of the `with` block only if the condition holds."""
        with self.block.if_then(condition):
            yield

    def finish(self, value: Value | None = None) -> ir.Function:
        """Return from the function, and give it to its callers."""
        if value is None:
            self.block.ret_void()
        else:
            self.block.ret(value)
        return self.ir


def internal_function(
    module: ir.Module, tile: Tile, name: str, *parameters: str, result: ir.Type | None = None, together: int = 1
) -> Function:
    """Start a function of the module's own; parameters named `…_p` are pointers, others 64-bit integers."""
    f = Function(module, name, {p: pointer if p.endswith("_p") else i64 for p in parameters}, tile, result, together)
    f.ir.linkage = "internal"
    f.ir.attributes.add("noinline")  # each part gets the registers for itself
    return f
