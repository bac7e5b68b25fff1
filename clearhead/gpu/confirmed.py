"""A card's kernels, each compared with the CPU's before its first use in a process.

A GPU's compiler is not ours: the comparison is what shows that it kept the order and the rounding of every operation.
It takes some hundredths of a second, so nothing is remembered that another driver or card could make untrue.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from clearhead.arrays import Array
from clearhead.attention_weights.lse import Source
from clearhead.attention_weights.matrix import Weights
from clearhead.engine.execute import execute
from clearhead.engine.inputs import Operands, Rules
from clearhead.engine.launch import prepare as prepare_here
from clearhead.engine.problem import Problem, problem_of
from clearhead.errors import MachineError
from clearhead.gpu.card_array import FLOAT32
from clearhead.gpu.card_rules import NO_RULES, CardRules
from clearhead.gpu.driver import USE_THE_CPU, Card, Kernel, Memory
from clearhead.gpu.launch import Addresses, kernel_of, prepare, run, tile_of
from clearhead.gpu.programs import Program
from clearhead.gpu.weights import weights_of_problem
from clearhead.rules.expression import Formula, is_immutable
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.masks import causal, full, window

HEADS, QUERIES, KEYS = 2, 300, (300, 2348)  # an edge; two segments that merge
LOGARITHMS = 4096  # rows of a head whose LSE is a logarithm near 0: one in a thousand tells a contracted product
WINDOW = window(170, 40, align="end")  # both edges cut blocks, and some queries see no key of some
MOST_IN_AXIS = 300  # numbers of an array that stands for one that rules read


class Sample(NamedTuple):
    """What a self-test computes."""

    operands: Operands
    problem: Problem
    sink: Array | None = None


def confirmed_kernel(card: Card, kind: str, dim: int, stream: int = 0, rules: CardRules = NO_RULES) -> Kernel:
    """A kernel for a card, by kind, dim and rules; raises MachineError if its bits are not the CPU's, or were not.

    The first call compiles and compares it, which nothing can do while `stream` is recorded for a CUDA graph.
    """
    key = kind, dim, rules.variant
    if key not in card.kernels:
        with card.locks.setdefault(key, threading.RLock()):
            if key not in card.kernels:  # by another thread meanwhile
                program = Program(kind, tile_of(card, dim), rules.variant)
                card.check_capture(stream)
                card.kernels[key] = compared(kernel_of(card, program), program, rules)
    found = card.kernels[key]
    if isinstance(found, str):
        raise MachineError(found)
    return found


def compared(kernel: Kernel, program: Program, rules: CardRules) -> Kernel | str:
    """A kernel whose numbers are the CPU's, or why it is refused."""
    different = 1
    try:
        different = differences(kernel, program, rules)
    finally:
        if different:
            kernel.unload()
    if different:
        return (
            f"{kernel.card} does not give the CPU's bits in the self-test ({different} numbers differ), so it is not "
            f"used: {USE_THE_CPU}, and please report this."
        )
    return kernel


def differences(kernel: Kernel, program: Program, rules: CardRules = NO_RULES) -> int:
    """How many numbers differ from the CPU's."""
    dim = program.tile.dim
    if program.kind in ASKED:
        given = ruled(dim, rules) if rules.given else swept(dim)
        return sum(unequal(a, b) for sample in given for a, b in answers(kernel, program, rules, sample))
    forward = ruled(dim, rules) if rules.given else samples(dim) if program.kind == "attention" else banded(dim)
    return sum(unequal(a, b) for sample in forward for a, b in zip(computed(kernel, sample), here(sample), strict=True))


def unequal(a: Array, b: Array) -> int:
    """How many numbers of two arrays have other bits; all that is not a number counts as one."""
    other = a.view(np.int32) != b.view(np.int32)
    return int((other & ~(np.isnan(a) & np.isnan(b)) if a.dtype == FLOAT32 else other).sum())


# What is computed


def sample(operands: Operands, mask: Mask, sink: Array | None = None) -> Sample:
    """Operands under a mask."""
    return Sample(operands, problem_of(operands, Rules(mask, sink=sink)), sink)


def drawn(rng: np.random.Generator, dim: int, keys: int) -> Operands:
    """Random operands."""
    q, k, v = (rng.standard_normal((HEADS, n, dim)).astype(np.float32) for n in (QUERIES, keys, keys))
    return Operands(q, k, v)


def samples(dim: int) -> Iterator[Sample]:
    """What the self-test of plain attention computes."""
    rng = np.random.default_rng(0)
    for keys in KEYS:
        yield sample(drawn(rng, dim, keys), causal(align="end"))
    yield sample(logarithms(rng, dim), full())


