"""Combines the masks and score rules of one call: a band, documents, and expressions with their constants extracted.

Decides what kernels handle by loop bounds (the band of `causal` and `window`, the spans of `documents`) and what
becomes fused code. Constants are passed as parameters: softcap(30) and softcap(50) share a kernel. Where the rules may
be invalid, the fused code makes an invalid pair visible with score NaN, which `clearhead.engine.diagnosis` explains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np

from clearhead.arrays import Array
from clearhead.errors import InputError
from clearhead.once import cached_property
from clearhead.rules.blame import fault_error
from clearhead.rules.bounds import ALL_HIDDEN, ALL_SEEN, PARTLY_SEEN, bounds
from clearhead.rules.document_masks import Documents
from clearhead.rules.expression import Expression, Formula, depends, fits_bits, renumber, rewrite
from clearhead.rules.faults import any_condition, faults
from clearhead.rules.mask_kinds import FAR, Causal, Full, Mask, Window, conjunction
from clearhead.rules.placement import placed_at, split_documents
from clearhead.rules.ranges import ranges
from clearhead.rules.scores import Score
from clearhead.rules.spans import Span, cut

MOST_TABLE_BYTES = 1 << 26  # for the table of block kinds; without a table, kernels check every block
SCORE, QUERY, KEY = Expression("score", "float"), Expression("query", "int"), Expression("key", "int")
TOO_LARGE = "whole numbers up to {} do not fit into 64 bits: calculate with floats, as in key * 1.0"
NOT_A_NUMBER = Expression("constant", "float", value=math.nan)


@dataclass(frozen=True)
class Fused:
    """The rules of one call; a query at position p sees at most the keys p + low to p + high of its span."""

    spans: tuple[Span, ...]
    packed: bool
    low: int | None
    high: int | None
    mask: Formula | None  # further condition on visible pairs
    score: Formula | None
    faults: tuple[Expression | None, Expression | None] = (None, None)  # where score and mask may be invalid
    long: bool = False  # whether integers need 64 bits
    given: tuple[Mask, tuple[Score, ...]] = field(default=(Full(), ()), compare=False, repr=False)

    @property
    def doubtful(self) -> bool:
        """Whether a pair may be invalid, which only the call itself can show: its score is NaN then."""
        return self.faults != (None, None)

    @property
    def trusted(self) -> Fused:
        """The same rules without checks, after a call found no invalid pair."""
        return replace(self, faults=(None, None))

    @property
    def leaves(self) -> frozenset[str]:
        """The leaves that the formulas read."""
        return frozenset().union(*(depends(x.expression) for x in (self.mask, self.score) if x))

    def pairs(self, first_key: int = 0) -> int:
        """Number of pairs of one head, with keys from `first_key` on, that the band and the documents make visible."""
        return sum(span_pairs(span, self.low, self.high, first_key) for span in self.spans)

    def of_rows(self, first: int, stop: int) -> Fused:
        """The same rules for the queries from `first` to before `stop` alone, each at its own position.

        Formulas that read `row` are refused: kernels count rows from 0 again.
        """
        if "row" in self.leaves:
            mask, scores = self.given
            raise InputError(f"{mask!r} and {scores!r} read tables by row, so they cannot be cut: give all queries.")
        return replace(self, spans=cut(self.spans, first, stop))

    @cached_property
    def expressions(self) -> tuple[Expression | None, Expression | None, tuple[float, ...], tuple[Array, ...]]:
        """Score and mask expressions, and the constants and arrays that they refer to by number."""
        constants: list[float] = []

        def extract_constant(e: Expression) -> Expression | None:
            if e.op != "constant" or e.kind != "float":
                return None
            constants.append(float(e.value or 0))
            return Expression("parameter", "float", array=len(constants) - 1)

        arrays = self.score.arrays if self.score else ()
        score = self.score.expression if self.score else None
        mask = renumber(self.seen.expression, len(arrays)) if self.seen else None
        own, other = self.faults
        at_fault = any_condition(own, renumber(other, len(arrays)) if other else None)
        if at_fault:
            score = Expression("where", "float", (at_fault, NOT_A_NUMBER, score or SCORE))
        score = rewrite(score, extract_constant) if score else None
        mask = rewrite(mask, extract_constant) if mask else None
        return score, mask, tuple(constants), (*arrays, *(self.mask.arrays if self.mask else ()))

    @property
    def seen(self) -> Formula | None:
        """The mask, extended by the pairs at which it may be invalid; hidden faults would go unnoticed."""
        if self.mask is None or self.faults[1] is None:
            return self.mask
        return Formula(Expression("or", "bool", (self.mask.expression, self.faults[1])), self.mask.arrays)

    def kinds(
        self, tiles: list[tuple[int, int, int, int, int]], block: int, batches: int, heads: int, first_block: int = 0
    ) -> Array | None:
        """Whether each tile's blocks are hidden, seen or mixed: (batches, heads, tiles, blocks); size-1 axes broadcast.

        Tiles are (first query, queries, shift, first key, keys); the blocks begin at `first_block`. None if no block is
        decided or the table is too big.
        """
        seen = self.seen
        if seen is None or not tiles:
            return None
        first, rows, shift, origin, keys = (np.array(column)[:, None] for column in zip(*tiles, strict=True))
        columns = max(1, int(-(-keys.max() // block)) - first_block)
        needs = depends(seen.expression)
        batches, heads = (n if name in needs else 1 for n, name in ((batches, "batch"), (heads, "head")))
        if batches * heads * len(tiles) * columns > MOST_TABLE_BYTES:
            return None
        start = origin + block * (first_block + np.arange(columns))
        batch, head = np.arange(batches)[:, None, None, None], np.arange(heads)[:, None, None]
        surely, perhaps = bounds(
            seen,
            {
                "batch": (batch, batch),
                "head": (head, head),
                "row": (first, first + rows - 1),
                "query": (first + shift, first + rows - 1 + shift),
                "key": (start, np.maximum(np.minimum(start + block, origin + keys) - 1, start)),
            },
        )
        kinds = np.where(surely, ALL_SEEN, np.where(perhaps, PARTLY_SEEN, ALL_HIDDEN)).astype(np.uint8)
        if (kinds == PARTLY_SEEN).all():
            return None
        return np.ascontiguousarray(np.broadcast_to(kinds, (batches, heads, len(tiles), columns)))


def fuse(mask: Mask, score: tuple[Score, ...], queries: int, keys: int) -> Fused:
    """Combine a mask and score rules for given lengths."""
    spans, factors = split_documents(mask, queries, keys)
    placed = placed_at(mask)
    reach = queries + keys + (placed or 0)
    low, high, rest = None, None, []
    for factor in factors:
        match factor:
            case Causal():
                high = 0 if high is None else min(high, 0)
            case Window(left, right):
                left, right = (None if n is None else min(n, reach) for n in (left, right))
                low = low if left is None else max(-left, -left if low is None else low)
                high = high if right is None else min(right, right if high is None else high)
            case Full():
                pass
            case _:
                rest.append(factor.formula)
    formulas = [rule.formula for rule in score]
    if placed is not None:
        rest, formulas = (list(map(rows_at_positions, some)) for some in (rest, formulas))
    return Fused(
        spans=spans,
        packed=any(isinstance(part, Documents) for part in conjunction(mask)),
        low=low,
        high=high,
        mask=reduce(conjoin, rest) if rest else None,
        score=reduce(lambda first, then: then.after(first), formulas) if formulas else None,
        given=(mask, score),
    )


def rows_at_positions(formula: Formula) -> Formula:
    """A formula in which a query's row in tables is its position, as in the whole call that it is a piece of."""
    return replace(formula, expression=rewrite(formula.expression, lambda e: QUERY if e.op == "row" else None))


