"""Softmax of one block of keys: which part of Sᵀ each group of vectors computes, and the block's m, p and l.

A band around the diagonal is seen. With D the last key that the tile's first query sees, keys from D + W·x on are
hidden from the vectors of W queries before vector x, and masked lane by lane in vector x. A window's left edge is the
same from the other side; there each vector walks alone, up to the first key that all queries see. Letters as in
`forward`.

             queries →                 with a window
    keys   ████████  the middle:       ████▒░░░  each vector alone: later
     ↓     ████████  all see all       ██████▒░  queries no longer see these
           ░▒██████  the stairs:       ████████  the middle
           ░░░▒████  one vector less   ░▒██████  the stairs
           ░░░░░▒██  at each step      ░░░▒████
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Self

import llvmlite.ir as ir

from clearhead.kernels.abi.softmax_state import ALPHA, BETA, SUM, TOP, L, M
from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.code import Code, Emitted
from clearhead.kernels.ir.math import exp
from clearhead.kernels.ir.values import Int, Pointer, Truth, fma, larger
from clearhead.kernels.parts.ahead import Ahead
from clearhead.kernels.parts.bfloat16_dot import write_native_score
from clearhead.kernels.parts.dense_rows import Rows
from clearhead.kernels.parts.frame import CallTable, TilePosition
from clearhead.kernels.parts.key_rows import write_read_squares
from clearhead.kernels.parts.mask_bits import Hide, seen_at, write_hide
from clearhead.kernels.parts.scores import (
    ApplyRules,
    Exponentials,
    Score,
    write_exponentials,
    write_rules,
    write_score,
)

BEYOND = 1 << 10  # rows: a left edge so far before a tile hides nothing from it


class KeyBlock(NamedTuple):
    """A block of keys as one tile sees it."""

    start: Int  # index of its first key
    rows: Int  # keys that any query of the tile sees
    diagonal: Int  # D, counted from the block's first key
    left: Int | None  # likewise the first key that the tile's first query sees, if there is a window

    def edge(self, f: Code, x: int) -> Int:
        """The first row of the block that is masked in vector x of queries and hidden from those before."""
        return (self.diagonal + x * f.lanes).clamp(0, self.rows)


class ScorePart(NamedTuple):
    """Some vectors of queries over some rows of the block."""

    vectors: int
    first: int  # of the vectors
    start: Int
    stop: Int


@dataclass(frozen=True)
class ScoreFunctions:
    """A module's functions for scores, for every number of vectors of queries."""

    variant: Variant
    score: dict[int, Emitted[Score]]
    rules: dict[int, Emitted[ApplyRules]]  # empty without score rules
    exponentials: dict[int, Emitted[Exponentials]]  # empty in sweeps, which know the LSE
    hide: Emitted[Hide] | None  # without a fused mask

    @classmethod
    def write(cls, module: ir.Module, tile: Tile, variant: Variant, ahead: Sequence[str] = ()) -> Self:
        """Write them into a module; `ahead` names the parameter that scores have where they ask for later rows."""
        widths = range(1, tile.vectors + 1)
        score = write_native_score if variant.native else partial(write_score, ahead=ahead)
        read = write_read_squares(module, tile, variant)
        return cls(
            variant,
            score={w: score(module, tile, w, variant) for w in widths},
            rules={w: write_rules(module, tile, w, variant, read) for w in widths} if variant.score else {},
            exponentials={} if variant.consumers else {w: write_exponentials(module, tile, w) for w in widths},
            hide=write_hide(module, tile) if variant.mask else None,
        )


