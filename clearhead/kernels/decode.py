"""The decode kernel: few queries over many keys, keys in the lanes, at the rate memory is read.

The rows of a task share their keys: a few queries of the query heads of one group. Each row is the scalar program of
`definition.canonical`, as in `forward`; only what stands in the lanes differs. A task is one segment of one head's
keys; whoever finishes a head's last segment merges them in order. Letters: q k v p query, key, value, weight; s score;
m l o running maximum, sum and Σ p·v.

Scores of one block are S[row][key]. Memory is asked for rows ahead of time throughout; the next block's keys also while
values are summed.
"""

from __future__ import annotations

from functools import partial

import llvmlite.ir as ir

from clearhead.definition.canonical import BLOCK, SEGMENT
from clearhead.kernels.abi.call import PANEL_LINE, ROW
from clearhead.kernels.abi.tiles import CACHE_LINE, Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir import math
from clearhead.kernels.ir.expressions import Positions, Rule
from clearhead.kernels.ir.simd import Function, Value, float_type, i64, internal_function, pointer
from clearhead.kernels.ir.storage import load_number, load_vector, store_vector, stored_bytes
from clearhead.kernels.parts.key_lanes import load_pair, pairs_of_rows, sum_of_pairs
from clearhead.kernels.parts.packing import field, scale
from clearhead.kernels.parts.task_queue import addresses, write_queue

