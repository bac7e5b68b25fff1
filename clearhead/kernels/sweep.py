"""The sweep kernel: one pass over the weights of some queries and keys, each α = exp(score − LSE) computed anew.

It walks tiles and blocks as `forward` does and with its parts, but knows each query's LSE beforehand: there is no
maximum to run after, and no value to sum. What becomes of a block's weights is left to `parts.weight_reductions`.
A task is one group of tiles of one head; what it gathers for the keys lies in memory of its own, so that threads never
share a sum.
"""

from functools import partial
from typing import NamedTuple

import llvmlite.ir as ir

from clearhead.definition.canonical import BLOCK
from clearhead.kernels.abi.call import SWEEP_TILE, TILE
from clearhead.kernels.abi.softmax_state import FOUND, SWEEP_LSE
from clearhead.kernels.abi.tiles import CACHE_LINE, Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.code import Code, Emitted, Function
from clearhead.kernels.ir.values import Int, Pointer, Vector, larger, least, most
from clearhead.kernels.parts.dense_rows import BlockRows, Rows, Wanted
from clearhead.kernels.parts.frame import Frame, sweep_field
from clearhead.kernels.parts.mask_bits import write_see
from clearhead.kernels.parts.masked_block import MaskedBlock, bits_from, look
from clearhead.kernels.parts.packing import PackQuery, write_pack_query
from clearhead.kernels.parts.softmax import BlockScores, KeyBlock, ScoreFunctions
from clearhead.kernels.parts.task_queue import addresses, write_queue
from clearhead.kernels.parts.tile import (
    block_kinds,
    call_for_vectors,
    enter,
    floor_to,
    listed_tile,
    near,
    number_of_query,
    unless_null,
)
from clearhead.kernels.parts.weight_reductions import (
    GATHERED,
    BlockOut,
    Gather,
    ListLargest,
    Pool,
    SweepWeights,
    write_block_out,
    write_gather,
    write_list,
    write_pool,
    write_weights,
)
from clearhead.kernels.parts.weight_shares import Shares, WeightsBlock


class SweepBlock(NamedTuple):
    """Scores and weights of one block for some vectors of queries, handed to those who want them.

    `target` is where the tile's own part of what is gathered begins, for the first key that is wanted.
    """

    frame: Frame
    k: Pointer
    start: Int
    rows: Int
    diagonal: Int
    queries: Int
    target: Pointer
    left: Int | None = None
    seen: Pointer | None = None


class SweepTile(NamedTuple):
    """A tile of `rows` queries over the keys that are seen and wanted."""

    frame: Frame
    q: Pointer
    k: Pointer
    lse: Pointer
    diagonal: Int
    keys: Int
    rows: Int
    target: Pointer
    left: Int | None = None
    kinds: Pointer | None = None


class SweptHead(NamedTuple):
    """One of the wanted heads."""

    head: Int
    number: Int  # among the wanted
    q: Pointer
    k: Pointer
    target: Pointer  # for its group of tiles


def sweep(tile: Tile, variant: Variant) -> ir.Module:
    """Write the sweep kernel: `i64 sweep(table, scratch, budget)`, to be called as `forward` is."""
    return Sweep(tile, variant).module


