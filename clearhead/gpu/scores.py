"""A tile's scores on a GPU: a group of threads holds 64 queries of one head and scores them against blocks of keys.

What the forward kernel and the sweep over weights share: which queries a group has, which keys these see, and S in
shared memory, with the operations and the order that `canonical` gives each score. A thread sums 8 queries × 8 keys,
each score in two chains, over even and over odd dims.
"""

from __future__ import annotations

import math
from functools import partial, reduce
from typing import Any, ClassVar, Generic, TypeVar

from clearhead.definition.canonical import BLOCK
from clearhead.gpu.call import Strides
from clearhead.gpu.staging import GlobalRows, Target, stage
from clearhead.gpu.thread import Floats, Thread, highest, wide
from clearhead.gpu.tile import HALF, MAXIMA, PAD, ROWS, CardTile
from clearhead.gpu.tile_rules import Band, Shown, TileRules
from clearhead.kernels.abi.variant import PLAIN_VARIANT, Variant
from clearhead.kernels.ir.values import Int, Truth, Vector, fma, least, most

P = TypeVar("P", bound=tuple[Any, ...])

SIDE = 8  # a thread's scores are SIDE queries by SIDE keys
BY_DIM = [(r, i) for i in range(4) for r in range(SIDE)]  # queries and dims of one step
BY_QUERY = sorted(BY_DIM)


