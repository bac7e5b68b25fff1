"""The reduce kernel: a sweep over the weights of some queries and keys, each α = exp(score − LSE) computed anew.

It walks tiles and blocks as `forward` does and with its parts, but knows each query's LSE beforehand: there is no
maximum to run after, and no value to sum. What becomes of a block's weights is left to
`parts.weight_reductions`. A task is one group of tiles of one head; what it gathers for the keys lies in memory of its
own, so that threads never share a sum.
"""

from functools import partial

import llvmlite.ir as ir

from clearhead.definition.canonical import BLOCK
from clearhead.kernels.abi.call import SWEEP, SWEEP_TILE
from clearhead.kernels.abi.softmax_state import FOUND, LSE
from clearhead.kernels.abi.tiles import CACHE_LINE, Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.forward import Forward, floor
from clearhead.kernels.ir.simd import Function, Value, float_type, i64, internal_function, pointer
from clearhead.kernels.parts.mask_bits import seen_at, write_hide, write_see
from clearhead.kernels.parts.packing import field, write_pack_query, write_pack_rows, write_unpack_keys
from clearhead.kernels.parts.scores import write_rules, write_score
from clearhead.kernels.parts.softmax import Block, Rows, Softmax
from clearhead.kernels.parts.task_queue import addresses, write_queue
from clearhead.kernels.parts.tile_position import read_place, write_place
from clearhead.kernels.parts.weight_reductions import (
    GATHERED,
    write_block_out,
    write_gather,
    write_list,
    write_pool,
    write_weights,
)


def reduce(tile: Tile, variant: Variant) -> ir.Module:
    """Write the reduce kernel: `i64 reduce(table, scratch, budget)`, to be called as `forward` is."""
    return Reduce(tile, variant).module


