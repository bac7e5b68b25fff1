"""The backward kernel: the gradients of q, k, v and of what rules hold, tile by tile, in O(n) memory.

A tile is some queries of one head. It walks the keys that it may see in blocks, in ascending order, and computes each
block's weights anew from the log-sum-exp: Sᵀ and dPᵀ are score tiles (keys, values broadcast), then come one pass for P
and dS, and three sums: dV += Pᵀ dO, dK += dSᵀ Q in memory, dQ += dS K in the tile's own.

The same bits for any number of threads: tiles that add to the same dK and dV form a chain. Each passes the blocks of
keys in order and tells how far it is; the next one in the chain adds to a block only after it. Threads follow each
other through the blocks, or work on different chains. Letters as in `definition.gradient`.
"""

from functools import partial
from typing import Any

import llvmlite.ir as ir

from clearhead.kernels.abi.call import TILE
from clearhead.kernels.abi.gradient_call import AXIS, BLOCK, DONE, FIELDS
from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import PLAIN, Variant
from clearhead.kernels.forward import padded
from clearhead.kernels.ir.simd import Function, Value, i8, i32, i64, internal_function, pointer
from clearhead.kernels.parts.gradient_packing import write_columns, write_state, write_unpack_rows
from clearhead.kernels.parts.gradient_sums import Sums
from clearhead.kernels.parts.mask_bits import seen_at, write_finite, write_see
from clearhead.kernels.parts.packing import write_pack_rows
from clearhead.kernels.parts.scatter_add import write_spread
from clearhead.kernels.parts.score_gradients import write_weights
from clearhead.kernels.parts.scores import write_score
from clearhead.kernels.parts.task_queue import addresses, write_queue
from clearhead.kernels.parts.tile_position import read_place, write_place
from clearhead.rules.bounds import MAYBE, NOTHING

GROUP = 16  # rows of a block that are scored for the same vectors of queries, where not all see all


def backward(tile: Tile, variant: Variant) -> ir.Module:
    """Write the backward kernel: `i64 backward(table, scratch, budget)`, called as the forward kernel is."""
    return Backward(tile, variant).module


