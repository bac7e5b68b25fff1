"""The forward kernel: attention's output and log-sum-exp, tile by tile, in O(n) memory.

A tile is some queries of one head. It walks the keys it may see in ascending order, in blocks and segments, as
`definition.canonical` writes down; each lane is one scalar program, so tile and vector sizes change no bit.
Letters: q k v y query, key, value, output; s score; m l o running maximum, sum and Σ p·v.

On the diagonal only what is seen is computed: with D the last key that the tile's first query sees, keys from D + W·x
on are hidden from the vectors of W queries before vector x, and masked lane by lane in vector x.
"""

from dataclasses import dataclass
from functools import partial

import llvmlite.ir as ir

from clearhead.definition.canonical import BLOCK, SEGMENT
from clearhead.kernels import math
from clearhead.kernels.call import AXIS, FIELDS
from clearhead.kernels.packing import field, write_pack_query, write_pack_rows, write_unpack_output
from clearhead.kernels.scores import write_exponentials, write_score
from clearhead.kernels.simd import Function, Value, i64, internal_function, pointer
from clearhead.kernels.state import ALPHA, SUM, TOP, TOTAL_L, TOTAL_M, L, M
from clearhead.kernels.tiles import DIM_STEP, Tile
from clearhead.kernels.values import write_merge, write_values


def forward(tile: Tile) -> ir.Module:
    """Write the forward kernel: `i64 forward(table, scratch, budget)`.

    It takes tiles from the table's queue until none is left (result 0) or `budget` multiply-adds are spent (result 1).
    """
    return Forward(tile).module


@dataclass(frozen=True)
class Block:
    """A block of keys as one tile sees it."""

    start: Value  # absolute index of its first key
    rows: Value  # keys that any query of the tile sees
    diagonal: Value  # D, counted from the block's first key

    def edge(self, f: Function, x: int) -> Value:
        """The first row of the block that is masked in vector x of queries and hidden from those before."""
        return f.clamp(f.add(self.diagonal, x * f.lanes), 0, self.rows)


@dataclass(frozen=True)
class Rows:
    """Dense rows of keys or values in memory."""

    base: Value
    stride: Value
    size: Value

    def at(self, f: Function, row: Value) -> Value:
        """Where a row begins."""
        return f.at(self.base, f.mul(row, self.stride))