class Reduce(Forward):
    """The module: blocks and tiles of weights, and the groups of tiles that the queue hands out."""

    name = "reduce"

    def __init__(self, tile: Tile, variant: Variant) -> None:
        self.tile, self.variant, wanted = tile, variant, variant.consumers
        self.module = ir.Module("clearhead.reduce")
        self.pack_query = write_pack_query(self.module, tile, variant)
        self.pack_rows = write_pack_rows(self.module, tile, variant)
        self.unpack_keys = write_unpack_keys(self.module, tile, variant) if variant.paged else None
        widths = range(1, tile.vectors + 1)
        self.score = {w: write_score(self.module, tile, w, variant) for w in widths}
        self.rules = {w: write_rules(self.module, tile, w, variant) for w in widths} if variant.score else {}
        self.hide = write_hide(self.module, tile) if variant.mask else None
        if variant.mask:
            self.see = write_see(self.module, tile, variant)
        self.weights = {w: write_weights(self.module, tile, w, wanted, whole=True) for w in widths}
        self.weights_seen = {w: write_weights(self.module, tile, w, wanted, whole=False) for w in widths}
        self.gather = {name: write_gather(self.module, tile, name) for name in GATHERED if name in wanted}
        self.list = {w: write_list(self.module, tile, w) for w in widths} if "top" in wanted else {}
        self.block_out = [
            write_block_out(self.module, tile, streamed) for streamed in (False, True) if "block" in wanted
        ]
        pools = [name for name in wanted if name.startswith("pool")]
        self.pool = {w: write_pool(self.module, tile, w, name) for w in widths for name in pools}
        self.block = {w: self.write_block(w) for w in widths}
        self.tile_of = self.write_tile()
        write_queue(self.module, tile, self.name, self.write_task)

    def get(self, f: Function, table: Value, name: str) -> Value:
        """A number of the sweep's own table."""
        return f.load_int(f.block.inttoptr(field(f, table, "sweep"), pointer), SWEEP.index(name))

    def address(self, f: Function, table: Value, name: str) -> Value:
        """An address of the sweep's own table."""
        return f.block.inttoptr(self.get(f, table, name), pointer)

    # One block of keys

    def write_block(self, w: int) -> ir.Function:
        """Scores and weights of one block for w vectors of queries, handed to those who want them.

        `target` is where the tile's own part of what is gathered begins, for the first key that is wanted.
        """
        more = (*(("left",) if self.variant.windowed else ()), *(("seen_p",) if self.variant.mask else ()))
        f = internal_function(
            self.module, self.tile, f"block_{w}", "table_p", "scratch_p", "k_p", "start", "rows", "diagonal", "queries",
            "target_p", *more,
        )  # fmt: skip
        table, scratch, k, start, rows, diagonal, queries, target, *others = f.arguments
        block = Block(start, rows, diagonal, others[0] if self.variant.windowed else None)
        s, state = self.space(f, table, scratch, "scores"), self.space(f, table, scratch, "softmax")
        place, dims = self.space(f, table, scratch, "place"), field(f, table, "query_dim")
        keys = self.dense_rows(f, table, scratch, "key", k, block, dims, dims)
        no_values = Rows(keys.base, keys.stride, f.i64(0))
        key = f.add(read_place(f, place, "origin"), start)
        softmax = Softmax(
            f, self.variant, self.score, self.rules, {}, self.hide, w, block, keys, no_values, dims,
            self.space(f, table, scratch, "query"), s, state, (table, place, key),
        )  # fmt: skip
        seen = others[-1] if self.variant.mask else None
        softmax.write_scores(seen)
        self.write_unseen(f, softmax)
        whole = self.whole(f, softmax, seen)
        self.write_consumers(f, w, (table, scratch), s, state, block, whole, key, queries, target)
        return f.finish()

    def write_unseen(self, f: Function, softmax: Softmax) -> None:
        """−∞ for what is hidden from whole vectors, whose scores were not computed."""
        hidden = f.constant(-float("inf"))
        starts = softmax.starts() if softmax.block.left is not None else []
        for x in range(softmax.w):

            def fill(i: Value, _: list[Value], x: int = x) -> None:
                f.store(hidden, f.in_row(softmax.s, i, x))

            if starts:
                f.loop(0, starts[x], 1, fill)
            f.loop(softmax.block.edge(f, x + 1), softmax.block.rows, 1, fill)

    def whole(self, f: Function, softmax: Softmax, seen: Value | None) -> Value:
        """Whether every query of the tile sees every key of the block."""
        block, b = softmax.block, f.block
        whole = f.less(f.sub(block.rows, 1), block.diagonal)
        if block.left is not None:
            whole = b.and_(whole, f.less(f.add(block.left, softmax.w * f.lanes - 1), 1))
        if seen is not None:
            whole = b.and_(whole, b.icmp_unsigned("==", b.ptrtoint(seen, i64), f.i64(0)))
        return whole

    def write_consumers(
        self,
        f: Function,
        w: int,
        call: tuple[Value, Value],
        s: Value,
        state: Value,
        block: Block,
        whole: Value,
        key: Value,
        queries: Value,
        target: Value,
    ) -> None:
        """Weights, what is found on the way, and what is done with them then."""
        (table, scratch), wanted, size = call, self.variant.consumers, f.element.bytes
        place, get = self.space(f, table, scratch, "place"), partial(self.get, f, table)
        ahead = f.sub(f.add(read_place(f, place, "row"), read_place(f, place, "shift")), key)
        sums = f.at(scratch, get("at_sums"))
        maxima = f.at(sums, BLOCK * f.lanes * size)

        arguments = (s, block.rows, state, ahead, get("near"), sums, maxima)
        with f.block.if_else(whole) as (then, otherwise):
            with then:
                f.call(self.weights[w], *arguments)
            with otherwise:
                f.call(self.weights_seen[w], *arguments)
        if {"first", "off_first"} & set(wanted):
            with f.when(f.block.icmp_signed("==", block.start, f.i64(0))):
                self.write_first(f, w, s, state, block.rows)
        after = f.sub(key, get("begin"))
        gathered = f.mul(after, size)
        for name, gather in self.gather.items():
            own = f.mul(get("target_row"), list(self.gather).index(name))
            f.call(gather, sums if name == "received_sum" else maxima, block.rows, f.at(target, f.add(own, gathered)))
        if self.list:
            factors = f.block.inttoptr(read_place(f, place, "factors"), pointer)
            f.call(self.list[w], s, block.rows, f.at(scratch, get("at_list")), get("top"), key, factors)
        if self.block_out:
            self.write_out(f, s, block.rows, queries, f.at(target, gathered), get("target_row"))
        if self.pool:
            f.call(self.pool[w], s, block.rows, target, after, f.sub(get("end"), get("begin")), get("bins"))

    def write_first(self, f: Function, w: int, s: Value, state: Value, rows: Value) -> None:
        """In the first block: the first key's weights, and the largest of the others, which has been taken of all."""

        def row(i: Value, largest: list[Value]) -> list[Value]:
            return [f.larger(f.load(f.in_row(s, i, x)), largest[x]) for x in range(w)]

        for x in range(w):
            f.store(f.load(f.in_row(s, 0, x)), f.in_row(state, FOUND["first"], x))
        for x, largest in enumerate(f.loop(1, rows, 1, row, [f.constant(0.0)] * w)):
            f.store(largest, f.in_row(state, FOUND["off_first"], x))

    def write_out(self, f: Function, s: Value, rows: Value, queries: Value, target: Value, step: Value) -> None:
        """The block's weights to an array, past the caches if its rows begin at cache lines."""
        odd = f.block.and_(f.block.or_(f.block.ptrtoint(target, i64), step), f.i64(CACHE_LINE - 1))
        plain, streamed = self.block_out
        with f.block.if_else(f.block.icmp_signed("==", odd, f.i64(0))) as (then, otherwise):
            with then:
                f.call(streamed, s, rows, queries, target, step)
            with otherwise:
                f.call(plain, s, rows, queries, target, step)

    # One tile of queries

    def write_tile(self) -> ir.Function:
        """A tile of `rows` queries over the keys that are seen and wanted."""
        more = (*(("left",) if self.variant.windowed else ()), *(("kinds_p",) if self.variant.mask else ()))
        f = internal_function(
            self.module, self.tile, "tile", "table_p", "scratch_p", "q_p", "k_p", "lse_p", "diagonal", "keys", "rows",
            "target_p", *more,
        )  # fmt: skip
        table, scratch, q, k, lse, diagonal, keys, rows, target, *others = f.arguments
        named = dict(zip(more, others, strict=True))
        left, get = named.get("left"), partial(self.get, f, table)
        origin = read_place(f, self.space(f, table, scratch, "place"), "origin")
        stop = f.least(f.clamp(f.add(diagonal, rows), 0, keys), f.sub(get("end"), origin))
        begin = f.most(f.sub(get("begin"), origin), field(f, table, "first_key") if self.variant.paged else 0)
        begin = begin if left is None else f.most(begin, left)
        f.call(self.pack_query, table, q, rows, self.space(f, table, scratch, "query"))
        self.clear_state(f, table, scratch, lse, rows)

        def block(b: Value, _: list[Value]) -> None:
            at = f.most(b, begin)
            count = f.sub(f.least(f.add(b, BLOCK), stop), at)
            more = [] if left is None else [self.bounded(f, f.sub(left, at))]
            arguments = (table, scratch, k, at, count, f.sub(diagonal, at), rows, target, *more)
            if self.variant.mask:
                self.write_seen(f, arguments, named["kinds_p"], b, f.add(origin, at), rows)
            else:
                self.call_block(f, arguments, rows)

        first = floor(f, begin, BLOCK)
        f.loop(first, f.block.select(f.less(begin, stop), stop, first), BLOCK, block)
        return f.finish()

    def clear_state(self, f: Function, table: Value, scratch: Value, lse: Value, rows: Value) -> None:
        """Nothing found yet; each query's LSE, ∞ (nearly) where nothing is seen and in lanes without a query."""
        state, size = self.space(f, table, scratch, "softmax"), f.element.bytes
        nothing = ir.Constant(float_type(f.element), -f.element.lowest)

        def lane(q: Value, _: list[Value]) -> None:
            x = f.load_scalar(f.at(lse, f.mul(f.least(q, f.sub(rows, 1)), size)))
            empty = f.block.fcmp_ordered("==", x, ir.Constant(x.type, -float("inf")))
            empty = f.block.or_(empty, f.less(f.sub(rows, 1), q))
            f.store_scalar(f.block.select(empty, nothing, x), f.at(f.in_row(state, LSE, 0), f.mul(q, size)))

        f.loop(0, self.tile.queries, 1, lane)
        for which in FOUND.values():
            for x in range(self.tile.vectors):
                f.store(f.constant(0.0), f.in_row(state, which, x))
        if self.list:
            listed, count = f.at(scratch, self.get(f, table, "at_list")), self.get(f, table, "top")

            def entry(r: Value, _: list[Value]) -> None:
                for x in range(self.tile.vectors):
                    f.store(f.constant(0.0), f.in_row(listed, r, x))
                    f.block.store(f.integer(-1), f.in_row(listed, f.add(r, count), x), align=1)

            f.loop(0, count, 1, entry)

    def write_seen(
        self, f: Function, arguments: tuple[Value, ...], kinds: Value, b: Value, key: Value, rows: Value
    ) -> None:
        """A block under a fused mask: not at all if nobody sees it, with its bits if not everybody does."""
        table, scratch, count = arguments[0], arguments[1], arguments[4]
        bits, place = self.space(f, table, scratch, "seen"), self.space(f, table, scratch, "place")
        known = f.block.icmp_unsigned("!=", f.block.ptrtoint(kinds, i64), f.i64(0))
        maybe, nothing = self.kind_of(f, kinds, known, b)
        write_place(f, place, seen_all=1)
        with f.when(maybe):
            f.call(self.see, table, place, key, count, bits)
        whole = f.block.icmp_signed("!=", read_place(f, place, "seen_all"), f.i64(0))
        address = f.block.ptrtoint(seen_at(f, bits, f.i64(0), f.i64(0)), i64)
        seen = f.block.inttoptr(f.block.select(whole, f.i64(0), address), pointer)
        with f.when(f.block.not_(nothing)):
            self.call_block(f, (*arguments, seen), rows)

    # The whole sweep

    def write_task(self, f: Function, table: Value, scratch: Value, task: Value) -> Value:
        """One group of tiles of one head, later queries first; gives its cost in multiply-adds."""
        get = partial(self.get, f, table)
        groups = get("groups")
        number = f.block.sdiv(task, groups)
        group = f.sub(f.sub(groups, 1), f.block.srem(task, groups))
        head = f.load_int(self.address(f, table, "heads"), number)
        q, k, _, _ = addresses(f, table, head)
        own = f.add(f.mul(number, get("target_head")), f.mul(group, get("target_group")))
        target = f.at(self.address(f, table, "target"), own)
        borders = self.address(f, table, "group_table")
        first, stop = f.load_int(borders, group), f.load_int(borders, f.add(group, 1))

        def tile(t: Value, cost: list[Value]) -> list[Value]:
            return [f.add(cost[0], self.call_tile(f, table, scratch, head, number, (q, k), target, t))]

        return f.loop(first, stop, 1, tile, [f.i64(1)])[0]

    def call_tile(
        self,
        f: Function,
        table: Value,
        scratch: Value,
        head: Value,
        number: Value,
        operands: tuple[Value, Value],
        target: Value,
        t: Value,
    ) -> Value:
        """Find a tile's place, sweep over it, and write what was found for its queries."""
        variant, get, size = self.variant, partial(field, f, table), f.element.bytes
        entry = f.block.inttoptr(f.add(get("tile_table"), f.mul(t, 8 * len(SWEEP_TILE))), pointer)
        first, rows, shift, origin, keys, at = (f.load_int(entry, n) for n in range(len(SWEEP_TILE)))
        q = f.at(operands[0], f.mul(first, get("query_row")))
        k = operands[1] if variant.paged else f.at(operands[1], f.mul(origin, get("key_row")))
        lse = f.block.inttoptr(f.add(get("lse"), f.mul(f.add(f.mul(head, get("queries")), first), size)), pointer)
        batch, own = f.block.sdiv(head, get("heads")), f.block.srem(head, get("heads"))
        here, last = self.space(f, table, scratch, "place"), f.sub(f.add(first, rows), 1)
        write_place(f, here, batch=batch, head=own, row=first, last=last, shift=shift, origin=origin)
        if self.list:
            factors = f.add(self.get(f, table, "factors"), f.mul(f.mul(number, get("keys")), size))
            wanted = f.block.icmp_signed("!=", self.get(f, table, "factors"), f.i64(0))
            write_place(f, here, factors=f.block.select(wanted, factors, f.i64(0)))
        position = f.sub(f.add(first, shift), origin)
        diagonal, more = f.add(position, get("high")), []
        if variant.windowed:
            more.append(f.add(position, get("low")))
        if variant.mask:
            offset = f.add(f.mul(batch, get("block_batches")), f.mul(own, get("block_heads")))
            offset = f.add(get("blocks"), f.add(offset, f.mul(t, get("block_columns"))))
            known = f.block.icmp_signed("!=", get("blocks"), f.i64(0))
            more.append(f.block.inttoptr(f.block.select(known, offset, f.i64(0)), pointer))
        if "block" in variant.consumers:
            target = f.at(target, f.mul(at, self.get(f, table, "target_row")))
        f.call(self.tile_of, table, scratch, q, k, lse, diagonal, keys, rows, target, *more)
        self.write_found(f, table, scratch, f.add(f.mul(number, self.get(f, table, "queries")), at), rows)
        seen = f.clamp(f.add(diagonal, rows), 1, f.most(1, keys))
        return f.mul(f.mul(seen, self.tile.queries), get("query_dim"))

    def write_found(self, f: Function, table: Value, scratch: Value, index: Value, rows: Value) -> None:
        """What was found for a tile's queries, to where the query of number `index` has its place."""
        get, size = partial(self.get, f, table), f.element.bytes
        state = self.space(f, table, scratch, "softmax")
        names = [name for name in FOUND if name in self.variant.consumers]
        if "entropy" in names:  # what was summed is Σ α·log α
            for x in range(self.tile.vectors):
                place = f.in_row(state, FOUND["entropy"], x)
                f.store(f.block.fsub(f.constant(0.0), f.load(place)), place)

        def row(q: Value, _: list[Value]) -> None:
            own = f.mul(f.add(index, q), size)
            for n, name in enumerate(names):
                x = f.load_scalar(f.at(f.in_row(state, FOUND[name], 0), f.mul(q, size)))
                f.store_scalar(x, f.at(self.address(f, table, "rows"), f.add(own, f.mul(get("rows_step"), n))))

        if names:
            f.loop(0, rows, 1, row)
        if not self.list:
            return
        count, listed = get("top"), f.at(scratch, get("at_list"))

        def entry(n: Value, _: list[Value]) -> None:
            q, r = f.block.sdiv(n, count), f.block.srem(n, count)
            place = f.add(f.mul(f.add(index, q), count), r)
            weight = f.at(f.in_row(listed, r, 0), f.mul(q, size))
            key = f.at(f.in_row(listed, f.add(count, r), 0), f.mul(q, size))
            f.store_scalar(f.load_scalar(weight), f.at(self.address(f, table, "top_weights"), f.mul(place, size)))
            number = f.block.load(key, typ=f.integers.element, align=1)
            number = number if size == 8 else f.block.sext(number, i64)
            f.block.store(number, f.at(self.address(f, table, "top_keys"), f.mul(place, 8)), align=8)

        f.loop(0, f.mul(rows, count), 1, entry)
