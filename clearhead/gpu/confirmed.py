"""A card's kernels, each compared with the CPU's before its first use in a process.

A GPU's compiler is not ours: the comparison is what shows that it kept the order and the rounding of every operation.
It takes some hundredths of a second, so nothing is remembered that another driver or card could make untrue.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np

from clearhead.arrays import Array
from clearhead.attention_weights.matrix import Weights, weights_of
from clearhead.engine.execute import execute
from clearhead.engine.inputs import Operands, Rules
from clearhead.engine.problem import problem_of
from clearhead.errors import MachineError
from clearhead.gpu.card_array import FLOAT32
from clearhead.gpu.driver import USE_THE_CPU, Card, Kernel, Memory
from clearhead.gpu.launch import Addresses, kernel_of, prepare, run, tile_of
from clearhead.gpu.programs import Program
from clearhead.gpu.weights import weights_on
from clearhead.rules.masks import causal, full, window

HEADS, QUERIES, KEYS = 2, 300, (300, 2348)  # an edge; two segments that merge
LOGARITHMS = 4096  # rows of a head whose LSE is a logarithm near 0: one in a thousand tells a contracted product
WINDOW = window(170, 40, align="end")  # both edges cut blocks, and some queries see no key of some


def confirmed_kernel(card: Card, kind: str, dim: int, stream: int = 0) -> Kernel:
    """The kernel of a kind and dim for a card; raises MachineError if its bits are not the CPU's, or were not before.

    The first call compiles and compares it, which nothing can do while `stream` is recorded for a CUDA graph.
    """
    key = kind, dim
    if key not in card.kernels:
        with card.locks.setdefault(key, threading.RLock()):
            if key not in card.kernels:  # by another thread meanwhile
                tile = tile_of(card, dim)
                card.check_capture(stream)
                card.kernels[key] = compared(kernel_of(card, Program(kind, tile)), kind, dim)
    found = card.kernels[key]
    if isinstance(found, str):
        raise MachineError(found)
    return found


def compared(kernel: Kernel, kind: str, dim: int) -> Kernel | str:
    """A kernel whose numbers are the CPU's, or why it is refused."""
    different = 1
    try:
        different = differences(kernel, kind, dim)
    finally:
        if different:
            kernel.unload()
    if different:
        return (
            f"{kernel.card} does not give the CPU's bits in the self-test ({different} numbers differ), so it is not "
            f"used: {USE_THE_CPU}, and please report this."
        )
    return kernel


def differences(kernel: Kernel, kind: str, dim: int) -> int:
    """How many numbers differ from the CPU's."""
    if kind in ASKED:
        return sum(unequal(a, b) for operands, rules in swept(dim) for a, b in answers(kernel, kind, operands, rules))
    count = 0
    for operands, rules in samples(dim) if kind == "attention" else banded(dim):
        pairs = zip(computed(kernel, operands, rules), execute(operands, rules, lse=True), strict=True)
        count += sum(unequal(a, b) for a, b in pairs)
    return count


def unequal(a: Array, b: Array) -> int:
    """How many numbers of two arrays have other bits."""
    return int((a.view(np.int32) != b.view(np.int32)).sum())


def drawn(rng: np.random.Generator, dim: int, keys: int) -> Operands:
    """Random operands."""
    q, k, v = (rng.standard_normal((HEADS, n, dim)).astype(np.float32) for n in (QUERIES, keys, keys))
    return Operands(q, k, v)


def samples(dim: int) -> Iterator[tuple[Operands, Rules]]:
    """What the self-test of plain attention computes."""
    rng = np.random.default_rng(0)
    for keys in KEYS:
        yield drawn(rng, dim, keys), Rules(causal(align="end"))
    yield logarithms(rng, dim), Rules(full())


def banded(dim: int) -> Iterator[tuple[Operands, Rules]]:
    """What that of windows and sinks computes."""
    rng, sink = np.random.default_rng(1), np.array([0.5, -2.0], np.float32)
    yield drawn(rng, dim, KEYS[1]), Rules(WINDOW)
    yield drawn(rng, dim, KEYS[1]), Rules(causal(align="end") & window(200, None, align="end"), sink=sink)
    yield logarithms(rng, dim), Rules(full(), sink=sink)


def logarithms(rng: np.random.Generator, dim: int) -> Operands:
    """Rows of two keys whose LSE is near 0."""
    q, k = (np.zeros((HEADS, n, dim), np.float32) for n in (LOGARITHMS, 2))
    q[..., 0] = rng.uniform(0.7, 5, (HEADS, LOGARITHMS)) * dim**0.5
    k[:, 1, 0] = -1
    return Operands(q, k, rng.standard_normal(k.shape).astype(np.float32))


def swept(dim: int) -> Iterator[tuple[Operands, Rules]]:
    """What that of sweeps over weights computes."""
    rng = np.random.default_rng(2)
    for keys in KEYS:
        yield drawn(rng, dim, keys), Rules(WINDOW)


ASKED: dict[str, Callable[[Weights], list[Array]]] = {  # of the weights, by each kind of kernel that sweeps over them
    "weights": lambda w: [w.block(), w.scores.block(slice(7, 90), slice(5, 200))],
    "numbers": lambda w: list(w.summary("entropy", "distance", "within", "first", "off_first", "top").values()),
    "picture": lambda w: [w.map(size=(37, 141)), w.summary("received_max").received_max],
}


def answers(kernel: Kernel, kind: str, operands: Operands, rules: Rules) -> Iterator[tuple[Array, Array]]:
    """What the card and the CPU say about the same weights."""
    card, (q, k, _, _) = kernel.card, operands

    def kernels(other: str) -> Kernel:
        return kernel if other == kind else confirmed_kernel(card, other, q.shape[-1])

    there, _ = weights_on(card, q, k, rules, kernels)
    here = weights_of(q, k, rules, lse=None, threads=None, matching=True)
    return zip(ASKED[kind](there), ASKED[kind](here), strict=True)


def computed(kernel: Kernel, operands: Operands, rules: Rules) -> tuple[Array, Array]:
    """Output and LSE of contiguous arrays in this computer's memory, computed on the card."""
    card, problem = kernel.card, problem_of(operands, rules)
    inputs = [Memory.of(card, x) for x in operands[:3]]
    shapes = problem.output_shape, problem.output_shape[:-1]
    results = [Memory.of(card, np.full(shape, np.nan, FLOAT32)) for shape in shapes]  # not what a launch left before
    sink = [] if rules.sink is None else [Memory.of(card, rules.sink)]
    run(kernel, prepare(problem), Addresses(*(memory.address.value or 0 for memory in (*inputs, *results, *sink))))
    output, lse = (memory.read(shape, FLOAT32) for memory, shape in zip(results, shapes, strict=True))
    return output, lse
