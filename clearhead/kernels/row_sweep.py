"""The row sweep: the weights of single queries over many keys, at the rate memory is read.

`sweep` has a query in each lane, so that one query alone costs as much as a vector of them. Here keys are in the lanes,
and scores are those of `decode`; weights are α = exp(s − LSE), as in `sweep`. A task is one query of one head.
"""

from functools import partial

import llvmlite.ir as ir

from clearhead.definition.canonical import BLOCK
from clearhead.kernels.abi.call import SWEEP_TILE, TILE
from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.code import Code, Emitted, Function
from clearhead.kernels.ir.math import exp
from clearhead.kernels.ir.values import Int, Pointer, least, most
from clearhead.kernels.parts.decode_block import DecodeBlock, KeySpan, RowsBlock, pack_row, write_record
from clearhead.kernels.parts.frame import Frame, sweep_field
from clearhead.kernels.parts.task_queue import addresses, write_queue
from clearhead.kernels.parts.tile import floor_to, listed_tile, number_of_query


def row_sweep(tile: Tile, variant: Variant) -> ir.Module:
    """Write the row sweep: `i64 row_sweep(table, scratch, budget)`, to be called as `sweep` is."""
    return RowSweep(tile, variant).module


class RowSweep:
    """The module: one block of keys for one query, and the queries that the queue hands out."""

    def __init__(self, tile: Tile, variant: Variant) -> None:
        self.tile, self.variant = tile, variant
        self.module = ir.Module("clearhead.row_sweep")
        self.block = self.write_block()
        write_queue(self.module, tile, "row_sweep", self.write_task)

    def write_block(self) -> Emitted[RowsBlock]:
        """One block: its scores, or weights, to the array at `o`."""
        f = Function(self.module, self.tile, "block", RowsBlock)
        a = f.arguments
        s = a.frame.space("scores")
        block = DecodeBlock(f, self.variant, a, [a.r])
        block.write_scores(block.spans(), [s], block.keys_ahead())
        if "scores" not in self.variant.consumers:
            self.weigh(f, a, s)
        self.write_out(f, a, s)
        return f.finish()

    def weigh(self, f: Code, a: RowsBlock, s: Pointer) -> None:
        """α = exp(S − LSE) in place of S; hidden pairs weigh 0 even in a row that is not a number."""
        lse, zero, hidden = f.broadcast(a.frame.space("softmax")), f.constant(0.0), f.constant(-float("inf"))
        first = floor_to(a.start - a.block, f.lanes)
        for key in f.range(first, a.stop - a.block, f.lanes):
            at = s + key * f.element.bytes
            score = f.load(at)
            f.store((score != hidden).choose(exp(f, score - lse), zero), at)

    def write_out(self, f: Code, a: RowsBlock, s: Pointer) -> None:
        """The block's numbers from `start` to before `stop`."""
        size, count = f.element.bytes, a.stop - a.start
        source, whole = s + (a.start - a.block) * size, floor_to(count, f.lanes)
        for i in f.range(0, whole, f.lanes):
            f.store(f.load(source + i * size), a.o + i * size)
        for i in f.range(whole, count):
            f.store(f.load_number(source + i * size), a.o + i * size)

    def write_task(self, f: Code, frame: Frame, task: Int) -> Int:
        """One query of one head; gives its cost in multiply-adds."""
        get, size = partial(sweep_field, frame), f.element.bytes
        tiles = get("groups")  # of one query each
        number, t = task // tiles, task % tiles
        head = get("heads").pointer().entry(number)
        q, k, _, _ = addresses(f, frame.table, head)
        tile, entry = listed_tile(frame, t, SWEEP_TILE)
        row = number * get("target_head") + entry.entry(len(TILE)) * get("target_row")
        target = get("target").pointer() + row

        position = tile.first + tile.shift
        sees = self.wanted(frame, tile.origin, tile.keys, position)
        write_record(
            frame.space("rows"), 0,
            batch=head // frame.field("heads"), head=head % frame.field("heads"), row=tile.first, query=position,
            low=sees.low, high=sees.high, flat=head,
        )  # fmt: skip
        pack_row(f, frame, self.variant, q + tile.first * frame.field("query_row"), frame.space("query"))
        if "scores" not in self.variant.consumers:
            lse = (frame.field("lse") + number_of_query(frame, head, tile, size)).pointer()
            known = f.load_number(lse)
            nothing = f.number(-f.element.lowest)
            f.store((known == -float("inf")).choose(nothing, known), frame.space("softmax"))

        first = floor_to(sees.low, BLOCK)
        for b in f.range(first, (sees.low < sees.high).choose(sees.high, first), BLOCK):
            start, stop = most(b, sees.low), least(b + BLOCK, sees.high)
            at = target + (start - get("begin")) * size
            unused = f.i64(0)  # values and what was summed before: here there are none
            f.call(self.block, RowsBlock(frame, k, k, f.i64(0), b, start, stop, unused, at))
        return most(sees.high - sees.low, 1) * frame.field("query_dim")

    def wanted(self, frame: Frame, origin: Int, keys: Int, position: Int) -> KeySpan:
        """What the query at a position sees of its document, as far as it is wanted."""
        low = most(most(position + frame.field("low"), origin), sweep_field(frame, "begin"))
        high = least(least(position + frame.field("high") + 1, origin + keys), sweep_field(frame, "end"))
        return KeySpan(most(low, frame.field("first_key")) if self.variant.paged else low, high)
