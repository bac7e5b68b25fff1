"""From a problem to a kernel's launch on a card: what the kernel can do, its tile, and its arguments.

Problems are those of the CPU's calls (`engine.problem`), so shapes, masks and their errors are the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from clearhead.arrays import ceil_div
from clearhead.engine.problem import Problem
from clearhead.errors import InputError, MachineError
from clearhead.gpu.card_rules import CardRules, card_rules, first_position, limits_of_rules
from clearhead.gpu.driver import LEGACY_STREAM, USE_THE_CPU, Card, Kernel
from clearhead.gpu.programs import KINDS, Program
from clearhead.gpu.ptx import OLDEST, ptx
from clearhead.gpu.tile import DIMS, ROWS, THREADS, CardTile, tile_for

SIZE, ALIGNED = 4, 16  # bytes of a number, and of what is copied at a time
PART_BYTES = 256  # of a launch's offsets in this computer's memory
RULES_IN_GRAPH = "which holds no arrays of this computer: call outside of it, or use rules that read no arrays"
MOST = 1 << 30  # queries and keys: indices have 32 bits


class Addresses(NamedTuple):
    """Where the operands and results of a call are."""

    query: int
    key: int
    value: int
    output: int
    lse: int
    sink: int = 0  # or none


@dataclass(frozen=True)
class Launch:
    """A prepared problem, to which a call only adds addresses."""

    kind: str
    dim: int
    groups: int  # of each part
    parts: tuple[Addresses, ...]  # one for each index of the axes before the batch: offsets in bytes
    heads: int  # of each part
    numbers: tuple[float, ...]  # the kernel's arguments behind the addresses
    rules: CardRules

    @property
    def size(self) -> int:
        """About how many bytes it takes here."""
        return PART_BYTES * len(self.parts) + sum(array.nbytes for array in self.rules.arrays_here)

    def arguments(self, addresses: Addresses, entries: Sequence[int] = ()) -> Iterator[list[Any]]:
        """The kernel's arguments for each part, as `Call` lists them, and behind them those of rules."""
        count = len(addresses) if "sink" in KINDS[self.kind].present else len(addresses) - 1
        for n, part in enumerate(self.parts):
            places = [place and place + offset for place, offset in zip(addresses[:count], part, strict=False)]
            yield [*places, *self.rules.place(n * self.heads, 0), *self.numbers, *entries]


def limits(problem: Problem) -> str | None:
    """Why a GPU's kernel cannot compute a problem, or None; ends a sentence that begins with what it takes."""
    rules, dims = problem.rules, {problem.query_dim, problem.value_dim}
    if problem.dtype != "float32":
        return f"it is {problem.dtype}"
    if rules.mask or rules.score or rules.packed:
        why = limits_of_rules(problem)
        if why is not None:
            return why
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
        if rows and problem.heads and (x.element != SIZE or any(step % ALIGNED for step in steps)):
            return f"the strides of its {name} are not dense in the last axis and multiples of 16 bytes before it"
    return None


