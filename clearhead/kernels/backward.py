"""The backward kernel: the gradients of q, k, v and of what rules hold, tile by tile, in O(n) memory.

A tile is some queries of one head. It walks the keys that it may see in blocks, in ascending order, and computes each
block's weights anew from the log-sum-exp: Sᵀ and dPᵀ are score tiles (keys, values broadcast), then come one pass for P
and dS, and three sums: dV += Pᵀ dO, dK += dSᵀ Q in memory, dQ += dS K in the tile's own.

The same bits for any number of threads: tiles that add to the same dK and dV form a chain. Each passes the blocks of
keys in order and tells how far it is; the next one in the chain adds to a block only after it. Threads follow each
other through the blocks, or work on different chains. Letters as in `definition.gradient`.

Where queries and keys come in stretches, sums are carried: dQ begins with the sum over earlier keys, dK and dV are
added to those of earlier queries. There each half has a kernel of its own, too; that of dQ needs no chains.
"""

from collections.abc import Callable
from typing import NamedTuple

import llvmlite.ir as ir

from clearhead.kernels.abi.gradient_call import AXIS, DONE, FIELDS, GRADIENT_BLOCK
from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import PLAIN_VARIANT, Variant
from clearhead.kernels.ir.code import Code, Emitted, Function
from clearhead.kernels.ir.values import Float, Int, Pointer, i32, least, most
from clearhead.kernels.parts.dense_rows import Rows, Wanted, dense_rows
from clearhead.kernels.parts.frame import CallTable, Frame
from clearhead.kernels.parts.gradient_packing import (
    Columns,
    State,
    UnpackRows,
    write_columns,
    write_state,
    write_unpack_rows,
)
from clearhead.kernels.parts.gradient_sums import SumRows, Sums
from clearhead.kernels.parts.key_rows import write_read_squares
from clearhead.kernels.parts.mask_bits import Finite, write_finite, write_see
from clearhead.kernels.parts.masked_block import MaskedBlock, seen_rows
from clearhead.kernels.parts.packing import write_pack_rows
from clearhead.kernels.parts.scatter_add import ScatterAdd, write_scatter_add
from clearhead.kernels.parts.score_gradients import ScoreGradients, write_weights
from clearhead.kernels.parts.scores import Score, write_score
from clearhead.kernels.parts.task_queue import addresses, write_queue
from clearhead.kernels.parts.tile import (
    block_kinds,
    call_for_vectors,
    enter,
    listed_tile,
    number_of_query,
    padded,
    unless_null,
)

GROUP = 16  # rows of a block that are scored for the same vectors of queries, where not all see all


class GradientBlock(NamedTuple):
    """All of one block for some vectors of queries; `seen` is null where no fused mask hides a pair."""

    frame: Frame
    k: Pointer
    v: Pointer
    dk: Pointer
    dv: Pointer
    q: Pointer
    q_stride: Int
    do: Pointer
    do_stride: Int
    start: Int
    rows: Int
    diagonal: Int
    left: Int
    queries: Int
    finite: Int
    seen: Pointer
    before: Pointer  # how far the chain's task before is
    own: Pointer  # and this one
    turn: Int


class GradientTile(NamedTuple):
    """A tile of `rows` queries; its first one sees the keys from `left` to `diagonal` of the `keys` there are."""

    frame: Frame
    q: Pointer
    k: Pointer
    v: Pointer
    o: Pointer
    do: Pointer
    dq: Pointer
    dk: Pointer
    dv: Pointer
    lse: Pointer
    d_lse: Pointer
    rows: Int
    diagonal: Int
    left: Int
    keys: Int
    kinds: Pointer
    before: Pointer
    own: Pointer
    sums: Pointer


class Wait(NamedTuple):
    """Wait until the task before has passed block `turn`."""

    table: CallTable
    before: Pointer
    turn: Int