class Backward:
    """The module, written bottom up: parts, blocks for every number of vectors, the tile, the queue."""

    def __init__(self, tile: Tile, variant: Variant) -> None:
        self.tile, self.variant = tile, variant
        self.module = ir.Module("clearhead.backward")
        widths = range(1, tile.vectors + 1)
        self.pack_rows = write_pack_rows(self.module, tile, variant)
        self.pack_output = self.pack_rows  # the output as it was before it was rounded
        if variant.storage:
            self.pack_output = write_pack_rows(self.module, tile, PLAIN, "pack_output")
        self.unpack_rows = write_unpack_rows(self.module, tile, variant)
        self.columns = write_columns(self.module, tile)
        self.state = write_state(self.module, tile)
        self.score = {w: write_score(self.module, tile, w, PLAIN) for w in widths}
        self.weights = {w: write_weights(self.module, tile, w, variant, "edges") for w in widths}
        self.weights_whole = write_weights(self.module, tile, tile.vectors, variant, "nothing")
        self.down, self.across = Sums(self.module, tile, False), Sums(self.module, tile, True)
        self.finite = write_finite(self.module, tile)
        if variant.mask:
            self.weights_masked = {w: write_weights(self.module, tile, w, variant, "bits") for w in widths}
            self.see = write_see(self.module, tile, variant)
        self.spread = [write_spread(self.module, tile, variant, n) for n in range(len(variant.staged))]
        self.wait = self.write_wait()
        self.block = {w: self.write_block(w) for w in widths}
        self.tile_function = self.write_tile()
        write_queue(self.module, tile, "backward", self.write_task)

    # One block of keys

    def write_block(self, w: int) -> ir.Function:
        """All of one block for w vectors of queries; `seen` is null where no fused mask hides a pair."""
        f = internal_function(
            self.module, self.tile, f"block_{w}", "table_p", "scratch_p", "k_p", "v_p", "dk_p", "dv_p", "q_p",
            "q_stride", "do_p", "do_stride", "start", "rows", "diagonal", "left", "queries", "finite", "seen_p",
            "before_p", "own_p", "turn",
        )  # fmt: skip
        (table, scratch, k, v, dk, dv, q, q_stride, do, do_stride, start, rows, diagonal, left, queries, finite, seen,
         before, own, turn) = f.arguments  # fmt: skip
        b, get, space = f.block, partial(field, f, table), partial(self.space, f, table, scratch)
        dims, value_dims = get("query_dim"), get("value_dim")
        wide, value_wide = padded(f, dims), padded(f, value_dims)
        k_rows, k_stride = self.dense(f, table, scratch, "key", k, start, rows, dims, "keys")
        v_rows, v_stride = self.dense(f, table, scratch, "value", v, start, rows, value_dims, "values")
        dk_stride, dv_stride = f.mul(wide, f.element.bytes), f.mul(value_wide, f.element.bytes)
        dk, dv = f.at(dk, f.mul(start, dk_stride)), f.at(dv, f.mul(start, dv_stride))
        s, ds, state, unused = space("scores"), space("d_scores"), space("softmax"), space("unused")
        no_mask = b.icmp_unsigned("==", b.ptrtoint(seen, i64), f.i64(0))
        whole = b.and_(f.less(f.sub(rows, 2), diagonal), f.less(f.add(left, f.sub(queries, 2)), 0))

        def scored(n: int, x: Value, first: Value, count: Value) -> None:
            """Sᵀ and dPᵀ of `count` keys by n vectors of queries from vector x on."""
            for cols, base, stride, size, to, next_rows, next_stride in (
                ("query", k_rows, k_stride, dims, s, v_rows, v_stride),
                ("d_output_columns", v_rows, v_stride, value_dims, ds, dk, dk_stride),
            ):
                at = f.mul(first, stride)
                f.call(
                    self.score[n], f.in_row(space(cols), 0, x), f.at(base, at), stride, size, f.in_row(to, first, x),
                    count, count, unused, f.at(next_rows, f.mul(first, next_stride)), next_stride, next_stride,
                )  # fmt: skip

        with b.if_else(whole) as (then, otherwise):
            with then:
                scored(w, f.i64(0), f.i64(0), rows)
            with otherwise:
                f.loop(0, rows, GROUP, lambda g, _: self.write_group(f, w, scored, g, rows, diagonal, left))
        place, sums = space("place"), space("sums")
        key = f.add(read_place(f, place, "origin"), start)
        arguments = (table, place, s, ds, rows, state, diagonal, left, queries, key, seen, sums, space("gains"))
        everything = b.and_(whole, no_mask)
        full = b.and_(everything, b.icmp_signed("==", queries, f.i64(self.tile.queries)))
        if w == self.tile.vectors:
            with f.when(full):
                f.call(self.weights_whole, *arguments)
        with f.when(b.and_(no_mask, b.not_(full))):
            f.call(self.weights[w], *arguments)
        if self.variant.mask:
            with f.when(b.not_(no_mask)):
                f.call(self.weights_masked[w], *arguments)
        for n, spread in enumerate(self.spread):
            gains = f.at(space("gains"), n * BLOCK * self.tile.row)
            f.call(spread, table, place, gains, rows, key, queries, space("diagonals"))
        safe = b.or_(everything, b.icmp_signed("!=", finite, f.i64(0)))
        vectors = f.block.sdiv(wide, f.i64(f.lanes))
        down, up = (f.sub(0, diagonal), f.sub(0, left)), (left, diagonal)
        f.call(self.wait, table, before, turn)
        self.across.write(f, safe, s, s, (do, do_stride, value_wide), queries, down, rows, dv, dv_stride)
        self.across.write(f, safe, ds, s, (q, q_stride, wide), queries, down, rows, dk, dk_stride)
        b.atomic_rmw("xchg", own, f.add(turn, 1), "release")
        safe = b.or_(everything, b.icmp_signed("!=", f.call(self.finite, k_rows, k_stride, rows, vectors), f.i64(0)))
        self.down.write(f, safe, ds, s, (k_rows, k_stride, wide), rows, up, queries, space("d_query"), dk_stride)
        return f.finish()

    def write_group(
        self, f: Function, w: int, scored: Any, first: Value, rows: Value, diagonal: Value, left: Value
    ) -> None:
        """Some rows for those vectors of queries that see one of them."""
        stop = f.least(f.add(first, GROUP), rows)
        shift = f.i64(f.lanes.bit_length() - 1)
        low = f.most(0, f.block.ashr(f.sub(first, diagonal), shift))
        high = f.least(w - 1, f.block.ashr(f.sub(f.sub(stop, 1), left), shift))
        count = f.add(f.sub(high, low), 1)
        for n in range(1, w + 1):
            with f.when(f.block.icmp_signed("==", count, f.i64(n))):
                scored(n, low, first, f.sub(stop, first))

    def dense(
        self, f: Function, table: Value, scratch: Value, name: str, base: Value, start: Value, rows: Value,
        dims: Value, copies: str,
    ) -> tuple[Value, Value]:  # fmt: skip
        """Rows from `start` on as whole vectors of floats: in place if they are, else copied. Address and stride."""
        get, wide = partial(field, f, table), padded(f, dims)
        row, element, size = get(f"{name}_row"), get(f"{name}_element"), f.mul(wide, f.element.bytes)
        place, to = f.at(base, f.mul(start, row)), self.space(f, table, scratch, copies)
        pack = self.pack_output if name == "output" else self.pack_rows
        if self.variant.storage and name != "output":
            f.call(pack, place, row, element, rows, dims, wide, to)
            return to, size
        dense = f.block.icmp_signed("==", element, f.i64(f.element.bytes))
        in_place = f.block.and_(dense, f.block.icmp_signed("==", dims, wide))
        with f.when(f.block.not_(in_place)):
            f.call(pack, place, row, element, rows, dims, wide, to)
        return f.block.select(in_place, place, to), f.block.select(in_place, row, size)

    def space(self, f: Function, table: Value, scratch: Value, name: str) -> Value:
        """Where something lies in the thread's scratch memory."""
        return f.at(scratch, field(f, table, f"at_{name}"))

    def write_wait(self) -> ir.Function:
        """Wait until the task before has passed block `turn`, letting other threads run meanwhile."""
        f = internal_function(self.module, self.tile, "wait", "table_p", "before_p", "turn")
        table, before, turn = f.arguments
        b = f.block
        look, again, after = (f.ir.append_basic_block(name) for name in ("look", "again", "passed"))
        b.branch(look)
        b.position_at_end(look)
        passed = b.load_atomic(before, "acquire", 8, typ=i64)
        b.cbranch(f.less(turn, passed), after, again)
        b.position_at_end(again)
        give_way = b.inttoptr(field(f, table, "give_way"), ir.FunctionType(i32, []).as_pointer())
        b.call(give_way, [])
        b.branch(look)
        b.position_at_end(after)
        return f.finish()

    # One tile of queries

    def write_tile(self) -> ir.Function:
        """A tile of `rows` queries; its first one sees the keys from `left` to `diagonal` of the `keys` there are."""
        f = internal_function(
            self.module, self.tile, "tile", "table_p", "scratch_p", "q_p", "k_p", "v_p", "o_p", "do_p", "dq_p", "dk_p",
            "dv_p", "lse_p", "d_lse_p", "rows", "diagonal", "left", "keys", "kinds_p", "before_p", "own_p", "sums_p",
        )  # fmt: skip
        (table, scratch, q, k, v, o, do, dq, dk, dv, lse, d_lse, rows, diagonal, left, keys, kinds, before, own,
         sums) = f.arguments  # fmt: skip
        get, space = partial(field, f, table), partial(self.space, f, table, scratch)
        b, dims, value_dims, zero = f.block, get("query_dim"), get("value_dim"), f.i64(0)
        wide, value_wide = padded(f, dims), padded(f, value_dims)
        vectors, value_vectors = (b.sdiv(n, f.i64(f.lanes)) for n in (wide, value_wide))
        q_rows, q_stride = self.dense(f, table, scratch, "query", q, zero, rows, dims, "query_rows")
        o_rows, o_stride = self.dense(f, table, scratch, "output", o, zero, rows, value_dims, "output_rows")
        do_rows, do_stride = self.dense(f, table, scratch, "d_output", do, zero, rows, value_dims, "d_output_rows")
        f.call(self.columns, table, q_rows, q_stride, rows, wide, f.i64(1), space("query"))
        f.call(self.columns, table, do_rows, do_stride, rows, value_wide, zero, space("d_output_columns"))
        f.call(self.state, o_rows, o_stride, do_rows, do_stride, rows, value_vectors, lse, d_lse, space("softmax"))
        finite = b.and_(
            f.call(self.finite, q_rows, q_stride, rows, vectors),
            f.call(self.finite, do_rows, do_stride, rows, value_vectors),
        )
        d_query, size = space("d_query"), f.mul(wide, f.element.bytes)
        whole = f.mul(vectors, self.tile.queries)
        f.loop(0, whole, 1, lambda x, _: f.store(f.constant(0.0), f.in_row(d_query, 0, x)))
        for n in range(len(self.variant.shares)):
            for x in range(self.tile.vectors):
                f.store(f.constant(0.0), f.in_row(space("sums"), f.i64(n), x))
        with f.when(b.icmp_signed("!=", get("serial"), zero)):
            f.call(self.wait, table, before, f.i64(DONE - 1))
        stop = f.clamp(f.add(diagonal, rows), 0, keys)
        first = b.sdiv(f.clamp(left, 0, stop), f.i64(BLOCK))

        def block(n: Value, _: list[Value]) -> None:
            start = f.mul(n, BLOCK)
            count = f.least(BLOCK, f.sub(stop, start))
            operands = (k, v, dk, dv, q_rows, q_stride, do_rows, do_stride)
            tail = (before, own, n)
            if self.variant.mask:
                self.write_seen_block(
                    f, table, scratch, operands, (start, count, diagonal, left, rows, finite), kinds, tail
                )
            else:
                null = b.inttoptr(zero, pointer)
                self.call_block(f, table, scratch, operands, (start, count, diagonal, left, rows, finite), null, tail)

        f.loop(first, b.sdiv(f.add(stop, BLOCK - 1), f.i64(BLOCK)), 1, block)
        f.call(self.unpack_rows, d_query, size, rows, dims, dq, get("d_query_row"))
        self.write_sums(f, space("sums"), sums)
        f.call(self.wait, table, before, f.i64(DONE - 1))
        b.atomic_rmw("xchg", own, f.i64(DONE), "release")
        return f.finish()

    def write_sums(self, f: Function, lanes: Value, sums: Value) -> None:
        """The tile's sums for what rules read once a head: its lanes' total."""
        for n in range(len(self.variant.shares)):
            row = f.in_row(lanes, f.i64(n), 0)

            def lane(y: Value, total: list[Value], row: Value = row) -> list[Value]:
                return [f.block.fadd(total[0], f.load_scalar(f.at(row, f.mul(y, f.element.bytes))))]

            zero = ir.Constant(f.vector.element, 0.0)
            total = f.loop(0, self.tile.queries, 1, lane, [zero])[0]
            f.store_scalar(total, f.at(sums, n * f.element.bytes))

    def write_seen_block(
        self, f: Function, table: Value, scratch: Value, operands: tuple[Value, ...], where: tuple[Value, ...],
        kinds: Value, tail: tuple[Value, ...],
    ) -> None:  # fmt: skip
        """A block under a fused mask: left out if nobody sees it, looked at unless everybody does."""
        start, count, diagonal, left, rows, finite = where
        b, place = f.block, self.space(f, table, scratch, "place")
        bits = self.space(f, table, scratch, "seen")
        known = b.icmp_unsigned("!=", b.ptrtoint(kinds, i64), f.i64(0))
        entry = b.select(known, f.at(kinds, b.sdiv(start, f.i64(BLOCK))), scratch)  # some address to read from
        kind = b.select(known, b.zext(b.load(entry, typ=i8, align=1), i64), f.i64(MAYBE))
        write_place(f, place, seen_first=0, seen_stop=count, seen_all=1)
        with f.when(b.icmp_signed("==", kind, f.i64(MAYBE))):
            f.call(self.see, table, place, f.add(read_place(f, place, "origin"), start), count, bits)
        first, stop, every = (read_place(f, place, name) for name in ("seen_first", "seen_stop", "seen_all"))
        with f.when(b.and_(f.less(first, stop), b.icmp_signed("!=", kind, f.i64(NOTHING)))):
            at = b.ptrtoint(seen_at(f, bits, first, f.i64(0)), i64)
            whole = b.icmp_signed("!=", every, f.i64(0))
            seen = b.inttoptr(b.select(whole, f.i64(0), at), pointer)
            part = (f.add(start, first), f.sub(stop, first), diagonal, left, rows, finite)
            self.call_block(f, table, scratch, operands, part, seen, tail)

    def call_block(
        self, f: Function, table: Value, scratch: Value, operands: tuple[Value, ...], where: tuple[Value, ...],
        seen: Value, tail: tuple[Value, ...],
    ) -> None:  # fmt: skip
        """Call the block function for as many vectors as hold the tile's queries."""
        start, count, diagonal, left, rows, finite = where
        far = 4 * (BLOCK + self.tile.queries)  # edges as far as they matter, so that they fit into a lane
        band = [f.clamp(f.sub(edge, start), -far, far) for edge in (diagonal, left)]
        vectors = f.block.sdiv(f.add(rows, f.lanes - 1), f.i64(f.lanes))
        for w, function in self.block.items():
            with f.when(f.block.icmp_signed("==", vectors, f.i64(w))):
                f.call(function, table, scratch, *operands, start, count, *band, rows, finite, seen, *tail)

    # The whole problem

    def write_task(self, f: Function, table: Value, scratch: Value, task: Value) -> Value:
        """One tile: the chains of a batch take turns. Gives the cost in multiply-adds."""
        b, get = f.block, partial(field, f, table)
        chain, together, tiles = get("chain"), get("together"), get("tiles")
        batch = b.sdiv(task, f.mul(together, chain))
        base, rest = f.mul(batch, together), b.srem(task, f.mul(together, chain))
        width = f.least(together, f.sub(get("chains"), base))
        position, own_chain = b.sdiv(rest, width), f.add(base, b.srem(rest, width))
        index = f.add(f.mul(own_chain, chain), position)
        head, tile = f.add(f.mul(own_chain, get("group")), b.sdiv(position, tiles)), b.srem(position, tiles)
        own = f.add(get("progress"), f.mul(index, 8))
        before = b.select(b.icmp_signed("==", position, f.i64(0)), get("done"), f.sub(own, 8))
        own, before = b.inttoptr(own, pointer), b.inttoptr(before, pointer)

        entry = b.inttoptr(f.add(get("tile_table"), f.mul(tile, 8 * len(TILE))), pointer)
        first, rows, shift, origin, keys = (f.load_int(entry, n) for n in range(len(TILE)))
        q, k, v, o, do, dq, dk, dv = addresses(f, table, head, FIELDS, AXIS)
        q, o, do, dq = (
            f.at(x, f.mul(first, get(f"{name}_row")))
            for x, name in ((q, "query"), (o, "output"), (do, "d_output"), (dq, "d_query"))
        )
        k, v = f.at(k, f.mul(origin, get("key_row"))), f.at(v, f.mul(origin, get("value_row")))
        dk, dv = (
            f.at(x, f.mul(origin, f.mul(padded(f, get(dims)), f.element.bytes)))
            for x, dims in ((dk, "query_dim"), (dv, "value_dim"))
        )
        place = f.mul(f.add(f.mul(head, get("queries")), first), f.element.bytes)
        lse = b.inttoptr(f.add(get("lse"), place), pointer)
        given = b.icmp_signed("!=", get("d_lse"), f.i64(0))
        d_lse = b.inttoptr(b.select(given, f.add(get("d_lse"), place), f.i64(0)), pointer)
        batch_number, own_head = b.sdiv(head, get("heads")), b.srem(head, get("heads"))
        write_place(
            f, self.space(f, table, scratch, "place"), batch=batch_number, head=own_head, row=first,
            last=f.sub(f.add(first, rows), 1), shift=shift, origin=origin,
        )  # fmt: skip
        offset = f.add(f.mul(batch_number, get("block_batches")), f.mul(own_head, get("block_heads")))
        offset = f.add(get("blocks"), f.add(offset, f.mul(tile, get("block_columns"))))
        known = b.icmp_signed("!=", get("blocks"), f.i64(0))
        kinds = b.inttoptr(b.select(known, offset, f.i64(0)), pointer)
        position = f.sub(f.add(first, shift), origin)
        diagonal, left = f.add(position, get("high")), f.add(position, get("low"))
        sums = f.add(get("sums"), f.mul(index, len(self.variant.shares) * f.element.bytes))
        f.call(
            self.tile_function, table, scratch, q, k, v, o, do, dq, dk, dv, lse, d_lse, rows, diagonal, left, keys,
            kinds, before, own, b.inttoptr(sums, pointer),
        )  # fmt: skip
        seen = f.most(1, f.sub(f.clamp(f.add(diagonal, rows), 0, keys), f.clamp(left, 0, keys)))
        return f.mul(f.mul(seen, 3 * self.tile.queries), f.add(get("query_dim"), get("value_dim")))


def field(f: Function, table: Value, name: str) -> Value:
    """Read one field of the call's table."""
    return f.load_int(table, FIELDS.index(name))
