"""The scalar program on a GPU: a group of threads computes 64 queries of one head, block by block of keys.

Each number of a row has the operations and the order that `canonical` gives it; threads only share them out.
- Scores: those of `scores`, 8 queries × 8 keys a thread, and the largest of them for each query.
- Weights: two threads a query, one for each half of a block's keys. The sum of weights goes from the first to the
  second, so that it is one ascending chain; meanwhile values arrive.
- Values: a thread sums some dims of some queries, each in one ascending chain over keys.
The sum over finished segments lies in the output, where no two threads touch the same number. A sink joins at the end,
as one more score without a value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial, reduce

from clearhead.definition.canonical import BLOCK, SEGMENT
from clearhead.gpu.call import Call
from clearhead.gpu.scores import TileScores
from clearhead.gpu.staging import GlobalRows, Target, stage
from clearhead.gpu.thread import Floats, Thread, highest, wide
from clearhead.gpu.tile import HALF, HALVES, MAXIMA, ROWS, THREADS, CardTile
from clearhead.gpu.tile_rules import Shown
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.math import exp, log
from clearhead.kernels.ir.values import Int, Truth, Vector, fma, least, most
from clearhead.kernels.parts.merge import join_maxima


def write(f: Thread[Call], tile: CardTile, variant: Variant) -> str:
    """The kernel's IR."""
    Attention(f, tile, variant).write()
    return f.write()