def backward(tile: Tile, variant: Variant) -> ir.Module:
    """Write the backward kernel: `i64 backward(table, scratch, budget)`, called as the forward kernel is."""
    return Backward(tile, variant).module


class Backward:
    """The module, written bottom up: parts, blocks for every number of vectors, the tile, the queue."""

    def __init__(self, tile: Tile, variant: Variant) -> None:
        self.tile, self.variant = tile, variant
        self.module = module = ir.Module("clearhead.backward")
        widths = range(1, tile.vectors + 1)
        self.pack_rows = write_pack_rows(module, tile, variant)
        self.pack_output = self.pack_rows  # the output as it was before it was rounded
        if variant.storage:
            self.pack_output = write_pack_rows(module, tile, PLAIN_VARIANT, "pack_output")
        self.unpack_rows = write_unpack_rows(module, tile, variant)
        self.columns = write_columns(module, tile)
        self.state = write_state(module, tile)
        self.score = {w: write_score(module, tile, w, PLAIN_VARIANT) for w in widths}
        read = self.read_squares = write_read_squares(module, tile, variant)
        self.weights = {w: write_weights(module, tile, w, variant, "edges", read) for w in widths}
        self.weights_whole = write_weights(module, tile, tile.vectors, variant, "nothing", read)
        self.of_queries, self.of_keys = (variant.gradients in ("all", side) for side in ("queries", "keys"))
        if self.of_queries:
            self.down = Sums(module, tile, across=False)
        if self.of_keys:
            self.across = Sums(module, tile, across=True)
        self.finite = write_finite(module, tile)
        if variant.mask:
            self.weights_masked = {w: write_weights(module, tile, w, variant, "bits", read) for w in widths}
            self.see = write_see(module, tile, variant)
        self.scatter_add = [write_scatter_add(module, tile, variant, n) for n in range(len(variant.buffered))]
        if self.of_keys:
            self.wait = self.write_wait()
        self.block = {w: self.write_block(w) for w in widths}
        self.tile_function = self.write_tile()
        write_queue(module, tile, "backward", self.write_task)

    # One block of keys

    def write_block(self, w: int) -> Emitted[GradientBlock]:
        """One block for w vectors of queries."""
        f = Function(self.module, self.tile, f"block_{w}", GradientBlock)
        a = f.arguments
        frame, get, space = a.frame, a.frame.field, a.frame.space
        dims, value_dims = get("query_dim"), get("value_dim")
        wide, value_wide = padded(dims), padded(value_dims)
        k = self.dense(f, frame, "key", Wanted(a.k, a.start, a.rows, dims, wide), "keys")
        v = self.dense(f, frame, "value", Wanted(a.v, a.start, a.rows, value_dims, value_wide), "values")
        dk_stride, dv_stride = wide * f.element.bytes, value_wide * f.element.bytes
        dk, dv = a.dk + a.start * dk_stride, a.dv + a.start * dv_stride
        summed, summed_stride = (dk, dk_stride) if self.of_keys else (k.base, k.stride)  # what is read after the scores
        s, ds, state, unused = space("scores"), space("d_scores"), space("softmax"), space("unused")
        no_mask = a.seen.is_null()
        whole = (a.rows - 2 < a.diagonal) & (a.left + (a.queries - 2) < 0)

        def scored(n: int, x: Int, first: Int, count: Int) -> None:
            """Sᵀ and dPᵀ of `count` keys by n vectors of queries from vector x on."""
            for name, rows, size, to, next_rows, next_stride in (
                ("query", k, dims, s, v.base, v.stride),
                ("d_output_columns", v, value_dims, ds, summed, summed_stride),
            ):
                offset = first * rows.stride
                f.call(
                    self.score[n],
                    Score(
                        q=f.at(space(name), 0, x), k=rows.base + offset, stride=rows.stride, dims=size,
                        s=f.at(to, first, x), rows=count, hidden=count, m=unused, v=next_rows + first * next_stride,
                        v_stride=next_stride, v_size=next_stride,
                    ),
                )  # fmt: skip

        # Sᵀ = K·Qᵀ and dPᵀ = V·dOᵀ
        with f.either(whole) as (then, otherwise):
            with then:
                scored(w, f.i64(0), f.i64(0), a.rows)
            with otherwise:
                for first in f.range(0, a.rows, GROUP):
                    self.write_group(f, w, scored, first, a)
        # P and dS in their places
        position, sums = frame.position(), space("sums")
        key = position.read("origin") + a.start
        gradients = ScoreGradients(
            frame.table, position, s, ds, a.rows, state, a.diagonal, a.left, a.queries, key, a.seen, sums,
            space("gains"), space("key_rows") if self.read_squares else None,
        )  # fmt: skip
        everything = whole & no_mask
        full = everything & (a.queries == self.tile.queries)
        if w == self.tile.vectors:
            with f.when(full):
                f.call(self.weights_whole, gradients)
        with f.when(no_mask & ~full):
            f.call(self.weights[w], gradients)
        if self.variant.mask:
            with f.when(~no_mask):
                f.call(self.weights_masked[w], gradients)
        for n, scatter_add in enumerate(self.scatter_add):
            gains = space("gains") + n * GRADIENT_BLOCK * self.tile.row
            f.call(scatter_add, ScatterAdd(frame.table, position, gains, a.rows, key, a.queries, space("diagonals")))
        safe = everything | (a.finite != 0)
        vectors = wide // f.lanes
        if self.of_keys:  # dV += Pᵀ·dO and dK += dSᵀ·Q, each block after the chain's task before
            first, last = -a.diagonal, -a.left  # the queries that see the block's first key
            f.call(self.wait, Wait(frame.table, a.before, a.turn))
            d_values = SumRows(s, a.do, a.do_stride, a.queries, first, last, a.rows, dv, dv_stride)
            d_keys = SumRows(ds, a.q, a.q_stride, a.queries, first, last, a.rows, dk, dk_stride)
            self.across.write(f, d_values, s, value_wide, safe)
            self.across.write(f, d_keys, s, wide, safe)
            f.publish(a.turn + 1, a.own)
        if self.of_queries:  # dQ += dS·K
            asked = everything.choose(f.i64(0), a.rows)  # where all is seen, the answer makes no difference
            finite = f.call_int(self.finite, Finite(v=k.base, stride=k.stride, rows=asked, vectors=vectors))
            safe = everything | (finite != 0)
            product = SumRows(ds, k.base, k.stride, a.rows, a.left, a.diagonal, a.queries, space("d_query"), dk_stride)
            self.down.write(f, product, s, wide, safe)
        return f.finish()

    def write_group(
        self, f: Code, w: int, scored: Callable[[int, Int, Int, Int], None], first: Int, a: GradientBlock
    ) -> None:
        """Some rows for those vectors of queries that see one of them."""
        stop = least(first + GROUP, a.rows)
        shift = f.lanes.bit_length() - 1
        low = most(0, first - a.diagonal >> shift)
        high = least(w - 1, stop - 1 - a.left >> shift)
        count = high - low + 1
        for n in range(1, w + 1):
            with f.when(count == n):
                scored(n, low, first, stop - first)

    def dense(self, f: Code, frame: Frame, name: str, wanted: Wanted, copies: str) -> Rows:
        """Rows of an operand as whole vectors of floats: in place if they are, else copied."""
        pack = self.pack_output if name == "output" else self.pack_rows
        narrow = bool(self.variant.storage) and name != "output"
        return dense_rows(f, frame, pack, name, wanted, copies, narrow=narrow)

    def write_wait(self) -> Emitted[Wait]:
        """Wait for the task before, letting other threads run meanwhile."""
        f = Function(self.module, self.tile, "wait", Wait)
        table, before, turn = f.arguments
        build = f.build
        look, again, after = (f.ir.append_basic_block(name) for name in ("look", "again", "passed"))
        build.branch(look)
        build.position_at_end(look)
        passed = f.acquire(before)
        build.cbranch((turn < passed).ir, after, again)
        build.position_at_end(again)
        give_way = build.inttoptr(table.field("give_way").ir, ir.FunctionType(i32, []).as_pointer())
        build.call(give_way, [])
        build.branch(look)
        build.position_at_end(after)
        return f.finish()

    # One tile of queries

    def write_tile(self) -> Emitted[GradientTile]:
        """The tile's operands made ready, its blocks, and its own gradients."""
        f = Function(self.module, self.tile, "tile", GradientTile)
        a = f.arguments
        frame, get, space = a.frame, a.frame.field, a.frame.space
        dims, value_dims, zero = get("query_dim"), get("value_dim"), f.i64(0)
        wide, value_wide = padded(dims), padded(value_dims)
        vectors, value_vectors = wide // f.lanes, value_wide // f.lanes
        q = self.dense(f, frame, "query", Wanted(a.q, zero, a.rows, dims, wide), "query_rows")
        o = self.dense(f, frame, "output", Wanted(a.o, zero, a.rows, value_dims, value_wide), "output_rows")
        do = self.dense(f, frame, "d_output", Wanted(a.do, zero, a.rows, value_dims, value_wide), "d_output_rows")
        f.call(self.columns, Columns(frame.table, q.base, q.stride, a.rows, wide, f.i64(1), space("query")))
        f.call(
            self.columns, Columns(frame.table, do.base, do.stride, a.rows, value_wide, zero, space("d_output_columns"))
        )
        f.call(
            self.state,
            State(o.base, o.stride, do.base, do.stride, a.rows, value_vectors, a.lse, a.d_lse, space("softmax")),
        )
        finite = zero
        if self.of_keys:
            finite = f.call_int(self.finite, Finite(q.base, q.stride, a.rows, vectors)) & f.call_int(
                self.finite, Finite(do.base, do.stride, a.rows, value_vectors)
            )
        d_query, size = space("d_query"), wide * f.element.bytes
        if self.of_queries:
            for vector in f.range(0, vectors * self.tile.queries):
                f.store(f.constant(0.0), f.at(d_query, 0, vector))
        if self.of_queries and self.variant.carried:  # the sum over earlier keys; it has not been rounded
            f.call(self.unpack_rows, UnpackRows(a.dq, get("d_query_row"), a.rows, dims, d_query, size))
        for row in range(len(self.variant.contributions)):
            for x in range(self.tile.vectors):
                f.store(f.constant(0.0), f.at(space("sums"), row, x))
        if self.of_keys:
            with f.when(get("serial") != 0):
                f.call(self.wait, Wait(frame.table, a.before, f.i64(DONE - 1)))
        stop = (a.diagonal + a.rows).clamp(0, a.keys)
        first = a.left.clamp(0, stop) // GRADIENT_BLOCK
        if self.variant.carried:  # the arrays may begin at a later block
            first = most(first, (get("first_key") - frame.position().read("origin")) // GRADIENT_BLOCK)

        for n in f.range(first, (stop + (GRADIENT_BLOCK - 1)) // GRADIENT_BLOCK):
            start = n * GRADIENT_BLOCK
            count = least(GRADIENT_BLOCK, stop - start)
            block = GradientBlock(
                frame, a.k, a.v, a.dk, a.dv, q.base, q.stride, do.base, do.stride, start, count,
                a.diagonal, a.left, a.rows, finite, a.kinds, a.before, a.own, n,
            )  # fmt: skip
            if self.variant.mask:
                self.write_seen_block(f, block, a.kinds)
            else:
                self.call_block(f, block._replace(seen=zero.pointer()))

        if self.of_queries:
            f.call(self.unpack_rows, UnpackRows(d_query, size, a.rows, dims, a.dq, get("d_query_row")))
        self.write_sums(f, space("sums"), a.sums)
        if self.of_keys:
            f.call(self.wait, Wait(frame.table, a.before, f.i64(DONE - 1)))
            f.publish(f.i64(DONE), a.own)
        return f.finish()

    def write_sums(self, f: Code, lanes: Pointer, sums: Pointer) -> None:
        """The tile's sums for what rules read once a head: its lanes' total."""
        for n in range(len(self.variant.contributions)):
            row = f.at(lanes, n, 0)

            def lane(y: Int, total: list[Float]) -> list[Float]:
                return [total[0] + f.load_number(row + y * f.element.bytes)]

            total = f.loop(0, self.tile.queries, 1, lane, [f.number(0.0)])[0]
            f.store(total, sums + n * f.element.bytes)

    def write_seen_block(self, f: Code, block: GradientBlock, kinds: Pointer) -> None:
        """A block under a fused mask: left out if nobody sees it, with its bits if not everybody does."""
        masked = MaskedBlock(block.start // GRADIENT_BLOCK, block.start, block.rows)
        with seen_rows(f, block.frame, self.see, kinds, masked, f.i64(0)) as seen:
            self.call_block(f, block._replace(start=block.start + seen.first, rows=seen.rows, seen=seen.bits))

    def call_block(self, f: Code, block: GradientBlock) -> None:
        """Call the block function for as many vectors as hold the tile's queries."""
        far = 4 * (GRADIENT_BLOCK + self.tile.queries)  # edges as far as they matter, so that they fit into a lane
        diagonal, left = ((edge - block.start).clamp(-far, far) for edge in (block.diagonal, block.left))
        call_for_vectors(f, self.block, block.queries, block._replace(diagonal=diagonal, left=left))

    # The whole problem

    def write_task(self, f: Code, frame: Frame, task: Int) -> Int:
        """One tile: the chains of a batch take turns. Gives the cost in multiply-adds."""
        get = frame.field
        chain, together, tiles = get("chain"), get("together"), get("tiles")
        batch = task // (together * chain)
        base, rest = batch * together, task % (together * chain)
        width = least(together, get("chains") - base)
        link, own_chain = rest // width, base + rest % width
        index = own_chain * chain + link
        head, number = own_chain * get("group") + link // tiles, link % tiles
        own_place = get("progress") + index * 8
        before_place = (link == 0).choose(get("done"), own_place - 8)
        own, before = own_place.pointer(), before_place.pointer()

        tile, _ = listed_tile(frame, number)
        q, k, v, o, do, dq, dk, dv = addresses(f, frame.table, head, FIELDS, AXIS)
        q, o, do, dq = (
            x + tile.first * get(f"{name}_row")
            for x, name in ((q, "query"), (o, "output"), (do, "d_output"), (dq, "d_query"))
        )
        k, v = k + tile.origin * get("key_row"), v + tile.origin * get("value_row")
        dk, dv = (
            x + tile.origin * (padded(get(dims)) * f.element.bytes)
            for x, dims in ((dk, "query_dim"), (dv, "value_dim"))
        )
        place = number_of_query(frame, head, tile, f.element.bytes)
        lse, d_lse = (get("lse") + place).pointer(), unless_null(f, get("d_lse"), place)
        enter(frame, head, tile)
        kinds = block_kinds(f, frame, number)
        diagonal, left = tile.diagonal(frame), tile.left(frame)
        sums = get("sums") + index * (len(self.variant.contributions) * f.element.bytes)
        f.call(
            self.tile_function,
            GradientTile(
                frame, q, k, v, o, do, dq, dk, dv, lse, d_lse, tile.rows, diagonal, left, tile.keys, kinds, before, own,
                sums.pointer(),
            ),
        )  # fmt: skip
        seen = most(1, (diagonal + tile.rows).clamp(0, tile.keys) - left.clamp(0, tile.keys))
        return seen * (3 * self.tile.queries) * (get("query_dim") + get("value_dim"))
