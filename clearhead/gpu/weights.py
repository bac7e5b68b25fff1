"""Weights whose sweeps run on a card: for questions about them, whose answers come to this computer's memory.

Responsible for what of a sweep a card can do, and for the memory of its results there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array, Integers
from clearhead.attention_weights.lse import Source
from clearhead.attention_weights.matrix import Weights
from clearhead.attention_weights.sweep import GATHERED, Sweep
from clearhead.engine.inputs import Operands, Rules
from clearhead.engine.problem import Problem, problem_of
from clearhead.errors import InputError
from clearhead.gpu.card_array import FLOAT32
from clearhead.gpu.driver import USE_THE_CPU, Card, Kernel, Memory
from clearhead.gpu.launch import Addresses, prepare, run
from clearhead.gpu.sweep import NUMBERS
from clearhead.gpu.sweep_launch import EXACT, CardPairs, Place, SumOrder, Wanted
from clearhead.once import cached_property

LEGACY = 0  # the stream of questions, whose results are copied at once
Kernels = Callable[[str], Kernel]  # by kind
REFUSED = {  # consumers of a sweep that have no kernel here, and why
    "matches": "groups and matches are not computed on a GPU",
    "distances": "distances are not computed on a GPU",
}


@dataclass(frozen=True, eq=False)
class CardSweeps:
    """Runs the sweeps of a `Source` on a card."""

    pairs: CardPairs
    kernels: Kernels
    stream: int = LEGACY  # in which the operands are written
    check: Callable[[], None] = lambda: None  # that they were not written to since

    def run(self, sweep: Sweep, consumers: tuple[str, ...], target: Array) -> bool:
        """Write what the consumers of a sweep want, as the CPU's kernel does; raises InputError for what it cannot."""
        why = refused(sweep, consumers)
        if why is not None:
            raise InputError(f"{why}: ask for something else, or {USE_THE_CPU}.")
        self.check()
        self.pairs.card.wait(LEGACY, {self.stream})
        wanted = Wanted(sweep.heads, sweep.queries, sweep.begin, sweep.end)
        if consumers[0] in ("block", "scores"):
            self.matrix(wanted, target, raw=consumers == ("scores",))
        elif consumers == ("pool_max",):
            target[...] = self.picture(wanted, target.shape)
        elif consumers == ("pool_sum",):
            target[...] = self.pooled(wanted, target.shape, sum_order(sweep))
        else:
            self.reductions(sweep, wanted, consumers, target)
        return True

    def matrix(self, wanted: Wanted, target: Array, *, raw: bool) -> None:
        """Weights or scores (heads, queries, keys), over what `target` has for hidden pairs."""
        there = Memory.of(self.pairs.card, target)
        _, queries, keys = target.shape
        place, row = Place(there.address.value or 0, FLOAT32.itemsize * queries * keys), FLOAT32.itemsize * keys
        self.pairs.write_weights(self.kernels("weights"), wanted, place, row, LEGACY, raw=raw)
        target[...] = there.read(target.shape, FLOAT32)

    def picture(self, wanted: Wanted, shape: tuple[int, ...]) -> Array:
        """The largest weights of pixels (heads, height, width)."""
        kernel, size = self.kernels("picture"), (shape[1], shape[2])
        return self.written(shape, lambda place: self.pairs.write_picture(kernel, wanted, place, size, LEGACY))

    def pooled(self, wanted: Wanted, shape: tuple[int, ...], order: SumOrder) -> Array:
        """The sums of pixels (heads, height, width)."""
        kernel, size = self.kernels("pooled"), (shape[1], shape[2])
        return self.written(shape, lambda place: self.pairs.add_pooled(kernel, wanted, place, size, order, LEGACY))

    def received(self, wanted: Wanted, order: SumOrder) -> Array:
        """What each key receives from each group of queries, (heads, groups, keys)."""
        kernel, shape = self.kernels("received"), (len(wanted.heads), len(order.borders) - 1, wanted.end - wanted.begin)
        return self.written(shape, lambda place: self.pairs.add_received(kernel, wanted, place, order, LEGACY))

    def written(self, shape: tuple[int, ...], write: Callable[[Place], None]) -> Array:
        """What launches write to a place that holds zeros, (heads, …)."""
        zeros = np.zeros(shape, FLOAT32)
        there = Memory.of(self.pairs.card, zeros)
        write(Place(there.address.value or 0, zeros[:1].nbytes))
        return there.read(shape, FLOAT32)

    def reductions(self, sweep: Sweep, wanted: Wanted, consumers: tuple[str, ...], target: Array) -> None:
        """Numbers of each query, lists, and what each key receives in total and at most."""
        per_query, outputs = [name for name in consumers if name in NUMBERS], sweep.outputs
        if per_query or "top" in consumers:
            numbers, weights, keys = self.numbers(wanted, sweep.near, sweep.top if "top" in consumers else 0)
            for row, name in zip(outputs["rows"], per_query, strict=True):
                row[...] = numbers[NUMBERS.index(name)]
            if "top" in consumers:
                outputs["top_weights"][...], outputs["top_keys"][...] = weights, keys
        span, gathered = wanted.end - wanted.begin, [name for name in GATHERED if name in consumers]
        if "received_sum" in gathered:
            target[:, :, 0, :span] = self.received(wanted, sum_order(sweep))
        if "received_max" in gathered:
            target[:, 0, -1, :span] = self.picture(wanted, (len(wanted.heads), 1, span))[:, 0]

    def numbers(self, wanted: Wanted, near: int, top: int) -> list[Array]:
        """NUMBERS (kinds, heads, queries), and the `top` largest weights and their keys (heads, queries, top)."""
        shape = len(wanted.heads), len(wanted.queries)
        results: list[Array] = [
            np.zeros((len(NUMBERS), *shape), FLOAT32),
            np.zeros((*shape, top), FLOAT32),
            np.full((*shape, top), -1, np.int64),
        ]
        there = [Memory.of(self.pairs.card, x) for x in results]
        steps = FLOAT32.itemsize * shape[1], results[1][:1].nbytes, results[2][:1].nbytes
        first, *lists = (Place(memory.address.value or 0, step) for memory, step in zip(there, steps, strict=True))
        self.pairs.write_numbers(self.kernels("numbers"), wanted, (first, lists[0], lists[1]), near, top, LEGACY)
        return [memory.read(x.shape, x.dtype) for memory, x in zip(there, results, strict=True)]