@dataclass(frozen=True)
class BlockScores:
    """One block's scores being written into `f`, for w vectors of queries."""

    f: Code
    functions: ScoreFunctions
    w: int
    block: KeyBlock
    keys: Rows
    values: Rows  # what is wanted next, and fetched meanwhile
    dims: Int
    query: Pointer  # Qᵀ
    s: Pointer  # Sᵀ
    state: Pointer  # softmax's rows
    table: CallTable
    position: TilePosition
    first_key: Int | None  # the block's first key among all, if a rule reads it
    key_rows: Pointer | None = None  # room for what rules read along the keys
    ahead: Ahead | None = None  # rows to ask for meanwhile

    def write_softmax(self, seen: Pointer | None) -> None:
        """Sᵀ, its maximum, P = exp(S − m) in its place, and the segment's m and l."""
        f, w = self.f, self.w
        row = partial(f.at, self.state)  # row(which, x): vector x of one of the state's rows
        for x in range(w):
            f.store(f.constant(0.0), row(SUM, x))
        parts = self.write_scores(seen)
        # m′ = max(m, the block's maximum); what was summed before is worth α = exp(m − m′) of itself.
        for x in range(w):
            old = f.load(row(M, x))
            new = larger(f.load(row(TOP, x)), old)
            f.store(new, row(M, x))
            f.store(exp(f, old - new), row(ALPHA, x))
        for part in parts:
            self.write_exponentials(part)
        # l = α·l + Σ p
        for x in range(w):
            f.store(fma(f.load(row(L, x)), f.load(row(ALPHA, x)), f.load(row(SUM, x))), row(L, x))

    def write_scores(self, seen: Pointer | None) -> list[ScorePart]:
        """Sᵀ where it is seen, −∞ in the lanes beside it, and its maximum; the parts that it was computed in.

        What is hidden from whole vectors of queries is left as it was.
        """
        f, w = self.f, self.w
        edges = [self.block.edge(f, x) for x in range(w + 1)]
        near, wide = self.left_edge(edges)
        for x in range(w):
            f.store(f.constant(f.element.lowest), f.at(self.state, TOP, x))
        if wide is None:
            starts, alone, stop, stair = [], [], edges[0], edges
        else:
            # `wide`: some rows are seen by all queries. Else the two edges meet, and every vector walks its own rows.
            starts = self.starts()
            alone = [ScorePart(1, x, start, wide.choose(near, edges[x + 1])) for x, start in enumerate(starts)]
            stop = wide.choose(edges[0], near)
            stair = [wide.choose(edge, f.i64(0)) for edge in edges]
        middle = ScorePart(w, 0, near, stop)
        stairs = [ScorePart(w - x, x, stair[x], stair[x + 1]) for x in range(w)]
        for part in alone:
            self.write_part(part)
        self.write_part(middle, inside=True)
        for part in stairs:
            self.write_part(part)
        if seen is not None:
            self.write_hidden(seen, starts, edges)
        return [*alone, middle, *stairs]

    def starts(self) -> list[Int]:
        """With a window, each vector's first row that any of its queries sees."""
        f, left = self.f, self.block.left
        assert left is not None
        return [(left + x * f.lanes).clamp(0, self.block.rows) for x in range(self.w)]

    def left_edge(self, edges: list[Int]) -> tuple[Int, Truth | None]:
        """The first row that all queries see, and whether there is one before the diagonal."""
        f, left = self.f, self.block.left
        if left is None:
            return f.i64(0), None
        near = (left + (self.w * f.lanes - 1)).clamp(0, self.block.rows)
        wide = near <= edges[0]
        return wide.choose(near, f.i64(0)), wide

    def write_part(self, part: ScorePart, *, inside: bool = False) -> None:
        """Scores of some vectors of queries for some rows; `inside`: all of them are seen."""
        f, functions = self.f, self.functions
        w, x, start, stop = part
        rows = stop - start
        offset = x * f.lanes
        hidden = rows if inside else self.block.diagonal + offset - start
        left = None
        if self.block.left is not None:
            left = f.i64(-BEYOND) if inside else self.block.left + offset - start
        s, top = f.at(self.s, start, x), f.at(self.state, TOP, x)
        # Under rules the maximum is that of what they make of scores: BETA's row takes the one from before.
        score_top = f.at(self.state, BETA, x) if functions.rules else top
        f.call(
            functions.score[w],
            Score(
                q=f.at(self.query, 0, x),
                k=self.keys.at(start),
                stride=self.keys.stride,
                dims=self.dims,
                s=s,
                rows=rows,
                hidden=hidden,
                m=score_top,
                v=self.values.at(start),
                v_stride=self.values.stride,
                v_size=self.values.size,
                left=left,
                ahead=None if self.ahead is None else self.ahead.after(start),
            ),
        )
        if functions.rules:
            assert self.first_key is not None
            f.call(
                functions.rules[w],
                ApplyRules(
                    table=self.table,
                    position=self.position,
                    s=s,
                    rows=rows,
                    hidden=hidden,
                    m=top,
                    key=self.first_key + start,
                    query=f.i64(offset),
                    left=left,
                    key_rows=self.key_rows,
                ),
            )

    def write_exponentials(self, part: ScorePart) -> None:
        """P of some vectors of queries for some rows."""
        f = self.f
        maxima, sums = (f.at(self.state, which, part.first) for which in (M, SUM))
        f.call(
            self.functions.exponentials[part.vectors],
            Exponentials(p=f.at(self.s, 0, part.first), start=part.start, stop=part.stop, m=maxima, l=sums),
        )

    def write_hidden(self, seen: Pointer, starts: list[Int], edges: list[Int]) -> None:
        """Unless every pair is seen (`seen` is null), hide pairs and take the maximum anew."""
        f, hide = self.f, self.functions.hide
        assert hide is not None
        with f.when(seen.given()):
            for x in range(self.w):
                top = f.at(self.state, TOP, x)
                f.store(f.constant(f.element.lowest), top)
                start = starts[x] if starts else f.i64(0)
                bits = seen_at(f, seen, f.i64(0), x)
                f.call(hide, Hide(s=f.at(self.s, 0, x), start=start, stop=edges[x + 1], m=top, seen=bits))
