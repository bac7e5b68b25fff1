"""The decode kernel: few queries over many keys, keys in the lanes, at the rate memory is read.

The rows of a task share their keys: a few queries of the query heads of one group. Each row is the scalar program of
`definition.canonical`, as in `forward`; only what stands in the lanes differs. A task is one segment of one head's
keys; whoever finishes a head's last segment merges them in order, unless each segment's own sums are what is wanted
(`carried`). Letters: q k v p query, key, value, weight; s score;
m l o running maximum, sum and Σ p·v.
"""

from typing import NamedTuple

import llvmlite.ir as ir

from clearhead.definition.canonical import BLOCK, SEGMENT
from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.code import Code, Emitted, Function
from clearhead.kernels.ir.math import log
from clearhead.kernels.ir.storage import store_rounded, stored_bytes
from clearhead.kernels.ir.values import Int, Pointer, Vector, fma, least, most
from clearhead.kernels.parts.decode_block import DecodeBlock, RowsBlock, pack_row, row_field, write_record
from clearhead.kernels.parts.frame import Frame
from clearhead.kernels.parts.merge import join_maxima
from clearhead.kernels.parts.task_queue import addresses, write_queue
from clearhead.kernels.parts.tile import floor_to, unless_null

TOGETHER = 4  # rows whose sums share each load of keys and values


class PackRecords(NamedTuple):
    """Records and scaled queries of a task's rows."""

    frame: Frame
    q: Pointer
    head: Int


class Segment(NamedTuple):
    """All rows of a head over the keys from `begin` to `end`, into their state (m and l of each row) and o."""

    frame: Frame
    k: Pointer
    v: Pointer
    begin: Int
    end: Int
    o: Pointer


class MergeSegments(NamedTuple):
    """Join a row's segments in order, and write output and log-sum-exp."""

    state: Pointer
    o: Pointer
    step: Int  # how far apart two segments' states lie, and their o
    o_step: Int
    segments: Int
    vectors: Int
    y: Pointer
    lse: Pointer
    sink: Pointer


class Workspace(NamedTuple):
    """A head's sums: o of all segments, then the states of all segments, each a step from the last."""

    o: Pointer
    states: Pointer
    o_step: Int
    state_step: Int


def decode(tile: Tile, variant: Variant) -> ir.Module:
    """Write the decode kernel: `i64 decode(table, scratch, budget)`, to be called as `forward` is."""
    return Decode(tile, variant).module