def sum_order(sweep: Sweep) -> SumOrder:
    """The order of a sweep's sums over queries on this computer's CPU."""
    tile = sweep.spec.tile
    return SumOrder(tile.lanes, tile.vectors, sweep.even_groups())


def refused(sweep: Sweep, consumers: tuple[str, ...]) -> str | None:
    """Why a card cannot do a sweep with the CPU's bits, or None."""
    why = next((REFUSED[name] for name in consumers if name in REFUSED), None)
    if why is not None:
        return why
    if sweep.factors is not None:
        return "top with v or factors is not computed on a GPU"
    farthest = sweep.source.farthest
    if farthest >= EXACT and {"distance", "within"} & set(consumers):
        return f"on a GPU, distances are exact below {EXACT}, but a query and a key may be {farthest} apart"
    return None


@dataclass(frozen=True, eq=False)
class CardSource(Source):
    """A source whose queries, keys and log-sum-exps are in a card's memory."""

    read_lse: Callable[[], Array] = field(default=lambda: np.empty(0), repr=False)

    @cached_property
    def lse_and_final(self) -> tuple[Array, npt.NDArray[np.bool_]]:
        """LSEs (heads, queries), copied from the card once, and that all are final."""
        lse = self.read_lse().reshape(self.problem.heads, self.problem.queries)
        return lse, np.ones(lse.shape, bool)

    def check(self, weights: Array, heads: Integers, queries: Integers) -> None:
        """Nothing: whoever holds memory on a card tells whether it was written to."""


def weights_on(card: Card, q: Array, k: Array, rules: Rules, kernels: Kernels) -> tuple[Weights, CardSweeps]:
    """Weights of arrays in this computer's memory, which are copied to a card now, and what sweeps over them there."""
    query, key = (np.ascontiguousarray(x) for x in (q, k))
    return weights_of_problem(card, query, key, problem_of(Operands(query, key, key), rules), rules.sink, kernels)


def weights_of_problem(
    card: Card, query: Array, key: Array, problem: Problem, sink: Array | None, kernels: Kernels
) -> tuple[Weights, CardSweeps]:
    """The same of contiguous arrays and a problem."""
    launch, shapes = prepare(problem), (problem.output_shape, problem.output_shape[:-1])
    operands = [Memory.of(card, x) for x in (query, key)]
    output, lse = (Memory(card, FLOAT32.itemsize * int(np.prod(shape))) for shape in shapes)
    sinks = [] if sink is None else [Memory.of(card, all_sinks(sink, problem.lead))]
    places = [memory.address.value or 0 for memory in (*operands, operands[1], output, lse, *sinks)]
    run(kernels(launch.kind), launch, Addresses(*places))
    sweeps = CardSweeps(CardPairs(card, problem, places[0], places[1], places[4], (operands, lse)), kernels)
    source = CardSource(problem, query, key, sink=sink, elsewhere=sweeps, read_lse=lambda: lse.read(shapes[1], FLOAT32))
    return Weights(source, np.arange(problem.heads).reshape(problem.lead)), sweeps


def all_sinks(sink: Array, lead: tuple[int, ...]) -> Array:
    """A sink for each head, one after another."""
    return np.ascontiguousarray(np.broadcast_to(sink, lead), FLOAT32)
