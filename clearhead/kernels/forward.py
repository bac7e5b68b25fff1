"""The forward kernel: attention's output and log-sum-exp, tile by tile, in O(n) memory.

A tile is some queries of one head. It walks the keys it may see in ascending order, in blocks and segments, as
`definition.canonical` writes down; each lane is one scalar program, so tile and vector sizes change no bit.
Letters: q k v y query, key, value, output; s score; m l o running maximum, sum and Σ p·v.

On the diagonal only what is seen is computed: with D the last key that the tile's first query sees, keys from D + W·x
on are hidden from the vectors of W queries before vector x, and masked lane by lane in vector x.
"""

from functools import partial
from typing import NamedTuple

import llvmlite.ir as ir

from clearhead.definition.canonical import BLOCK, SEGMENT
from clearhead.kernels.abi.call import TILE
from clearhead.kernels.abi.softmax_state import ALPHA, TOTAL_L, TOTAL_M, L, M
from clearhead.kernels.abi.tiles import DIM_STEP, Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.code import Code, Emitted, internal_function
from clearhead.kernels.ir.values import Int, Pointer, Truth, least, most
from clearhead.kernels.parts.bfloat16_dot import (
    PairValues,
    PairWeights,
    write_native_pack_query,
    write_native_values,
    write_pair_values,
    write_pair_weights,
)
from clearhead.kernels.parts.dense_rows import Rows
from clearhead.kernels.parts.frame import Frame
from clearhead.kernels.parts.mask_bits import (
    Finite,
    See,
    ValuesSeen,
    seen_at,
    write_finite,
    write_see,
    write_values_seen,
)
from clearhead.kernels.parts.packing import (
    PackQuery,
    PackRows,
    UnpackKeys,
    UnpackOutput,
    write_pack_query,
    write_pack_rows,
    write_unpack_keys,
    write_unpack_output,
)
from clearhead.kernels.parts.softmax import Block, BlockScores, ScoreFunctions
from clearhead.kernels.parts.task_queue import addresses, write_queue
from clearhead.kernels.parts.weighted_values import Merge, Values, write_merge, write_values
from clearhead.rules.bounds import MAYBE, NOTHING


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
    first: Int  # not 0: o was nothing yet
    left: Int | None = None
    seen: Pointer | None = None


