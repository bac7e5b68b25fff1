"""One operation on floats as machine code of its own, on any instruction set."""

import ctypes
import functools
import itertools
from typing import NamedTuple

import llvmlite.binding as llvm
import llvmlite.ir as ir
import numpy as np

from clearhead.kernels.abi.tiles import ELEMENTS, tile_for
from clearhead.kernels.ir.code import Function
from clearhead.kernels.ir.operations import EMITTERS, Numbers
from clearhead.kernels.ir.values import Int, Pointer
from clearhead.machine.compile import initialise, machine_for
from clearhead.machine.target import target
from clearhead.rules.expression import Expression

names = itertools.count()


class One(NamedTuple):
    """A function of one vector, over so many bytes."""

    x: Pointer
    y: Pointer
    bytes: Int


class Two(NamedTuple):
    """A function of two."""

    x: Pointer
    z: Pointer
    y: Pointer
    bytes: Int


@functools.cache
def module(name, dtype, place, arity):
    """The function in a loop over vectors, as IR for a target."""
    tile = tile_for(ELEMENTS[dtype], place.vector_bits, place.registers)
    written = ir.Module(name)
    f = Function(written, tile, "run", {1: One, 2: Two}[arity], exported=True)
    *xs, y, size = f.arguments
    float_operation = Expression(name, "float", (Expression("score", "float"),) * arity)

    numbers = Numbers(f, 8 * tile.element.bytes)
    for at in f.range(0, size, place.vector_bits // 8):
        f.store(EMITTERS[name](numbers, float_operation, [f.load(x + at) for x in xs]), y + at)
    f.finish()
    return str(written)


@functools.cache
def code(name, dtype, place, arity):
    """The function's code, and what keeps it mapped."""
    initialise(place.triple)
    parsed = llvm.parse_assembly(module(name, dtype, place, arity))
    parsed.verify()
    machine = machine_for(place)
    compiler = llvm.create_lljit_compiler(machine, use_jit_link=True)
    builder = llvm.JITLibraryBuilder().add_object_img(machine.emit_object(parsed)).add_current_process()
    library = builder.export_symbol("run").link(compiler, f"function{next(names)}")
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (arity + 1), ctypes.c_int64)
    return kind(library["run"]), library, compiler


def run(name, *arguments):
    """What the function's instructions give, on the instruction set in force."""
    place, (x, *_) = target(), arguments
    padded = [np.zeros(-(-x.size // 16) * 16, x.dtype) for _ in arguments]
    for own, given in zip(padded, arguments, strict=True):
        own[: given.size] = given.ravel()
    result = np.zeros_like(padded[0])
    function, *_ = code(name, x.dtype.name, place, len(arguments))
    function(*(array.ctypes.data for array in (*padded, result)), result.nbytes)
    return result[: x.size].reshape(x.shape)
