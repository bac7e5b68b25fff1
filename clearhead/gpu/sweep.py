"""The sweep over weights on a GPU: each α = exp(score − LSE) computed anew, and what becomes of it.

A group of threads walks the blocks of 64 queries as the forward kernel does, with the same `scores`. It knows each
query's LSE, so that weights need no maximum, and it sums no values. Three kernels hand the weights on: to an array, to
numbers of each query, or to a picture; `query_sums` has two more. Sums have the order of
`kernels.parts.weight_reductions`: they begin anew in each block, ascend, and are added up block by block.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from clearhead.definition.canonical import BLOCK
from clearhead.gpu.call import SweepCall
from clearhead.gpu.scores import TileScores
from clearhead.gpu.thread import Thread, wide
from clearhead.gpu.tile import HALF, ROWS, THREADS, CardTile
from clearhead.gpu.tile_rules import Shown
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.math import constants, exp
from clearhead.kernels.ir.values import Int, Truth, Value, Vector, constant, fma, i1, larger, least, most

SUMS = ("entropy", "distance", "within")  # over a query's keys, in this order
LARGEST = ("first", "off_first")  # the first key's weight, and the largest of the others
NUMBERS = (*SUMS, *LARGEST)


def write_weights(f: Thread[SweepCall], tile: CardTile, variant: Variant) -> str:
    """The IR of the kernel that writes weights, or scores, as (heads, queries, keys)."""
    Matrix(f, tile, variant).write()
    return f.write()


def write_numbers(f: Thread[SweepCall], tile: CardTile, variant: Variant) -> str:
    """The IR of the kernel that writes NUMBERS, (kinds, heads, queries), and each query's largest weights."""
    Numbers(f, tile, variant).write()
    return f.write()


def write_picture(f: Thread[SweepCall], tile: CardTile, variant: Variant) -> str:
    """The IR of the kernel that writes the largest weight of each pixel, (heads, height, width)."""
    Picture(f, tile, variant).write()
    return f.write()


class Sweep(TileScores[SweepCall]):
    """What all kernels share: the tile's queries, their LSEs, and its blocks."""

    def place_threads(self) -> None:
        """What this thread computes besides its scores: weights of the query `own`, of half the keys."""
        f = self.f
        super().place_threads()
        self.own, self.half = f.thread % ROWS, f.thread // ROWS
        self.own_scores = self.scores + self.own * self.score_stride
        self.exists = self.first + self.own < self.a.queries

    def write(self) -> None:
        """The blocks that a query sees and somebody wants, in ascending order."""
        f, a = self.f, self.a
        self.load_lse()
        self.stage_queries()
        self.until = least(self.stop, a.end)
        start = most(self.begin, a.begin & -BLOCK)
        self.finish(f.loop(start, self.until, BLOCK, self.block, self.nothing()))

    def load_lse(self) -> None:
        """The LSE of the thread's query, ∞ (nearly) if that sees nothing."""
        f, a = self.f, self.a
        last = least(self.first + self.own, a.queries - 1)
        lse = f.load(a.lse + (wide(self.head) * a.lse_head + wide(last)))
        self.lse = (lse == -math.inf).choose(f.constant(-f.element.lowest), lse)

    def nothing(self) -> list[Vector]:
        """What a thread carries from block to block, before the first."""
        return []

    def seen_block(self, start: Int, shown: Shown | None, carried: list[Vector]) -> list[Vector]:
        """A block's scores, then what becomes of them."""
        self.write_scores(start)
        self.f.barrier()
        if self.ruled:
            self.rules.apply(start, self.band(start), shown)
            self.f.barrier()
        return self.use(start, carried)

    def use(self, start: Int, carried: list[Vector]) -> list[Vector]:
        """What becomes of the scores of a block, which all threads see."""
        raise NotImplementedError

    def finish(self, carried: list[Vector]) -> None:
        """What is left when all blocks are done."""

    def weight(self, score: Vector) -> Vector:
        """α of the thread's query; hidden pairs weigh 0 even in a row that is not a number."""
        return (score != -math.inf).choose(exp(self.f, score - self.lse), self.f.constant(0.0))

    def write_half(self) -> None:
        """α in place of S, by all threads: half the keys of a query each."""
        f, at = self.f, self.own_scores + self.half * HALF
        for j in f.range(0, HALF, 4):
            f.store_four([self.weight(score) for score in f.load_four(at + j)], at + j)
        f.barrier()

    def wanted(self, start: Int) -> tuple[Int, Int]:
        """From which to before which key of a block anybody wants weights."""
        return most(self.a.begin - start, 0), least(self.until - start, BLOCK)

    @property
    def rows(self) -> Int:
        """How many of the tile's queries exist."""
        return least(self.a.queries - self.first, ROWS)