class Attention(TileScores[Call]):
    """The kernel: scores, weights and values of all blocks that the tile's queries see."""

    maxima_wanted = True

    def place_operands(self) -> None:
        """The head's rows in global memory."""
        super().place_operands()
        a = self.a
        self.value, self.output = self.rows_of(a.value, a.value_strides), self.rows_of(a.output, a.output_strides)

    def place_threads(self) -> None:
        """What this thread computes besides its scores."""
        f, tile = self.f, self.tile
        super().place_threads()
        # Weights of the query `own`, first or second half of the keys
        self.own, self.second = f.thread % ROWS, f.thread // ROWS == 1
        self.own_scores = self.scores + (self.own * self.score_stride + f.thread // ROWS * HALF)
        # Values of the queries apart·r + value_row: four dims from `dim` on, and `quads` times, `next_quad` apart
        across = 16 if tile.dim == 128 else 8
        self.value_rows = ROWS * across // THREADS
        self.quads, self.next_quad = tile.dim // (4 * across), 4 * across
        self.apart, self.outputs = ROWS // self.value_rows, self.value_rows * 4 * self.quads
        self.value_row, self.dim = f.thread // across, f.thread % across * 4
        self.weights_of_rows = self.scores + self.value_row * self.score_stride

    def write(self) -> None:
        """All keys in segments, then the division."""
        f, a = self.f, self.a
        self.kept = f.local(self.outputs)
        # A zero of which LLVM does not know: else it would keep these sums in registers, which scores want.
        self.unknown = a.members.logical_right(31)
        self.stage_queries()
        self.start = self.begin & -SEGMENT if self.windowed else f.index(0)
        with f.when(self.stop < self.start + 1 if self.windowed else self.stop < 1):
            for _, at in self.output_rows():
                self.store_row(at, [self.zero] * 4 * self.quads)
        m, l = f.loop(self.start, self.stop, SEGMENT, self.segment, [f.constant(f.element.lowest), self.zero])
        with f.when(self.second):
            if a.sink is None:
                f.store((l == 0.0).choose(self.zero, 1.0 / l), self.alphas + self.own)
            else:
                m, factor, joining = join_maxima(f, m, self.sink())
                l = fma(l, factor, joining)
                f.store(factor * (l == 0.0).choose(self.zero, 1.0 / l), self.alphas + self.own)
            query = self.first + self.own
            with f.when(query < a.queries):
                f.store(m + log(f, l), a.lse + (wide(self.head) * wide(a.queries) + wide(query)))
        f.barrier()
        for r, at in self.output_rows():
            inverse = self.factor(self.alphas, r)
            self.store_row(at, [fma(x, inverse, self.zero) for x in self.load_row(at)])

    def sink(self) -> Vector:
        """The head's sink; without one, −∞, which changes nothing."""
        f, a = self.f, self.a
        return f.values_if(a.sink.given(), lambda: [f.load(a.sink + wide(self.head))], [f.constant(-math.inf)])[0]

    # A segment: its sums begin anew, and join the total

    def segment(self, start: Int, total: list[Vector]) -> list[Vector]:
        """The blocks of a segment, and the merge; carries the total's maximum and sum of weights."""
        f = self.f
        self.keep([self.zero] * self.outputs)
        stop = least(self.stop, start + SEGMENT)
        first = most(start, self.begin) if self.windowed else start
        m, l = f.loop(first, stop, BLOCK, self.block, [f.constant(f.element.lowest), self.zero])
        sums = self.kept_sums()
        top, a, b = join_maxima(f, total[0], m)
        with f.either(self.is_first(start)) as (then, otherwise):
            with then:
                for r, at in self.output_rows():
                    self.store_row(at, self.of_row(sums, r))
            with otherwise:
                with f.when(~self.second):
                    f.store(a, self.alphas + self.own)
                    f.store(b, self.betas + self.own)
                f.barrier()
                for r, at in self.output_rows():
                    before, part = self.factor(self.alphas, r), self.factor(self.betas, r)
                    pairs = zip(self.load_row(at), self.of_row(sums, r), strict=True)
                    self.store_row(at, [fma(whole, before, x * part) for whole, x in pairs])
                f.barrier()
        return [top, self.is_first(start).choose(l, fma(total[1], a, l * b))]

    def is_first(self, start: Int) -> Truth:
        """Whether a segment is the first that any query sees."""
        return start == (self.start if self.windowed else 0)

    def seen_block(self, start: Int, shown: Shown | None, state: list[Vector]) -> list[Vector]:
        """A block of keys on top of the segment's maximum and sum of weights."""
        f = self.f
        m, l = state
        self.write_scores(start)
        f.barrier()
        if self.ruled:
            own = self.maxima + (self.own * self.maxima_stride + f.thread // ROWS)
            f.store(self.rules.apply(start, self.band(start), shown), own)
            f.barrier()
        self.stage_values(start, 0)
        top, alpha = self.write_weights(m, shown)
        f.arrived()
        f.barrier()
        (total,) = f.values_if(self.second, self.finished_sum, [self.zero])
        l = fma(l, alpha, total)
        sums = [self.zero] * self.outputs
        for part in range(self.tile.value_parts):
            if part:
                f.barrier()
                self.stage_values(start, part)
                f.arrived()
                f.barrier()
            sums = self.add_values(start, part, shown, sums)
        before = self.kept_sums()
        for r in range(self.value_rows):
            factor = self.factor(self.alphas, r)
            for x in self.numbers_of_row(r):
                sums[x] = fma(before[x], factor, sums[x])
        self.keep(sums)
        f.barrier()
        return [top, l]

    # Weights

    def write_weights(self, m: Vector, shown: Shown | None) -> tuple[Vector, Vector]:
        """P = exp(S − m) in place of S for this thread's keys; the new maximum, and what sums so far are worth.

        What a mask hides weighs −0, by which its value will be known: a sum does not notice.
        """
        f = self.f
        maxima = self.maxima + self.own * self.maxima_stride
        if self.ruled:
            parts = [f.load(maxima + n) for n in range(HALVES)]
        else:
            parts = [x for n in range(0, MAXIMA, 4) for x in f.load_four(maxima + n)]
        top = reduce(highest, parts, m)
        alpha = exp(f, m - top)

        def four_keys(j: Int, carried: list[Vector]) -> list[Vector]:
            total, *scores = carried
            following = f.load_four(self.own_scores + j + 4)
            weights = [exp(f, score - top) for score in scores]
            if shown is not None:
                seen = [self.rules.seen(shown, j + n) for n in range(4)]
                weights = [here.choose(x, f.constant(-0.0)) for here, x in zip(seen, weights, strict=True)]
            f.store_four(weights, self.own_scores + j)
            return [sum(weights, total), *following]

        total = f.loop(0, HALF, 4, four_keys, [self.zero, *f.load_four(self.own_scores)])[0]
        with f.when(~self.second):
            f.store(total, self.sums + self.own)
            f.store(alpha, self.alphas + self.own)
        return top, alpha

    def finished_sum(self) -> list[Vector]:
        """The first half's sum with the second half's weights added one by one."""
        f = self.f

        def four_keys(j: Int, total: list[Vector]) -> list[Vector]:
            return [sum(f.load_four(self.own_scores + j), total[0])]

        return f.loop(0, HALF, 4, four_keys, [f.load(self.sums + self.own)])

    # Values

    def add_values(self, start: Int, part: int, shown: Shown | None, sums: list[Vector]) -> list[Vector]:
        """The weighted values of one part of a block's keys on top of the sums."""
        f, count = self.f, self.tile.value_keys
        first, weights_at = start + part * count, self.weights_of_rows + part * count
        stop = least(self.stop - first, count)
        whole = least(most(self.all_see - first, 0), count) & -8  # all queries see these keys
        if self.windowed:
            whole = (self.all_from > first).choose(self.f.index(0), whole)
        if shown is not None:
            whole = shown.everything.choose(whole, self.f.index(0))
        operands = [*self.row_weights(weights_at), *self.values(f.index(0))]
        sums = f.loop(0, whole, 8, partial(self.eight_keys, weights_at), [*sums, *operands])[: self.outputs]
        return f.loop(whole, stop, 4, partial(self.four_edge_keys, weights_at, first), sums)

    def eight_keys(self, weights_at: Floats, j: Int, carried: list[Vector]) -> list[Vector]:
        """Eight keys' weighted values; each value is loaded while the one before it is multiplied.

        What is loaded behind the last key is within shared memory, and nobody uses it.
        """
        count, width = self.outputs, 4 * self.value_rows
        sums, weights, values = list(carried[:count]), carried[count : count + width], carried[count + width :]
        for step in (j, j + 4):
            for i in range(4):
                following = self.values(step + (i + 1))
                later = self.row_weights(weights_at + (step + 4)) if i == 3 else weights
                for r in range(self.value_rows):
                    for x, value in zip(self.numbers_of_row(r), values, strict=True):
                        sums[x] = fma(value, weights[4 * r + i], sums[x])
                weights, values = later, following
        return [*sums, *weights, *values]

    def four_edge_keys(self, weights_at: Floats, first: Int, j: Int, sums: list[Vector]) -> list[Vector]:
        """Four keys at the edge: hidden values are not even multiplied by 0."""
        weights = self.row_weights(weights_at + j)
        for i in range(4):
            values, rows = self.values(j + i), []
            for r in range(self.value_rows):
                before = self.of_row(sums, r)
                added = partial(self.added, weights[4 * r + i], values, before)
                rows += self.f.values_if(self.adds(weights[4 * r + i], first + (j + i), r), added, before)
            sums = rows
        return sums

    def adds(self, weight: Vector, key: Int, r: int) -> Truth:
        """Whether one of the thread's rows sees a key."""
        if self.mask is not None:
            return weight.bits() != self.f.constant(-0.0).bits()
        return self.seen(key, self.value_row + self.apart * r)

    @staticmethod
    def added(weight: Vector, values: list[Vector], sums: list[Vector]) -> list[Vector]:
        """Sums with one key's weighted values."""
        return [fma(value, weight, x) for value, x in zip(values, sums, strict=True)]

    def row_weights(self, at: Floats) -> list[Vector]:
        """Four keys' weights for each of the thread's rows."""
        return [x for r in range(self.value_rows) for x in self.f.load_four(at + self.apart * r * self.score_stride)]

    def values(self, j: Int) -> list[Vector]:
        """This thread's dims of the j-th value in shared memory."""
        at = self.buffer + self.dim + j * self.row_stride
        return [x for quad in range(self.quads) for x in self.f.load_four(at + quad * self.next_quad)]

    # Rows of sums: those of a segment wait in memory of the thread's own while scores are computed

    def numbers_of_row(self, r: int) -> range:
        """Where a row's sums are among the thread's."""
        width = 4 * self.quads
        return range(r * width, (r + 1) * width)

    def of_row(self, sums: list[Vector], r: int) -> list[Vector]:
        """The sums of one row."""
        return [sums[x] for x in self.numbers_of_row(r)]

    def keep(self, sums: list[Vector]) -> None:
        """Put the segment's sums away."""
        for x, value in enumerate(sums):
            self.f.store(value, self.kept + (self.unknown + x))

    def kept_sums(self) -> list[Vector]:
        """The segment's sums."""
        return [self.f.load(self.kept + (self.unknown + x)) for x in range(self.outputs)]

    def factor(self, factors: Floats, r: int) -> Vector:
        """What the sums of one of the thread's rows are multiplied by."""
        return self.f.load(factors + self.value_row + self.apart * r)

    def output_rows(self) -> Iterator[tuple[int, Floats]]:
        """The thread's rows that exist, and where its first numbers of them go; a body is written for each."""
        f, a = self.f, self.a
        for r in range(self.value_rows):
            query = self.first + self.value_row + self.apart * r
            with f.when(query < a.queries):
                yield r, self.output + a.output_strides.row * wide(query) + self.dim

    def load_row(self, at: Floats) -> list[Vector]:
        """A row's numbers in the output."""
        return [x for quad in range(self.quads) for x in self.f.load_four(at + quad * self.next_quad)]

    def store_row(self, at: Floats, numbers: list[Vector]) -> None:
        """Write a row's numbers to the output."""
        for quad in range(self.quads):
            self.f.store_four(numbers[4 * quad : 4 * quad + 4], at + quad * self.next_quad)

    # From global to shared memory

    def stage_values(self, start: Int, part: int) -> None:
        """The values of some of a block's keys."""
        a, count = self.a, self.tile.value_keys
        rows = GlobalRows(self.value, a.value_strides.row, start + part * count, a.keys - 1)
        stage(self.f, rows, count, range(self.tile.dim), Target(self.buffer, self.row_stride), self.f.copy_four)
