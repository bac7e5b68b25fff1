"""Score rules and masks in a GPU's tile: a pass over the scores of a block, in place, as the CPU's kernels have it.

A thread has one query and half of a block's keys. It asks the mask before any score is computed, so that a block that
nobody sees is left out; then it changes its scores, and hides those that are not seen.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import Any, NamedTuple

from clearhead.gpu.thread import Floats, Thread, highest, wide
from clearhead.gpu.tile import HALF, ROWS
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.expressions import EmittedRule, Positions
from clearhead.kernels.ir.values import Int, Lanes, Truth, Vector
from clearhead.rules.expression import Expression


class Band(NamedTuple):
    """A query of the tile, by its number there, sees at most the keys of a block from `start` to below `stop`."""

    query: Int
    start: Int
    stop: Int


class Shown(NamedTuple):
    """What a mask shows of a block."""

    pairs: Int  # a bit for each of the thread's keys
    some: Truth  # whether anybody sees anything
    everything: Truth


class TileRules:
    """The rules of a kernel that is being written into `f`, for the tile that begins with the query `first`."""

    def __init__(self, f: Thread[Any], variant: Variant, first: Int, head: Int, scores: Floats, stride: int) -> None:
        self.f, self.variant, self.first, self.head = f, variant, first, head
        self.scores, self.stride = scores, stride

    @property
    def place(self) -> tuple[Int, Int]:
        """The thread's query, counted in the tile, and its first key, counted in a block."""
        return self.f.thread % ROWS, self.f.thread // ROWS * HALF

    def look(self, mask: Expression, start: Int, band: Band) -> Shown:
        """Which pairs of the block from `start` on are seen; all threads get to know whether any is, or every one."""
        f, (_, first) = self.f, self.place
        rule, lanes = self.written(mask, band.query)

        def key(j: Int, pairs: list[Int]) -> list[Int]:
            seen = rule.seen(lanes, self.at(rule, start + (first + j))) & in_band(band, first + j)
            return [pairs[0] | seen.number() << wide(j)]

        (pairs,) = f.loop(0, HALF, 1, key, [f.i64(0)])
        return Shown(pairs, f.in_any_thread(pairs != 0), ~f.in_any_thread(pairs != -1))

    def apply(self, start: Int, band: Band, shown: Shown | None) -> Vector:
        """What rules make of the thread's scores, −∞ where they are not seen, in place; the largest of them."""
        f, (own, first) = self.f, self.place
        at = self.scores + (own * self.stride + first)
        change = None if self.variant.score is None else self.written(self.variant.score, band.query)

        def four_keys(j: Int, top: list[Vector]) -> list[Vector]:
            numbers = []
            for n, score in enumerate(f.load_four(at + j)):
                if change is not None:
                    rule, lanes = change
                    score = rule.score(lanes, self.at(rule, start + (first + (j + n))), score)
                seen = in_band(band, first + (j + n)) if shown is None else self.seen(shown, j + n)
                numbers.append(seen.choose(score, f.constant(-math.inf)))
            f.store_four(numbers, at + j)
            return [reduce(highest, numbers, top[0])]

        return f.loop(0, HALF, 4, four_keys, [f.constant(-math.inf)])[0]

    @staticmethod
    def seen(shown: Shown, j: Int) -> Truth:
        """Whether the j-th of the thread's keys is seen."""
        return shown.pairs.logical_right(wide(j)) & 1 != 0

    def written(self, expression: Expression, query: Int) -> tuple[EmittedRule, Positions]:
        """An expression for a query of the tile, with all that depends on nothing but this."""
        f, a = self.f, self.f.arguments
        number = self.head + a.number
        fixed = {"batch": wide(number // a.siblings), "head": wide(number % a.siblings)}
        rule = EmittedRule(f, expression, self.variant, f.entries, fixed, ("query", "row"))
        row = query + (self.first + a.row)
        return rule, rule.lanes(row=lane(row), query=lane(row + a.shift))

    def at(self, rule: EmittedRule, key: Int) -> Positions:
        """Where a key stands."""
        return Positions({"key": lane(key).resized(rule.numbers.width, signed=True)})


def in_band(band: Band, key: Int) -> Truth:
    """Whether a key of the block is within the band."""
    return (key < band.stop) & (band.start <= key)


def lane(x: Int) -> Lanes:
    """A whole number as the one lane of a thread."""
    return Lanes(x.build, x.ir)
