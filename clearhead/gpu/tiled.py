"""The scalar program on a GPU: a group of threads computes 64 queries of one head, block by block of keys.

Each number of a row has the operations and the order that `canonical` gives it; threads only share them out.
- Scores: a thread sums 8 queries × 8 keys, each in two chains, over even and over odd dims.
- Weights: two threads a query, one for each half of a block's keys. The sum of weights goes from the first to the
  second, so that it is one ascending chain; meanwhile values arrive.
- Values: a thread sums some dims of some queries, each in one ascending chain over keys.
The sum over finished segments lies in the output, where no two threads touch the same number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial, reduce
from typing import NamedTuple

from clearhead.definition.canonical import BLOCK, SEGMENT
from clearhead.gpu.call import Call, Strides
from clearhead.gpu.thread import Floats, Thread, highest, wide
from clearhead.gpu.tile import GROUPS, MAXIMA, PAD, ROWS, THREADS, CardTile
from clearhead.kernels.ir.math import exp, log
from clearhead.kernels.ir.values import Int, Vector, fma, least, most
from clearhead.kernels.parts.merge import join_maxima

SIDE = 8  # a thread's scores are SIDE queries by SIDE keys
STRIPE = 32  # dims that eight threads copy together
HALF = BLOCK // 2  # keys whose weights a thread computes


class GlobalRows(NamedTuple):
    """Rows of a matrix in global memory, from the first one on."""

    base: Floats
    stride: Int
    first: Int
    last: Int


def write(f: Thread[Call], tile: CardTile) -> str:
    """The kernel's IR."""
    Attention(f, tile).write()
    return f.write()


def new_thread(tile: CardTile) -> Thread[Call]:
    """A thread to write a tile's kernel for."""
    return Thread(tile.name, Call, THREADS, GROUPS)


