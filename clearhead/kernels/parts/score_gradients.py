"""From scores to weights and to the gradients of scores: one pass over Sᵀ and dPᵀ, queries in the lanes.

    P = exp(S − LSE),  dS = P ∘ (dP − δ),  before the rules dS ∘ slope,  for what they read Σ dS ∘ share

P takes the place of S, scale · dS₀ that of dP. A hidden pair's weight is −0, which no seen one's is, its gradient 0.
"""

from dataclasses import replace

import llvmlite.ir as ir

from clearhead.kernels.abi.call import SEEN_BYTES
from clearhead.kernels.abi.gradient_call import BLOCK
from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import Share, Variant
from clearhead.kernels.ir import math
from clearhead.kernels.ir.expressions import Positions, with_offsets
from clearhead.kernels.ir.operations import is_vector
from clearhead.kernels.ir.simd import Function, Value, i1, i16, i64, internal_function, pointer
from clearhead.kernels.parts.mask_bits import seen_at
from clearhead.kernels.parts.packing import scale
from clearhead.kernels.parts.tile_position import queries_in_lanes, rule_of_queries
from clearhead.rules.expression import Expression

LSE, DELTA = 0, 1  # rows of a tile's state


def write_weights(module: ir.Module, tile: Tile, w: int, variant: Variant, hidden: str) -> ir.Function:
    """`rows` keys by w vectors of queries; key r is seen by queries from r − `diagonal` to r − `left`.

    `key` is row 0's key. `hidden` says what may be: "nothing", what is beyond the "edges", or what "bits" tell as well.
    """
    f = internal_function(
        module, tile, f"weights_{hidden}_{w}", "table_p", "place_p", "s_p", "dp_p", "rows",
        "state_p", "diagonal", "left", "queries", "key", "seen_p", "sums_p", "gains_p", together=w,
    )  # fmt: skip
    table, place, s, dp, rows, state, diagonal, left, queries, key, bits, sums, gains = f.arguments
    b = f.block
    lse, delta = f.load(f.in_row(state, LSE, 0)), f.load(f.in_row(state, DELTA, 0))
    factor, last = f.splat(scale(f, table)), f.sub(queries, 1)
    rules = Derived(f, variant, table, place) if variant.score is not None else None

    def row(r: Value, carried: list[Value]) -> list[Value]:
        at, d_at = f.in_row(s, r, 0), f.in_row(dp, r, 0)
        seen = None
        if hidden != "nothing":
            seen = b.and_(
                b.icmp_signed(">=", f.lane(), f.splat_int(f.sub(r, diagonal))),
                b.icmp_signed("<=", f.lane(), f.splat_int(f.least(f.sub(r, left), last))),
            )
        if hidden == "bits":
            seen = b.and_(seen, load_bits(f, bits, r, w))
        score = f.load(at)
        if rules:
            rules.enter(score, f.add(key, r))
            score = rules.score()
        p = where(f, seen, math.exp(f, b.fsub(score, lse)), -0.0)
        d_s = b.fmul(p, b.fsub(f.load(d_at), delta))
        if rules:
            carried = rules.shares(d_s, seen, carried, f.at(gains, f.mul(r, tile.row)))
            d_s = b.fmul(d_s, rules.slope())
        f.store(p, at)
        f.store(where(f, seen, b.fmul(d_s, factor), 0.0), d_at)
        return carried

    fixed = [n for n, share in enumerate(variant.shares) if share.target is None]
    totals = f.loop(0, rows, 1, row, [f.constant(0.0)] * len(fixed))
    for n, total in zip(fixed, totals, strict=True):
        f.store(b.fadd(f.load(f.in_row(sums, n, 0)), total), f.in_row(sums, n, 0))
    return f.finish()


def where(f: Function, seen: Value | None, x: Value, otherwise: float) -> Value:
    """x in the lanes that are seen; all are, without `seen`."""
    return x if seen is None else f.block.select(seen, x, f.constant(otherwise))


def load_bits(f: Function, seen: Value, row: Value, w: int) -> Value:
    """The bits of w vectors of queries as truth in each lane."""
    lanes = f.lanes // w
    whole = ir.IntType(f.lanes)
    joined = ir.Constant(whole, 0)
    for x in range(w):
        bits = f.block.load(f.at(seen_at(f, seen, row, f.i64(0)), x * SEEN_BYTES), typ=i16, align=2)
        own = f.block.trunc(bits, ir.IntType(lanes)) if lanes < 16 else bits
        own = f.block.zext(own, whole) if f.lanes > lanes else own
        joined = f.block.or_(joined, f.block.shl(own, ir.Constant(whole, x * lanes)))
    return f.block.bitcast(joined, ir.VectorType(i1, f.lanes))