def with_faults(fused: Fused, lead: tuple[int, ...], queries: int, keys: int) -> Fused:
    """Add the conditions under which the rules may be invalid, and whether their integers need 64 bits.

    Raises TraceError for integers that 64 bits cannot hold.
    """
    batches, heads = math.prod(lead[:-1]), lead[-1] if lead else 1
    if not (queries and keys and batches and heads):
        return replace(fused, mask=None)  # no pair to hide; the arrays that the score reads still get (zero) gradients
    if fused.mask is None and fused.score is None:
        return fused
    position = [
        n + span.offset for span in fused.spans for n in (span.first_query, span.first_query + span.queries - 1)
    ]
    check_positions(fused, max(map(abs, (*position, keys))))
    known = {
        Expression("batch", "int"): (0, batches - 1),
        Expression("head", "int"): (0, heads - 1),
        Expression("row", "int"): (0, queries - 1),
        QUERY: (min(position), max(position)),
        KEY: (0, keys - 1),
    }
    (first_query, last_query), (first_key, last_key) = known[QUERY], known[KEY]
    distance = (  # pairs beyond the band are hidden
        max(first_key - last_query, -FAR if fused.low is None else fused.low),
        min(last_key - first_query, FAR if fused.high is None else fused.high),
    )
    known |= {subtraction(KEY, QUERY): distance, subtraction(QUERY, KEY): (-distance[1], -distance[0])}
    found: list[Expression | None] = []
    long = False
    for formula in (fused.score, fused.mask):
        own = {} if formula is None else ranges(formula, known)
        for e, (least, largest) in own.items():
            long |= not (fits_bits(least, 32) and fits_bits(largest, 32))
            if not (fits_bits(least) and fits_bits(largest)):
                raise fault_error(fused.given, e, TOO_LARGE.format(f"{least if fits_bits(largest) else largest:.2g}"))
        found.append(None if formula is None else faults(formula, own))
    return replace(fused, faults=(found[0], found[1]), long=long)


def check_positions(fused: Fused, farthest: int) -> None:
    """Check that vectors of 32-bit numbers hold the positions that formulas read; raises InputError."""
    if farthest >= 1 << 31 and not fused.leaves.isdisjoint(("query", "key", "row")):
        raise InputError(
            f"rules that read positions take them below 2147483648, but this call has {farthest}: count positions from "
            "a later item, or use causal(), window(…) and full() alone."
        )


def span_pairs(span: Span, low: int | None, high: int | None, first_key: int) -> int:
    """How many pairs of a span are inside the band."""
    begin = max(span.first_key, first_key)
    keys = max(0, span.first_key + span.keys - begin)
    first = span.first_query + span.offset - begin
    to_the_right = span.queries * keys if high is None else clipped_sum(first + high + 1, span.queries, keys)
    to_the_left = 0 if low is None else clipped_sum(first + low, span.queries, keys)
    return to_the_right - to_the_left


def clipped_sum(first: int, count: int, most: int) -> int:
    """The sum of first, first + 1, … over `count` numbers, each cut to 0 … most.

    >>> clipped_sum(-2, 6, 2)  # 0 + 0 + 0 + 1 + 2 + 2
    5
    """

    def below(x: int) -> int:  # over all numbers below x
        inside = min(max(x, 0), most + 1)
        return inside * (inside - 1) // 2 + max(x - most - 1, 0) * most

    return below(first + count) - below(first)


def subtraction(a: Expression, b: Expression) -> Expression:
    """a − b."""
    return Expression("sub", "int", (a, b))


def conjoin(a: Formula, b: Formula) -> Formula:
    """a and b."""
    return a.combine("and", b)
