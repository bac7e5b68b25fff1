"""The forward kernel: attention's output and log-sum-exp, tile by tile, in O(n) memory.

A tile is some queries of one head. It walks the keys it may see in ascending order, in blocks and segments, as
`definition.canonical` writes down; each lane is one scalar program, so tile and vector sizes change no bit.
Letters: q k v y query, key, value, output; s score; m l o running maximum, sum and Σ p·v.

On the diagonal only what is seen is computed: with D the last key that the tile's first query sees, keys from D + W·x
on are hidden from the vectors of W queries before vector x, and masked lane by lane in vector x.
"""

from functools import partial

import llvmlite.ir as ir

from clearhead.definition.canonical import BLOCK, SEGMENT
from clearhead.kernels.abi.call import TILE
from clearhead.kernels.abi.softmax_state import ALPHA, TOTAL_L, TOTAL_M, L, M
from clearhead.kernels.abi.tiles import DIM_STEP, Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.simd import Function, Value, i8, i64, internal_function, pointer
from clearhead.kernels.parts import bfloat16_dot as native
from clearhead.kernels.parts.mask_bits import seen_at, write_finite, write_hide, write_see, write_values_seen
from clearhead.kernels.parts.packing import (
    field,
    write_pack_query,
    write_pack_rows,
    write_unpack_keys,
    write_unpack_output,
)
from clearhead.kernels.parts.scores import write_exponentials, write_rules, write_score
from clearhead.kernels.parts.softmax import Block, Rows, Softmax
from clearhead.kernels.parts.task_queue import addresses, write_queue
from clearhead.kernels.parts.tile_position import read_place, write_place
from clearhead.kernels.parts.weighted_values import write_merge, write_values
from clearhead.rules.bounds import MAYBE, NOTHING


def forward(tile: Tile, variant: Variant) -> ir.Module:
    """Write the forward kernel: `i64 forward(table, scratch, budget)`.

    It takes tiles from the table's queue until none is left (result 0) or `budget` multiply-adds are spent (result 1).
    """
    return Forward(tile, variant).module