TOGETHER = 4  # rows whose sums share each load of keys and values


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
        self.merge = self.write_merge()
        self.segment = self.write_segment()
        write_queue(self.module, tile, "decode", self.write_task)

    # What lies where

    def space(self, f: Function, table: Value, scratch: Value, name: str) -> Value:
        """Where something lies in the thread's scratch memory."""
        return f.at(scratch, field(f, table, f"at_{name}"))

    def row_field(self, f: Function, rows: Value, r: Value, name: str) -> Value:
        """One number of a row's record."""
        return f.load_int(rows, f.add(f.mul(r, len(ROW)), ROW.index(name)))

    def key_at(self, f: Function, table: Value, k: Value, key: Value) -> Value:
        """Where a plain key's row begins."""
        return f.at(k, f.mul(key, field(f, table, "key_row")))

    def block_values(self, f: Function, table: Value, v: Value, block: Value) -> Value:
        """Where a block's values begin: in the array, or their page."""
        return self.page(f, v, block) if self.variant.paged else f.at(v, f.mul(block, field(f, table, "value_row")))

    def page(self, f: Function, pages: Value, key: Value) -> Value:
        """The page that holds a key: `pages` is a table of addresses, one for each block of keys."""
        return f.block.inttoptr(f.load_int(pages, f.block.sdiv(key, f.i64(BLOCK))), pointer)

    # One block

    def write_block(self, count: int) -> ir.Function:
        """`count` rows from row r on over the keys from start to stop of one block: scores, softmax, values, merge."""
        f = internal_function(
            self.module, self.tile, f"block_{count}", "table_p", "scratch_p", "k_p", "v_p", "r", "block", "start",
            "stop", "fresh", "o_p",
        )  # fmt: skip
        table, scratch, k, v, first_row, block, start, stop, fresh, o = f.arguments
        rows = [f.add(first_row, n) for n in range(count)]
        ends = self.row_ends(f, table, scratch, rows, start, stop)
        s = [f.at(self.space(f, table, scratch, "scores"), f.mul(r, self.row_bytes(f))) for r in rows]
        state = [f.at(self.space(f, table, scratch, "softmax"), f.mul(r, 2 * f.element.bytes)) for r in rows]
        tops = self.write_scores(f, table, scratch, (k, v), rows, block, (start, stop), ends, s)
        alphas = []
        for top, at, scores in zip(tops, state, s, strict=True):
            old = f.broadcast(at)
            m = f.larger(self.largest_lane(f, top), old)
            self.write_weights(f, scores, m, start, stop, block)
            alphas.append(math.exp(f, f.block.fsub(old, m)))
            f.store_scalar(f.block.extract_element(m, f.i64(0)), at)
        self.write_values(f, table, (k, v), rows, block, ends, s, state, alphas, fresh, o)
        return f.finish()

    def row_bytes(self, f: Function) -> int:
        """Bytes of one row of S, and of what is seen of it behind."""
        return BLOCK * f.element.bytes * (2 if self.variant.mask else 1)

    def row_ends(
        self, f: Function, table: Value, scratch: Value, rows: list[Value], start: Value, stop: Value
    ) -> list[tuple[Value, Value]]:
        """Which keys of the block each row sees, from and to."""
        records = self.space(f, table, scratch, "rows")
        return [
            (
                f.clamp(self.row_field(f, records, r, "low"), start, stop),
                f.clamp(self.row_field(f, records, r, "high"), start, stop),
            )
            for r in rows
        ]

    def write_scores(
        self,
        f: Function,
        table: Value,
        scratch: Value,
        kv: tuple[Value, Value],
        rows: list[Value],
        block: Value,
        within: tuple[Value, Value],
        ends: list[tuple[Value, Value]],
        s: list[Value],
    ) -> list[Value]:
        """S of the rows, −∞ where hidden; their largest numbers lane by lane."""
        k, v = kv
        dims, size = field(f, table, "query_dim"), f.element.bytes
        q = [f.at(self.space(f, table, scratch, "query"), f.mul(r, f.mul(dims, size))) for r in rows]
        fused = [
            (self.rule(f, self.variant.score, table, scratch, r), self.rule(f, self.variant.mask, table, scratch, r))
            for r in rows
        ]
        first = f.sub(within[0], f.block.srem(f.sub(within[0], block), f.i64(f.lanes)))

        values, value_row = self.block_values(f, table, v, block), field(f, table, "value_row")

        def keys(key: Value, tops: list[Value]) -> list[Value]:
            wanted = f.at(values, f.mul(f.sub(key, block), value_row))
            sums = self.sum_pairs(f, table, k, key, dims, q, wanted, value_row)
            results = []
            for n, (low, high) in enumerate(ends):
                score = sum_of_pairs(f, *sums[2 * n : 2 * n + 2])
                at = f.block.add(f.lane(), f.splat_int(key))
                seen = f.block.and_(
                    f.block.icmp_signed(">=", at, f.splat_int(low)), f.block.icmp_signed("<", at, f.splat_int(high))
                )
                score_rule, mask_rule = fused[n]
                offset = f.mul(f.sub(key, block), size)
                if score_rule:
                    score = score_rule.apply(score_rule.lanes(key=at), Positions({}), score)
                if mask_rule:
                    seen = f.block.and_(seen, mask_rule.apply(mask_rule.lanes(key=at), Positions({}), None))
                    truth = f.block.select(seen, f.constant(1.0), f.constant(0.0))
                    f.store(truth, f.at(s[n], f.add(offset, BLOCK * size)))
                score = f.block.select(seen, score, f.constant(-float("inf")))
                f.store(score, f.at(s[n], offset))
                results.append(f.larger(score, tops[n]))
            return results

        return f.loop(first, within[1], f.lanes, keys, [f.constant(f.element.lowest)] * len(rows))

    def rule(self, f: Function, expression: object, table: Value, scratch: Value, r: Value) -> Rule | None:
        """An expression for one row, if there is one: only the key varies along its lanes."""
        if expression is None:
            return None
        records = self.space(f, table, scratch, "rows")
        fixed = {name: self.row_field(f, records, r, name) for name in ("batch", "head", "row", "query")}
        parameters = f.at(table, f.mul(field(f, table, "parameters"), 8))
        return Rule(f, expression, self.variant, parameters, fixed, ("key",))  # type: ignore[arg-type]

    def sum_pairs(
        self,
        f: Function,
        table: Value,
        k: Value,
        key: Value,
        dims: Value,
        q: list[Value],
        wanted: Value,
        wanted_row: Value,
    ) -> list[Value]:
        """Two vectors of pairs for each row: the sums over even and odd dims of as many keys as there are lanes.

        Meanwhile as many values, from `wanted` on, are asked for, a few lines a step.
        """
        half, size, kept = f.lanes // 2, f.element.bytes, self.variant.kept
        stored = stored_bytes(f, kept)
        zeros = [f.constant(0.0)] * (2 * len(q))

        def add(pairs: list[Value], d: Value, acc: list[Value]) -> list[Value]:
            qs = [load_pair(f, f.at(row, f.mul(d, size))) for row in q]
            return [f.fma(pairs[n % 2], qs[n // 2], acc[n]) for n in range(len(acc))]

        if self.variant.paged:
            page, inside = self.page(f, k, key), f.block.srem(key, f.i64(BLOCK))
            at = [self.panel_at(f, page, f.add(inside, n * half), dims) for n in (0, 1)]
            scales = [self.key_scales(f, page, f.add(inside, n * half), dims) for n in (0, 1)]
            line, step = PANEL_LINE // size * stored, 2 * f.lanes * stored

            def pair(t: Value, acc: list[Value]) -> list[Value]:
                for n in range(0, step, CACHE_LINE):
                    f.prefetch_line(f.at(wanted, f.add(f.mul(t, step), n)))
                pairs = [load_vector(f, kept, f.at(base, f.mul(t, line))) for base in at]
                if self.variant.int8:
                    pairs = [f.block.fmul(x, own) for x, own in zip(pairs, scales, strict=True)]
                return add(pairs, f.mul(t, 2), acc)

            return f.unrolled(0, f.block.sdiv(dims, f.i64(2)), 4, pair, zeros)
        last = f.sub(field(f, table, "keys"), 1)
        rows = [self.key_at(f, table, k, f.least(f.add(key, n), last)) for n in range(f.lanes)]

        def square(d: Value, acc: list[Value]) -> list[Value]:
            offset = f.mul(d, stored)
            for n in range(f.lanes):
                f.prefetch_line(f.at(wanted, f.add(f.mul(wanted_row, n), offset)))
            loaded = [load_vector(f, kept, f.at(row, offset)) for row in rows]
            halves = [pairs_of_rows(f, part) for part in (loaded[:half], loaded[half:])]
            for t in range(half):
                acc = add([part[t] for part in halves], f.add(d, 2 * t), acc)
            return acc

        return f.loop(0, dims, f.lanes, square, zeros)

    def panel_at(self, f: Function, page: Value, key: Value, dims: Value) -> Value:
        """Where the pairs of the keys from `key` of a page on begin; a panel has a line for each two dims."""
        keys, stored = PANEL_LINE // (2 * f.element.bytes), stored_bytes(f, self.variant.kept)
        panel = f.mul(f.block.sdiv(key, f.i64(keys)), f.mul(dims, keys * stored))
        return f.at(page, f.add(panel, f.mul(f.block.srem(key, f.i64(keys)), 2 * stored)))

    def key_scales(self, f: Function, page: Value, key: Value, dims: Value) -> Value:
        """The scales of as many keys of 8 bits as make a vector of pairs; they stand behind the page's keys."""
        if not self.variant.int8:
            return None
        half = ir.VectorType(float_type(f.element), f.lanes // 2)
        at = f.at(page, f.add(f.mul(dims, BLOCK), f.mul(key, f.element.bytes)))
        scales = f.block.load(at, typ=half, align=f.element.bytes)
        return f.shuffle(scales, ir.Constant(half, ir.Undefined), [lane // 2 for lane in range(f.lanes)])

    def largest_lane(self, f: Function, x: Value) -> Value:
        """The largest number of a vector, in every lane."""
        step = 1
        while step < f.lanes:
            x = f.larger(x, f.shuffle(x, x, [lane ^ step for lane in range(f.lanes)]))
            step *= 2
        return x

    def write_weights(self, f: Function, s: Value, m: Value, start: Value, stop: Value, block: Value) -> None:
        """P = exp(S − m) in place of S."""
        first = f.sub(f.sub(start, block), f.block.srem(f.sub(start, block), f.i64(f.lanes)))

        def keys(key: Value, _: list[Value]) -> None:
            at = f.at(s, f.mul(key, f.element.bytes))
            f.store(math.exp(f, f.block.fsub(f.load(at), m)), at)

        f.loop(first, f.sub(stop, block), f.lanes, keys)

    def write_values(
        self,
        f: Function,
        table: Value,
        kv: tuple[Value, Value],
        rows: list[Value],
        block: Value,
        ends: list[tuple[Value, Value]],
        s: list[Value],
        state: list[Value],
        alphas: list[Value],
        fresh: Value,
        o: Value,
    ) -> None:
        """o ← α·o + Σ p·v and l ← α·l + Σ p, over the keys that each row sees, ascending and from zero."""
        k, v = kv
        size, count = f.element.bytes, len(rows)
        dims = field(f, table, "value_dim")
        vectors = f.block.sdiv(dims, f.i64(f.lanes))
        kept, stored = self.variant.kept, stored_bytes(f, self.variant.kept)
        row_bytes, key_bytes = f.mul(dims, size), f.mul(field(f, table, "query_dim"), stored)
        if self.variant.paged:
            next_block = f.least(f.add(block, BLOCK), f.sub(field(f, table, "keys"), 1))
            next_keys, key_row = self.page(f, k, next_block), key_bytes
        else:
            next_keys, key_row = self.key_at(f, table, k, f.add(block, BLOCK)), field(f, table, "key_row")
        values, value_row = self.block_values(f, table, v, block), field(f, table, "value_row")
        scales = f.at(values, f.mul(value_row, BLOCK))  # of values of 8 bits
        lows, highs = [low for low, _ in ends], [high for _, high in ends]
        begin, finish = f.lowest_of(lows), f.highest_of(highs)
        inner = f.least(f.highest_of(lows), finish)
        outer = f.most(inner, f.lowest_of(highs))

        def chunk(n: int, x: Value) -> None:
            def key(at: Value, acc: list[Value], check: bool) -> list[Value]:
                v_row = f.at(values, f.add(f.mul(f.sub(at, block), value_row), f.mul(x, f.lanes * stored)))
                vs = [load_vector(f, kept, f.at(v_row, y * f.lanes * stored)) for y in range(n)]
                sums = []
                offset = f.mul(f.sub(at, block), size)
                if self.variant.int8:
                    own = f.broadcast(f.at(scales, offset))
                    vs = [f.block.fmul(x, own) for x in vs]
                for r in range(count):
                    own = acc[r * (n + 1) : (r + 1) * (n + 1)]
                    p = f.broadcast(f.at(s[r], offset))
                    new = [f.block.fadd(own[0], p), *(f.fma(p, vs[y], own[1 + y]) for y in range(n))]
                    if check:
                        here = f.block.and_(f.less(f.sub(lows[r], 1), at), f.less(at, highs[r]))
                        new = [f.block.select(here, a, b) for a, b in zip(new, own, strict=True)]
                    if self.variant.mask:
                        truth = f.load_scalar(f.at(s[r], f.add(offset, BLOCK * size)))
                        here = f.block.fcmp_ordered(">", truth, ir.Constant(float_type(f.element), 0.0))
                        new = [f.block.select(here, a, b) for a, b in zip(new, own, strict=True)]
                    sums += new
                return sums

            def fetching(at: Value, acc: list[Value]) -> list[Value]:
                wanted = f.at(next_keys, f.add(f.mul(f.sub(at, block), key_row), f.mul(x, f.lanes * stored)))
                for y in range(0, n * f.lanes * stored, CACHE_LINE):
                    f.prefetch_line(f.at(wanted, y))
                return key(at, acc, check=False)

            acc = f.loop(begin, inner, 1, partial(key, check=True), [f.constant(0.0)] * (count * (n + 1)))
            acc = f.unrolled(inner, outer, 2, fetching, acc)
            acc = f.loop(outer, finish, 1, partial(key, check=True), acc)
            for r in range(count):
                own = acc[r * (n + 1) : (r + 1) * (n + 1)]
                place = f.at(f.at(o, f.mul(rows[r], row_bytes)), f.mul(x, f.lanes * size))
                for y in range(n):
                    at = f.in_row(place, 0, y)
                    before = f.block.select(fresh_now, f.constant(0.0), f.load(at))
                    f.store(f.fma(before, alphas[r], own[1 + y]), at)
                with f.when(f.block.icmp_signed("==", x, f.i64(0))):
                    at = f.at(state[r], size)
                    total = f.fma(f.broadcast(at), alphas[r], own[0])
                    f.store_scalar(f.block.extract_element(total, f.i64(0)), at)

        fresh_now = f.block.icmp_signed("!=", fresh, f.i64(0))
        whole = f.sub(vectors, f.block.srem(vectors, f.i64(4)))
        f.loop(0, whole, 4, lambda x, _: chunk(4, x))
        f.loop(whole, vectors, 1, lambda x, _: chunk(1, x))

    # All rows over one segment

    def write_pack(self) -> ir.Function:
        """Records and scaled queries of a task's rows: row r is query r % queries of the group's head r // queries."""
        f = internal_function(self.module, self.tile, "pack", "table_p", "scratch_p", "q_p", "head")
        table, scratch, q, head = f.arguments
        get = partial(field, f, table)
        queries, dims, size = get("queries"), get("query_dim"), f.element.bytes
        records, factor = self.space(f, table, scratch, "rows"), scale(f, table)

        def row(r: Value, _: list[Value]) -> None:
            own, index = f.block.sdiv(r, queries), f.block.srem(r, queries)
            flat = f.add(f.mul(head, get("group")), own)
            position = f.add(index, get("shift"))
            high = f.clamp(f.add(f.add(position, get("high")), 1), 0, get("keys"))
            low = f.clamp(f.add(position, get("low")), get("first_key"), get("keys"))
            numbers = {
                "batch": f.block.sdiv(flat, get("heads")), "head": f.block.srem(flat, get("heads")), "row": index,
                "query": position, "low": low, "high": f.most(low, high), "flat": flat,
            }  # fmt: skip
            for name, number in numbers.items():
                f.block.store(number, f.at(records, f.mul(f.add(f.mul(r, len(ROW)), ROW.index(name)), 8)), align=8)
            source = f.at(q, f.add(f.mul(own, get("group_query")), f.mul(index, get("query_row"))))
            target = f.at(self.space(f, table, scratch, "query"), f.mul(r, f.mul(dims, size)))

            def dim(d: Value, _: list[Value]) -> None:
                x = load_number(f, self.variant.storage, f.at(source, f.mul(d, get("query_element"))))
                f.store_scalar(f.block.fmul(x, factor), f.at(target, f.mul(d, size)))

            f.loop(0, dims, 1, dim)

        f.loop(0, get("rows"), 1, row)
        return f.finish()

    def write_segment(self) -> ir.Function:
        """All rows of a head over the keys from `begin` to `end`, into `state` (m and l of each row) and o."""
        f = internal_function(
            self.module, self.tile, "segment", "table_p", "scratch_p", "k_p", "v_p", "begin", "end", "o_p"
        )
        table, scratch, k, v, begin, end, o = f.arguments
        rows, size = field(f, table, "rows"), f.element.bytes
        state, records = self.space(f, table, scratch, "softmax"), self.space(f, table, scratch, "rows")

        def clear(r: Value, _: list[Value]) -> None:
            lowest, zero = (ir.Constant(float_type(f.element), x) for x in (f.element.lowest, 0.0))
            f.store_scalar(lowest, f.at(state, f.mul(r, 2 * size)))
            f.store_scalar(zero, f.at(state, f.add(f.mul(r, 2 * size), size)))

        def extent(r: Value, found: list[Value]) -> list[Value]:
            low, high = (self.row_field(f, records, r, name) for name in ("low", "high"))
            return [f.least(found[0], low), f.most(found[1], high)]

        f.loop(0, rows, 1, clear)
        low, high = f.loop(0, rows, 1, extent, [end, begin])
        low, high = f.clamp(low, begin, end), f.clamp(high, begin, end)
        first = f.sub(low, f.block.srem(low, f.i64(BLOCK)))
        bytes_of_o = f.mul(f.mul(rows, field(f, table, "value_dim")), size)

        def zero(at: Value, _: list[Value]) -> None:
            f.store(f.constant(0.0), f.at(o, at))

        with f.when(f.less(high, f.add(low, 1))):  # nobody sees anything
            f.loop(0, bytes_of_o, f.lanes * size, zero)

        def block(b: Value, _: list[Value]) -> None:
            start, stop = f.most(b, low), f.least(f.add(b, BLOCK), high)
            fresh = f.block.zext(f.block.icmp_signed("==", b, first), i64)
            whole = f.sub(rows, f.block.srem(rows, f.i64(TOGETHER)))

            def together(count: int, r: Value) -> None:
                f.call(self.block[count], table, scratch, k, v, r, b, start, stop, fresh, o)

            f.loop(0, whole, TOGETHER, lambda r, _: together(TOGETHER, r))
            for count in range(1, TOGETHER):
                with f.when(f.block.icmp_signed("==", f.sub(rows, whole), f.i64(count))):
                    together(count, whole)

        f.loop(first, high, BLOCK, block)
        return f.finish()

    # Segments together

    def write_merge(self) -> ir.Function:
        """Join a row's segments in order, divide by the sum, which a sink joins, and write output and log-sum-exp."""
        f = internal_function(
            self.module, self.tile, "merge", "state_p", "o_p", "step", "o_step", "segments", "vectors", "y_p", "lse_p",
            "sink_p",
        )  # fmt: skip
        state, o, step, o_step, segments, vectors, y, lse, sink = f.arguments
        size, storage, b = f.element.bytes, self.variant.written, f.block
        m, l = f.broadcast(state), f.broadcast(f.at(state, size))

        def segment(n: Value, total: list[Value]) -> list[Value]:
            part = f.at(state, f.mul(n, step))
            new_m, new_l = f.broadcast(part), f.broadcast(f.at(part, size))
            top = f.larger(new_m, total[0])
            before, now = math.exp(f, b.fsub(total[0], top)), math.exp(f, b.fsub(new_m, top))

            def dims(x: Value, _: list[Value]) -> None:
                whole, own = f.in_row(o, 0, 0), f.at(o, f.mul(n, o_step))
                at = f.mul(x, f.lanes * size)
                value = f.fma(f.load(f.at(whole, at)), before, b.fmul(f.load(f.at(own, at)), now))
                f.store(value, f.at(whole, at))

            f.loop(0, vectors, 1, dims)
            return [top, f.fma(total[1], before, b.fmul(new_l, now))]

        m, l = f.loop(1, segments, 1, segment, [m, l])
        zero = f.constant(0.0)
        factor = None
        if self.variant.sink:
            s = f.broadcast(sink)
            top = f.larger(s, m)
            factor = math.exp(f, b.fsub(m, top))
            m, l = top, f.fma(l, factor, math.exp(f, b.fsub(s, top)))
        with f.when(b.icmp_unsigned("!=", b.ptrtoint(lse, i64), f.i64(0))):
            f.store_scalar(b.extract_element(b.fadd(m, math.log(f, l)), f.i64(0)), lse)
        inverse = b.select(b.fcmp_ordered("==", l, zero), zero, b.fdiv(f.constant(1.0), l))
        inverse = inverse if factor is None else b.fmul(factor, inverse)

        def dims(x: Value, _: list[Value]) -> None:
            result = f.fma(f.load(f.at(o, f.mul(x, f.lanes * size))), inverse, zero)
            store_vector(f, storage, result, f.at(y, f.mul(x, f.lanes * stored_bytes(f, storage))))

        f.loop(0, vectors, 1, dims)
        return f.finish()

    def write_task(self, f: Function, table: Value, scratch: Value, task: Value) -> Value:
        """One segment of one head; gives its cost in multiply-adds."""
        get, size = partial(field, f, table), f.element.bytes
        segments, rows = get("segments"), get("rows")
        head, n = f.block.sdiv(task, segments), f.block.srem(task, segments)
        q, k, v, y = addresses(f, table, head)
        begin = f.mul(f.add(get("first_segment"), n), SEGMENT)
        end = f.least(f.add(begin, SEGMENT), get("keys"))
        f.call(self.pack, table, scratch, q, head)
        o_step = f.mul(f.mul(rows, get("value_dim")), size)
        state_step = f.mul(rows, 2 * size)
        # The workspace holds each head's o of all segments, then the states of all segments.
        own = f.mul(segments, f.add(o_step, state_step))
        workspace = f.block.inttoptr(f.add(get("workspace"), f.mul(head, own)), pointer)
        states = f.at(workspace, f.mul(segments, o_step))
        f.call(self.segment, table, scratch, k, v, begin, end, f.at(workspace, f.mul(n, o_step)))
        state = self.space(f, table, scratch, "softmax")

        def keep(at: Value, _: list[Value]) -> None:
            f.store_scalar(f.load_scalar(f.at(state, at)), f.at(f.at(states, f.mul(n, state_step)), at))

        f.loop(0, state_step, size, keep)
        counter = f.block.inttoptr(f.add(get("counters"), f.mul(head, 8)), pointer)
        done = f.block.atomic_rmw("add", counter, f.i64(1), "acq_rel")
        with f.when(f.block.icmp_signed("==", done, f.sub(segments, 1))):
            self.write_rows(f, table, scratch, head, workspace, states, (o_step, state_step), y)
        return f.mul(f.mul(f.sub(end, begin), rows), f.add(get("query_dim"), get("value_dim")))

    def write_rows(
        self,
        f: Function,
        table: Value,
        scratch: Value,
        head: Value,
        workspace: Value,
        states: Value,
        steps: tuple[Value, Value],
        y: Value,
    ) -> None:
        """Merge and write each row of a head."""
        get, size = partial(field, f, table), f.element.bytes
        queries = get("queries")
        vectors = f.block.sdiv(get("value_dim"), f.i64(f.lanes))

        def row(r: Value, _: list[Value]) -> None:
            own, index = f.block.sdiv(r, queries), f.block.srem(r, queries)
            flat = f.add(f.mul(head, get("group")), own)
            target = f.at(y, f.add(f.mul(own, get("group_output")), f.mul(index, get("output_row"))))
            wanted = f.block.icmp_signed("!=", get("lse"), f.i64(0))
            place = f.add(get("lse"), f.mul(f.add(f.mul(flat, queries), index), size))
            lse = f.block.inttoptr(f.block.select(wanted, place, f.i64(0)), pointer)
            sink = f.block.inttoptr(f.add(get("sink"), f.mul(flat, size)), pointer)
            f.call(
                self.merge, f.at(states, f.mul(r, 2 * size)), f.at(workspace, f.mul(r, f.mul(get("value_dim"), size))),
                steps[1], steps[0], get("segments"), vectors, target, lse, sink,
            )  # fmt: skip

        f.loop(0, get("rows"), 1, row)