class Forward:
    """The module, written bottom up: parts, tiles of every number of vectors, the queue."""

    def __init__(self, tile: Tile) -> None:
        self.tile = tile
        self.module = ir.Module("clearhead.forward")
        self.pack_query = write_pack_query(self.module, tile)
        self.pack_rows = write_pack_rows(self.module, tile)
        self.unpack_output = write_unpack_output(self.module, tile)
        self.merge = write_merge(self.module, tile)
        widths = range(1, tile.vectors + 1)
        self.score = {w: write_score(self.module, tile, w) for w in widths}
        self.exponentials = {w: write_exponentials(self.module, tile, w) for w in widths}
        self.values = {n: write_values(self.module, tile, n) for n in range(1, len(tile.rows) + 1)}
        self.block = {w: self.write_block(w) for w in widths}
        self.attend = self.write_attend()
        self.write_queue()

    # One block of keys

    def write_block(self, w: int) -> ir.Function:
        """Scores, softmax and weighted values of one block for w vectors of queries, merged into the segment."""
        f = internal_function(
            self.module, self.tile, f"block_{w}", "table_p", "scratch_p", "k_p", "v_p", "start", "rows", "diagonal",
            "queries", "o_p", "first",
        )  # fmt: skip
        table, scratch, k, v, start, rows, diagonal, queries, o, first = f.arguments
        block = Block(start, rows, diagonal)
        s, state = self.space(f, table, scratch, "scores"), self.space(f, table, scratch, "softmax")
        row = partial(f.in_row, state)  # row(which, x): vector x of one of the state's rows
        query_dim, value_dim = field(f, table, "query_dim"), field(f, table, "value_dim")
        dims = padded(f, value_dim)
        keys = self.dense_rows(f, table, scratch, "key", k, block, query_dim, query_dim)
        values = self.dense_rows(f, table, scratch, "value", v, block, value_dim, dims)

        qt = self.space(f, table, scratch, "query")
        self.write_softmax(f, w, block, s, qt, state, keys, values, query_dim)
        seen = (block.rows, block.diagonal, queries)

        def dim(n: int, d: Value) -> None:
            offset = f.mul(d, f.element.bytes)
            v_dims, o_dims = f.at(values.base, offset), f.at(o, offset)
            f.call(self.values[n], s, v_dims, values.stride, *seen, o_dims, values.size, row(ALPHA, 0), first)

        # Few dims are summed at once; of many, two vectors: their part of a block of values stays in the L1 cache.
        vectors = f.block.sdiv(dims, f.i64(f.lanes))
        few = f.less(vectors, len(self.values) + 1)
        pairs = f.block.select(few, f.i64(0), f.sub(dims, f.block.srem(dims, f.i64(2 * f.lanes))))
        f.loop(0, pairs, 2 * f.lanes, lambda d, _: dim(2, d))
        left = f.block.sdiv(f.sub(dims, pairs), f.i64(f.lanes))
        for n in self.values:
            with f.when(f.block.icmp_signed("==", left, f.i64(n))):
                dim(n, pairs)
        return f.finish()

    def write_softmax(
        self,
        f: Function,
        w: int,
        block: Block,
        s: Value,
        qt: Value,
        state: Value,
        keys: Rows,
        values: Rows,
        dims: Value,
    ) -> None:
        """Sᵀ, its maximum, P = exp(S − m) in its place, and the segment's m and l; rows before the diagonal at once."""
        row = partial(f.in_row, state)  # row(which, x): vector x of one of the state's rows
        edges = [block.edge(f, x) for x in range(w + 1)]
        for x in range(w):
            f.store(f.constant(f.element.lowest), row(TOP, x))
            f.store(f.constant(0.0), row(SUM, x))
        ahead = (values.base, values.stride, values.size)  # fetched meanwhile
        f.call(self.score[w], qt, keys.base, keys.stride, dims, s, edges[0], edges[0], row(TOP, 0), *ahead)
        for x in range(w):
            hidden = f.sub(f.add(block.diagonal, x * f.lanes), edges[x])
            f.call(
                self.score[w - x], f.in_row(qt, 0, x), keys.at(f, edges[x]), keys.stride, dims,
                f.in_row(s, edges[x], x), f.sub(edges[x + 1], edges[x]), hidden, row(TOP, x),
                values.at(f, edges[x]), *ahead[1:],
            )  # fmt: skip
        for x in range(w):
            old = f.load(row(M, x))
            new = f.larger(f.load(row(TOP, x)), old)
            f.store(new, row(M, x))
            f.store(math.exp(f, f.block.fsub(old, new)), row(ALPHA, x))
        f.call(self.exponentials[w], s, f.i64(0), edges[0], row(M, 0), row(SUM, 0))
        for x in range(w):
            f.call(self.exponentials[w - x], f.in_row(s, 0, x), edges[x], edges[x + 1], row(M, x), row(SUM, x))
        for x in range(w):
            f.store(f.fma(f.load(row(L, x)), f.load(row(ALPHA, x)), f.load(row(SUM, x))), row(L, x))

    def dense_rows(
        self, f: Function, table: Value, scratch: Value, name: str, base: Value, block: Block, dims: Value, width: Value
    ) -> Rows:
        """The block's rows of keys or values: in place if dense and as wide as wanted, else copied."""
        row, element = field(f, table, f"{name}_row"), field(f, table, f"{name}_element")
        place, copies = f.at(base, f.mul(block.start, row)), self.space(f, table, scratch, f"{name}s")
        dense = f.block.icmp_signed("==", element, f.i64(f.element.bytes))
        in_place = f.block.and_(dense, f.block.icmp_signed("==", dims, width))
        with f.when(f.block.not_(in_place)):
            f.call(self.pack_rows, place, row, element, block.rows, dims, width, copies)
        size = f.mul(width, f.element.bytes)
        return Rows(f.block.select(in_place, place, copies), f.block.select(in_place, row, size), size)

    def space(self, f: Function, table: Value, scratch: Value, name: str) -> Value:
        """Where something lies in the thread's scratch memory."""
        return f.at(scratch, field(f, table, f"at_{name}"))

    # One tile of queries

    def write_attend(self) -> ir.Function:
        """A tile of `rows` queries from the one with index `first` on, from packing to output."""
        f = internal_function(
            self.module,
            self.tile,
            "attend",
            "table_p",
            "scratch_p",
            "q_p",
            "k_p",
            "v_p",
            "y_p",
            "lse_p",
            "first",
            "rows",
        )
        table, scratch, q, k, v, y, lse, first, rows = f.arguments
        state, total = self.space(f, table, scratch, "softmax"), self.space(f, table, scratch, "total")
        diagonal = f.add(first, field(f, table, "reach"))
        stop = f.clamp(f.add(diagonal, rows), 0, field(f, table, "keys"))
        dims = padded(f, field(f, table, "value_dim"))
        o_stride, vectors = f.mul(dims, f.element.bytes), f.block.sdiv(dims, f.i64(f.lanes))

        def zero(x: Value, _: list[Value]) -> None:
            f.store(f.constant(0.0), f.in_row(total, 0, x))

        f.call(self.pack_query, table, q, rows, self.space(f, table, scratch, "query"))
        self.clear(f, state, TOTAL_M, TOTAL_L)
        with f.when(f.less(stop, 1)):
            # Nobody sees anything.
            f.loop(0, f.block.sdiv(f.mul(rows, o_stride), f.i64(self.tile.vector_bits // 8)), 1, zero)

        def segment(start: Value, _: list[Value]) -> None:
            alone = f.block.icmp_signed("==", start, f.i64(0))
            # The first segment is the total so far; later ones are summed apart, then merged.
            o = f.block.select(alone, total, self.space(f, table, scratch, "output"))
            self.clear(f, state, M, L)

            def block(b: Value, _: list[Value]) -> None:
                fresh = f.block.zext(f.block.icmp_signed("==", b, start), i64)
                seen = f.least(BLOCK, f.sub(stop, b))
                self.call_block(f, (table, scratch, k, v, b, seen, f.sub(diagonal, b), rows, o, fresh), rows)

            f.loop(start, f.least(stop, f.add(start, SEGMENT)), BLOCK, block)
            with f.block.if_else(alone) as (then, otherwise):
                with then:
                    for x in range(self.tile.vectors):
                        f.store(f.load(f.in_row(state, M, x)), f.in_row(state, TOTAL_M, x))
                        f.store(f.load(f.in_row(state, L, x)), f.in_row(state, TOTAL_L, x))
                with otherwise:
                    f.call(self.merge, state, o, total, o_stride, rows, vectors)

        f.loop(0, stop, SEGMENT, segment)
        f.call(self.unpack_output, table, total, o_stride, state, rows, y, lse)
        return f.finish()

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

    def write_queue(self) -> None:
        """The exported function: take a tile from the queue, find its rows, attend."""
        kinds = {"table_p": pointer, "scratch_p": pointer, "budget": i64}
        f = Function(self.module, "forward", kinds, self.tile, result=i64)
        table, scratch, budget = f.arguments
        build, entry = f.block, f.block.block
        check, take, work, spent, none = (
            f.ir.append_basic_block(name) for name in ("check", "take", "work", "spent", "none")
        )
        build.branch(check)
        build.position_at_end(check)
        left = build.phi(i64)
        left.add_incoming(budget, entry)
        build.cbranch(f.less(left, 1), spent, take)
        build.position_at_end(take)
        queue = f.at(table, FIELDS.index("next_task") * 8)
        task = build.atomic_rmw("add", queue, f.i64(1), "monotonic")
        build.cbranch(f.less(task, field(f, table, "tasks")), work, none)
        build.position_at_end(work)
        left.add_incoming(f.sub(left, self.write_task(f, table, scratch, task)), build.block)
        build.branch(check)
        build.position_at_end(spent)
        build.ret(f.i64(1))
        build.position_at_end(none)
        f.finish(f.i64(0))

    def write_task(self, f: Function, table: Value, scratch: Value, task: Value) -> Value:
        """One tile of one head, the tiles with most keys first and head by head, so that its keys stay in the cache.

        Gives the tile's cost in multiply-adds.
        """
        get = partial(field, f, table)
        per_tile = self.tile.queries
        tiles = f.block.sdiv(f.add(get("queries"), per_tile - 1), f.i64(per_tile))
        head = f.block.sdiv(task, tiles)
        first = f.mul(f.sub(f.sub(tiles, 1), f.block.srem(task, tiles)), per_tile)
        rows = f.least(per_tile, f.sub(get("queries"), first))
        q, k, v, y = self.addresses(f, table, head)
        q, y = f.at(q, f.mul(first, get("query_row"))), f.at(y, f.mul(first, get("output_row")))
        index = f.add(f.mul(head, get("queries")), first)
        wanted = f.block.icmp_signed("!=", get("lse"), f.i64(0))
        place = f.add(get("lse"), f.mul(index, f.element.bytes))
        lse = f.block.inttoptr(f.block.select(wanted, place, f.i64(0)), pointer)
        f.call(self.attend, table, scratch, q, k, v, y, lse, first, rows)
        seen = f.clamp(f.add(f.add(first, get("reach")), rows), 1, f.most(1, get("keys")))
        return f.mul(f.mul(seen, per_tile), f.add(get("query_dim"), get("value_dim")))

    def addresses(self, f: Function, table: Value, head: Value) -> list[Value]:
        """The first rows of one head's query, key, value and output: its number written in the leading axes."""

        def axis(i: Value, carried: list[Value]) -> list[Value]:
            rest, *offsets = carried
            entry = f.add(len(FIELDS), f.mul(f.sub(f.sub(field(f, table, "axes"), 1), i), len(AXIS)))
            size = f.load_int(table, entry)
            index = f.block.srem(rest, size)
            strides = [f.load_int(table, f.add(entry, n)) for n in range(1, len(AXIS))]
            offsets = [f.add(offset, f.mul(index, stride)) for offset, stride in zip(offsets, strides, strict=True)]
            return [f.block.sdiv(rest, size), *offsets]

        _, *offsets = f.loop(0, field(f, table, "axes"), 1, axis, [head, *[f.i64(0)] * len(AXIS[1:])])
        bases = [f.block.inttoptr(field(f, table, name), pointer) for name in AXIS[1:]]
        return [f.at(base, offset) for base, offset in zip(bases, offsets, strict=True)]


def padded(f: Function, dims: Value) -> Value:
    """Value dims rounded up to what the tiles need."""
    return f.mul(f.block.sdiv(f.add(dims, DIM_STEP - 1), f.i64(DIM_STEP)), DIM_STEP)
