"""The forward kernel: attention's output and log-sum-exp, tile by tile, in O(n) memory.

A tile is some queries of one head. It walks the keys it may see in ascending order, in blocks and segments, as
`definition.canonical` writes down; each lane is one scalar program, so tile and vector sizes change no bit.
Letters: q k v y query, key, value, output; s score; m l o running maximum, sum and Σ p·v.

On the diagonal only what is seen is computed: with D the last key that the tile's first query sees, keys from D + W·x
on are hidden from the vectors of W queries before vector x, and masked lane by lane in vector x.
"""

from typing import NamedTuple

import llvmlite.ir as ir

from clearhead.definition.canonical import BLOCK, SEGMENT
from clearhead.kernels.abi.softmax_state import ALPHA, TOTAL_L, TOTAL_M, L, M
from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.code import Code, Emitted, Function
from clearhead.kernels.ir.values import Int, Pointer, least, most
from clearhead.kernels.parts.ahead import Ahead
from clearhead.kernels.parts.bfloat16_dot import (
    PairWeights,
    write_native_pack_query,
    write_native_values,
    write_pair_weights,
)
from clearhead.kernels.parts.carried_sums import CarriedSums, Stretch, SumArrays, write_load_sums, write_store_sums
from clearhead.kernels.parts.dense_rows import BlockRows, Wanted
from clearhead.kernels.parts.frame import Frame
from clearhead.kernels.parts.mask_bits import Finite, ValuesSeen, write_finite, write_see, write_values_seen
from clearhead.kernels.parts.masked_block import MaskedBlock, seen_rows
from clearhead.kernels.parts.merge import Merge, write_merge
from clearhead.kernels.parts.packing import PackQuery, UnpackOutput, write_pack_query, write_unpack_output
from clearhead.kernels.parts.softmax import BlockScores, KeyBlock, ScoreFunctions
from clearhead.kernels.parts.task_queue import addresses, write_queue
from clearhead.kernels.parts.tile import (
    TileRows,
    block_kinds,
    call_for_vectors,
    enter,
    floor_to,
    listed_tile,
    near,
    number_of_query,
    padded,
    unless_null,
)
from clearhead.kernels.parts.weighted_values import Values, write_values


class AttendBlock(NamedTuple):
    """Scores, softmax and weighted values of one block for some vectors of queries, merged into the segment.

    With a fused mask, `seen` holds its bits, or is null where every pair is seen.
    """

    frame: Frame
    k: Pointer
    v: Pointer
    start: Int
    rows: Int
    diagonal: Int
    queries: Int
    o: Pointer
    fresh: Int  # not 0: o was nothing yet
    left: Int | None = None
    seen: Pointer | None = None
    ahead: Ahead | None = None


class Attend(NamedTuple):
    """A tile of `rows` queries, from packing to output.

    Its first query sees the keys from `left` to `diagonal` of the `keys` that there are; k and v begin at key 0. With
    carried sums, a `stretch` says what there is of them.
    """

    frame: Frame
    q: Pointer
    k: Pointer
    v: Pointer
    y: Pointer
    lse: Pointer
    diagonal: Int
    keys: Int
    rows: Int
    left: Int | None = None
    kinds: Pointer | None = None  # what is known of each block under a fused mask, or null
    sink: Pointer | None = None
    stretch: Stretch | None = None
    ahead: Ahead | None = None  # what to ask for while the first block is scored


def forward(tile: Tile, variant: Variant) -> ir.Module:
    """Write the forward kernel: `i64 forward(table, scratch, budget)`.

    It takes tiles from the table's queue until none is left (result 0) or `budget` multiply-adds are spent (result 1).
    """
    return Forward(tile, variant).module