def banded(dim: int) -> Iterator[Sample]:
    """What that of windows and sinks computes."""
    rng, sink = np.random.default_rng(1), np.array([0.5, -2.0], np.float32)
    yield sample(drawn(rng, dim, KEYS[1]), WINDOW)
    yield sample(drawn(rng, dim, KEYS[1]), causal(align="end") & window(200, None, align="end"), sink)
    yield sample(logarithms(rng, dim), full(), sink)


def logarithms(rng: np.random.Generator, dim: int) -> Operands:
    """Rows of two keys whose LSE is near 0."""
    q, k = (np.zeros((HEADS, n, dim), np.float32) for n in (LOGARITHMS, 2))
    q[..., 0] = rng.uniform(0.7, 5, (HEADS, LOGARITHMS)) * dim**0.5
    k[:, 1, 0] = -1
    return Operands(q, k, rng.standard_normal(k.shape).astype(np.float32))


def swept(dim: int) -> Iterator[Sample]:
    """What that of sweeps over weights computes."""
    rng = np.random.default_rng(2)
    for keys in KEYS:
        yield sample(drawn(rng, dim, keys), WINDOW)


def ruled(dim: int, rules: CardRules) -> Iterator[Sample]:
    """What that of kernels with rules computes: random operands under these rules, and random arrays for theirs.

    No index leaves an array, however small.
    """
    rng = np.random.default_rng(3)
    mask, score = (x and Formula(x.expression, stand_ins(rng, x.arrays)) for x in rules.formulas)
    for keys, band in zip(KEYS, (causal(align="end"), WINDOW), strict=True):
        given = sample(drawn(rng, dim, keys), band)
        fused = replace(given.problem.rules, mask=mask, score=score, long=rules.variant.long)
        yield given._replace(problem=replace(given.problem, rules=fused))


def stand_ins(rng: np.random.Generator, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
    """Random arrays of the same dtypes; what is known never to change stays, since rules may rely on its numbers."""

    def stand_in(x: Array) -> Array:
        shape = tuple(min(size, MOST_IN_AXIS) for size in x.shape)
        numbers = rng.standard_normal(shape) if x.dtype.kind not in "iub" else rng.integers(0, 100, shape)
        return (numbers % 2 if x.dtype.kind == "b" else numbers).astype(x.dtype)

    return tuple(x if is_immutable(x) else stand_in(x) for x in arrays)


# By whom


def here(given: Sample) -> tuple[Array, Array]:
    """Output and LSE, computed on the CPU."""
    operands, problem, sink = given
    return execute(operands, Rules(sink=sink), lse=True, launch=prepare_here(problem, ()))


def computed(kernel: Kernel, given: Sample) -> tuple[Array, Array]:
    """Output and LSE of contiguous arrays in this computer's memory, computed on the card."""
    card, (operands, problem, sink) = kernel.card, given
    inputs = [Memory.of(card, x) for x in operands[:3]]
    shapes = problem.output_shape, problem.output_shape[:-1]
    results = [Memory.of(card, np.full(shape, np.nan, FLOAT32)) for shape in shapes]  # not what a launch left before
    sinks = [] if sink is None else [Memory.of(card, sink)]
    run(kernel, prepare(problem), Addresses(*(memory.address.value or 0 for memory in (*inputs, *results, *sinks))))
    output, lse = (memory.read(shape, FLOAT32) for memory, shape in zip(results, shapes, strict=True))
    return output, lse


ASKED: dict[str, Callable[[Weights], list[Array]]] = {  # of the weights, by each kind of kernel that sweeps over them
    "weights": lambda w: [w.block(), w.scores.block(slice(7, 90), slice(5, 200))],
    "numbers": lambda w: list(w.summary("entropy", "distance", "within", "first", "off_first", "top").values()),
    "picture": lambda w: [w.map(size=(37, 141)), w.summary("received_max").received_max],
    "received": lambda w: [w.summary("received_sum").received_sum],
    "pooled": lambda w: [w.map(size=(37, 141), reduce="sum"), w.map(size=2, reduce="sum")],
}


def answers(kernel: Kernel, program: Program, rules: CardRules, given: Sample) -> Iterator[tuple[Array, Array]]:
    """What the card and the CPU say about the same weights."""
    card, ((q, k, _, _), problem, sink) = kernel.card, given

    def kernels(kind: str) -> Kernel:
        return kernel if kind == program.kind else confirmed_kernel(card, kind, program.tile.dim, rules=rules)

    there, _ = weights_of_problem(card, q, k, problem, sink, kernels)
    own = Weights(Source(problem, q, k, sink=sink), np.arange(problem.heads).reshape(problem.lead))
    return zip(ASKED[program.kind](there), ASKED[program.kind](own), strict=True)