class Attention:
    """The kernel being written into `f`: what its parts share."""

    def __init__(self, f: Thread[Call], tile: CardTile) -> None:
        a = f.arguments
        self.f, self.tile = f, tile
        self.key_stride, self.row_stride = tile.key_dims + PAD, tile.dim + PAD  # in shared memory
        self.score_stride, self.maxima_stride = BLOCK + PAD, MAXIMA + PAD
        # The groups with most keys begin first, in all heads.
        tiles = (a.queries + (ROWS - 1)) // ROWS
        self.first = (tiles - 1 - f.group // a.heads) * ROWS
        self.head = f.group % a.heads
        self.stop = self.seen_by(least(self.first + (ROWS - 1), a.queries - 1) - self.first)
        self.all_see = self.seen_by(f.index(0))
        self.place_operands()
        self.place_threads()
        self.zero = f.constant(0.0)

    def place_operands(self) -> None:
        """The head's rows in global memory, and the regions of shared memory."""
        f, a = self.f, self.f.arguments
        member, key_head = self.head % a.members, self.head // a.members
        batch, head = key_head // a.key_heads, key_head % a.key_heads

        def rows(base: Floats, strides: Strides) -> Floats:
            numbers = zip(strides[:3], (batch, head, member), strict=True)
            for stride, number in numbers:
                base = base + stride * wide(number)
            return base

        self.query, self.key = rows(a.query, a.query_strides), rows(a.key, a.key_strides)
        self.value, self.output = rows(a.value, a.value_strides), rows(a.output, a.output_strides)
        *regions, _ = (f.shared + place for place in self.tile.places)
        self.queries, self.buffer, self.scores, self.maxima, self.sums, self.alphas, self.betas = regions

    def place_threads(self) -> None:
        """What this thread computes."""
        f, tile = self.f, self.tile
        lane, warp = f.thread % 32, f.thread // 32
        # Scores of the queries SIDE·r + row and the keys 2·SIDE·c + column
        self.row = warp % 2 * 4 + lane // 8
        self.column = warp // 2 * 8 + lane % 8
        # Weights of the query `own`, first or second half of the keys
        self.own, self.second = f.thread % ROWS, f.thread // ROWS == 1
        self.own_scores = self.scores + (self.own * self.score_stride + f.thread // ROWS * HALF)
        # Values of the queries apart·r + value_row, from dim 4·dim on, and so many threads on, `quads` times
        across = 16 if tile.dim == 128 else 8
        self.value_rows = ROWS * across // THREADS
        self.quads, self.next_quad = tile.dim // (4 * across), 4 * across
        self.apart, self.outputs = ROWS // self.value_rows, self.value_rows * 4 * self.quads
        self.value_row, self.dim = f.thread // across, f.thread % across * 4
        self.weights_of_rows = self.scores + self.value_row * self.score_stride

    def write(self) -> None:
        """All keys in segments, then the division."""
        f, a = self.f, self.f.arguments
        self.kept = f.local(self.outputs)
        # A zero of which LLVM does not know: else it would keep these sums in registers, which scores want.
        self.unknown = a.members.logical_right(31)
        self.stage_queries()
        with f.when(self.stop < 1):
            for _, at in self.output_rows():
                self.store_row(at, [self.zero] * 4 * self.quads)
        m, l = f.loop(0, self.stop, SEGMENT, self.segment, [f.constant(f.element.lowest), self.zero])
        with f.when(self.second):
            f.store((l == 0.0).choose(self.zero, 1.0 / l), self.alphas + self.own)
            query = self.first + self.own
            with f.when(query < a.queries):
                f.store(m + log(f, l), a.lse + (wide(self.head) * wide(a.queries) + wide(query)))
        f.barrier()
        for r, at in self.output_rows():
            inverse = self.factor(self.alphas, r)
            self.store_row(at, [fma(x, inverse, self.zero) for x in self.load_row(at)])

    # A segment: its sums begin anew, and join the total

    def segment(self, start: Int, total: list[Vector]) -> list[Vector]:
        """The blocks of a segment, and the merge; carries the total's maximum and sum of weights."""
        f = self.f
        self.keep([self.zero] * self.outputs)
        stop = least(self.stop, start + SEGMENT)
        m, l = f.loop(start, stop, BLOCK, self.block, [f.constant(f.element.lowest), self.zero])
        sums = self.kept_sums()
        top, a, b = join_maxima(f, total[0], m)
        with f.either(start == 0) as (then, otherwise):
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
        return [top, (start == 0).choose(l, fma(total[1], a, l * b))]

    def block(self, start: Int, state: list[Vector]) -> list[Vector]:
        """A block of keys on top of the segment's maximum and sum of weights."""
        f = self.f
        m, l = state
        self.write_scores(start)
        f.barrier()
        self.stage_values(start, 0)
        top, alpha = self.write_weights(m)
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
            sums = self.add_values(start, part, sums)
        before = self.kept_sums()
        for r in range(self.value_rows):
            factor = self.factor(self.alphas, r)
            for x in self.numbers_of_row(r):
                sums[x] = fma(before[x], factor, sums[x])
        self.keep(sums)
        f.barrier()
        return [top, l]

    # Scores

    def write_scores(self, start: Int) -> None:
        """S, −∞ where it is hidden, and the maxima of each thread's scores."""
        f = self.f
        chains = [self.zero] * (2 * SIDE * SIDE)
        for part in range(self.tile.key_parts):
            if part:
                f.barrier()
            self.stage_keys(start, part)
            f.arrived()
            f.barrier()
            queries = self.queries + (self.row * self.row_stride + part * self.tile.key_dims)
            keys = self.buffer + self.column * self.key_stride
            chains = f.loop(0, self.tile.key_dims, 4, partial(self.four_dims, queries, keys), chains)
        scores = [even + odd for even, odd in zip(chains[: SIDE * SIDE], chains[SIDE * SIDE :], strict=True)]
        scores = f.values_if(self.all_see < start + BLOCK, partial(self.hidden, start, scores), scores)
        scores_at = self.scores + (self.row * self.score_stride + self.column)
        maxima_at = self.maxima + (self.row * self.maxima_stride + self.column)
        for r in range(SIDE):
            row = scores[r * SIDE : (r + 1) * SIDE]
            for c, score in enumerate(row):
                f.store(score, scores_at + (SIDE * r * self.score_stride + 2 * SIDE * c))
            f.store(reduce(highest, row), maxima_at + SIDE * r * self.maxima_stride)

    def four_dims(self, queries_at: Floats, keys_at: Floats, d: Int, chains: list[Vector]) -> list[Vector]:
        """Four dims' products added to the chains: first those over even dims, then those over odd ones."""
        f, sums = self.f, list(chains)
        queries = [f.load_four(queries_at + d + SIDE * r * self.row_stride) for r in range(SIDE)]
        for c in range(SIDE):
            keys = f.load_four(keys_at + d + 2 * SIDE * c * self.key_stride)
            for i in range(4):
                for r in range(SIDE):
                    x = i % 2 * SIDE * SIDE + r * SIDE + c
                    sums[x] = fma(keys[i], queries[r][i], sums[x])
        return sums

    def hidden(self, start: Int, scores: list[Vector]) -> list[Vector]:
        """Scores with −∞ for the keys that their queries do not see."""
        result = []
        for r in range(SIDE):
            seen = self.seen_by(self.row + SIDE * r) - (start + self.column)
            for c in range(SIDE):
                score = scores[r * SIDE + c]
                result.append((seen > 2 * SIDE * c).choose(score, self.f.constant(-math.inf)))
        return result

    def seen_by(self, query: Int) -> Int:
        """A query of the tile sees the keys below this one."""
        a = self.f.arguments
        return least(a.keys, query + self.first + a.high)

    # Weights

    def write_weights(self, m: Vector) -> tuple[Vector, Vector]:
        """P = exp(S − m) in place of S for this thread's keys; the new maximum, and what sums so far are worth."""
        f = self.f
        maxima = self.maxima + self.own * self.maxima_stride
        top = reduce(highest, [x for n in range(0, MAXIMA, 4) for x in f.load_four(maxima + n)], m)
        alpha = exp(f, m - top)

        def four_keys(j: Int, total: list[Vector]) -> list[Vector]:
            weights = [exp(f, score - top) for score in f.load_four(self.own_scores + j)]
            f.store_four(weights, self.own_scores + j)
            return [sum(weights, total[0])]

        (total,) = f.loop(0, HALF, 4, four_keys, [self.zero])
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

    def add_values(self, start: Int, part: int, sums: list[Vector]) -> list[Vector]:
        """The weighted values of one part of a block's keys on top of the sums."""
        f, count = self.f, self.tile.value_keys
        first = start + part * count
        stop = least(self.stop - first, count)
        whole = least(most(self.all_see - first, 0), count) & -4
        sums = f.loop(0, whole, 4, partial(self.four_keys, part), sums)
        return f.loop(whole, stop, 4, partial(self.four_keys, part, edge=first), sums)

    def four_keys(self, part: int, j: Int, sums: list[Vector], *, edge: Int | None = None) -> list[Vector]:
        """Four keys that all queries see, or at the edge: hidden values are not even multiplied by 0."""
        f, sums = self.f, list(sums)
        weights_at = self.weights_of_rows + (j + part * self.tile.value_keys)
        weights = [f.load_four(weights_at + self.apart * r * self.score_stride) for r in range(self.value_rows)]
        for i in range(4):
            values = self.values(j + i)
            for r in range(self.value_rows):
                row = self.numbers_of_row(r)

                def added(weight: Vector = weights[r][i], row: range = row) -> list[Vector]:
                    return [fma(value, weight, sums[x]) for x, value in zip(row, values, strict=True)]

                if edge is None:
                    sums[row.start : row.stop] = added()
                else:
                    seen = edge + (j + i) < self.seen_by(self.value_row + self.apart * r)
                    sums[row.start : row.stop] = f.values_if(seen, added, self.of_row(sums, r))
        return sums

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
        f, a = self.f, self.f.arguments
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

    # From global to shared memory: eight threads take a row, 32 dims at a time

    def stage_queries(self) -> None:
        """The tile's queries, times the scale."""
        f, a = self.f, self.f.arguments

        def scaled(source: Floats, target: Floats) -> None:
            f.store_four([x * a.scale for x in f.load_four(source)], target)

        rows = GlobalRows(self.query, a.query_strides.row, self.first, a.queries - 1)
        self.stage(rows, ROWS, range(0, self.tile.dim, STRIPE), self.queries, self.row_stride, scaled)

    def stage_keys(self, start: Int, part: int) -> None:
        """Some dims of a block's keys."""
        a, count = self.f.arguments, self.tile.key_dims
        rows = GlobalRows(self.key, a.key_strides.row, start, a.keys - 1)
        dims = range(part * count, (part + 1) * count, STRIPE)
        self.stage(rows, BLOCK, dims, self.buffer, self.key_stride, self.f.copy_four)

    def stage_values(self, start: Int, part: int) -> None:
        """The values of some of a block's keys."""
        a, count = self.f.arguments, self.tile.value_keys
        rows = GlobalRows(self.value, a.value_strides.row, start + part * count, a.keys - 1)
        self.stage(rows, count, range(0, self.tile.dim, STRIPE), self.buffer, self.row_stride, self.f.copy_four)

    def stage(
        self,
        rows: GlobalRows,
        count: int,
        dims: range,
        target: Floats,
        stride: int,
        copy: Callable[[Floats, Floats], None],
    ) -> None:
        """Copy stripes of rows; those beyond the last repeat it."""
        f = self.f
        mine, d = f.thread // 8, f.thread % 8 * 4
        for n in f.range(0, count, THREADS // 8):
            row = n + mine
            source = rows.base + rows.stride * wide(least(rows.first + row, rows.last)) + d
            place = target + (row * stride + d)
            for dim in dims:
                copy(source + dim, place + (dim - dims.start))