class Matrix(Sweep):
    """Weights or scores as an array: a warp writes a query's keys side by side."""

    def use(self, start: Int, carried: list[Vector]) -> list[Vector]:
        """The block's numbers, to their rows."""
        f, a = self.f, self.a
        with f.when(a.weighed == 1):
            self.write_half()
        lane, warp = f.thread % 32, f.thread // 32
        begin, stop = self.wanted(start)
        head = a.target + wide(self.head) * a.target_head
        for r in f.range(warp, self.rows, THREADS // 32):
            row = head + (wide(self.first + r + a.place) * a.target_row + wide(start - a.begin))
            for j in f.range(begin + lane, stop, 32):
                f.store(f.load(self.scores + (r * self.score_stride + j)), row + j)
        return carried


class Numbers(Sweep):
    """Numbers of each query: one thread sums its weights, another one looks for the largest."""

    def nothing(self) -> list[Vector]:
        """Sums, the first key's weight, the largest of the others, and the smallest of a full list."""
        f, zero = self.f, self.zero
        listing = self.exists & (self.a.top > 0)
        return [zero] * len(NUMBERS) + [listing.choose(zero, f.constant(math.inf))]

    def use(self, start: Int, carried: list[Vector]) -> list[Vector]:
        """The block's sums by the first half of the threads, then its largest by the others."""
        f, count = self.f, len(SUMS)
        sums = f.values_if(self.half == 0, lambda: self.add(start, carried[:count]), carried[:count])
        f.barrier()
        return [*sums, *f.values_if(self.half == 1, lambda: self.find(start, *carried[count:]), carried[count:])]

    def add(self, start: Int, totals: list[Vector]) -> list[Vector]:
        """α in place of S, and its sums over the block on top of those before it."""
        f, floor = self.f, self.f.constant(constants(self.f).exp_floor)
        place = rounded(f, self.first + self.own + self.a.offset - start)

        def four_keys(j: Int, carried: list[Vector]) -> list[Vector]:
            index, entropy, distance, within = carried
            weights = []
            for score in f.load_four(self.own_scores + j):
                weight, far = self.weight(score), (place - index).size()
                entropy = fma(weight, larger(score - self.lse, floor), entropy)
                distance = fma(weight, far, distance)
                within = within + (far < self.a.near).choose(weight, self.zero)
                index = index + 1.0
                weights.append(weight)
            f.store_four(weights, self.own_scores + j)
            return [index, entropy, distance, within]

        sums = f.loop(0, BLOCK, 4, four_keys, [self.zero] * (1 + len(SUMS)))[1:]
        return [x + total for x, total in zip(sums, totals, strict=True)]

    def find(self, start: Int, first: Vector, off_first: Vector, smallest: Vector) -> list[Vector]:
        """The largest weight, but for the first key's; and the list with what enters it."""
        f = self.f
        first = (start == 0).choose(f.load(self.own_scores), first)

        def four_keys(j: Int, carried: list[Vector]) -> list[Vector]:
            largest, smallest = carried
            for n, weight in enumerate(f.load_four(self.own_scores + j)):
                key = start + (j + n)
                largest = larger((key == 0).choose(self.zero, weight), largest)
                smallest = f.values_if(weight > smallest, self.entering(weight, key), [smallest], rarely=True)[0]
            return [largest, smallest]

        return [first, *f.loop(0, BLOCK, 4, four_keys, [off_first, smallest])]

    def entering(self, weight: Vector, key: Int) -> Callable[[], list[Vector]]:
        """What enters a weight into the query's list, which falls; of equal weights the first stays."""

        def enter() -> list[Vector]:
            f, a = self.f, self.a
            row = wide(self.head) * a.target_head + wide(self.first + self.own + a.place)
            weights, keys = a.top_weights + row * wide(a.top), a.top_keys + row * wide(a.top) * 2

            def rank(r: Int, carried: list[Any]) -> list[Any]:
                """Down the list: what is larger takes its place, and what stood there moves on."""
                value, number, moved = carried
                at, at_key = weights + r, keys + r * 2
                before, key_before = f.load(at), Int(f.build, f.read(at_key, number.ir.type, 8))
                moved = moved | (value > before)
                f.store(moved.choose(value, before), at)
                f.store(moved.choose(number, key_before), at_key, 8)
                return [moved.choose(before, value), moved.choose(key_before, number), moved]

            never = Truth(f.build, constant(i1, 0))
            carried: list[Value] = [weight, wide(key), never]
            f.loop(0, a.top, 1, rank, carried)
            return [f.load(weights + (a.top - 1))]

        return enter

    def finish(self, carried: list[Vector]) -> None:
        """Each number to its place."""
        f, a = self.f, self.a
        *numbers, _ = carried
        numbers[0] = 0.0 - numbers[0]  # what was summed is Σ α·log α
        place = a.target + (wide(self.head) * a.target_head + wide(self.first + self.own + a.place))
        for half, kinds in enumerate((SUMS, LARGEST)):
            with f.when(self.exists & (self.half == half)):
                for name in kinds:
                    number = NUMBERS.index(name)
                    f.store(numbers[number], place + a.target_kind * number)


class Picture(Sweep):
    """The largest weight of each pixel; maxima are taken in any order, by all groups that share a pixel."""

    def use(self, start: Int, carried: list[Vector]) -> list[Vector]:
        """The pixels that lie in the block's rectangle, wholly or in part: each by one thread."""
        f, a = self.f, self.a
        self.write_half()
        begin, stop = self.wanted(start)
        lines = Bins(self.first + a.place, self.rows, a.height, a.rows)
        columns = Bins(start + begin - a.begin, stop - begin, a.width, a.end - a.begin)
        picture = a.target + wide(self.head) * a.target_head
        across = columns.count
        for pixel in f.range(f.thread, lines.count * across, THREADS):
            line, column = lines.first + pixel // across, columns.first + pixel % across

            def row(r: Int, largest: list[Vector], column: Int = column) -> list[Vector]:
                at = self.scores + (r * self.score_stride + begin)

                def key(j: Int, largest: list[Vector]) -> list[Vector]:
                    return [larger(f.load(at + j), largest[0])]

                return f.loop(*columns.part(column), 1, key, largest)

            (largest,) = f.loop(*lines.part(line), 1, row, [self.zero])
            with f.when(largest > 0.0):
                f.raise_to(largest, picture + (wide(line) * wide(a.width) + wide(column)))
        return carried


class Bins:
    """Which of `bins` even bins of `items` hold `count` neighbouring ones: bin j begins with item ⌊j·items/bins⌋."""

    def __init__(self, start: Int, count: Int, bins: Int, items: Int) -> None:
        self.start, self.size, self.bins, self.items = start, count, bins, items
        self.first = self.holder(start)
        self.count = self.holder(start + (count - 1)) - self.first + 1

    def holder(self, item: Int) -> Int:
        """The bin that holds an item."""
        return narrow((wide(item + 1) * wide(self.bins) - 1) // wide(self.items), item)

    def part(self, number: Int) -> tuple[Int, Int]:
        """From which to before which of the neighbouring items a bin reaches, counted from the first of them."""
        first, stop = (narrow(wide(n) * wide(self.items) // wide(self.bins), n) for n in (number, number + 1))
        return most(first - self.start, 0), least(stop - self.start, self.size)


def narrow(x: Int, like: Int) -> Int:
    """A number of 64 bits in 32 again."""
    return like.new(x.resized(32).ir)


def rounded(f: Thread[Any], x: Int) -> Vector:
    """A whole number as a float."""
    return Vector(f.build, f.build.sitofp(x.ir, f.vector))
