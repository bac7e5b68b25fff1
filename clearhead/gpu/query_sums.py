"""Sums over queries on a GPU: the total weight that each key receives, and that of each pixel of a map.

Such a sum has the order of `kernels.parts.weight_reductions` on this computer's CPU, whose tiles have their queries in
the lanes of some vectors: a tile's numbers are joined over its vectors, then over the lanes, and the tile's sum is
added to those of the tiles before it. Lanes and vectors are numbers of a launch, so that one kernel follows each CPU.
A group of threads owns the sums that it adds to, and walks its queries in ascending order.
"""

from __future__ import annotations

from functools import partial

from clearhead.definition.canonical import BLOCK
from clearhead.gpu.call import SweepCall
from clearhead.gpu.sweep import Bins, Sweep
from clearhead.gpu.thread import Floats, Thread, wide
from clearhead.gpu.tile import ROWS, CardTile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.values import Int, Truth, Vector, least, most

MOST_LANES = 16
MOST_VECTORS = 4  # or one fewer


def write_received(f: Thread[SweepCall], tile: CardTile, variant: Variant) -> str:
    """The IR of the kernel that adds what each key receives to (heads, keys)."""
    Received(f, tile, variant).write()
    return f.write()


def write_pooled(f: Thread[SweepCall], tile: CardTile, variant: Variant) -> str:
    """The IR of the kernel that adds the weights of each pixel to (heads, height, width)."""
    Pooled(f, tile, variant).write()
    return f.write()


class QuerySums(Sweep):
    """What both kernels share: the sum of a column of weights over a tile of the CPU."""

    counted: Truth  # whether the weights of the thread's query `own` belong to the sums

    def enter(self, first: Int, stop: Int) -> None:
        """Turn to the tile that begins with the query `first`; those from `stop` on do not count."""
        self.first = first
        self.place_tile()
        self.place_rules()
        self.load_lse()
        self.counted = first + self.own < stop

    def weight(self, score: Vector) -> Vector:
        """α, or 0 of a query that does not count."""
        return self.counted.choose(super().weight(score), self.zero)

    def joined_vectors(self, column: Floats) -> None:
        """Sums of a column over the vectors of a tile, a lane each, in its first rows: (0 + 1) + (2 + 3)."""
        f, a, stride = self.f, self.a, self.score_stride
        for lane in f.range(0, a.lanes):
            at = column + lane * stride
            one, two, three = (f.load(at + a.lanes * (x * stride)) for x in range(3))
            last = partial(self.loaded, at + a.lanes * (3 * stride))
            (four,) = f.values_if(a.vectors == MOST_VECTORS, last, [self.zero])
            f.store((one + two) + (three + four), at)

    def joined_lanes(self, column: Floats, *, neighbours: bool) -> Vector:
        """Their sum, in pairs again and again: of neighbours, or of a lane in each half."""
        f, stride = self.f, self.score_stride
        width = MOST_LANES // 2
        while width:
            with f.when(self.a.lanes > width):
                for lane in f.range(0, width):
                    at = column + lane * stride
                    one, apart = (column + lane * (2 * stride), stride) if neighbours else (at, width * stride)
                    f.store(f.load(one) + f.load(one + apart), at)
            width //= 2
        return f.load(column)

    def loaded(self, at: Floats) -> list[Vector]:
        """A number."""
        return [self.f.load(at)]


class Received(QuerySums):
    """What keys receive: a group has a block of them, a thread one, and as many tiles of the CPU at a time as fit."""

    def place_group(self) -> None:
        """The group's head and block."""
        f, a = self.f, self.a
        self.head, self.first = f.group % a.heads, f.index(0)
        self.block_start = (a.begin & -BLOCK) + f.group // a.heads * BLOCK

    def write(self) -> None:
        """Each key's sum over all queries, on top of what is there."""
        f, a = self.f, self.a
        key = self.block_start + f.thread
        wanted = (a.begin <= key) & (key < a.end)
        place = a.target + (wide(self.head) * a.target_head + wide(key - a.begin))
        self.tile_rows = a.lanes * a.vectors
        self.step = f.index(ROWS) // self.tile_rows * self.tile_rows
        before = f.values_if(wanted, partial(self.loaded, place), [self.zero])
        (total,) = f.loop(0, a.queries, self.step, self.tiles, before)
        with f.when(wanted):
            f.store(total, place)

    def tiles(self, first: Int, carried: list[Vector]) -> list[Vector]:
        """What the queries from `first` on give the keys, unless they see none of the block."""
        self.enter(first, self.a.queries)
        some = (self.block_start < self.stop) & (self.first_seen(self.f.index(0)) < self.block_start + BLOCK)
        return self.f.values_if(some, partial(self.seen_tiles, carried), carried)

    def seen_tiles(self, carried: list[Vector]) -> list[Vector]:
        """The block's weights, unless a mask hides it."""
        self.stage_queries()
        return self.block(self.block_start, carried)

    def use(self, start: Int, carried: list[Vector]) -> list[Vector]:
        """The sum of each of the CPU's tiles on top of those before it."""
        self.write_half()

        def tile(row: Int, total: list[Vector]) -> list[Vector]:
            column = self.scores + (row * self.score_stride + self.f.thread)
            self.joined_vectors(column)
            return [self.joined_lanes(column, neighbours=True) + total[0]]

        return self.f.loop(0, self.step, self.tile_rows, tile, carried)


class Pooled(QuerySums):
    """The pixels of a map: a group has a line of them, and one tile of the CPU at a time."""

    def place_group(self) -> None:
        """The group's head, line and queries."""
        f, a = self.f, self.a
        lines = Bins(a.place, a.queries, a.height, a.rows)
        self.head, self.line = f.group % a.heads, lines.first + f.group // a.heads
        self.first, self.last = lines.part(self.line)

    def write(self) -> None:
        """The line's sums on top of what is there, tile by tile, and block by block in each."""
        f, a = self.f, self.a
        for first in f.range(self.first, self.last, a.lanes * a.vectors):
            self.enter(first, least(first + a.lanes * a.vectors, self.last))
            self.stage_queries()
            self.until = least(self.stop, a.end)
            f.loop(most(self.begin, a.begin & -BLOCK), self.until, BLOCK, self.block, [])

    def use(self, start: Int, carried: list[Vector]) -> list[Vector]:
        """Each query's sums over the keys of pixels, then those of the tile: each pixel by one thread."""
        f, a = self.f, self.a
        self.write_half()
        begin, stop = self.wanted(start)
        columns = Bins(start + begin - a.begin, stop - begin, a.width, a.end - a.begin)
        with f.when(self.half == 0):
            for n in f.range(0, columns.count):

                def key(j: Int, total: list[Vector]) -> list[Vector]:
                    return [f.load(self.own_scores + (begin + j)) + total[0]]

                (pooled,) = f.loop(*columns.part(columns.first + n), 1, key, [self.zero])
                f.store(pooled, self.own_scores + n)
        f.barrier()
        with f.when(f.thread < columns.count):
            self.joined_vectors(self.scores + f.thread)
            total = self.joined_lanes(self.scores + f.thread, neighbours=False)
            line = wide(self.head) * a.target_head + wide(self.line) * wide(a.width)
            place = a.target + (line + wide(columns.first + f.thread))
            f.store(f.load(place) + total, place)
        return carried