class Forward:
    """The module, written bottom up: parts, tiles of every number of vectors, the queue."""

    name = "forward"

    def __init__(self, tile: Tile, variant: Variant) -> None:
        self.tile, self.variant = tile, variant
        self.module = ir.Module("clearhead.forward")
        if variant.native:
            self.pack_query = native.write_pack_query(self.module, tile)
            self.pair_values = native.write_pair_values(self.module, tile)
            self.pair_weights = native.write_pair_weights(self.module, tile)
        else:
            self.pack_query = write_pack_query(self.module, tile, variant)
        self.pack_rows = write_pack_rows(self.module, tile, variant)
        self.unpack_keys = write_unpack_keys(self.module, tile, variant) if variant.paged else None
        self.unpack_output = write_unpack_output(self.module, tile, variant)
        self.merge = write_merge(self.module, tile)
        widths = range(1, tile.vectors + 1)
        score = native.write_score if variant.native else partial(write_score, variant=variant)
        self.score = {w: score(self.module, tile, w) for w in widths}
        self.rules = {w: write_rules(self.module, tile, w, variant) for w in widths} if variant.score else {}
        self.exponentials = {w: write_exponentials(self.module, tile, w) for w in widths}
        values = native.write_values if variant.native else partial(write_values, variant=variant)
        self.values = {n: values(self.module, tile, n) for n in range(1, len(tile.rows) + 1)}
        self.hide = write_hide(self.module, tile) if variant.mask else None
        if variant.mask:
            self.see = write_see(self.module, tile, variant)
            self.finite = write_finite(self.module, tile)
            self.values_seen = write_values_seen(self.module, tile, variant)
        self.block = {w: self.write_block(w) for w in widths}
        self.attend = self.write_attend()
        write_queue(self.module, tile, self.name, self.write_task)

    # One block of keys

    def write_block(self, w: int) -> ir.Function:
        """Scores, softmax and weighted values of one block for w vectors of queries, merged into the segment.

        With a fused mask, `seen` holds its bits, or is null where every pair is seen.
        """
        more = (*(("left",) if self.variant.windowed else ()), *(("seen_p",) if self.variant.mask else ()))
        f = internal_function(
            self.module, self.tile, f"block_{w}", "table_p", "scratch_p", "k_p", "v_p", "start", "rows", "diagonal",
            "queries", "o_p", "first", *more,
        )  # fmt: skip
        table, scratch, k, v, start, rows, diagonal, queries, o, first, *others = f.arguments
        block = Block(start, rows, diagonal, others[0] if self.variant.windowed else None)
        s, state = self.space(f, table, scratch, "scores"), self.space(f, table, scratch, "softmax")
        row = partial(f.in_row, state)  # row(which, x): vector x of one of the state's rows
        query_dim, value_dim = field(f, table, "query_dim"), field(f, table, "value_dim")
        dims = padded(f, value_dim)
        keys = self.dense_rows(f, table, scratch, "key", k, block, query_dim, query_dim)
        values = self.dense_rows(f, table, scratch, "value", v, block, value_dim, dims)

        place = self.space(f, table, scratch, "place")
        key = f.add(read_place(f, place, "origin"), start) if self.variant.score else None
        Softmax(
            f, self.variant, self.score, self.rules, self.exponentials, self.hide, w, block, keys, values, query_dim,
            self.space(f, table, scratch, "query"), s, state, (table, place, key),
        ).write(others[-1] if self.variant.mask else None)  # fmt: skip
        if self.variant.native:
            for x in range(w):
                f.call(self.pair_weights, f.in_row(s, 0, x), block.edge(f, x + 1), rows)
        seen = (block.rows, block.diagonal, queries)
        vectors = f.block.sdiv(dims, f.i64(f.lanes))

        def dim(n: int, d: Value) -> None:
            offset = f.mul(d, f.element.bytes)
            v_dims, o_dims = f.at(values.base, offset), f.at(o, offset)
            left = (block.left,) if block.left else ()
            f.call(self.values[n], s, v_dims, values.stride, *seen, o_dims, values.size, row(ALPHA, 0), first, *left)

        def all_dims() -> None:
            # Few dims are summed at once; of many, two vectors: their part of a block of values stays in the L1 cache.
            few = f.less(vectors, len(self.values) + 1)
            pairs = f.block.select(few, f.i64(0), f.sub(dims, f.block.srem(dims, f.i64(2 * f.lanes))))
            f.loop(0, pairs, 2 * f.lanes, lambda d, _: dim(2, d))
            left = f.block.sdiv(f.sub(dims, pairs), f.i64(f.lanes))
            for n in self.values:
                with f.when(f.block.icmp_signed("==", left, f.i64(n))):
                    dim(n, pairs)

        if not self.variant.mask:
            all_dims()
            return f.finish()
        whole = f.block.icmp_unsigned("==", f.block.ptrtoint(others[-1], i64), f.i64(0))
        # 0 · v is nothing if v is finite, so that sums may run over hidden values too.
        finite = f.call(self.finite, values.base, values.stride, block.rows, vectors)
        plain = f.block.or_(whole, f.block.icmp_signed("!=", finite, f.i64(0)))
        with f.block.if_else(plain) as (then, otherwise):
            with then:
                all_dims()
            with otherwise:
                left = (block.left,) if block.left else ()
                f.call(
                    self.values_seen, s, values.base, values.stride, *seen, o, values.size, row(ALPHA, 0), first,
                    others[-1], vectors, *left,
                )  # fmt: skip
        return f.finish()

    def dense_rows(
        self, f: Function, table: Value, scratch: Value, name: str, base: Value, block: Block, dims: Value, width: Value
    ) -> Rows:
        """The block's rows of keys or values: in place if dense, wide enough and not stored narrower, else copied."""
        row, element = field(f, table, f"{name}_row"), field(f, table, f"{name}_element")
        place, copies = f.at(base, f.mul(block.start, row)), self.space(f, table, scratch, f"{name}s")
        size = f.mul(width, f.element.bytes)
        if self.variant.paged:
            page = f.block.inttoptr(f.load_int(base, f.block.sdiv(block.start, f.i64(BLOCK))), pointer)
            inside = f.block.srem(block.start, f.i64(BLOCK))
            if name == "value":
                place, scales = f.at(page, f.mul(inside, row)), f.at(page, f.mul(row, BLOCK))
                if not self.variant.kept:
                    return Rows(place, row, size)
                own = [f.at(scales, f.mul(inside, f.element.bytes))] if self.variant.int8 else []
                f.call(self.pack_rows, place, row, element, block.rows, dims, width, copies, *own)
                return Rows(copies, size, size)
            f.call(self.unpack_keys, page, inside, block.rows, dims, copies)
            return Rows(copies, size, size)
        if self.variant.native:
            if name == "key":
                return Rows(place, row, size)
            f.call(self.pair_values, place, row, block.rows, dims, copies)
            return Rows(copies, size, size)
        if self.variant.storage:
            f.call(self.pack_rows, place, row, element, block.rows, dims, width, copies)
            return Rows(copies, size, size)
        dense = f.block.icmp_signed("==", element, f.i64(f.element.bytes))
        in_place = f.block.and_(dense, f.block.icmp_signed("==", dims, width))
        with f.when(f.block.not_(in_place)):
            f.call(self.pack_rows, place, row, element, block.rows, dims, width, copies)
        return Rows(f.block.select(in_place, place, copies), f.block.select(in_place, row, size), size)

    def space(self, f: Function, table: Value, scratch: Value, name: str) -> Value:
        """Where something lies in the thread's scratch memory."""
        return f.at(scratch, field(f, table, f"at_{name}"))

    # One tile of queries

    def write_attend(self) -> ir.Function:
        """A tile of `rows` queries, from packing to output.

        Its first query sees the keys from `left` to `diagonal` of the `keys` that there are; k and v begin at key 0.
        """
        more = (
            *(("left",) if self.variant.windowed else ()),
            *(("kinds_p",) if self.variant.mask else ()),
            *(("sink_p",) if self.variant.sink else ()),
        )
        f = internal_function(
            self.module, self.tile, "attend", "table_p", "scratch_p", "q_p", "k_p", "v_p", "y_p", "lse_p", "diagonal",
            "keys", "rows", *more,
        )  # fmt: skip
        table, scratch, q, k, v, y, lse, diagonal, keys, rows, *others = f.arguments
        named = dict(zip(more, others, strict=True))
        state, total = self.space(f, table, scratch, "softmax"), self.space(f, table, scratch, "total")
        stop = f.clamp(f.add(diagonal, rows), 0, keys)
        left = named.get("left")
        begin: Value = f.i64(0) if left is None else f.clamp(left, 0, stop)
        if self.variant.paged:  # what is before has left the cache: whole blocks
            begin = f.least(f.most(begin, field(f, table, "first_key")), stop)
        dims = padded(f, field(f, table, "value_dim"))
        o_stride, vectors = f.mul(dims, f.element.bytes), f.block.sdiv(dims, f.i64(f.lanes))
        size = f.block.sdiv(f.mul(rows, o_stride), f.i64(self.tile.vector_bits // 8))

        def zero(o: Value) -> None:
            f.loop(0, size, 1, lambda x, _: f.store(f.constant(0.0), f.in_row(o, 0, x)))

        f.call(self.pack_query, table, q, rows, self.space(f, table, scratch, "query"))
        self.clear(f, state, TOTAL_M, TOTAL_L)
        with f.when(f.less(stop, f.add(begin, 1))):
            zero(total)  # nobody sees anything

        bounded = left is not None or self.variant.paged

        def segment(start: Value, _: list[Value]) -> None:
            alone = f.less(start, f.add(begin, 1))
            # The first segment is the total so far; later ones are summed apart, then merged.
            o = f.block.select(alone, total, self.space(f, table, scratch, "output"))
            self.clear(f, state, M, L)
            first_block = f.most(start, floor(f, begin, BLOCK)) if bounded else start
            arguments = (table, scratch, k, v, diagonal, rows, stop, o)
            if self.variant.mask:
                self.write_seen_blocks(f, arguments, start, first_block, named)
                with f.when(self.untouched(f, table, scratch)):
                    zero(o)
            else:
                self.write_blocks(f, arguments, start, first_block, left)
            with f.block.if_else(alone) as (then, otherwise):
                with then:
                    for x in range(self.tile.vectors):
                        f.store(f.load(f.in_row(state, M, x)), f.in_row(state, TOTAL_M, x))
                        f.store(f.load(f.in_row(state, L, x)), f.in_row(state, TOTAL_L, x))
                with otherwise:
                    f.call(self.merge, state, o, total, o_stride, rows, vectors)

        f.loop(floor(f, begin, SEGMENT) if bounded else 0, stop, SEGMENT, segment)
        sink = (named["sink_p"],) if self.variant.sink else ()
        f.call(self.unpack_output, table, total, o_stride, state, rows, y, lse, *sink)
        return f.finish()

    def write_blocks(
        self, f: Function, arguments: tuple[Value, ...], start: Value, first_block: Value, left: Value | None
    ) -> None:
        """The blocks of a segment."""
        table, scratch, k, v, diagonal, rows, stop, o = arguments

        def block(b: Value, _: list[Value]) -> None:
            fresh = f.block.zext(f.block.icmp_signed("==", b, first_block), i64)
            seen = f.least(BLOCK, f.sub(stop, b))
            more = []
            if left is not None:  # rows before the first that any query sees are left out
                skipped = f.clamp(f.sub(left, b), 0, seen)
                b, seen = f.add(b, skipped), f.sub(seen, skipped)
                more = [self.bounded(f, f.sub(left, b))]
            self.call_block(f, (table, scratch, k, v, b, seen, f.sub(diagonal, b), rows, o, fresh, *more), rows)

        f.loop(first_block, f.least(stop, f.add(start, SEGMENT)), BLOCK, block)

    def write_seen_blocks(
        self, f: Function, arguments: tuple[Value, ...], start: Value, first_block: Value, named: dict[str, Value]
    ) -> None:
        """The blocks of a segment under a fused mask: those that nobody sees are skipped."""
        table, scratch, k, v, diagonal, rows, stop, o = arguments
        left, kinds = named.get("left"), named["kinds_p"]
        seen_bits, place = self.space(f, table, scratch, "seen"), self.space(f, table, scratch, "place")
        write_place(f, place, untouched=1)
        known = f.block.icmp_unsigned("!=", f.block.ptrtoint(kinds, i64), f.i64(0))
        origin = read_place(f, place, "origin")

        def block(b: Value, _: list[Value]) -> None:
            rows_here = f.least(BLOCK, f.sub(stop, b))
            skipped = f.clamp(f.sub(left, b), 0, rows_here) if left is not None else f.i64(0)
            write_place(f, place, seen_first=skipped, seen_stop=rows_here, seen_all=1)
            maybe, nothing = self.kind_of(f, kinds, known, b)
            with f.when(maybe):
                f.call(self.see, table, place, f.add(origin, b), rows_here, seen_bits)
            first, last, every = (read_place(f, place, name) for name in ("seen_first", "seen_stop", "seen_all"))
            first = f.most(first, skipped)
            with f.when(f.block.and_(f.less(first, last), f.block.not_(nothing))):
                at, count = f.add(b, first), f.sub(last, first)
                more = [self.bounded(f, f.sub(left, at))] if left is not None else []
                whole = f.block.icmp_signed("!=", every, f.i64(0))
                bits = f.block.ptrtoint(seen_at(f, seen_bits, first, f.i64(0)), i64)
                more.append(f.block.inttoptr(f.block.select(whole, f.i64(0), bits), pointer))
                fresh = read_place(f, place, "untouched")
                self.call_block(f, (table, scratch, k, v, at, count, f.sub(diagonal, at), rows, o, fresh, *more), rows)
                write_place(f, place, untouched=0)

        f.loop(first_block, f.least(stop, f.add(start, SEGMENT)), BLOCK, block)

    def kind_of(self, f: Function, kinds: Value, known: Value, b: Value) -> tuple[Value, Value]:
        """What is known of a block beforehand: whether it must be looked at, and whether nobody sees it."""
        entry = f.at(kinds, f.block.sdiv(b, f.i64(BLOCK)))
        here = f.ir.append_basic_block("known_kind")
        after = f.ir.append_basic_block("kind")
        before = f.block.block
        f.block.cbranch(known, here, after)
        f.block.position_at_end(here)
        kind_here = f.block.zext(f.block.load(entry, typ=i8, align=1), i64)
        f.block.branch(after)
        f.block.position_at_end(after)
        kind = f.block.phi(i64)
        kind.add_incoming(f.i64(MAYBE), before)
        kind.add_incoming(kind_here, here)
        return f.block.icmp_signed("==", kind, f.i64(MAYBE)), f.block.icmp_signed("==", kind, f.i64(NOTHING))

    def untouched(self, f: Function, table: Value, scratch: Value) -> Value:
        """Whether no block of the segment was seen."""
        place = self.space(f, table, scratch, "place")
        return f.block.icmp_signed("!=", read_place(f, place, "untouched"), f.i64(0))

    def bounded(self, f: Function, left: Value) -> Value:
        """A left edge as far as it matters to a tile, so that it fits into a lane."""
        return f.clamp(left, -2 * self.tile.queries, 2 * BLOCK)

    def clear(self, f: Function, state: Value, maximum: int, total: int) -> None:
        """Nothing seen yet: the lowest finite maximum, so that a score of −∞ weighs 0, and an empty sum."""
        for x in range(self.tile.vectors):
            f.store(f.constant(f.element.lowest), f.in_row(state, maximum, x))
            f.store(f.constant(0.0), f.in_row(state, total, x))

    def call_block(self, f: Function, arguments: tuple[Value, ...], rows: Value) -> None:
        """Call the block function for as many vectors as hold `rows` queries."""
        vectors = f.block.sdiv(f.add(rows, f.lanes - 1), f.i64(f.lanes))
        after = f.ir.append_basic_block("block_done")
        cases = {w: f.ir.append_basic_block(f"vectors_{w}") for w in self.block}
        switch = f.block.switch(vectors, cases[self.tile.vectors])
        for w, case in cases.items():
            switch.add_case(f.i64(w), case)
            f.block.position_at_end(case)
            f.call(self.block[w], *arguments)
            f.block.branch(after)
        f.block.position_at_end(after)

    # The whole problem

    def write_task(self, f: Function, table: Value, scratch: Value, task: Value) -> Value:
        """One tile of one head, the tiles with most keys first and head by head, so that its keys stay in the cache.

        Gives the tile's cost in multiply-adds.
        """
        get = partial(field, f, table)
        per_tile, variant = self.tile.queries, self.variant
        if variant.packed:
            tiles = get("tiles")
            head, tile = f.block.sdiv(task, tiles), f.block.srem(task, tiles)
            entry = f.block.inttoptr(f.add(get("tile_table"), f.mul(tile, 8 * len(TILE))), pointer)
            first, rows, shift, origin, keys = (f.load_int(entry, n) for n in range(len(TILE)))
        else:
            tiles = f.block.sdiv(f.add(get("queries"), per_tile - 1), f.i64(per_tile))
            head = f.block.sdiv(task, tiles)
            tile = f.sub(f.sub(tiles, 1), f.block.srem(task, tiles))
            first, shift, origin, keys = f.mul(tile, per_tile), get("shift"), f.i64(0), get("keys")
            rows = f.least(per_tile, f.sub(get("queries"), first))
        q, k, v, y = addresses(f, table, head)
        q, y = f.at(q, f.mul(first, get("query_row"))), f.at(y, f.mul(first, get("output_row")))
        if variant.packed:
            k, v = f.at(k, f.mul(origin, get("key_row"))), f.at(v, f.mul(origin, get("value_row")))
        index = f.add(f.mul(head, get("queries")), first)
        wanted = f.block.icmp_signed("!=", get("lse"), f.i64(0))
        place = f.add(get("lse"), f.mul(index, f.element.bytes))
        lse = f.block.inttoptr(f.block.select(wanted, place, f.i64(0)), pointer)
        position = f.sub(f.add(first, shift), origin)
        diagonal = f.add(position, get("high"))
        left = f.add(position, get("low")) if variant.windowed else None
        more = [left] if variant.windowed else []
        if variant.score or variant.mask:
            batch, own = f.block.sdiv(head, get("heads")), f.block.srem(head, get("heads"))
            last = f.sub(f.add(first, rows), 1)
            here = self.space(f, table, scratch, "place")
            write_place(f, here, batch=batch, head=own, row=first, last=last, shift=shift, origin=origin)
            if variant.mask:
                offset = f.add(f.mul(batch, get("block_batches")), f.mul(own, get("block_heads")))
                offset = f.add(get("blocks"), f.add(offset, f.mul(tile, get("block_columns"))))
                known = f.block.icmp_signed("!=", get("blocks"), f.i64(0))
                more.append(f.block.inttoptr(f.block.select(known, offset, f.i64(0)), pointer))
        if variant.sink:
            more.append(f.block.inttoptr(f.add(get("sink"), f.mul(head, f.element.bytes)), pointer))
        f.call(self.attend, table, scratch, q, k, v, y, lse, diagonal, keys, rows, *more)
        seen = f.clamp(f.add(diagonal, rows), 1, f.most(1, keys))
        if left is not None:
            seen = f.most(1, f.sub(seen, f.clamp(left, 0, keys)))
        return f.mul(f.mul(seen, per_tile), f.add(get("query_dim"), get("value_dim")))


def floor(f: Function, x: Value, step: int) -> Value:
    """x ≥ 0 rounded down to a multiple of step."""
    return f.sub(x, f.block.srem(x, f.i64(step)))


def padded(f: Function, dims: Value) -> Value:
    """Value dims rounded up to what the tiles need."""
    return f.mul(f.block.sdiv(f.add(dims, DIM_STEP - 1), f.i64(DIM_STEP)), DIM_STEP)
