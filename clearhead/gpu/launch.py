"""From a problem to a kernel's launch on a card: what the kernel can do, its tile, and its arguments.

Problems are those of the CPU's calls (`engine.problem`), so shapes, masks and their errors are the same.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from clearhead.arrays import ceil_div
from clearhead.engine.problem import Problem
from clearhead.errors import InputError, MachineError
from clearhead.gpu.call import Call
from clearhead.gpu.driver import USE_THE_CPU, Card, Kernel
from clearhead.gpu.ptx import OLDEST, ptx
from clearhead.gpu.thread import Floats, Index
from clearhead.gpu.tile import DIMS, ROWS, THREADS, CardTile, tile_for
from clearhead.kernels.ir.parameters import machine_parameters
from clearhead.kernels.ir.values import Int, Vector

SIZE, ALIGNED = 4, 16  # bytes of a number, and of what is copied at a time
MOST = 1 << 30  # queries and keys: indices have 32 bits
C_KINDS = {Floats: ctypes.c_void_p, Index: ctypes.c_int, Int: ctypes.c_int64, Vector: ctypes.c_float}
ARGUMENTS = [C_KINDS[parameter.kind] for parameter in machine_parameters(Call, frozenset())]


@dataclass(frozen=True)
class CardArray:
    """An array in a card's memory, or anywhere: what a problem reads of arrays, and the address."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in bytes
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self.shape)


class Addresses(NamedTuple):
    """Where the operands and results of a call are."""

    query: int
    key: int
    value: int
    output: int
    lse: int


def limits(problem: Problem) -> str | None:
    """Why a GPU's kernel cannot compute a problem, or None; ends a sentence that begins with what it takes."""
    rules, dims = problem.rules, {problem.query_dim, problem.value_dim}
    if problem.dtype != "float32":
        return f"it is {problem.dtype}"
    if rules.mask or rules.score or rules.packed or rules.low is not None or problem.sink:
        return "it has score rules, a sink, or a mask beyond these"
    if len(dims) > 1 or not dims <= set(DIMS):
        return f"its queries have dim {problem.query_dim}, its values {problem.value_dim}"
    if problem.queries + problem.keys >= MOST or groups_of(problem) >= 1 << 31:
        return f"{problem.queries} queries and {problem.keys} keys in {problem.heads} heads are too many"
    for name, x, rows in (
        ("queries", problem.query, problem.queries),
        ("keys", problem.key, problem.keys),
        ("values", problem.value, problem.keys),
        ("output", problem.output, problem.queries),
    ):
        steps = x.lead if rows == 1 else (*x.lead, x.row)
        if rows and (x.element != SIZE or any(step % ALIGNED for step in steps)):
            return f"the strides of its {name} are not dense in the last axis and multiples of 16 bytes before it"
    return None


def check(problem: Problem, addresses: Addresses) -> None:
    """Raise InputError for what a GPU's kernel cannot compute."""
    why = limits(problem)
    if why is None and any(place % ALIGNED for place in addresses[:4]):
        why = "an address is not a multiple of 16 bytes"
    if why is not None:
        raise InputError(
            "on a GPU, clearhead takes float32, causal() and full(), and equal dims of "
            f"{', '.join(map(str, DIMS[:-1]))} or {DIMS[-1]}, without gradients, but of this call {why}: {USE_THE_CPU}."
        )


def check_card(card: Card) -> None:
    """Raise MachineError for a card that is too old."""
    if card.capability < OLDEST:
        own, oldest = (".".join(map(str, capability)) for capability in (card.capability, OLDEST))
        raise MachineError(
            f"{card.name} has compute capability {own}, but the kernel needs {oldest} (Ampere) or newer: {USE_THE_CPU}."
        )


def tile_of(card: Card, dim: int) -> CardTile:
    """The tile of a dim for a card."""
    check_card(card)
    tile = tile_for(dim, card.group_bytes, card.processor_bytes)
    if tile is None:
        raise MachineError(
            f"{card.name} has {card.group_bytes} bytes of shared memory for a group of threads, too few for dim {dim}: "
            f"{USE_THE_CPU}."
        )
    return tile


def kernel_of(card: Card, tile: CardTile) -> Kernel:
    """A tile's kernel, compiled for a card now."""
    return Kernel(card, ptx(tile), tile.name, tile.shared_bytes)


def run(kernel: Kernel, problem: Problem, addresses: Addresses, stream: int = 0) -> None:
    """Launch a kernel for a problem, in a stream, without waiting."""
    for values in arguments(problem, addresses):
        packed = [kind(value) for kind, value in zip(ARGUMENTS, values, strict=True)]
        kernel.launch(groups_of(problem), THREADS, packed, stream)


def groups_of(problem: Problem) -> int:
    """The groups of one launch."""
    return ceil_div(problem.queries, ROWS) * math.prod(inner_axes(problem))


def inner_axes(problem: Problem) -> tuple[int, ...]:
    """The axes that a launch walks: batches, key heads, and query heads that share one."""
    return walked(problem, problem.axes, 1)[-3:]


def walked(problem: Problem, axes: Sequence[int], missing: int) -> tuple[int, ...]:
    """A problem's axes, or strides of them, as (…, batch, key head, query head that shares it)."""
    grouped = len(problem.axes) > len(problem.lead)
    axes = tuple(axes) if grouped else (*axes, missing)
    return (missing,) * (3 - len(axes)) + axes


def arguments(problem: Problem, addresses: Addresses) -> Iterator[list[Any]]:
    """The kernel's arguments, as `Call` lists them, for each index of the axes before the batch."""
    outer, (batches, key_heads, members) = walked(problem, problem.axes, 1)[:-3], inner_axes(problem)
    heads = batches * key_heads * members
    if not (heads and problem.queries):
        return
    rules, keys = problem.rules, problem.keys
    high = keys if rules.high is None else rules.spans[0].offset + rules.high + 1
    operands = problem.query, problem.key, problem.value, problem.output
    steps = [walked(problem, x.lead, 0) for x in operands]
    strides = [[step // SIZE for step in (*lead[-3:], x.row)] for lead, x in zip(steps, operands, strict=True)]
    for number, index in enumerate(np.ndindex(*outer)):
        places = [
            place + sum(i * step for i, step in zip(index, lead, strict=False))
            for place, lead in zip(addresses, steps, strict=False)
        ]
        lse = addresses.lse + SIZE * number * heads * problem.queries
        numbers = problem.queries, keys, max(-problem.queries, min(high, keys)), heads, key_heads, members
        yield [*places, lse, *numbers, float(np.float32(problem.scale)), *chain.from_iterable(strides)]
