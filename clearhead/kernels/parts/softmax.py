"""Softmax of one block of keys: which part of Sᵀ each group of vectors computes, and the block's m, p and l.

A band around the diagonal is seen. With D the last key that the tile's first query sees, keys from D + W·x on are
hidden from the vectors of W queries before vector x, and masked lane by lane in vector x. A window's left edge is the
same from the other side; there each vector walks alone, up to the first key that all queries see. Letters as in
`forward`.
"""

from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import llvmlite.ir as ir

from clearhead.kernels.abi.softmax_state import ALPHA, BETA, SUM, TOP, L, M
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir import math
from clearhead.kernels.ir.simd import Function, Value, i64
from clearhead.kernels.parts.mask_bits import seen_at

Part: TypeAlias = tuple[int, int, Value, Value]  # vectors, the first of them, and the rows from start to stop
NEAR = 1 << 10  # rows beyond every tile: so far left, nothing is hidden


@dataclass(frozen=True)
class Block:
    """A block of keys as one tile sees it."""

    start: Value  # index of its first key
    rows: Value  # keys that any query of the tile sees
    diagonal: Value  # D, counted from the block's first key
    left: Value | None  # likewise the first key that the tile's first query sees, if there is a window

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


@dataclass(frozen=True)
class Softmax:
    """One block's softmax being written into `f`, for w vectors of queries."""

    f: Function
    variant: Variant
    score: dict[int, ir.Function]
    rules: dict[int, ir.Function]
    exponentials: dict[int, ir.Function]
    hide: ir.Function | None
    w: int
    block: Block
    keys: Rows
    values: Rows
    dims: Value
    qt: Value
    s: Value
    state: Value
    place: tuple[Value, ...]  # the call's table, the tile's place and the block's first key, if a rule asks

    def write(self, seen: Value | None) -> None:
        """Sᵀ, its maximum, P = exp(S − m) in its place, and the segment's m and l; rows before the diagonal at once."""
        f, w = self.f, self.w
        row = partial(f.in_row, self.state)  # row(which, x): vector x of one of the state's rows
        for x in range(w):
            f.store(f.constant(0.0), row(SUM, x))
        parts = self.write_scores(seen)
        for x in range(w):
            old = f.load(row(M, x))
            new = f.larger(f.load(row(TOP, x)), old)
            f.store(new, row(M, x))
            f.store(math.exp(f, f.block.fsub(old, new)), row(ALPHA, x))
        for part in parts:
            self.exponential(*part)
        for x in range(w):
            f.store(f.fma(f.load(row(L, x)), f.load(row(ALPHA, x)), f.load(row(SUM, x))), row(L, x))

    def write_scores(self, seen: Value | None) -> list[Part]:
        """Sᵀ where it is seen, −∞ in the lanes beside, and its maximum; the parts that it was computed in.

        What is hidden from whole vectors of queries is left as it was.
        """
        f, w = self.f, self.w
        edges = [self.block.edge(f, x) for x in range(w + 1)]
        near, wide = self.left_edge(edges)
        for x in range(w):
            f.store(f.constant(f.element.lowest), f.in_row(self.state, TOP, x))
        starts = self.starts() if wide else []
        parts = [(1, x, start, self.left_stop(wide, near, edges[x + 1])) for x, start in enumerate(starts)]
        middle = w, 0, near, self.middle_stop(wide, near, edges[0])
        stair = [f.block.select(wide, edge, f.i64(0)) for edge in edges] if wide else edges
        stairs = [(w - x, x, stair[x], stair[x + 1]) for x in range(w)]
        for part in parts:
            self.scores(*part)
        self.scores(*middle, inside=True)
        for part in stairs:
            self.scores(*part)
        if seen is not None:
            self.write_hidden(seen, starts, edges)
        return [*parts, middle, *stairs]

    def starts(self) -> list[Value]:
        """With a window, each vector's first row that any of its queries sees."""
        f = self.f
        return [f.clamp(f.add(self.block.left, x * f.lanes), 0, self.block.rows) for x in range(self.w)]

    def left_edge(self, edges: list[Value]) -> tuple[Value, Value | None]:
        """The first row that all queries see, and whether there is one before the diagonal: else vectors walk alone."""
        f, left = self.f, self.block.left
        if left is None:
            return f.i64(0), None
        near = f.clamp(f.add(left, self.w * f.lanes - 1), 0, self.block.rows)
        wide = f.block.icmp_signed("<=", near, edges[0])
        return f.block.select(wide, near, f.i64(0)), wide

    def left_stop(self, wide: Value, near: Value, edge: Value) -> Value:
        """Where a vector's own walk ends."""
        return self.f.block.select(wide, near, edge)

    def middle_stop(self, wide: Value | None, near: Value, edge: Value) -> Value:
        """Where the rows that all queries see end."""
        return edge if wide is None else self.f.block.select(wide, edge, near)

    def scores(self, w: int, x: int, start: Value, stop: Value, *, inside: bool = False) -> None:
        """Scores of w vectors from x on for the rows from start to stop; `inside`: all of them are seen."""
        f = self.f
        rows = f.sub(stop, start)
        offset = x * f.lanes
        hidden = rows if inside else f.sub(f.add(self.block.diagonal, offset), start)
        more: list[Value] = []
        if self.block.left is not None:
            more.append(f.i64(-NEAR) if inside else f.sub(f.add(self.block.left, offset), start))
        s, top = f.in_row(self.s, start, x), f.in_row(self.state, TOP, x)
        own_top = f.in_row(self.state, BETA, x) if self.rules else top  # rules take the maximum of what they make
        f.call(
            self.score[w], f.in_row(self.qt, 0, x), self.keys.at(f, start), self.keys.stride, self.dims, s, rows,
            hidden, own_top, self.values.at(f, start), self.values.stride, self.values.size, *more,
        )  # fmt: skip
        if self.rules:
            table, place, key = self.place
            f.call(self.rules[w], table, place, s, rows, hidden, top, f.add(key, start), f.i64(offset), *more)

    def exponential(self, w: int, x: int, start: Value, stop: Value) -> None:
        """P of w vectors from x on, for the rows from start to stop."""
        f = self.f
        maxima, sums = (f.in_row(self.state, which, x) for which in (M, SUM))
        f.call(self.exponentials[w], f.in_row(self.s, 0, x), start, stop, maxima, sums)

    def write_hidden(self, seen: Value, starts: list[Value], edges: list[Value]) -> None:
        """Unless every pair is seen (`seen` is null), hide pairs and take the maximum anew."""
        f = self.f
        with f.when(f.block.icmp_unsigned("!=", f.block.ptrtoint(seen, i64), f.i64(0))):
            for x in range(self.w):
                top = f.in_row(self.state, TOP, x)
                f.store(f.constant(f.element.lowest), top)
                start = starts[x] if starts else f.i64(0)
                bits = seen_at(f, seen, f.i64(0), f.i64(x))
                f.call(self.hide, f.in_row(self.s, 0, x), start, edges[x + 1], top, bits)
