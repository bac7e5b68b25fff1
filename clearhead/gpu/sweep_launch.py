"""Launches of a GPU's sweep over weights: which queries, keys and heads, and where the results go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from clearhead.arrays import Integers, ceil_div
from clearhead.definition.canonical import BLOCK
from clearhead.engine.problem import Problem
from clearhead.gpu.card_rules import CardRules, card_rules, first_position
from clearhead.gpu.driver import Card, Kernel, Memory
from clearhead.gpu.launch import SIZE, band, walked
from clearhead.gpu.tile import ROWS, THREADS
from clearhead.once import cached_property

EXACT = 1 << 24  # distances below this are whole numbers of float32


class Wanted(NamedTuple):
    """A selection of weights: heads by number, queries in any order, keys from begin to before end."""

    heads: Integers
    queries: Integers
    begin: int
    end: int


class Place(NamedTuple):
    """Where a result begins on a card, and the bytes from one head to the next."""

    address: int
    head: int


class SumOrder(NamedTuple):
    """The order of sums over queries that this computer's CPU has: how its tiles have them, and in which groups."""

    lanes: int
    vectors: int
    borders: Integers


class Heads(NamedTuple):
    """Heads that one launch computes: the first of them, their axes, and where and how their rows lie."""

    first: int  # its number
    at: int  # its number among the wanted
    sizes: tuple[int, int, int]  # batches, key heads, query heads that share one
    query: int  # bytes from the first number of all queries
    key: int
    query_steps: tuple[int, ...]  # bytes
    key_steps: tuple[int, ...]

    @property
    def number(self) -> int:
        """How many they are."""
        batches, key_heads, members = self.sizes
        return batches * key_heads * members