class Forward:
    """The module, written bottom up: parts, tiles of every number of vectors, the queue."""

    def __init__(self, tile: Tile, variant: Variant) -> None:
        self.tile, self.variant = tile, variant
        self.ahead = () if variant.native else ("ahead",)  # the parameter of functions that ask for later rows
        self.module = module = ir.Module("clearhead.forward")
        self.pack_query = (write_native_pack_query if variant.native else write_pack_query)(module, tile, variant)
        self.rows = BlockRows.write(module, tile, variant)
        if variant.carried:
            self.load_sums, self.store_sums = write_load_sums(module, tile), write_store_sums(module, tile)
        else:
            self.unpack_output = write_unpack_output(module, tile, variant)
        self.merge = write_merge(module, tile)
        self.scores = ScoreFunctions.write(module, tile, variant, self.ahead)
        values = write_native_values if variant.native else write_values
        self.values = {n: values(module, tile, n, variant) for n in range(1, len(tile.rows) + 1)}
        if variant.native:
            self.pair_weights = write_pair_weights(module, tile)
        if variant.mask:
            self.see = write_see(module, tile, variant)
            self.finite = write_finite(module, tile)
            self.values_seen = write_values_seen(module, tile, variant)
        self.block = {w: self.write_block(w) for w in range(1, tile.vectors + 1)}
        self.attend = self.write_attend()
        write_queue(module, tile, "forward", self.write_task)

    # One block of keys

    def write_block(self, w: int) -> Emitted[AttendBlock]:
        """One block for w vectors of queries: scores and softmax, then the weighted values."""
        variant = self.variant
        present = (*variant.window_edge, *(("seen",) if variant.mask else ()), *self.ahead)
        f = Function(self.module, self.tile, f"block_{w}", AttendBlock, present=present)
        a = f.arguments
        frame, block = a.frame, KeyBlock(a.start, a.rows, a.diagonal, a.left)
        s, state, position = frame.space("scores"), frame.space("softmax"), frame.position()
        query_dim, value_dim = frame.field("query_dim"), frame.field("value_dim")
        dims = padded(value_dim)
        keys = self.rows.keys(f, frame, Wanted(a.k, a.start, a.rows, query_dim, query_dim))
        values = self.rows.values(f, frame, Wanted(a.v, a.start, a.rows, value_dim, dims))
        first_key = position.read("origin") + a.start if variant.score else None

        # P = exp(S − m) in place of S, and the segment's m and l
        BlockScores(
            f, self.scores, w, block, keys, values, query_dim, frame.space("query"), s, state, frame.table, position,
            first_key, frame.space("key_rows") if variant.key_rows else None, a.ahead,
        ).write_softmax(a.seen)  # fmt: skip
        if variant.native:
            for x in range(w):
                weights = PairWeights(p=f.at(s, 0, x), stop=block.edge(f, x + 1), rows=a.rows)
                f.call(self.pair_weights, weights)

        # o = α·o + P·V
        weighted = Values(
            p=s, v=values.base, stride=values.stride, rows=a.rows, diagonal=a.diagonal, queries=a.queries, o=a.o,
            o_stride=values.size, alpha=f.at(state, ALPHA, 0), fresh=a.fresh, left=a.left,
        )  # fmt: skip
        if a.seen is None:
            self.write_values(f, weighted, dims)
            return f.finish()
        # 0 · v is nothing if v is finite, so that sums may run over hidden values too.
        vectors = dims // f.lanes
        everything = a.seen.is_null()
        asked = everything.choose(f.i64(0), a.rows)  # where all is seen, the answer makes no difference
        finite = f.call_int(self.finite, Finite(v=values.base, stride=values.stride, rows=asked, vectors=vectors))
        with f.either(everything | (finite != 0)) as (then, otherwise):
            with then:
                self.write_values(f, weighted, dims)
            with otherwise:
                f.call(self.values_seen, ValuesSeen(weighted, a.seen, vectors))
        return f.finish()

    def write_values(self, f: Code, block: Values, dims: Int) -> None:
        """The block's weighted values: few dims are summed at once, of many two vectors at a time.

        Two vectors of a block of values stay in the nearest cache while all queries read them.
        """

        def dim(n: int, d: Int) -> None:
            offset = d * f.element.bytes
            f.call(self.values[n], block._replace(v=block.v + offset, o=block.o + offset))

        few = dims // f.lanes < len(self.values) + 1
        pairs = few.choose(f.i64(0), floor_to(dims, 2 * f.lanes))
        for d in f.range(0, pairs, 2 * f.lanes):
            dim(2, d)
        rest = (dims - pairs) // f.lanes
        for n in self.values:
            with f.when(rest == n):
                dim(n, pairs)

    # One tile of queries

    def write_attend(self) -> Emitted[Attend]:
        """A tile's segments, in ascending order, each merged into the total; then the outputs."""
        variant = self.variant
        present = (
            *variant.window_edge, *(("kinds",) if variant.mask else ()), *(("sink",) if variant.sink else ()),
            *(("stretch",) if variant.carried else ()), *self.ahead,
        )  # fmt: skip
        f = Function(self.module, self.tile, "attend", Attend, present=present)
        a = f.arguments
        frame = a.frame
        state, total = frame.space("softmax"), frame.space("total")
        dims = padded(frame.field("value_dim"))
        o_stride, vectors = dims * f.element.bytes, dims // f.lanes

        # The keys that any query of the tile sees: from `begin` to `stop`.
        stop = (a.diagonal + a.rows).clamp(0, a.keys)
        first = frame.field("first_key") if variant.paged else None
        if a.stretch is not None:
            first = a.stretch.first
        if first is not None:  # queries that stand before it see none, and no page of theirs is there to be read
            stop = (first < stop).choose(stop, f.i64(0))
        begin = f.i64(0) if a.left is None else a.left.clamp(0, stop)
        if first is not None:  # what is before has left the cache, or is in the sums already: whole blocks
            begin = least(most(begin, first), stop)
        bounded = a.left is not None or first is not None

        f.call(self.pack_query, PackQuery(frame.table, a.q, a.rows, frame.space("query")))
        self.clear(f, state, TOTAL_M, TOTAL_L)
        with f.when(stop < begin + 1):  # nobody sees anything
            self.write_zeros(f, a, total, o_stride)
        resumed = None
        if a.stretch is not None:
            resumed = a.stretch.resumed != 0
            with f.when(resumed):
                before = CarriedSums(frame.table, total, o_stride, state, a.rows, a.stretch.before)
                f.call(self.load_sums, before)

        for start in f.range(floor_to(begin, SEGMENT) if bounded else 0, stop, SEGMENT):
            # The first segment is the total so far; later ones are summed apart, then merged.
            alone = start < begin + 1 if resumed is None else (start < begin + 1) & ~resumed
            o = alone.choose(total, frame.space("output"))
            self.clear(f, state, M, L)
            first_block = most(start, floor_to(begin, BLOCK)) if bounded else start
            if variant.mask:
                self.write_seen_blocks(f, a, start, first_block, stop, o)
                with f.when(frame.position().read("untouched") != 0):
                    self.write_zeros(f, a, o, o_stride)
            else:
                self.write_blocks(f, a, start, first_block, stop, o)
            with f.either(alone) as (then, otherwise):
                with then:
                    for x in range(self.tile.vectors):
                        f.store(f.load(f.at(state, M, x)), f.at(state, TOTAL_M, x))
                        f.store(f.load(f.at(state, L, x)), f.at(state, TOTAL_L, x))
                with otherwise:
                    f.call(self.merge, Merge(state, o, total, o_stride, a.rows, vectors))

        if a.stretch is not None:
            f.call(self.store_sums, CarriedSums(frame.table, total, o_stride, state, a.rows, a.stretch.after))
            return f.finish()
        # y = O / L and LSE = M + log L
        f.call(self.unpack_output, UnpackOutput(frame.table, total, o_stride, state, a.rows, a.y, a.lse, a.sink))
        return f.finish()

    def clear(self, f: Code, state: Pointer, maximum: int, total: int) -> None:
        """Nothing seen yet: the lowest finite maximum, so that a score of −∞ weighs 0, and an empty sum."""
        for x in range(self.tile.vectors):
            f.store(f.constant(f.element.lowest), f.at(state, maximum, x))
            f.store(f.constant(0.0), f.at(state, total, x))

    def write_zeros(self, f: Code, a: Attend, o: Pointer, o_stride: Int) -> None:
        """o = 0 for a tile that no block has written to."""
        for x in f.range(0, a.rows * o_stride // (self.tile.vector_bits // 8)):
            f.store(f.constant(0.0), f.at(o, 0, x))

    def write_blocks(self, f: Code, a: Attend, start: Int, first_block: Int, stop: Int, o: Pointer) -> None:
        """The blocks of a segment."""
        for b in f.range(first_block, least(stop, start + SEGMENT), BLOCK):
            fresh = (b == first_block).number()
            begin, rows, left = b, least(BLOCK, stop - b), None
            if a.left is not None:  # rows before the first that any query sees are left out
                skipped = (a.left - b).clamp(0, rows)
                begin, rows = b + skipped, rows - skipped
                left = near(f, a.left - begin)
            ahead = None if a.ahead is None else a.ahead.only_if(b == first_block)
            block = AttendBlock(a.frame, a.k, a.v, begin, rows, a.diagonal - begin, a.rows, o, fresh, left, ahead=ahead)
            call_for_vectors(f, self.block, a.rows, block)

    def write_seen_blocks(self, f: Code, a: Attend, start: Int, first_block: Int, stop: Int, o: Pointer) -> None:
        """The blocks of a segment under a fused mask: those that nobody sees are skipped."""
        assert a.kinds is not None
        frame, position = a.frame, a.frame.position()
        position.write(untouched=1)
        for b in f.range(first_block, least(stop, start + SEGMENT), BLOCK):
            rows = least(BLOCK, stop - b)
            skipped = (a.left - b).clamp(0, rows) if a.left is not None else f.i64(0)
            with seen_rows(f, frame, self.see, a.kinds, MaskedBlock(b // BLOCK, b, rows), skipped) as seen:
                at = b + seen.first
                left = near(f, a.left - at) if a.left is not None else None
                fresh = position.read("untouched")
                ahead = None if a.ahead is None else a.ahead.only_if(fresh != 0)
                block = AttendBlock(
                    frame, a.k, a.v, at, seen.rows, a.diagonal - at, a.rows, o, fresh, left, seen.bits, ahead
                )
                call_for_vectors(f, self.block, a.rows, block)
                position.write(untouched=0)

    # The whole problem

    def write_task(self, f: Code, frame: Frame, task: Int) -> Int:
        """One tile of one head, the tiles with most keys first and head by head, so that its keys stay in the cache.

        Gives the tile's cost in multiply-adds.
        """
        get, variant, size = frame.field, self.variant, f.element.bytes
        head, number, tile = self.tile_of_task(f, frame, task)
        q, k, v, y = addresses(f, frame.table, head)
        q, y = q + tile.first * get("query_row"), y + tile.first * get("output_row")
        if variant.packed:
            k, v = k + tile.origin * get("key_row"), v + tile.origin * get("value_row")
        lse = unless_null(f, get("lse"), number_of_query(frame, head, tile, size))
        diagonal = tile.diagonal(frame)
        left = tile.left(frame) if variant.windowed else None
        if variant.score or variant.mask:
            enter(frame, head, tile)
        kinds = block_kinds(f, frame, number) if variant.mask else None
        sink = (get("sink") + head * size).pointer() if variant.sink else None
        stretch = self.stretch(frame, tile, y, number_of_query(frame, head, tile, size)) if variant.carried else None
        ahead = self.after(f, frame, task, Ahead(frame.table, tile.rows, q, y)) if self.ahead else None
        attend = Attend(frame, q, k, v, y, lse, diagonal, tile.keys, tile.rows, left, kinds, sink, stretch, ahead)
        f.call(self.attend, attend)
        seen = (diagonal + tile.rows).clamp(1, most(1, tile.keys))
        if left is not None:
            seen = most(1, seen - left.clamp(0, tile.keys))
        if stretch is not None:
            seen = most(1, seen - stretch.first.clamp(0, tile.keys))
        return seen * self.tile.queries * (get("query_dim") + get("value_dim"))

    def after(self, f: Code, frame: Frame, task: Int, own: Ahead) -> Ahead:
        """A tile's own rows of output, and the queries of the task that its thread will probably take next."""
        get = frame.field
        head, _, tile = self.tile_of_task(f, frame, least(task + get("threads"), get("tasks") - 1))
        return own._replace(q=addresses(f, frame.table, head)[0] + tile.first * get("query_row"))

    def stretch(self, frame: Frame, tile: TileRows, o: Pointer, query: Int) -> Stretch:
        """The keys that there are for a tile, and where its sums lie, with the tile's o at `o` and its m at `query`."""
        get, place = frame.field, o.address() - frame.field("output")
        resumed = get("counters")
        before = (resumed != 0).choose(resumed, frame.table.address()).pointer()  # else anything that can be read
        bases = (before.entry(n).pointer() for n in range(3))
        return Stretch(
            first=most(get("first_key") - tile.origin, 0),
            resumed=resumed,
            before=SumArrays(*(base + offset for base, offset in zip(bases, (place, query, query), strict=True))),
            after=SumArrays(o, (get("lse") + query).pointer(), (get("workspace") + query).pointer()),
        )

    def tile_of_task(self, f: Code, frame: Frame, task: Int) -> tuple[Int, Int, TileRows]:
        """The head, the tile's number in it, and what the tile covers."""
        get, per_tile = frame.field, self.tile.queries
        if self.variant.packed:
            tiles = get("tiles")
            number = task % tiles
            return task // tiles, number, listed_tile(frame, number)[0]
        tiles = (get("queries") + (per_tile - 1)) // per_tile
        number = tiles - 1 - task % tiles
        first = number * per_tile
        rows = least(per_tile, get("queries") - first)
        return task // tiles, number, TileRows(first, rows, get("shift"), f.i64(0), get("keys"))
