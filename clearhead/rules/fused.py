"""Masks and score rules as one call needs them: a band, documents, and expressions with their numbers taken out.

Decides what a kernel does in its loops (the band of `causal` and `window`, the spans of `documents`) and what becomes
fused code; constants leave the code, so that softcap(30) and softcap(50) share a kernel. A pair that could not be shown
to have a value, and has none, is made not a number and seen, which `clearhead.engine.diagnosis` then explains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np

from clearhead.arrays import Array
from clearhead.once import cached_property
from clearhead.rules.blame import blamed
from clearhead.rules.bounds import ALL, MAYBE, NOTHING, bounds
from clearhead.rules.expression import Expression, Formula, depends, fits, renumber, rewrite
from clearhead.rules.faults import either, faults
from clearhead.rules.masks import FAR, Causal, Documents, Full, Mask, Span, Window, conjunction, split
from clearhead.rules.ranges import ranges
from clearhead.rules.scores import Score

MOST_KINDS = 1 << 26  # bytes of the table of blocks; without it every block is looked at
SCORE, QUERY, KEY = Expression("score", "float"), Expression("query", "int"), Expression("key", "int")
TOO_LARGE = "whole numbers up to {} do not fit into 64 bits: calculate with floats, as in key * 1.0"
NOT_A_NUMBER = Expression("constant", "float", value=math.nan)


@dataclass(frozen=True)
class Fused:
    """The rules of one call. A query at position p sees the keys from p + low to p + high of its span, at most."""

    spans: tuple[Span, ...]
    packed: bool
    low: int | None
    high: int | None
    mask: Formula | None  # what must hold beside
    score: Formula | None
    faults: tuple[Expression | None, Expression | None] = (None, None)  # where score and mask may have no value
    long: bool = False  # whether whole numbers need 64 bits
    given: tuple[Mask, tuple[Score, ...]] = field(default=(Full(), ()), compare=False, repr=False)

    @property
    def doubtful(self) -> bool:
        """Whether it is found only in the call that no pair is at fault: it then is not a number."""
        return self.faults != (None, None)

    @property
    def trusted(self) -> Fused:
        """The same after a call has found nothing."""
        return replace(self, faults=(None, None))

    @property
    def leaves(self) -> frozenset[str]:
        """What the formulas ask for."""
        return frozenset().union(*(depends(x.expression) for x in (self.mask, self.score) if x))

    @cached_property
    def expressions(self) -> tuple[Expression | None, Expression | None, tuple[float, ...], tuple[Array, ...]]:
        """Score and mask as code, and the constants and arrays that they name by number."""
        constants: list[float] = []

        def taken_out(e: Expression) -> Expression | None:
            if e.op != "constant" or e.kind != "float":
                return None
            constants.append(float(e.value or 0))
            return Expression("parameter", "float", array=len(constants) - 1)

        arrays = self.score.arrays if self.score else ()
        score = self.score.expression if self.score else None
        mask = renumber(self.seen.expression, len(arrays)) if self.seen else None
        own, other = self.faults
        at_fault = either(own, renumber(other, len(arrays)) if other else None)
        if at_fault:
            score = Expression("where", "float", (at_fault, NOT_A_NUMBER, score or SCORE))
        score = rewrite(score, taken_out) if score else None
        mask = rewrite(mask, taken_out) if mask else None
        return score, mask, tuple(constants), (*arrays, *(self.mask.arrays if self.mask else ()))

    @property
    def seen(self) -> Formula | None:
        """The mask, and the pairs at which it may be at fault, so that a call finds them."""
        if self.mask is None or self.faults[1] is None:
            return self.mask
        return Formula(Expression("or", "bool", (self.mask.expression, self.faults[1])), self.mask.arrays)

    def kinds(self, tiles: list[tuple[int, int, int, int, int]], block: int, batches: int, heads: int) -> Array | None:
        """What is known of each tile's blocks beforehand: (batches, heads, tiles, blocks), axes of size 1 for all.

        Tiles are (first query, queries, shift, first key, keys). None where nothing is known, or too much.
        """
        seen = self.seen
        if seen is None or not tiles:
            return None
        first, rows, shift, origin, keys = (np.array(column)[:, None] for column in zip(*tiles, strict=True))
        columns = max(1, int(-(-keys.max() // block)))
        needs = depends(seen.expression)
        batches, heads = (n if name in needs else 1 for n, name in ((batches, "batch"), (heads, "head")))
        if batches * heads * len(tiles) * columns > MOST_KINDS:
            return None
        start = origin + block * np.arange(columns)
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
        kinds = np.where(surely, ALL, np.where(perhaps, MAYBE, NOTHING)).astype(np.uint8)
        if (kinds == MAYBE).all():
            return None
        return np.ascontiguousarray(np.broadcast_to(kinds, (batches, heads, len(tiles), columns)))


def fuse(mask: Mask, score: tuple[Score, ...], queries: int, keys: int) -> Fused:
    """The rules for one pair of lengths."""
    spans, factors = split(mask, queries, keys)
    low, high, rest = None, None, []
    for factor in factors:
        match factor:
            case Causal():
                high = 0 if high is None else min(high, 0)
            case Window(left, right):
                left, right = (None if n is None else min(n, queries + keys) for n in (left, right))
                low = low if left is None else max(-left, -left if low is None else low)
                high = high if right is None else min(right, right if high is None else high)
            case Full():
                pass
            case _:
                rest.append(factor.formula)
    formulas = [rule.formula for rule in score]
    return Fused(
        spans=spans,
        packed=any(isinstance(part, Documents) for part in conjunction(mask)),
        low=low,
        high=high,
        mask=reduce(both, rest) if rest else None,
        score=reduce(lambda first, then: then.after(first), formulas) if formulas else None,
        given=(mask, score),
    )


def proven(fused: Fused, lead: tuple[int, ...], queries: int, keys: int) -> Fused:
    """The rules of a call on so many heads, with what could not be shown of them beforehand.

    Raises TraceError for whole numbers that 64 bits cannot hold.
    """
    batches, heads = math.prod(lead[:-1]), lead[-1] if lead else 1
    if not (queries and keys and batches and heads):
        return replace(fused, mask=None)  # no pair to hide; what the score reads has a gradient all the same
    if fused.mask is None and fused.score is None:
        return fused
    position = [
        n + span.offset for span in fused.spans for n in (span.first_query, span.first_query + span.queries - 1)
    ]
    known = {
        Expression("batch", "int"): (0, batches - 1),
        Expression("head", "int"): (0, heads - 1),
        Expression("row", "int"): (0, queries - 1),
        QUERY: (min(position), max(position)),
        KEY: (0, keys - 1),
    }
    (first_query, last_query), (first_key, last_key) = known[QUERY], known[KEY]
    apart = (  # beyond the band, pairs are not seen
        max(first_key - last_query, -FAR if fused.low is None else fused.low),
        min(last_key - first_query, FAR if fused.high is None else fused.high),
    )
    known |= {subtraction(KEY, QUERY): apart, subtraction(QUERY, KEY): (-apart[1], -apart[0])}
    found: list[Expression | None] = []
    long = False
    for formula in (fused.score, fused.mask):
        own = {} if formula is None else ranges(formula, known)
        for e, (least, largest) in own.items():
            long |= not (fits(least, 32) and fits(largest, 32))
            if not (fits(least) and fits(largest)):
                raise blamed(fused.given, e, TOO_LARGE.format(f"{least if fits(largest) else largest:.2g}"))
        found.append(None if formula is None else faults(formula, own))
    return replace(fused, faults=(found[0], found[1]), long=long)


def subtraction(a: Expression, b: Expression) -> Expression:
    """a − b."""
    return Expression("sub", "int", (a, b))


def both(a: Formula, b: Formula) -> Formula:
    """a and b."""
    return a.combine("and", b)