class Derived:
    """The score rules and their derivatives, written into one function; what they have in common is written once."""

    def __init__(self, f: Function, variant: Variant, table: Value, place: Value) -> None:
        assert variant.score is not None  # noqa: S101
        assert variant.slope is not None  # noqa: S101
        self.f, self.variant = f, variant
        self.rule = rule_of_queries(f, variant.score, variant, table, place)
        self.slopes = with_offsets(variant.slope)
        self.parts = [(share, *self.expressions(share)) for share in variant.shares]
        others = [self.slopes]
        for _, coefficient, offsets in self.parts:
            others += [coefficient, *offsets]
        for e in others:
            self.rule.hoist(e, self.rule.fixed, frozenset(self.rule.fixed.leaves))
        self.lanes = queries_in_lanes(f, self.rule, place, f.i64(0))
        for e in others:
            self.rule.hoist(e, self.lanes, self.rule.lane | frozenset(self.rule.fixed.leaves))

    def expressions(self, share: Share) -> tuple[Expression, tuple[Expression, ...]]:
        """The derivative, and how many bytes each index moves in the gradient."""
        target = () if share.target is None else with_offsets(replace(share.load, array=share.target)).args
        return with_offsets(share.coefficient), target

    def enter(self, score: Value, key: Value) -> None:
        """Go to one row of scores."""
        self.at, self.pair = (self.lanes, Positions({"key": key})), Positions({"score": score})

    def value(self, e: Expression) -> Value:
        """An expression's value here."""
        return self.rule.write(e, self.at, self.pair)

    def score(self) -> Value:
        """The score after its rules."""
        return self.rule.numbers.vector(self.value(self.rule.expression))

    def slope(self) -> Value:
        """Its derivative by the score before."""
        return self.rule.numbers.vector(self.value(self.slopes))

    def shares(self, d_s: Value, seen: Value | None, carried: list[Value], gains: Value) -> list[Value]:
        """Add what this row gives to the gradients of arrays, or keep it; the sums for whole heads are carried on."""
        f, b, sums = self.f, self.f.block, iter(carried)
        result = []
        for share, coefficient, offsets in self.parts:
            gain = b.fmul(d_s, self.rule.numbers.vector(self.value(coefficient)))
            gain = where(f, seen, gain, 0.0)
            if share.target is None:
                result.append(b.fadd(next(sums), gain))
            elif share.way != "each":
                number = self.variant.staged.index(share)
                f.store(gain, f.at(gains, number * BLOCK * f.tile.row))
            else:
                self.scatter(gain, share.target, [self.value(e) for e in offsets])
        return result

    def scatter(self, gain: Value, target: int, offsets: list[Value]) -> None:
        """Add each lane to its element, lane after lane; or their sum, if all have one."""
        f, b, rule = self.f, self.f.block, self.rule
        base = f.load_int(rule.parameters, self.variant.at_array(target))
        for offset in offsets:
            if not is_vector(offset):
                base = b.add(base, offset)
        apart = [offset for offset in offsets if is_vector(offset)]
        if not apart:
            self.add_to(base, total_of(f, gain))
            return
        places = f.splat(base)
        for offset in apart:
            places = b.add(places, offset)
        for lane in range(f.lanes):
            self.add_to(
                b.extract_element(places, ir.Constant(i64, lane)), b.extract_element(gain, ir.Constant(i64, lane))
            )

    def add_to(self, place: Value, gain: Value) -> None:
        """One element more."""
        address = self.f.block.inttoptr(place, pointer)
        self.f.store_scalar(self.f.block.fadd(self.f.load_scalar(address), gain), address)


def total_of(f: Function, x: Value) -> Value:
    """The sum of a vector's lanes, by halves as long as they are even."""
    b, n = f.block, x.type.count
    while n % 2 == 0:
        n //= 2
        x = b.fadd(f.shuffle(x, x, list(range(n))), f.shuffle(x, x, list(range(n, 2 * n))))
    total = b.extract_element(x, ir.Constant(i64, 0))
    for lane in range(1, n):
        total = b.fadd(total, b.extract_element(x, ir.Constant(i64, lane)))
    return total
