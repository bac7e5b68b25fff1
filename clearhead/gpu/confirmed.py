"""A card's kernels, each compared with the CPU's before its first use in a process.

A GPU's compiler is not ours: the comparison is what shows that it kept the order and the rounding of every operation.
It takes some hundredths of a second, so nothing is remembered that another driver or card could make untrue.
"""

import threading
from collections.abc import Iterator

import numpy as np

from clearhead.arrays import Array
from clearhead.engine.execute import execute
from clearhead.engine.inputs import Operands, Rules
from clearhead.engine.problem import problem_of
from clearhead.errors import MachineError
from clearhead.gpu.card_array import FLOAT32
from clearhead.gpu.driver import USE_THE_CPU, Card, Kernel, Memory
from clearhead.gpu.launch import Addresses, kernel_of, prepare, run, tile_of
from clearhead.rules.masks import Mask, causal, full

HEADS, QUERIES, KEYS = 2, 300, (300, 2348)  # an edge; two segments that merge
LOGARITHMS = 4096  # rows of a head whose LSE is a logarithm near 0: one in a thousand tells a contracted product


def confirmed_kernel(card: Card, dim: int, stream: int = 0) -> Kernel:
    """The kernel of a dim for a card; raises MachineError if it gives other bits than the CPU's, or did before.

    The first call compiles and compares it, which nothing can do while `stream` is recorded for a CUDA graph.
    """
    if dim not in card.kernels:
        with card.locks.setdefault(dim, threading.RLock()):
            if dim not in card.kernels:  # by another thread meanwhile
                tile = tile_of(card, dim)
                card.check_capture(stream)
                card.kernels[dim] = compared(kernel_of(card, tile), dim)
    found = card.kernels[dim]
    if isinstance(found, str):
        raise MachineError(found)
    return found


def compared(kernel: Kernel, dim: int) -> Kernel | str:
    """A kernel whose output and LSE are the CPU's, or why it is refused."""
    different = 1
    try:
        different = differences(kernel, dim)
    finally:
        if different:
            kernel.unload()
    if different:
        return (
            f"{kernel.card} does not give the CPU's bits in the self-test ({different} numbers differ), so it is not "
            f"used: {USE_THE_CPU}, and please report this."
        )
    return kernel


def differences(kernel: Kernel, dim: int) -> int:
    """How many numbers of output and LSE differ from the CPU's."""
    count = 0
    for operands, mask in samples(dim):
        rules = Rules(mask)
        pairs = zip(computed(kernel, operands, rules), execute(operands, rules, lse=True), strict=True)
        count += sum(int((a.view(np.int32) != b.view(np.int32)).sum()) for a, b in pairs)
    return count


def samples(dim: int) -> Iterator[tuple[Operands, Mask]]:
    """What the self-test computes."""
    rng = np.random.default_rng(0)
    for keys in KEYS:
        q, k, v = (rng.standard_normal((HEADS, n, dim)).astype(np.float32) for n in (QUERIES, keys, keys))
        yield Operands(q, k, v), causal(align="end")
    q, k = (np.zeros((HEADS, n, dim), np.float32) for n in (LOGARITHMS, 2))
    q[..., 0] = rng.uniform(0.7, 5, (HEADS, LOGARITHMS)) * dim**0.5
    k[:, 1, 0] = -1
    yield Operands(q, k, rng.standard_normal(k.shape).astype(np.float32)), full()


def computed(kernel: Kernel, operands: Operands, rules: Rules) -> tuple[Array, Array]:
    """Output and LSE of contiguous arrays in this computer's memory, computed on the card."""
    card, problem = kernel.card, problem_of(operands, rules)
    inputs = [Memory.of(card, x) for x in operands[:3]]
    shapes = problem.output_shape, problem.output_shape[:-1]
    results = [Memory.of(card, np.full(shape, np.nan, FLOAT32)) for shape in shapes]  # not what a launch left before
    run(kernel, prepare(problem), Addresses(*(memory.address.value or 0 for memory in (*inputs, *results))))
    output, lse = (memory.read(shape, FLOAT32) for memory, shape in zip(results, shapes, strict=True))
    return output, lse