class TileScores(Generic[P]):
    """A kernel being written into `f`, as far as scores go; a P has the fields of a `Call` that it reads here."""

    maxima_wanted: ClassVar[bool] = False  # of each thread's scores of a query

    def __init__(self, f: Thread[P], tile: CardTile, variant: Variant) -> None:
        a: Any = f.arguments
        self.f, self.tile, self.a, self.windowed = f, tile, a, a.low is not None
        self.key_stride, self.row_stride = tile.key_dims + PAD, tile.dim + PAD  # in shared memory
        self.score_stride, self.maxima_stride = BLOCK + PAD, MAXIMA + PAD
        self.place_group()
        self.place_tile()
        self.place_operands()
        *regions, _ = (f.shared + place for place in tile.places)
        self.queries, self.buffer, self.scores, self.maxima, self.sums, self.alphas, self.betas = regions
        self.place_threads()
        self.zero = f.constant(0.0)
        self.variant, self.ruled, self.mask = variant, variant != PLAIN_VARIANT, variant.mask
        self.place_rules()

    def place_group(self) -> None:
        """The group's head and the first query of its tile: the groups with most keys begin first, in all heads."""
        f, a = self.f, self.a
        tiles = (a.queries + (ROWS - 1)) // ROWS
        self.first = (tiles - 1 - f.group // a.heads) * ROWS
        self.head = f.group % a.heads

    def place_tile(self) -> None:
        """Which keys the tile that begins with the query `first` sees."""
        f, a = self.f, self.a
        self.stop = self.seen_by(least(self.first + (ROWS - 1), a.queries - 1) - self.first)
        self.all_see = self.seen_by(f.index(0))
        if self.windowed:
            self.place_window()

    def place_operands(self) -> None:
        """The head's rows in global memory."""
        a = self.a
        member, key_head = self.head % a.members, self.head // a.members
        self.numbers = key_head // a.key_heads, key_head % a.key_heads, member
        self.query, self.key = self.rows_of(a.query, a.query_strides), self.rows_of(a.key, a.key_strides)

    def rows_of(self, base: Floats, strides: Strides) -> Floats:
        """The head's rows of an operand."""
        for stride, number in zip(strides[:3], self.numbers, strict=True):
            base = base + stride * wide(number)
        return base

    def place_threads(self) -> None:
        """What this thread computes: the queries SIDE·r + row, the keys 4·column to 4·column + 3 of both halves."""
        lane, warp = self.f.thread % 32, self.f.thread // 32
        self.row = warp % 2 * 4 + lane // 8
        self.column = warp // 2 * 8 + lane % 8

    def place_rules(self) -> None:
        """The rules, for the tile."""
        self.rules = TileRules(self.f, self.variant, self.first, self.head, self.scores, self.score_stride)

    # Who sees whom: the keys from `first_seen` to below `seen_by`

    def seen_by(self, query: Int) -> Int:
        """A query of the tile sees the keys below this one."""
        return least(self.a.keys, query + self.first + self.a.high)

    def first_seen(self, query: Int) -> Int:
        """A query of the tile sees the keys from this one on; only for kernels with a window."""
        return most(query + self.first + self.a.low, 0)

    def place_window(self) -> None:
        """The first block that any query sees, and the key from which on the window's left edge hides nothing."""
        last = least(self.f.index(ROWS - 1), self.a.queries - 1 - self.first)
        self.begin = self.first_seen(self.f.index(0)) & -BLOCK
        self.all_from = self.first_seen(last)

    def seen(self, key: Int, query: Int) -> Truth:
        """Whether a key is seen by a query of the tile."""
        seen = key < self.seen_by(query)
        return seen & (self.first_seen(query) <= key) if self.windowed else seen

    def on_edge(self, start: Int, stop: Int) -> Truth:
        """Whether a key from `start` to below `stop` is hidden from a query of the tile."""
        on_edge = self.all_see < stop
        return on_edge | (self.all_from > start) if self.windowed else on_edge

    def band(self, start: Int) -> Band:
        """The keys of a block that this thread's query sees, as far as the band goes; for kernels with rules.

        Queries that do not exist repeat the last, so that they change nothing.
        """
        query = least(self.f.thread % ROWS, self.a.queries - 1 - self.first)
        return Band(query, self.first_seen(query) - start, self.seen_by(query) - start)

    # Blocks

    def block(self, start: Int, carried: list[Vector]) -> list[Vector]:
        """A block of keys; nothing of one that a mask hides."""
        if self.mask is None:
            return self.seen_block(start, None, carried)
        shown = self.rules.look(self.mask, start, self.band(start))
        return self.f.values_if(shown.some, partial(self.seen_block, start, shown, carried), carried)

    def seen_block(self, start: Int, shown: Shown | None, carried: list[Vector]) -> list[Vector]:
        """A block of which somebody sees something."""
        raise NotImplementedError

    # Scores

    def write_scores(self, start: Int) -> None:
        """S, −∞ where it is hidden, and the maxima of each thread's scores; with rules, these do both."""
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
            operands = [*self.query_numbers(queries), *f.load_four(keys)]
            step = partial(self.four_dims, queries, keys)
            chains = f.loop(0, self.tile.key_dims, 4, step, [*chains, *operands])[: len(chains)]
        scores = [even + odd for even, odd in zip(chains[: SIDE * SIDE], chains[SIDE * SIDE :], strict=True)]
        if not self.ruled:
            scores = f.values_if(self.on_edge(start, start + BLOCK), partial(self.hidden, start, scores), scores)
        scores_at = self.scores + (self.row * self.score_stride + 4 * self.column)
        wanted = self.maxima_wanted and not self.ruled
        maxima_at = self.maxima + (self.row * self.maxima_stride + self.column) if wanted else None
        for r in range(SIDE):
            row = scores[r * SIDE : (r + 1) * SIDE]
            for half in range(2):
                f.store_four(row[4 * half : 4 * half + 4], scores_at + (SIDE * r * self.score_stride + HALF * half))
            if maxima_at is not None:
                f.store(reduce(highest, row), maxima_at + SIDE * r * self.maxima_stride)

    def query_numbers(self, at: Floats) -> list[Vector]:
        """Four dims of the thread's queries."""
        return [x for r in range(SIDE) for x in self.f.load_four(at + SIDE * r * self.row_stride)]

    def four_dims(self, queries_at: Floats, keys_at: Floats, d: Int, carried: list[Vector]) -> list[Vector]:
        """Four dims' products added to the chains: first those over even dims, then those over odd ones.

        While the last key is multiplied, the next dims of the queries and of the first key take their places. Behind
        the last dim lies the padding, which nobody uses.
        """
        f, count = self.f, 2 * SIDE * SIDE
        sums, queries, first = list(carried[:count]), list(carried[count:-4]), carried[-4:]
        for c in range(SIDE):
            last = c == SIDE - 1
            keys = f.load_four(keys_at + d + 2 * SIDE * c * self.key_stride) if c else first
            if last:
                first = f.load_four(keys_at + d + 4)
            for r, i in BY_QUERY if last else BY_DIM:
                x = i % 2 * SIDE * SIDE + r * SIDE + c
                sums[x] = fma(keys[i], queries[4 * r + i], sums[x])
                if last and i == 3:
                    queries[4 * r : 4 * r + 4] = f.load_four(queries_at + d + (4 + SIDE * r * self.row_stride))
        return [*sums, *queries, *first]

    def hidden(self, start: Int, scores: list[Vector]) -> list[Vector]:
        """Scores with −∞ for the keys that their queries do not see."""
        result = []
        for r in range(SIDE):
            query = self.row + SIDE * r
            seen = self.seen_by(query) - (start + 4 * self.column)
            unseen = self.first_seen(query) - (start + 4 * self.column) if self.windowed else None
            for c in range(SIDE):
                key = c // 4 * HALF + c % 4
                visible = seen > key if unseen is None else (seen > key) & (unseen <= key)
                result.append(visible.choose(scores[r * SIDE + c], self.f.constant(-math.inf)))
        return result

    # From global to shared memory

    def stage_queries(self) -> None:
        """The tile's queries, times the scale."""
        f, a = self.f, self.a

        def scaled(source: Floats, target: Floats) -> None:
            f.store_four([x * a.scale for x in f.load_four(source)], target)

        rows = GlobalRows(self.query, a.query_strides.row, self.first, a.queries - 1)
        stage(f, rows, ROWS, range(self.tile.dim), Target(self.queries, self.row_stride), scaled)

    def stage_keys(self, start: Int, part: int) -> None:
        """Some dims of a block's keys."""
        a, count = self.a, self.tile.key_dims
        rows = GlobalRows(self.key, a.key_strides.row, start, a.keys - 1)
        dims = range(part * count, (part + 1) * count)
        stage(self.f, rows, BLOCK, dims, Target(self.buffer, self.key_stride), self.f.copy_four, self.key_of)

    @staticmethod
    def key_of(n: Int, mine: Int) -> Int:
        """The key of a block whose numbers go to row n + mine, so that a thread's scores are four keys side by side."""
        return (n & HALF) + (n.logical_right(4) & 3) + 4 * mine
