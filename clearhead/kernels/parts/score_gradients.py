"""From scores to weights and to the gradients of scores: one pass over Sᵀ and dPᵀ, queries in the lanes.

    P = exp(S − LSE)
    dS = P ∘ (dP − δ)
    dS₀ = dS ∘ ∂rule/∂score            the gradient of the score before its rules
    dA[i] = Σ dS ∘ ∂rule/∂A[i]         the gradient of an array that the rules read

P takes the place of S, scale · dS₀ that of dP. A hidden pair has the weight −0, which no seen pair has, and gradient 0.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import llvmlite.ir as ir

from clearhead.kernels.abi.call import SEEN_BYTES
from clearhead.kernels.abi.gradient_call import GRADIENT_BLOCK
from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import Contribution, Variant
from clearhead.kernels.ir.code import Code, Emitted, Function
from clearhead.kernels.ir.expressions import Positions, with_offsets
from clearhead.kernels.ir.math import exp
from clearhead.kernels.ir.values import Float, Int, Lanes, Pointer, Truth, Value, Vector, i64, least
from clearhead.kernels.parts.frame import CallTable, TilePosition
from clearhead.kernels.parts.key_rows import ReadSquares, each_key
from clearhead.kernels.parts.mask_bits import seen_at
from clearhead.kernels.parts.tile_position import queries_in_lanes, rule_of_queries
from clearhead.rules.expression import Expression

LSE_ROW, DELTA_ROW = 0, 1  # rows of a tile's state


class ScoreGradients(NamedTuple):
    """`rows` keys by some vectors of queries; key r is seen by queries from r − `diagonal` to r − `left`."""

    table: CallTable
    position: TilePosition
    s: Pointer
    dp: Pointer
    rows: Int
    state: Pointer
    diagonal: Int
    left: Int
    queries: Int
    key: Int  # row 0's
    seen: Pointer
    sums: Pointer
    gains: Pointer
    key_rows: Pointer | None = None  # room for what rules read along the keys


def write_weights(
    module: ir.Module, tile: Tile, w: int, variant: Variant, hidden: str, read: Sequence[Emitted[ReadSquares]]
) -> Emitted[ScoreGradients]:
    """`hidden` says what may be: "nothing", what is beyond the "edges", or what "bits" tell as well."""
    f = Function(
        module, tile, f"weights_{hidden}_{w}", ScoreGradients, present=("key_rows",) if read else (), together=w
    )
    a = f.arguments
    lse, delta = f.load(f.at(a.state, LSE_ROW, 0)), f.load(f.at(a.state, DELTA_ROW, 0))
    factor, last = f.splat(a.table.scale(f)), a.queries - 1
    rules = RuleGradients(f, variant, a.table, a.position) if variant.score is not None else None

    def row(r: Int, known: dict[Expression, Value], carried: list[Vector]) -> list[Vector]:
        at, d_at = f.at(a.s, r, 0), f.at(a.dp, r, 0)
        seen = None
        if hidden != "nothing":
            seen = (f.lane() >= f.splat_int(r - a.diagonal)) & (f.lane() <= f.splat_int(least(r - a.left, last)))
        if hidden == "bits":
            assert seen is not None
            seen = seen & load_bits(f, a.seen, r, w)
        score = f.load(at)
        if rules:
            rules.enter(score, a.key + r, known)
            score = rules.score()
        # P = exp(S − LSE) and dS = P ∘ (dP − δ)
        p = seen_or(f, seen, exp(f, score - lse), -0.0)
        d_s = p * (f.load(d_at) - delta)
        if rules:
            carried = rules.contributions(d_s, seen, carried, a.gains + r * tile.row)
            d_s = d_s * rules.score_derivative()
        f.store(p, at)
        f.store(seen_or(f, seen, d_s * factor, 0.0), d_at)
        return carried

    fixed = [n for n, contribution in enumerate(variant.contributions) if contribution.target is None]
    squares = ReadSquares(
        a.table, a.position, a.key, f.i64(0), f.i64(w), f.null() if a.key_rows is None else a.key_rows
    )
    totals = each_key(f, variant, read, squares, a.rows, row, [f.constant(0.0)] * len(fixed))
    for n, total in zip(fixed, totals, strict=True):
        f.store(f.load(f.at(a.sums, n, 0)) + total, f.at(a.sums, n, 0))
    return f.finish()


def seen_or(f: Code, seen: Truth | None, x: Vector, otherwise: float) -> Vector:
    """x in the lanes that are seen; all are, without `seen`."""
    return x if seen is None else seen.choose(x, f.constant(otherwise))


def load_bits(f: Code, seen: Pointer, row: Int, w: int) -> Truth:
    """The bits of w vectors of queries as truth in each lane."""
    lanes = f.lanes // w
    joined = f.bits(f.lanes, 0)
    for x in range(w):
        bits = f.load_bits(seen_at(f, seen, row, 0) + x * SEEN_BYTES, 16, align=2)
        joined = joined | bits.resized(lanes).resized(f.lanes) << x * lanes
    return joined.truths()


class RuleGradients:
    """The score rules and their derivatives, written into one function; what they have in common is written once."""

    def __init__(self, f: Code, variant: Variant, table: CallTable, position: TilePosition) -> None:
        assert variant.score is not None
        assert variant.score_derivative is not None
        self.f, self.variant = f, variant
        self.rule = rule_of_queries(f, variant.score, variant, table, position)
        self.derivative = with_offsets(variant.score_derivative)
        self.parts = [(c, *self.expressions(c)) for c in variant.contributions]
        others = [self.derivative]
        for _, coefficient, offsets in self.parts:
            others += [coefficient, *offsets]
        for e in others:
            self.rule.hoist(e, self.rule.fixed, frozenset(self.rule.fixed.leaves))
        self.lanes = queries_in_lanes(f, self.rule, position, 0)
        for e in others:
            self.rule.hoist(e, self.lanes, self.rule.lane | frozenset(self.rule.fixed.leaves))

    def expressions(self, contribution: Contribution) -> tuple[Expression, tuple[Expression, ...]]:
        """The derivative, and how many bytes each index moves in the gradient."""
        coefficient, target = with_offsets(contribution.coefficient), contribution.target
        if target is None:
            return coefficient, ()
        return coefficient, with_offsets(replace(contribution.load, array=target)).args

    def enter(self, score: Vector, key: Int, known: dict[Expression, Value]) -> None:
        """Go to one row of scores, of which something may be known."""
        self.at, self.pair = (self.lanes, Positions({"key": key}, known)), Positions({"score": score})

    def value(self, e: Expression) -> Value:
        """An expression's value here."""
        return self.rule.write(e, self.at, self.pair)

    def vector(self, e: Expression) -> Vector:
        """A float expression's value here, in every lane."""
        vector: Vector = self.rule.numbers.vector(self.value(e))
        return vector

    def score(self) -> Vector:
        """The score after its rules."""
        return self.vector(self.rule.expression)

    def score_derivative(self) -> Vector:
        """Its derivative by the score before."""
        return self.vector(self.derivative)

    def contributions(self, d_s: Vector, seen: Truth | None, carried: Sequence[Vector], gains: Pointer) -> list[Vector]:
        """Add what this row gives to the gradients of arrays, or keep it; the sums for whole heads are carried on."""
        f, sums = self.f, iter(carried)
        result = []
        for contribution, coefficient, offsets in self.parts:
            gain = seen_or(f, seen, d_s * self.vector(coefficient), 0.0)
            if contribution.target is None:
                result.append(next(sums) + gain)
            elif contribution.scatter != "element":
                number = self.variant.buffered.index(contribution)
                f.store(gain, gains + number * GRADIENT_BLOCK * f.tile.row)
            else:
                self.scatter(gain, contribution.target, [self.value(e) for e in offsets])
        return result

    def scatter(self, gain: Vector, target: int, offsets: list[Value]) -> None:
        """Add each lane to its element, lane after lane; or their sum, if all have one."""
        f = self.f
        base = self.rule.parameters.entry(self.variant.at_array(target))
        for offset in offsets:
            if isinstance(offset, Int):
                base = base + offset
        apart = [offset for offset in offsets if isinstance(offset, Lanes)]
        if not apart:
            self.add_to(base, total_of(f, gain))
            return
        places = Lanes(f.build, f.spread(base.ir))
        for offset in apart:
            places = places + offset
        for lane in range(f.lanes):
            place = Int(f.build, f.build.extract_element(places.ir, ir.Constant(i64, lane)))
            self.add_to(place, gain.lane(lane))

    def add_to(self, place: Int, gain: Float) -> None:
        """One element more."""
        address = place.pointer()
        self.f.store(self.f.load_number(address) + gain, address)


def total_of(f: Code, x: Vector) -> Float:
    """The sum of a vector's lanes, by halves as long as they are even."""
    n = f.lanes
    while n % 2 == 0:
        n //= 2
        x = f.shuffle(x, x, list(range(n))) + f.shuffle(x, x, list(range(n, 2 * n)))
    total = x.lane(0)
    for lane in range(1, n):
        total = total + x.lane(lane)
    return total
