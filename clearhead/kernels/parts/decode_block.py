"""One block of keys for a few rows of queries, keys in the lanes: scores, softmax and weighted values.

Scores of one block are S[row][key]; with a fused mask, what each row sees follows as numbers 1 and 0. Memory is asked
for rows ahead of time throughout: values while scores are summed, the next block's keys while values are summed. They
go to the second-level cache: in the first, a block's keys and values would drive each other out.
Letters as in `decode`.
"""

from dataclasses import dataclass
from typing import NamedTuple

from clearhead.definition.canonical import BLOCK
from clearhead.kernels.abi.call import PANEL_LINE, ROW
from clearhead.kernels.abi.tiles import CACHE_LINE
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.code import Code
from clearhead.kernels.ir.expressions import EmittedRule, Positions
from clearhead.kernels.ir.math import exp
from clearhead.kernels.ir.storage import load_number, load_vector, stored_bytes
from clearhead.kernels.ir.values import Int, Pointer, Vector, fma, larger, least, least_of, most, most_of
from clearhead.kernels.parts.frame import Frame
from clearhead.kernels.parts.key_lanes import largest_lane, load_doubled, load_pair, pairs_of_rows, sum_of_pairs
from clearhead.rules.expression import Expression


class RowsBlock(NamedTuple):
    """The rows from `r` on over the keys from `start` to `stop` of one block, merged into o and the rows' state."""

    frame: Frame
    k: Pointer
    v: Pointer
    r: Int
    block: Int  # its first key
    start: Int
    stop: Int
    fresh: Int  # not 0: o was nothing yet
    o: Pointer


class MemoryRows(NamedTuple):
    """Rows in memory, and how far apart they are."""

    base: Pointer
    row: Int


class KeySpan(NamedTuple):
    """The keys that a row sees, from `low` to before `high`."""

    low: Int
    high: Int


def row_field(records: Pointer, r: Int, name: str) -> Int:
    """One number of a row's record."""
    return records.entry(r * len(ROW) + ROW.index(name))


def write_record(records: Pointer, r: Int | int, **numbers: Int) -> None:
    """Write what is known of a row."""
    for name, number in numbers.items():
        records.set_entry(r * len(ROW) + ROW.index(name), number)


def pack_row(f: Code, frame: Frame, variant: Variant, source: Pointer, target: Pointer) -> None:
    """A query, scaled, as a dense row."""
    factor = frame.table.scale(f)
    for d in f.range(0, frame.field("query_dim")):
        x = load_number(f, variant.storage, source + d * frame.field("query_element"))
        f.store(x * factor, target + d * f.element.bytes)


