"""Masks and score rules as one call needs them: a band, documents, and expressions with their numbers taken out.

Decides what a kernel does in its loops (the band of `causal` and `window`, the spans of `documents`) and what becomes
fused code; constants leave the code, so that softcap(30) and softcap(50) share a kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.kernels.call import ALL, MAYBE, NOTHING
from clearhead.once import cached_property
from clearhead.rules.bounds import bounds
from clearhead.rules.expression import Expression, Formula, depends, renumber, rewrite
from clearhead.rules.masks import Causal, Documents, Full, Mask, Span, Window, conjunction, split
from clearhead.rules.scores import Score

Array = npt.NDArray[Any]
MOST_KINDS = 1 << 26  # bytes of the table of blocks; without it every block is looked at


@dataclass(frozen=True)
class Fused:
    """The rules of one call. A query at position p sees the keys from p + low to p + high of its span, at most."""

    spans: tuple[Span, ...]
    packed: bool
    low: int | None
    high: int | None
    mask: Formula | None  # what must hold beside
    score: Formula | None

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

        score = rewrite(self.score.expression, taken_out) if self.score else None
        arrays = self.score.arrays if self.score else ()
        mask = rewrite(renumber(self.mask.expression, len(arrays)), taken_out) if self.mask else None
        return score, mask, tuple(constants), (*arrays, *(self.mask.arrays if self.mask else ()))

    def kinds(self, tiles: list[tuple[int, int, int, int, int]], block: int, batches: int, heads: int) -> Array | None:
        """What is known of each tile's blocks beforehand: (batches, heads, tiles, blocks), axes of size 1 for all.

        Tiles are (first query, queries, shift, first key, keys). None where nothing is known, or too much.
        """
        if self.mask is None or not tiles:
            return None
        first, rows, shift, origin, keys = (np.array(column)[:, None] for column in zip(*tiles, strict=True))
        columns = max(1, int(-(-keys.max() // block)))
        needs = depends(self.mask.expression)
        batches, heads = (n if name in needs else 1 for n, name in ((batches, "batch"), (heads, "head")))
        if batches * heads * len(tiles) * columns > MOST_KINDS:
            return None
        start = origin + block * np.arange(columns)
        batch, head = np.arange(batches)[:, None, None, None], np.arange(heads)[:, None, None]
        surely, perhaps = bounds(
            self.mask,
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
    )


def both(a: Formula, b: Formula) -> Formula:
    """a and b."""
    return a.combine("and", b)