@dataclass(frozen=True, eq=False)
class CardPairs:
    """Queries and keys in a card's memory, and each query's LSE, (heads, queries) one after another."""

    card: Card
    problem: Problem
    query: int  # addresses
    key: int
    lse: int
    kept: Any = field(default=None, repr=False)  # what owns the memory

    @cached_property
    def rules(self) -> CardRules:
        """The problem's rules beyond its band."""
        return card_rules(self.problem)

    @cached_property
    def entries(self) -> tuple[tuple[int, ...], list[Memory]]:
        """The numbers of the rules, and the copies of their arrays, which are made once."""
        numbers, copies = self.rules.entries(self.card)
        if copies:
            self.card.finish(0)
        return numbers, copies

    def write_weights(self, kernel: Kernel, wanted: Wanted, target: Place, row: int, stream: int, *, raw: bool) -> None:
        """Write weights, or `raw` scores; `row` are the bytes from one query's to the next's."""
        for heads, first, index, count in self.pieces(wanted):
            numbers = target.head // SIZE, wanted.begin, wanted.end, index, row // SIZE, int(not raw)
            self.launch(kernel, heads, (first, count), (target,), numbers, stream)

    def write_numbers(
        self, kernel: Kernel, wanted: Wanted, targets: tuple[Place, Place, Place], near: int, top: int, stream: int
    ) -> None:
        """Write the NUMBERS (kinds, heads, queries) and lists of the `top` largest weights and their keys.

        Results begin at 0, keys at −1.
        """
        step = targets[0].head // SIZE
        for heads, first, index, count in self.pieces(wanted):
            offset = first + first_position(self.problem)
            numbers = step, wanted.begin, wanted.end, index, step * len(wanted.heads), offset, near, top
            self.launch(kernel, heads, (first, count), targets, numbers, stream)

    def write_picture(self, kernel: Kernel, wanted: Wanted, target: Place, size: tuple[int, int], stream: int) -> None:
        """Write the largest weight of each pixel, (heads, height, width), into zeros."""
        for heads, first, index, count in self.pieces(wanted):
            numbers = target.head // SIZE, wanted.begin, wanted.end, index, len(wanted.queries), *size
            self.launch(kernel, heads, (first, count), (target,), numbers, stream)

    def add_received(self, kernel: Kernel, wanted: Wanted, target: Place, order: SumOrder, stream: int) -> None:
        """Add what each key receives from each group of queries to (heads, groups, keys)."""
        keys = wanted.end - wanted.begin
        blocks = ceil_div(wanted.end, BLOCK) - wanted.begin // BLOCK
        for heads, first, index, count in self.pieces(wanted):
            for n, (start, stop) in enumerate(pairwise(order.borders.tolist())):
                begin, end = max(start, index), min(stop, index + count)
                if begin < end:
                    place = Place(target.address + SIZE * n * keys, target.head)
                    numbers = target.head // SIZE, wanted.begin, wanted.end, begin, order.lanes, order.vectors
                    rows = first + begin - index, end - begin
                    self.launch(kernel, heads, rows, (place,), numbers, stream, blocks)

    def add_pooled(
        self, kernel: Kernel, wanted: Wanted, target: Place, size: tuple[int, int], order: SumOrder, stream: int
    ) -> None:
        """Add the weights of each pixel to (heads, height, width)."""
        rows, height = len(wanted.queries), size[0]
        for heads, first, index, count in self.pieces(wanted):
            lines = holder(index + count - 1, height, rows) - holder(index, height, rows) + 1
            numbers = target.head // SIZE, wanted.begin, wanted.end, index, rows, *size, order.lanes, order.vectors
            self.launch(kernel, heads, (first, count), (target,), numbers, stream, lines)

    def launch(
        self,
        kernel: Kernel,
        heads: Heads,
        rows: tuple[int, int],
        targets: tuple[Place, ...],
        numbers: tuple[float, ...],
        stream: int,
        groups: int | None = None,
    ) -> None:
        """One launch, for neighbouring queries of some heads; `numbers` are a SweepCall's from `target_head` on.

        Each head has so many `groups`, by default one for each tile of queries.
        """
        problem, (first, count) = self.problem, rows
        addresses = (
            self.query + heads.query + first * problem.query.row,
            self.key + heads.key,
            self.lse + SIZE * (heads.first * problem.queries + first),
            *(place.address + heads.at * place.head for place in targets),
        )
        steps = [step // SIZE for step in (*heads.query_steps, problem.query.row, *heads.key_steps, problem.key.row)]
        _, key_heads, members = heads.sizes
        place = self.rules.place(heads.first, first)
        sizes = count, problem.keys, *band(problem, first, count), heads.number, key_heads, members
        scale, entries = np.float32(problem.scale).item(), self.entries[0]
        values = (*addresses, *place, *sizes, scale, *steps, problem.queries, *numbers, *entries)
        kernel.launch((groups or ceil_div(count, ROWS)) * heads.number, THREADS, values, stream)

    def pieces(self, wanted: Wanted) -> Iterator[tuple[Heads, int, int, int]]:
        """What one launch can compute: heads, the first query and its place among the wanted, how many queries."""
        queries = wanted.queries
        if not len(queries) or wanted.begin >= wanted.end:
            return
        cuts = [0, *(np.flatnonzero(np.diff(queries) != 1) + 1).tolist(), len(queries)]
        for heads in self.alike(wanted.heads):
            for index, stop in pairwise(cuts):
                yield heads, int(queries[index]), index, stop - index

    def alike(self, numbers: Integers) -> Iterator[Heads]:
        """All heads in as few launches as their strides allow; each of some heads by itself."""
        walk = walked(self.problem)
        *outer, batches, key_heads, members = walk.sizes
        inner = batches * key_heads * members
        if np.array_equal(numbers, np.arange(self.problem.heads)):
            for n, index in enumerate(np.ndindex(*outer)):
                query, key = (sum(i * step for i, step in zip(index, x, strict=False)) for x in walk.steps[:2])
                steps = tuple(walk.steps[0][-3:]), tuple(walk.steps[1][-3:])
                yield Heads(n * inner, n * inner, (batches, key_heads, members), query, key, *steps)
            return
        for at, number in enumerate(numbers.tolist()):
            place = np.unravel_index(number, tuple(walk.sizes))
            query, key = (sum(int(i) * step for i, step in zip(place, x, strict=True)) for x in walk.steps[:2])
            yield Heads(number, at, (1, 1, 1), query, key, (0, 0, 0), (0, 0, 0))


def holder(item: int, bins: int, items: int) -> int:
    """Which of even bins holds an item.

    >>> [holder(item, 2, 5) for item in range(5)]
    [0, 0, 1, 1, 1]
    """
    return ((item + 1) * bins - 1) // items