class Attend(NamedTuple):
    """A tile of `rows` queries, from packing to output.

    Its first query sees the keys from `left` to `diagonal` of the `keys` that there are; k and v begin at key 0.
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


def forward(tile: Tile, variant: Variant) -> ir.Module:
    """Write the forward kernel: `i64 forward(table, scratch, budget)`.

    It takes tiles from the table's queue until none is left (result 0) or `budget` multiply-adds are spent (result 1).
    """
    return Forward(tile, variant).module


class Forward:
    """The module, written bottom up: parts, tiles of every number of vectors, the queue."""

    def __init__(self, tile: Tile, variant: Variant) -> None:
        self.tile, self.variant = tile, variant
        self.module = module = ir.Module("clearhead.forward")
        if variant.native:
            self.pack_query = write_native_pack_query(module, tile, variant)
            self.pair_values = write_pair_values(module, tile)
            self.pair_weights = write_pair_weights(module, tile)
        else:
            self.pack_query = write_pack_query(module, tile, variant)
        self.pack_rows = write_pack_rows(module, tile, variant)
        self.unpack_keys = write_unpack_keys(module, tile, variant) if variant.paged else None
        self.unpack_output = write_unpack_output(module, tile, variant)
        self.merge = write_merge(module, tile)
        self.scores = ScoreFunctions.write(module, tile, variant)
        values = write_native_values if variant.native else write_values
        self.values = {n: values(module, tile, n, variant) for n in range(1, len(tile.rows) + 1)}
        if variant.mask:
            self.see = write_see(module, tile, variant)
            self.finite = write_finite(module, tile)
            self.values_seen = write_values_seen(module, tile, variant)
        self.block = {w: self.write_block(w) for w in range(1, tile.vectors + 1)}
        self.attend = self.write_attend()
        write_queue(module, tile, "forward", self.write_task)

    # One block of keys

    def write_block(self, w: int) -> Emitted[AttendBlock]:
        """One block for w vectors of queries."""
        variant = self.variant
        present = (*variant.window_edge, *(("seen",) if variant.mask else ()))
        f = internal_function(self.module, self.tile, f"block_{w}", AttendBlock, present=present)
        a = f.arguments
        frame, block = a.frame, Block(a.start, a.rows, a.diagonal, a.left)
        s, state = frame.space("scores"), frame.space("softmax")
        query_dim, value_dim = frame.field("query_dim"), frame.field("value_dim")
        dims = padded(value_dim)
        keys = self.dense_rows(f, frame, "key", a.k, block, query_dim, query_dim)
        values = self.dense_rows(f, frame, "value", a.v, block, value_dim, dims)

        position = frame.position()
        first_key = position.read("origin") + a.start if variant.score else None
        BlockScores(
            f, self.scores, w, block, keys, values, query_dim, frame.space("query"), s, state, frame.table, position,
            first_key,
        ).write_softmax(a.seen)  # fmt: skip
        if variant.native:
            for x in range(w):
                weights = PairWeights(p=f.at(s, 0, x), stop=block.edge(f, x + 1), rows=a.rows)
                f.call(self.pair_weights, weights)
        vectors = dims // f.lanes

        def dim(n: int, d: Int) -> None:
            offset = d * f.element.bytes
            v_dims, o_dims = values.base + offset, a.o + offset
            f.call(
                self.values[n],
                Values(
                    p=s, v=v_dims, stride=values.stride, rows=a.rows, diagonal=a.diagonal, queries=a.queries, o=o_dims,
                    o_stride=values.size, alpha=f.at(state, ALPHA, 0), first=a.first, left=a.left,
                ),
            )  # fmt: skip

        def all_dims() -> None:
            # Few dims are summed at once; of many, two vectors: their part of a block of values stays in the L1 cache.
            few = vectors < len(self.values) + 1
            pairs = few.choose(f.i64(0), dims - dims % (2 * f.lanes))
            for d in f.range(0, pairs, 2 * f.lanes):
                dim(2, d)
            rest = (dims - pairs) // f.lanes
            for n in self.values:
                with f.when(rest == n):
                    dim(n, pairs)

        if a.seen is None:
            all_dims()
            return f.finish()
        whole = a.seen.is_null()
        # 0 · v is nothing if v is finite, so that sums may run over hidden values too.
        finite = f.call_int(self.finite, Finite(v=values.base, stride=values.stride, rows=a.rows, vectors=vectors))
        with f.either(whole | (finite != 0)) as (then, otherwise):
            with then:
                all_dims()
            with otherwise:
                f.call(
                    self.values_seen,
                    ValuesSeen(
                        p=s, v=values.base, stride=values.stride, rows=a.rows, diagonal=a.diagonal, queries=a.queries,
                        o=a.o, o_stride=values.size, alpha=f.at(state, ALPHA, 0), first=a.first, seen=a.seen,
                        vectors=vectors, left=a.left,
                    ),
                )  # fmt: skip
        return f.finish()

    def dense_rows(self, f: Code, frame: Frame, name: str, base: Pointer, block: Block, dims: Int, width: Int) -> Rows:
        """The block's rows of keys or values: in place if dense, wide enough and not stored narrower, else copied."""
        row, element = frame.field(f"{name}_row"), frame.field(f"{name}_element")
        place, copies = base + block.start * row, frame.space(f"{name}s")
        size = width * f.element.bytes
        copied = Rows(copies, size, size)

        def pack(source: Pointer, scales: Pointer | None = None) -> None:
            f.call(self.pack_rows, PackRows(source, row, element, block.rows, dims, width, copies, scales))

        if self.variant.paged:
            page = base.entry(block.start // BLOCK).pointer()
            inside = block.start % BLOCK
            if name == "value":
                place, scales = page + inside * row, page + row * BLOCK
                if not self.variant.kept:
                    return Rows(place, row, size)
                pack(place, scales + inside * f.element.bytes if self.variant.int8 else None)
                return copied
            assert self.unpack_keys is not None
            f.call(self.unpack_keys, UnpackKeys(page, inside, block.rows, dims, copies))
            return copied
        if self.variant.native:
            if name == "key":
                return Rows(place, row, size)
            f.call(self.pair_values, PairValues(place, row, block.rows, dims, copies))
            return copied
        if self.variant.storage:
            pack(place)
            return copied
        dense = element == f.element.bytes
        in_place = dense & (dims == width)
        with f.when(~in_place):
            pack(place)
        return Rows(in_place.choose(place, copies), in_place.choose(row, size), size)

    # One tile of queries

    def write_attend(self) -> Emitted[Attend]:
        """A tile's segments, one after the other, each merged into the total."""
        variant = self.variant
        present = (
            *variant.window_edge, *(("kinds",) if variant.mask else ()), *(("sink",) if variant.sink else ()),
        )  # fmt: skip
        f = internal_function(self.module, self.tile, "attend", Attend, present=present)
        a = f.arguments
        frame = a.frame
        state, total = frame.space("softmax"), frame.space("total")
        stop = (a.diagonal + a.rows).clamp(0, a.keys)
        begin = f.i64(0) if a.left is None else a.left.clamp(0, stop)
        if variant.paged:  # what is before has left the cache: whole blocks
            begin = least(most(begin, frame.field("first_key")), stop)
        dims = padded(frame.field("value_dim"))
        o_stride, vectors = dims * f.element.bytes, dims // f.lanes
        size = a.rows * o_stride // (self.tile.vector_bits // 8)

        def zero(o: Pointer) -> None:
            for x in f.range(0, size):
                f.store(f.constant(0.0), f.at(o, 0, x))

        f.call(self.pack_query, PackQuery(frame.table, a.q, a.rows, frame.space("query")))
        self.clear(f, state, TOTAL_M, TOTAL_L)
        with f.when(stop < begin + 1):
            zero(total)  # nobody sees anything

        bounded = a.left is not None or variant.paged
        for start in f.range(floor(begin, SEGMENT) if bounded else 0, stop, SEGMENT):
            alone = start < begin + 1
            # The first segment is the total so far; later ones are summed apart, then merged.
            o = alone.choose(total, frame.space("output"))
            self.clear(f, state, M, L)
            first_block = most(start, floor(begin, BLOCK)) if bounded else start
            if variant.mask:
                self.write_seen_blocks(f, a, start, first_block, stop, o)
                with f.when(self.untouched(frame)):
                    zero(o)
            else:
                self.write_blocks(f, a, start, first_block, stop, o)
            with f.either(alone) as (then, otherwise):
                with then:
                    for x in range(self.tile.vectors):
                        f.store(f.load(f.at(state, M, x)), f.at(state, TOTAL_M, x))
                        f.store(f.load(f.at(state, L, x)), f.at(state, TOTAL_L, x))
                with otherwise:
                    f.call(self.merge, Merge(state, o, total, o_stride, a.rows, vectors))

        f.call(self.unpack_output, UnpackOutput(frame.table, total, o_stride, state, a.rows, a.y, a.lse, a.sink))
        return f.finish()

    def write_blocks(self, f: Code, a: Attend, start: Int, first_block: Int, stop: Int, o: Pointer) -> None:
        """The blocks of a segment."""
        for b in f.range(first_block, least(stop, start + SEGMENT), BLOCK):
            fresh = (b == first_block).number()
            rows, begin, left = least(BLOCK, stop - b), b, None
            if a.left is not None:  # rows before the first that any query sees are left out
                skipped = (a.left - b).clamp(0, rows)
                begin, rows = b + skipped, rows - skipped
                left = self.near(a.left - begin)
            self.call_block(f, AttendBlock(
                a.frame, a.k, a.v, begin, rows, a.diagonal - begin, a.rows, o, fresh, left,
            ))  # fmt: skip

    def write_seen_blocks(self, f: Code, a: Attend, start: Int, first_block: Int, stop: Int, o: Pointer) -> None:
        """The blocks of a segment under a fused mask: those that nobody sees are skipped."""
        frame, kinds = a.frame, a.kinds
        assert kinds is not None
        bits, position = frame.space("seen"), frame.position()
        position.write(untouched=1)
        known = kinds.given()
        origin = position.read("origin")

        for b in f.range(first_block, least(stop, start + SEGMENT), BLOCK):
            rows = least(BLOCK, stop - b)
            skipped = (a.left - b).clamp(0, rows) if a.left is not None else f.i64(0)
            position.write(seen_first=skipped, seen_stop=rows, seen_all=1)
            maybe, nothing = self.kind_of(f, kinds, known, b)
            with f.when(maybe):
                f.call(self.see, See(frame.table, position, origin + b, rows, bits))
            first, last, every = (position.read(name) for name in ("seen_first", "seen_stop", "seen_all"))
            first = most(first, skipped)
            with f.when((first < last) & ~nothing):
                at, count = b + first, last - first
                left = self.near(a.left - at) if a.left is not None else None
                whole = every != 0
                address = seen_at(f, bits, first, f.i64(0)).address()
                seen = whole.choose(f.i64(0), address).pointer()
                fresh = position.read("untouched")
                self.call_block(f, AttendBlock(
                    frame, a.k, a.v, at, count, a.diagonal - at, a.rows, o, fresh, left, seen,
                ))  # fmt: skip
                position.write(untouched=0)

    def kind_of(self, f: Code, kinds: Pointer, known: Truth, b: Int) -> tuple[Truth, Truth]:
        """What is known of a block beforehand: whether it must be looked at, and whether nobody sees it."""
        entry = kinds + b // BLOCK

        def known_kind() -> Int:
            return Int(f.build, f.load_bits(entry, 8).resized(64).ir)

        kind = f.value_if(known, known_kind, f.i64(MAYBE), ("known_kind", "kind"))
        return kind == MAYBE, kind == NOTHING

    def untouched(self, frame: Frame) -> Truth:
        """Whether no block of the segment was seen."""
        return frame.position().read("untouched") != 0

    def near(self, left: Int) -> Int:
        """A left edge as far as it matters to a tile, so that it fits into a lane."""
        return left.clamp(-2 * self.tile.queries, 2 * BLOCK)

    def clear(self, f: Code, state: Pointer, maximum: int, total: int) -> None:
        """Nothing seen yet: the lowest finite maximum, so that a score of −∞ weighs 0, and an empty sum."""
        for x in range(self.tile.vectors):
            f.store(f.constant(f.element.lowest), f.at(state, maximum, x))
            f.store(f.constant(0.0), f.at(state, total, x))

    def call_block(self, f: Code, block: AttendBlock) -> None:
        """Call the block function for as many vectors as hold the tile's queries."""
        vectors = (block.queries + (f.lanes - 1)) // f.lanes
        calls = {w: partial(f.call, function, block) for w, function in self.block.items()}
        f.switch(vectors, calls, ("vectors", "block_done"))

    # The whole problem

    def write_task(self, f: Code, frame: Frame, task: Int) -> Int:
        """One tile of one head, the tiles with most keys first and head by head, so that its keys stay in the cache.

        Gives the tile's cost in multiply-adds.
        """
        get = frame.field
        per_tile, variant = self.tile.queries, self.variant
        if variant.packed:
            tiles = get("tiles")
            head, tile = task // tiles, task % tiles
            entry = (get("tile_table") + tile * (8 * len(TILE))).pointer()
            first, rows, shift, origin, keys = (entry.entry(n) for n in range(len(TILE)))
        else:
            tiles = (get("queries") + (per_tile - 1)) // per_tile
            head = task // tiles
            tile = tiles - 1 - task % tiles
            first, shift, origin, keys = tile * per_tile, get("shift"), f.i64(0), get("keys")
            rows = least(per_tile, get("queries") - first)
        q, k, v, y = addresses(f, frame.table, head)
        q, y = q + first * get("query_row"), y + first * get("output_row")
        if variant.packed:
            k, v = k + origin * get("key_row"), v + origin * get("value_row")
        index = head * get("queries") + first
        wanted = get("lse") != 0
        place = get("lse") + index * f.element.bytes
        lse = wanted.choose(place, f.i64(0)).pointer()
        at = first + shift - origin
        diagonal = at + get("high")
        left = at + get("low") if variant.windowed else None
        kinds = sink = None
        if variant.score or variant.mask:
            batch, own_head = head // get("heads"), head % get("heads")
            last = first + rows - 1
            frame.position().write(batch=batch, head=own_head, row=first, last=last, shift=shift, origin=origin)
            if variant.mask:
                offset = batch * get("block_batches") + own_head * get("block_heads")
                offset = get("blocks") + (offset + tile * get("block_columns"))
                known = get("blocks") != 0
                kinds = known.choose(offset, f.i64(0)).pointer()
        if variant.sink:
            sink = (get("sink") + head * f.element.bytes).pointer()
        f.call(self.attend, Attend(frame, q, k, v, y, lse, diagonal, keys, rows, left, kinds, sink))
        seen = (diagonal + rows).clamp(1, most(1, keys))
        if left is not None:
            seen = most(1, seen - left.clamp(0, keys))
        return seen * per_tile * (get("query_dim") + get("value_dim"))


def floor(x: Int, step: int) -> Int:
    """x ≥ 0 rounded down to a multiple of step."""
    return x - x % step


def padded(dims: Int) -> Int:
    """Value dims rounded up to what the tiles need."""
    return (dims + (DIM_STEP - 1)) // DIM_STEP * DIM_STEP