class Decode:
    """The module: one block for 1 to TOGETHER rows, a segment of all rows, the merge, the queue."""

    def __init__(self, tile: Tile, variant: Variant) -> None:
        self.tile, self.variant = tile, variant
        self.module = ir.Module("clearhead.decode")
        self.block = {rows: self.write_block(rows) for rows in range(1, TOGETHER + 1)}
        self.pack = self.write_pack()
        if not variant.carried:
            self.merge = self.write_merge()
        self.segment = self.write_segment()
        write_queue(self.module, tile, "decode", self.write_task)

    # All rows over one segment

    def write_block(self, count: int) -> Emitted[RowsBlock]:
        """One block for `count` rows."""
        f = Function(self.module, self.tile, f"block_{count}", RowsBlock)
        DecodeBlock(f, self.variant, f.arguments, [f.arguments.r + n for n in range(count)]).write()
        return f.finish()

    def write_pack(self) -> Emitted[PackRecords]:
        """Row r is query r % queries of the group's head r // queries."""
        f = Function(self.module, self.tile, "pack", PackRecords)
        frame, q, head = f.arguments
        get, size = frame.field, f.element.bytes
        queries, dims = get("queries"), get("query_dim")
        records = frame.space("rows")

        for r in f.range(0, get("rows")):
            member, row = r // queries, r % queries
            flat = head * get("group") + member
            position = row + get("shift")
            high = (position + get("high") + 1).clamp(0, get("keys"))
            low = (position + get("low")).clamp(get("first_key"), get("keys"))
            write_record(
                records, r,
                batch=flat // get("heads"), head=flat % get("heads"), row=row, query=position, low=low,
                high=most(low, high), flat=flat,
            )  # fmt: skip
            source = q + (member * get("group_query") + row * get("query_row"))
            pack_row(f, frame, self.variant, source, frame.space("query") + r * (dims * size))
        return f.finish()

    def write_segment(self) -> Emitted[Segment]:
        """The segment's blocks, in ascending order, for TOGETHER rows at a time."""
        f = Function(self.module, self.tile, "segment", Segment)
        frame, k, v, begin, end, o = f.arguments
        rows, size = frame.field("rows"), f.element.bytes
        state, records = frame.space("softmax"), frame.space("rows")

        for r in f.range(0, rows):  # nothing seen yet
            f.store(f.number(f.element.lowest), state + r * (2 * size))
            f.store(f.number(0.0), state + (r * (2 * size) + size))

        def extent(r: Int, found: list[Int]) -> list[Int]:
            low, high = (row_field(records, r, name) for name in ("low", "high"))
            return [least(found[0], low), most(found[1], high)]

        low, high = f.loop(0, rows, 1, extent, [end, begin])
        low, high = low.clamp(begin, end), high.clamp(begin, end)
        first = floor_to(low, BLOCK)
        bytes_of_o = rows * frame.field("value_dim") * size

        with f.when(high < low + 1):  # nobody sees anything
            for at in f.range(0, bytes_of_o, f.lanes * size):
                f.store(f.constant(0.0), o + at)

        for b in f.range(first, high, BLOCK):
            start, stop = most(b, low), least(b + BLOCK, high)
            fresh = (b == first).number()
            whole = floor_to(rows, TOGETHER)

            def together(count: int, r: Int) -> None:
                f.call(self.block[count], RowsBlock(frame, k, v, r, b, start, stop, fresh, o))

            for r in f.range(0, whole, TOGETHER):
                together(TOGETHER, r)
            for count in range(1, TOGETHER):
                with f.when(rows - whole == count):
                    together(count, whole)
        return f.finish()

    # Segments together

    def write_merge(self) -> Emitted[MergeSegments]:
        """The segments join one after the other, then a sink; y = o / l and LSE = m + log l."""
        f = Function(self.module, self.tile, "merge", MergeSegments)
        state, o, step, o_step, segments, vectors, y, lse, sink = f.arguments
        size, storage = f.element.bytes, self.variant.written
        m, l = f.broadcast(state), f.broadcast(state + size)

        def segment(n: Int, total: list[Vector]) -> list[Vector]:
            part = state + n * step
            new_m, new_l = f.broadcast(part), f.broadcast(part + size)
            top, before, now = join_maxima(f, total[0], new_m)
            for x in f.range(0, vectors):
                whole, own = f.at(o, 0, 0), o + n * o_step
                at = x * (f.lanes * size)
                value = fma(f.load(whole + at), before, f.load(own + at) * now)
                f.store(value, whole + at)
            return [top, fma(total[1], before, new_l * now)]

        m, l = f.loop(1, segments, 1, segment, [m, l])
        zero = f.constant(0.0)
        factor = None
        if self.variant.sink:
            m, factor, sink_weight = join_maxima(f, m, f.broadcast(sink))
            l = fma(l, factor, sink_weight)
        with f.when(lse.given()):
            f.store((m + log(f, l)).first(), lse)
        inverse = (l == zero).choose(zero, 1.0 / l)
        inverse = inverse if factor is None else factor * inverse
        for x in f.range(0, vectors):
            result = fma(f.load(o + x * (f.lanes * size)), inverse, zero)
            store_rounded(f, storage, result, y + x * (f.lanes * stored_bytes(f, storage)))
        return f.finish()

    def write_task(self, f: Code, frame: Frame, task: Int) -> Int:
        """One segment of one head; gives its cost in multiply-adds."""
        get, size = frame.field, f.element.bytes
        segments, rows = get("segments"), get("rows")
        head, n = task // segments, task % segments
        q, k, v, y = addresses(f, frame.table, head)
        begin = (get("first_segment") + n) * SEGMENT
        end = least(begin + SEGMENT, get("keys"))
        f.call(self.pack, PackRecords(frame, q, head))
        o_step = rows * get("value_dim") * size
        state_step = rows * (2 * size)
        # The workspace holds each head's o of all segments, then the states of all segments.
        head_bytes = segments * (o_step + state_step)
        workspace = (get("workspace") + head * head_bytes).pointer()
        states = workspace + segments * o_step
        f.call(self.segment, Segment(frame, k, v, begin, end, workspace + n * o_step))
        state = frame.space("softmax")
        for at in f.range(0, state_step, size):
            f.store(f.load_number(state + at), states + n * state_step + at)
        if not self.variant.carried:
            counter = (get("counters") + head * 8).pointer()
            done = f.fetch_add(counter, 1, "acq_rel")
            with f.when(done == segments - 1):
                self.write_rows(f, frame, head, y, Workspace(workspace, states, o_step, state_step))
        return (end - begin) * rows * (get("query_dim") + get("value_dim"))

    def write_rows(self, f: Code, frame: Frame, head: Int, y: Pointer, sums: Workspace) -> None:
        """Merge and write each row of a head."""
        get, size = frame.field, f.element.bytes
        queries = get("queries")
        vectors = get("value_dim") // f.lanes

        for r in f.range(0, get("rows")):
            member, row = r // queries, r % queries
            flat = head * get("group") + member
            target = y + (member * get("group_output") + row * get("output_row"))
            lse = unless_null(f, get("lse"), (flat * queries + row) * size)
            sink = (get("sink") + flat * size).pointer()
            state, o = sums.states + r * (2 * size), sums.o + r * (get("value_dim") * size)
            steps = sums.state_step, sums.o_step
            f.call(self.merge, MergeSegments(state, o, *steps, get("segments"), vectors, target, lse, sink))
