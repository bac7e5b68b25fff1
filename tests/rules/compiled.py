"""One operation on floats as machine code of its own, on any instruction set."""

import ctypes
import functools
import itertools

import llvmlite.binding as llvm
import llvmlite.ir as ir
import numpy as np

from clearhead.kernels.abi.tiles import ELEMENTS, tile_for
from clearhead.kernels.ir.operations import EMITTERS, Numbers
from clearhead.kernels.ir.simd import Function, i64, pointer
from clearhead.machine.compile import initialise, machine_for
from clearhead.machine.target import target
from clearhead.rules.expression import Expression

names = itertools.count()


@functools.cache
def module(name, dtype, place, arity):
    """The function in a loop over vectors, as IR for a target."""
    tile = tile_for(ELEMENTS[dtype], place.vector_bits, place.registers)
    written = ir.Module(name)
    pointers = [f"x{n}_p" for n in range(arity)]
    f = Function(written, "run", dict.fromkeys([*pointers, "y_p"], pointer) | {"bytes": i64}, tile)
    *xs, y, size = f.arguments
    float_operation = Expression(name, "float", (Expression("score", "float"),) * arity)

    def step(at, _):
        arguments = [f.load(f.at(x, at)) for x in xs]
        f.store(EMITTERS[name](Numbers(f, f.integers), float_operation, arguments), f.at(y, at))

    f.loop(0, size, place.vector_bits // 8, step)
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