def page_of(pages: Pointer, key: Int) -> Pointer:
    """The page that holds a key: `pages` is a table of addresses, one for each block of keys."""
    return pages.entry(key // BLOCK).pointer()


@dataclass(frozen=True)
class DecodeBlock:
    """The block function being written into `f`."""

    f: Code
    variant: Variant
    call: RowsBlock
    rows: list[Int]

    def write(self) -> None:
        """m′ = max(m, the largest score), p = exp(s − m′), α = exp(m − m′); then o = α·o + Σ p·v and l = α·l + Σ p."""
        f, frame, size = self.f, self.call.frame, self.f.element.bytes
        spans = self.spans()
        row_bytes = BLOCK * size * (2 if self.variant.mask else 1)
        s = [frame.space("scores") + r * row_bytes for r in self.rows]
        state = [frame.space("softmax") + r * (2 * size) for r in self.rows]
        alphas = []
        for top, at, scores in zip(self.write_scores(spans, s, self.values_of_block()), state, s, strict=True):
            before = f.broadcast(at)
            m = larger(largest_lane(f, top), before)
            self.write_weights(scores, m)
            alphas.append(exp(f, before - m))
            f.store(m.first(), at)
        self.write_values(spans, s, state, alphas)

    def spans(self) -> list[KeySpan]:
        """Which keys of the block each row sees."""
        call = self.call
        records = call.frame.space("rows")
        return [
            KeySpan(*(row_field(records, r, name).clamp(call.start, call.stop) for name in ("low", "high")))
            for r in self.rows
        ]

    # Scores

    def write_scores(self, spans: list[KeySpan], s: list[Pointer], ahead: MemoryRows) -> list[Vector]:
        """S of the rows, −∞ where hidden; their largest numbers lane by lane. Meanwhile, rows are asked for."""
        f, call, size = self.f, self.call, self.f.element.bytes
        dims = call.frame.field("query_dim")
        q = [call.frame.space("query") + r * (dims * size) for r in self.rows]
        rules = [(self.rule(self.variant.score, r), self.rule(self.variant.mask, r)) for r in self.rows]
        first = call.start - (call.start - call.block) % f.lanes
        # Counted from the block, whose numbers fit into a lane however many keys there are.
        edges = [[f.splat_int(key - call.block) for key in span] for span in spans]

        def keys(key: Int, tops: list[Vector]) -> list[Vector]:
            wanted = ahead.base + (key - call.block) * ahead.row
            sums = self.sum_pairs(key, dims, q, wanted, ahead.row)
            results = []
            at, inside = (f.lane() + f.splat_int(x) for x in (key, key - call.block))
            for n, (low, high) in enumerate(edges):
                score = sum_of_pairs(f, *sums[2 * n : 2 * n + 2])
                seen = (inside >= low) & (inside < high)
                score_rule, mask_rule = rules[n]
                offset = (key - call.block) * size
                if score_rule:
                    score = score_rule.score(score_rule.lanes(key=at), Positions({}), score)
                if mask_rule:
                    seen = seen & mask_rule.seen(mask_rule.lanes(key=at), Positions({}))
                    f.store(seen.choose(f.constant(1.0), f.constant(0.0)), s[n] + (offset + BLOCK * size))
                score = seen.choose(score, f.constant(-float("inf")))
                f.store(score, s[n] + offset)
                results.append(larger(score, tops[n]))
            return results

        return f.loop(first, call.stop, f.lanes, keys, [f.constant(f.element.lowest)] * len(self.rows))

    def rule(self, expression: Expression | None, r: Int) -> EmittedRule | None:
        """An expression for one row, if there is one: only the key varies along its lanes."""
        if expression is None:
            return None
        records = self.call.frame.space("rows")
        fixed = {name: row_field(records, r, name) for name in ("batch", "head", "row", "query")}
        parameters = self.call.frame.table.parameters()
        return EmittedRule(self.f, expression, self.variant, parameters, fixed, ("key",))

    def sum_pairs(self, key: Int, dims: Int, q: list[Pointer], wanted: Pointer, wanted_row: Int) -> list[Vector]:
        """Two vectors of pairs for each row: the sums over even and odd dims of as many keys as there are lanes.

        Meanwhile as many rows, from `wanted` on, are asked for, a few lines a step.
        """
        f = self.f
        zeros = [f.constant(0.0)] * (2 * len(q))
        if self.variant.paged:
            return self.sum_pages(key, dims, q, wanted, zeros)
        half, kept, stored = f.lanes // 2, self.variant.kept, stored_bytes(f, self.variant.kept)
        last = self.call.frame.field("keys") - 1
        rows = [self.key_at(least(key + n, last)) for n in range(f.lanes)]

        def square(d: Int, sums: list[Vector]) -> list[Vector]:
            offset = d * stored
            for n in range(f.lanes):
                f.prefetch_line(wanted + (wanted_row * n + offset))
            loaded = [load_vector(f, kept, row + offset) for row in rows]
            halves = [pairs_of_rows(f, part) for part in (loaded[:half], loaded[half:])]
            for t in range(half):
                sums = self.add_pairs([part[t] for part in halves], q, d + 2 * t, sums)
            return sums

        return f.loop(0, dims, f.lanes, square, zeros)

    def sum_pages(self, key: Int, dims: Int, q: list[Pointer], wanted: Pointer, zeros: list[Vector]) -> list[Vector]:
        """The same from a cache's page, whose lines are vectors of pairs already."""
        f, kept = self.f, self.variant.kept
        half, stored = f.lanes // 2, stored_bytes(f, kept)
        page, inside = page_of(self.call.k, key), key % BLOCK
        at = [self.panel_at(page, inside + n * half, dims) for n in (0, 1)]
        scales = [self.key_scales(page, inside + n * half, dims) for n in (0, 1)] if self.variant.int8 else []
        line, step = PANEL_LINE // f.element.bytes * stored, 2 * f.lanes * stored

        def pair(t: Int, sums: list[Vector]) -> list[Vector]:
            for n in range(0, step, CACHE_LINE):
                f.prefetch_line(wanted + (t * step + n))
            pairs = [load_vector(f, kept, base + t * line) for base in at]
            if scales:
                pairs = [x * scale for x, scale in zip(pairs, scales, strict=True)]
            return self.add_pairs(pairs, q, t * 2, sums)

        return f.unrolled(0, dims // 2, 4, pair, zeros)

    def add_pairs(self, pairs: list[Vector], q: list[Pointer], d: Int, sums: list[Vector]) -> list[Vector]:
        """The dims d and d + 1 of two vectors of keys, added to each row's sums."""
        f = self.f
        qs = [load_pair(f, row + d * f.element.bytes) for row in q]
        return [fma(pairs[n % 2], qs[n // 2], sums[n]) for n in range(len(sums))]

    # What lies where

    def key_at(self, key: Int) -> Pointer:
        """Where a plain key's row begins."""
        return self.call.k + key * self.call.frame.field("key_row")

    def values_of_block(self) -> MemoryRows:
        """The block's values, in the array or their page."""
        call, row = self.call, self.call.frame.field("value_row")
        return MemoryRows(page_of(call.v, call.block) if self.variant.paged else call.v + call.block * row, row)

    def keys_ahead(self) -> MemoryRows:
        """The next block's keys; in a page, where rows are mixed, as many bytes for each."""
        call, frame = self.call, self.call.frame
        if not self.variant.paged:
            return MemoryRows(self.key_at(call.block + BLOCK), frame.field("key_row"))
        next_page = page_of(call.k, least(call.block + BLOCK, frame.field("keys") - 1))
        return MemoryRows(next_page, frame.field("query_dim") * stored_bytes(self.f, self.variant.kept))

    def panel_at(self, page: Pointer, key: Int, dims: Int) -> Pointer:
        """Where the pairs of the keys from `key` of a page on begin; a panel has a line for each two dims."""
        keys, stored = PANEL_LINE // (2 * self.f.element.bytes), stored_bytes(self.f, self.variant.kept)
        panel = key // keys * (dims * (keys * stored))
        return page + (panel + key % keys * (2 * stored))

    def key_scales(self, page: Pointer, key: Int, dims: Int) -> Vector:
        """The scales of as many keys of 8 bits as make a vector of pairs; they follow the page's keys."""
        return load_doubled(self.f, page + (dims * BLOCK + key * self.f.element.bytes))

    # Weights and values

    def write_weights(self, s: Pointer, m: Vector) -> None:
        """P = exp(S − m) in place of S."""
        f, call = self.f, self.call
        first = call.start - call.block - (call.start - call.block) % f.lanes
        for key in f.range(first, call.stop - call.block, f.lanes):
            at = s + key * f.element.bytes
            f.store(exp(f, f.load(at) - m), at)

    def write_values(self, spans: list[KeySpan], s: list[Pointer], state: list[Pointer], alphas: list[Vector]) -> None:
        """o ← α·o + Σ p·v and l ← α·l + Σ p, over the keys that each row sees, ascending and from zero."""
        f, call, frame = self.f, self.call, self.call.frame
        size, dims = f.element.bytes, frame.field("value_dim")
        vectors = dims // f.lanes
        stored = stored_bytes(f, self.variant.kept)
        row_bytes = dims * size
        next_keys, key_row = self.keys_ahead()
        values, value_row = self.values_of_block()
        scales = values + value_row * BLOCK  # of values of 8 bits
        # Between `inner` and `outer` every row sees every key; before and after, each key is checked for each row.
        lows, highs = [low for low, _ in spans], [high for _, high in spans]
        begin, finish = least_of(lows), most_of(highs)
        inner = least(most_of(lows), finish)
        outer = most(inner, least_of(highs))
        fresh = call.fresh != 0

        def chunk(n: int, x: Int) -> None:
            """n vectors of dims from vector x on. Each row carries its l, then its sums."""

            def key(at: Int, sums: list[Vector], *, check: bool) -> list[Vector]:
                v_row = values + ((at - call.block) * value_row + x * (f.lanes * stored))
                vs = [load_vector(f, self.variant.kept, v_row + y * f.lanes * stored) for y in range(n)]
                offset = (at - call.block) * size
                if self.variant.int8:
                    scale = f.broadcast(scales + offset)
                    vs = [v * scale for v in vs]
                result = []
                for r, (low, high) in enumerate(spans):
                    before = sums[r * (n + 1) : (r + 1) * (n + 1)]
                    p = f.broadcast(s[r] + offset)
                    after = [before[0] + p, *(fma(p, vs[y], before[1 + y]) for y in range(n))]
                    if check:
                        here = (low - 1 < at) & (at < high)
                        after = [here.choose(a, b) for a, b in zip(after, before, strict=True)]
                    if self.variant.mask:
                        here = f.load_number(s[r] + (offset + BLOCK * size)) > 0.0
                        after = [here.choose(a, b) for a, b in zip(after, before, strict=True)]
                    result += after
                return result

            def checked(at: Int, sums: list[Vector]) -> list[Vector]:
                return key(at, sums, check=True)

            def fetching(at: Int, sums: list[Vector]) -> list[Vector]:
                wanted = next_keys + ((at - call.block) * key_row + x * (f.lanes * stored))
                for y in range(0, n * f.lanes * stored, CACHE_LINE):
                    f.prefetch_line(wanted + y)
                return key(at, sums, check=False)

            sums = f.loop(begin, inner, 1, checked, [f.constant(0.0)] * (len(spans) * (n + 1)))
            sums = f.unrolled(inner, outer, 2, fetching, sums)
            sums = f.loop(outer, finish, 1, checked, sums)
            for r, alpha in enumerate(alphas):
                l, *weighted = sums[r * (n + 1) : (r + 1) * (n + 1)]
                place = call.o + self.rows[r] * row_bytes + x * (f.lanes * size)
                for y in range(n):
                    at = f.at(place, 0, y)
                    before = fresh.choose(f.constant(0.0), f.load(at))
                    f.store(fma(before, alpha, weighted[y]), at)
                with f.when(x == 0):
                    at = state[r] + size
                    f.store(fma(f.broadcast(at), alpha, l).first(), at)

        whole = vectors - vectors % 4
        for x in f.range(0, whole, 4):
            chunk(4, x)
        for x in f.range(whole, vectors):
            chunk(1, x)