class Sweep:
    """The module: blocks and tiles of weights, and the groups of tiles that the queue hands out."""

    def __init__(self, tile: Tile, variant: Variant) -> None:
        self.tile, self.variant, wanted = tile, variant, variant.consumers
        self.module = module = ir.Module("clearhead.sweep")
        self.pack_query = write_pack_query(module, tile, variant)
        self.rows = BlockRows.write(module, tile, variant)
        self.scores = ScoreFunctions.write(module, tile, variant)
        if variant.mask:
            self.see = write_see(module, tile, variant)
        widths = range(1, tile.vectors + 1)
        weighed = [] if "scores" in wanted else widths  # scores go out as they are
        self.weights = {w: write_weights(module, tile, w, wanted) for w in weighed}
        self.gather = {name: write_gather(module, tile, name) for name in GATHERED if name in wanted}
        self.list = {w: write_list(module, tile, w) for w in widths} if "top" in wanted else {}
        arrays = [name for name in ("block", "scores") if name in wanted]
        self.block_out = [write_block_out(module, tile, streamed=s) for s in (False, True) if arrays]
        pools = [name for name in wanted if name.startswith("pool")]
        self.pool = {w: write_pool(module, tile, w, name) for w in widths for name in pools}
        self.shares = Shares.write(module, tile, wanted)
        self.block = {w: self.write_block(w) for w in widths}
        self.tile_of = self.write_tile()
        write_queue(module, tile, "sweep", self.write_task)

    # One block of keys

    def write_block(self, w: int) -> Emitted[SweepBlock]:
        """One block for w vectors of queries."""
        present = (*self.variant.window_edge, *(("seen",) if self.variant.mask else ()))
        f = Function(self.module, self.tile, f"block_{w}", SweepBlock, present=present)
        a = f.arguments
        frame, block = a.frame, KeyBlock(a.start, a.rows, a.diagonal, a.left)
        s, state = frame.space("scores"), frame.space("softmax")
        position, dims = frame.position(), frame.field("query_dim")
        keys = self.rows.keys(f, frame, Wanted(a.k, a.start, a.rows, dims, dims))
        no_values = Rows(keys.base, keys.stride, f.i64(0))
        key = position.read("origin") + a.start
        scores = BlockScores(
            f, self.scores, w, block, keys, no_values, dims, frame.space("query"), s, state, frame.table, position, key,
            frame.space("key_rows") if self.variant.key_rows else None,
        )  # fmt: skip
        scores.write_scores(a.seen)
        self.write_unseen(scores)
        self.write_consumers(f, w, a, scores)
        return f.finish()

    def write_unseen(self, scores: BlockScores) -> None:
        """−∞ for what is hidden from whole vectors, whose scores were not computed."""
        f, block = scores.f, scores.block
        hidden = f.constant(-float("inf"))
        starts = scores.starts() if block.left is not None else []
        for x in range(scores.w):
            if starts:
                for i in f.range(0, starts[x]):
                    f.store(hidden, f.at(scores.s, i, x))
            for i in f.range(block.edge(f, x + 1), block.rows):
                f.store(hidden, f.at(scores.s, i, x))

    def write_consumers(self, f: Code, w: int, a: SweepBlock, scores: BlockScores) -> None:
        """Weights, what is found on the way, and what is done with them then."""
        frame, wanted, size = a.frame, self.variant.consumers, f.element.bytes
        s, state, key = scores.s, scores.state, scores.first_key
        assert key is not None
        position, get = frame.position(), partial(sweep_field, frame)
        ahead = position.read("row") + position.read("shift") - key
        sums = frame.scratch + get("at_sums")
        maxima = sums + BLOCK * f.lanes * size

        if self.weights:
            f.call(self.weights[w], SweepWeights(s, a.rows, state, ahead, get("near"), sums, maxima))
        if {"first", "off_first"} & set(wanted):
            with f.when(a.start == 0):
                self.write_first(f, w, s, state, a.rows)
        after = key - get("begin")
        gathered = after * size
        for name, gather in self.gather.items():
            part = get("target_row") * list(self.gather).index(name)
            of_tile = sums if name == "received_sum" else maxima
            f.call(gather, Gather(of_tile, a.rows, a.target + (part + gathered)))
        self.shares.add(f, frame, w, WeightsBlock(s, a.rows, ahead, key))
        if self.list:
            factors = position.read("factors").pointer()
            f.call(self.list[w], ListLargest(s, a.rows, frame.scratch + get("at_list"), get("top"), key, factors))
        if self.block_out:
            self.write_out(f, BlockOut(s, a.rows, a.queries, a.target + gathered, get("target_row")))
        if self.pool:
            f.call(self.pool[w], Pool(s, a.rows, a.target, after, get("end") - get("begin"), get("bins")))

    def write_first(self, f: Code, w: int, s: Pointer, state: Pointer, rows: Int) -> None:
        """In the first block: the first key's weights, and the largest of the others, which has been taken of all."""

        def row(i: Int, largest: list[Vector]) -> list[Vector]:
            return [larger(f.load(f.at(s, i, x)), largest[x]) for x in range(w)]

        for x in range(w):
            f.store(f.load(f.at(s, 0, x)), f.at(state, FOUND["first"], x))
        for x, largest in enumerate(f.loop(1, rows, 1, row, [f.constant(0.0)] * w)):
            f.store(largest, f.at(state, FOUND["off_first"], x))

    def write_out(self, f: Code, out: BlockOut) -> None:
        """The block's weights to an array, past the caches if its rows begin at cache lines."""
        odd = (out.target.address() | out.step) & CACHE_LINE - 1
        plain, streamed = self.block_out
        with f.either(odd == 0) as (then, otherwise):
            with then:
                f.call(streamed, out)
            with otherwise:
                f.call(plain, out)

    # One tile of queries

    def write_tile(self) -> Emitted[SweepTile]:
        """The tile's blocks, in ascending order."""
        present = (*self.variant.window_edge, *(("kinds",) if self.variant.mask else ()))
        f = Function(self.module, self.tile, "tile", SweepTile, present=present)
        a = f.arguments
        frame, get = a.frame, partial(sweep_field, a.frame)
        origin = frame.position().read("origin")
        stop = least((a.diagonal + a.rows).clamp(0, a.keys), get("end") - origin)
        begin = most(get("begin") - origin, frame.field("first_key") if self.variant.paged else 0)
        begin = begin if a.left is None else most(begin, a.left)
        f.call(self.pack_query, PackQuery(frame.table, a.q, a.rows, frame.space("query")))
        if self.weights:
            self.clear_state(f, frame, a.lse, a.rows)

        first = floor_to(begin, BLOCK)
        for b in f.range(first, (begin < stop).choose(stop, first), BLOCK):
            at = most(b, begin)
            count = least(b + BLOCK, stop) - at
            left = None if a.left is None else near(f, a.left - at)
            block = SweepBlock(frame, a.k, at, count, a.diagonal - at, a.rows, a.target, left)
            if a.kinds is not None:
                self.write_seen(f, block, a.kinds, b // BLOCK)
            else:
                call_for_vectors(f, self.block, a.rows, block)
        return f.finish()

    def clear_state(self, f: Code, frame: Frame, lse: Pointer, rows: Int) -> None:
        """Nothing found yet; each query's LSE, ∞ (nearly) where nothing is seen and in lanes without a query."""
        state, size = frame.space("softmax"), f.element.bytes
        nothing = f.number(-f.element.lowest)

        for q in f.range(0, self.tile.queries):
            known = f.load_number(lse + least(q, rows - 1) * size)
            empty = (known == -float("inf")) | (rows - 1 < q)
            f.store(empty.choose(nothing, known), f.at(state, SWEEP_LSE, 0) + q * size)
        for which in FOUND.values():
            for x in range(self.tile.vectors):
                f.store(f.constant(0.0), f.at(state, which, x))
        if self.list:
            listed, length = frame.scratch + sweep_field(frame, "at_list"), sweep_field(frame, "top")
            for r in f.range(0, length):
                for x in range(self.tile.vectors):
                    f.store(f.constant(0.0), f.at(listed, r, x))
                    f.store(f.integer(-1), f.at(listed, r + length, x))
        self.shares.clear(f, frame)

    def write_seen(self, f: Code, block: SweepBlock, kinds: Pointer, number: Int) -> None:
        """A block under a fused mask: not at all if nobody sees it, with its bits if not everybody does.

        All of its rows are swept, those that nobody sees as well: their weights are wanted as 0.
        """
        block.frame.position().write(seen_all=1)
        nothing = look(f, block.frame, self.see, kinds, MaskedBlock(number, block.start, block.rows))
        seen = bits_from(f, block.frame, f.i64(0))
        with f.when(~nothing):
            call_for_vectors(f, self.block, block.queries, block._replace(seen=seen))

    # The whole sweep

    def write_task(self, f: Code, frame: Frame, task: Int) -> Int:
        """One group of tiles of one head, later queries first; gives its cost in multiply-adds."""
        get = partial(sweep_field, frame)
        groups = get("groups")
        number = task // groups
        group = groups - 1 - task % groups
        head = get("heads").pointer().entry(number)
        q, k, _, _ = addresses(f, frame.table, head)
        part = number * get("target_head") + group * get("target_group")
        target = get("target").pointer() + part
        borders = get("group_table").pointer()
        first, stop = borders.entry(group), borders.entry(group + 1)

        def tile(t: Int, cost: list[Int]) -> list[Int]:
            return [cost[0] + self.call_tile(f, frame, SweptHead(head, number, q, k, target), t)]

        return f.loop(first, stop, 1, tile, [f.i64(1)])[0]

    def call_tile(self, f: Code, frame: Frame, swept: SweptHead, t: Int) -> Int:
        """Find a tile's place, sweep over it, and write what was found for its queries."""
        head, number, q, k, target = swept
        variant, get, size = self.variant, frame.field, f.element.bytes
        tile, entry = listed_tile(frame, t, SWEEP_TILE)
        at = entry.entry(len(TILE))  # which of the queries that are wanted is the tile's first
        q = q + tile.first * get("query_row")
        k = k if variant.paged else k + tile.origin * get("key_row")
        lse = (get("lse") + number_of_query(frame, head, tile, size)).pointer()
        enter(frame, head, tile)
        if self.list:
            factors = unless_null(f, sweep_field(frame, "factors"), number * get("keys") * size)
            frame.position().write(factors=factors.address())
        self.shares.enter(f, frame, number, tile)
        diagonal = tile.diagonal(frame)
        left = tile.left(frame) if variant.windowed else None
        kinds = block_kinds(f, frame, t) if variant.mask else None
        if self.block_out:
            target = target + at * sweep_field(frame, "target_row")
        f.call(self.tile_of, SweepTile(frame, q, k, lse, diagonal, tile.keys, tile.rows, target, left, kinds))
        self.write_found(f, frame, number * sweep_field(frame, "queries") + at, tile.rows)
        seen = (diagonal + tile.rows).clamp(1, most(1, tile.keys))
        return seen * self.tile.queries * get("query_dim")

    def write_found(self, f: Code, frame: Frame, index: Int, rows: Int) -> None:
        """What was found for a tile's queries, to where the query of number `index` has its place."""
        get, size = partial(sweep_field, frame), f.element.bytes
        state = frame.space("softmax")
        names = [name for name in FOUND if name in self.variant.consumers]
        if "entropy" in names:  # what was summed is Σ α·log α
            for x in range(self.tile.vectors):
                place = f.at(state, FOUND["entropy"], x)
                f.store(0.0 - f.load(place), place)

        if names:
            for q in f.range(0, rows):
                offset = (index + q) * size
                for n, name in enumerate(names):
                    found = f.load_number(f.at(state, FOUND[name], 0) + q * size)
                    f.store(found, get("rows").pointer() + (offset + get("rows_step") * n))
        self.shares.write_out(f, frame, index, rows)
        if not self.list:
            return
        length, listed = get("top"), frame.scratch + get("at_list")
        for entry in f.range(0, rows * length):
            q, rank = entry // length, entry % length
            at = (index + q) * length + rank
            weight = f.at(listed, rank, 0) + q * size
            key = f.at(listed, length + rank, 0) + q * size
            f.store(f.load_number(weight), get("top_weights").pointer() + at * size)
            number = f.read(key, f.integers.element)
            number = Int(f.build, number if size == 8 else f.build.sext(number, f.i64(0).ir.type))
            get("top_keys").pointer().set_entry(at, number)
