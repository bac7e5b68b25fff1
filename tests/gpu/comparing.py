"""Kernels of GPUs run on this processor, compared with the CPU's, bit for bit."""

from typing import Any

import numpy as np

import clearhead
from clearhead.engine.inputs import Operands, Rules
from clearhead.engine.problem import problem_of
from clearhead.gpu import launch
from clearhead.gpu.programs import Program
from clearhead.gpu.ptx import ptx
from clearhead.gpu.tile import THREADS
from tests.gpu.emulation import Emulated
from tests.gpu.host_thread import HostThread
from tests.gpu.translation import Translation


def from_ptx(program: Program, *, late: bool = False) -> Emulated:
    """The very text that a driver gets."""
    return emulated(program, Translation(ptx(program).decode()).ir, late=late)


def host_ir(program: Program) -> str:
    """The program as LLVM gets it, for the host."""
    return program.write(HostThread)


def from_ir(program: Program, ir: str = "", *, late: bool = False) -> Emulated:
    """The program before LLVM made PTX of it, or a changed one."""
    return emulated(program, ir or host_ir(program), late=late)


def emulated(program: Program, ir: str, *, late: bool) -> Emulated:
    """A program's code for the host."""
    shared = program.tile.shared_bytes
    return Emulated(ir, program.name, program.arguments, THREADS, shared, late=late)


def computed(
    kernel: Emulated, q: Any, k: Any, v: Any, mask: Any, order: str = "ascending", sink: Any = None
) -> tuple[Any, Any]:
    """Output and LSE of float32 arrays of any strides."""
    problem = problem_of(Operands(q, k, v), Rules(mask, sink=sink))
    prepared = launch.prepare(problem)
    sinks = None if sink is None else np.ascontiguousarray(np.broadcast_to(sink, problem.lead))
    results = [np.full(shape, 7, np.float32) for shape in (problem.output_shape, problem.output_shape[:-1])]
    addresses = launch.Addresses(
        *(x.ctypes.data for x in (q, k, v, *results)), sink=0 if sinks is None else sinks.ctypes.data
    )
    for values in prepared.arguments(addresses):
        kernel.launch(prepared.groups, values, order)
    return results[0], results[1]


def different(kernel: Emulated, q: Any, k: Any, v: Any, mask: Any, order: str = "ascending", sink: Any = None) -> int:
    """How many numbers differ from the CPU's."""
    expected = clearhead.attend(q, k, v, mask=mask, sink=sink)
    found = computed(kernel, q, k, v, mask, order, sink)
    return sum(unequal(a, b) for a, b in zip(found, (expected.output, expected.lse), strict=True))


def unequal(a: Any, b: Any) -> int:
    """How many numbers of two arrays differ; all that is not a number counts as one."""
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    whole = {4: np.int32, 8: np.int64}[a.dtype.itemsize]
    x, y = (np.ascontiguousarray(z).view(whole) for z in (a, b))
    return int(((x != y) & ~(np.isnan(a) & np.isnan(b))).sum())


def drawn(seed: int, *shapes: tuple[int, ...]) -> list[Any]:
    """Aligned random arrays."""
    rng = np.random.default_rng(seed)
    return [aligned(rng.standard_normal(shape).astype(np.float32)) for shape in shapes]


def aligned(x: Any) -> Any:
    """A copy whose address is a multiple of 64 bytes; empty arrays as they are."""
    room = np.empty(x.size + 16, np.float32)
    start = -room.ctypes.data % 64 // 4
    copy = room[start : start + x.size].reshape(x.shape)
    copy[...] = x
    return copy