def prepare(problem: Problem) -> Launch:
    """Everything about a launch but addresses; raises InputError for what a GPU's kernel cannot compute."""
    refuse(limits(problem))
    walk = walked(problem)
    *outer, batches, key_heads, members = walk.sizes
    heads, queries = batches * key_heads * members, problem.queries
    rules = card_rules(problem)
    kind = "attention" if problem.rules.low is None and not problem.sink and not rules.given else "windowed"
    high, low = band(problem, 0, queries)
    edges = (high,) if kind == "attention" else (high, low)
    numbers = queries, problem.keys, *edges, heads, key_heads, members, np.float32(problem.scale).item()
    rows = (x.row for x in (problem.query, problem.key, problem.value, problem.output))
    strides = [step // SIZE for steps, row in zip(walk.steps, rows, strict=True) for step in (*steps[-3:], row)]
    parts = []
    for number, index in enumerate(np.ndindex(*outer)):
        offsets = [sum(i * step for i, step in zip(index, steps, strict=False)) for steps in walk.steps]
        parts.append(Addresses(*[*offsets, SIZE * number * heads * queries, SIZE * number * heads]))
    return Launch(
        kind=kind,
        dim=problem.query_dim,
        groups=groups_of(problem),
        parts=tuple(parts) if heads and queries else (),
        heads=heads,
        numbers=(*numbers, *strides),
        rules=rules,
    )


def band(problem: Problem, first: int, count: int) -> tuple[int, int]:
    """(high, low): of `count` queries from `first` on, the i-th sees the keys from i + low to below i + high."""
    rules, keys = problem.rules, problem.keys
    offset = first + first_position(problem)
    high = keys if rules.high is None else offset + rules.high + 1
    low = -count if rules.low is None else offset + rules.low
    return max(-count, min(high, keys)), max(-count, min(low, keys))


def refuse(why: str | None, step: str = USE_THE_CPU) -> None:
    """Raise InputError if there is a reason."""
    if why is not None:
        raise InputError(
            "on a GPU, clearhead takes float32, masks, score rules and sinks, and equal dims of "
            f"{', '.join(map(str, DIMS[:-1]))} or {DIMS[-1]}, without gradients, but of this call {why}: {step}."
        )


def unaligned(addresses: Sequence[int]) -> str | None:
    """Why a GPU's kernel cannot read from addresses, or write to them, or None."""
    return "an address is not a multiple of 16 bytes" if any(place % ALIGNED for place in addresses) else None


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


def kernel_of(card: Card, program: Program) -> Kernel:
    """A kernel, compiled for a card now."""
    return Kernel(card, ptx(program), program.name, program.tile.shared_bytes, program.arguments)


def run(kernel: Kernel, launch: Launch, addresses: Addresses, stream: int = 0) -> None:
    """Launch a kernel in a stream, without waiting unless rules read arrays of this computer, which are copied."""
    refuse(unaligned(addresses[:4]))
    card = kernel.card
    if launch.rules.arrays_here:
        card.check_capture(stream, RULES_IN_GRAPH)
    entries, copies = launch.rules.entries(card)
    if copies:
        card.wait(stream, {LEGACY_STREAM})
    for values in launch.arguments(addresses, entries):
        kernel.launch(launch.groups, THREADS, values, stream)
    if copies:
        card.finish(stream)


def groups_of(problem: Problem) -> int:
    """The groups of one launch."""
    return ceil_div(problem.queries, ROWS) * math.prod(walked(problem).sizes[-3:])


class Walk(NamedTuple):
    """Axes (…, batch, key head, query head that shares it), and the strides of query, key, value and output."""

    sizes: list[int]
    steps: list[list[int]]


def walked(problem: Problem) -> Walk:
    """A problem's leading axes as a launch walks them: those before the batch join it where their strides allow."""
    operands = problem.query, problem.key, problem.value, problem.output
    shared = 0 if len(problem.axes) > len(problem.lead) else 1  # then no query head shares a key head
    missing = max(0, 3 - shared - len(problem.axes))
    sizes = [1] * missing + [*problem.axes] + [1] * shared
    steps = [[0] * missing + [*x.lead] + [0] * shared for x in operands]
    for axis in reversed(range(len(sizes) - 3)):
        if all(joins(sizes, lead, axis) for lead in steps):
            for lead in steps:
                lead[axis : axis + 2] = [lead[axis] if sizes[axis + 1] == 1 else lead[axis + 1]]
            sizes[axis : axis + 2] = [sizes[axis] * sizes[axis + 1]]
    return Walk(sizes, steps)


def joins(sizes: Sequence[int], steps: Sequence[int], axis: int) -> bool:
    """Whether an axis and the next can be walked as one."""
    return 1 in sizes[axis : axis + 2] or steps[axis] == sizes[axis + 1] * steps[axis + 1]
