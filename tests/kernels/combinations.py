"""Few kernels for many tests: masks, score rules, instruction sets, dtypes and sinks, so that all of them meet.

All kernels with any two of a mask or score rule and a dtype or a sink are among them, and each mask and score rule
meets all instruction sets but one, in turns; not all of their products, which are thousands and take a second each to
compile.
"""

import random
from collections.abc import Iterable
from itertools import combinations, cycle, product
from typing import Any, NamedTuple

import numpy as np

from clearhead.engine.launch import FEW
from clearhead.machine.target import native_isas
from tests.strategies import BORDERS

ISA = 2  # the axis of instruction sets


class Combination(NamedTuple):
    """What decides a kernel's code."""

    mask: str
    score: str
    isa: str
    dtype: Any
    sink: bool

    def __str__(self) -> str:
        return f"{self.mask}-{self.score}-{self.isa}-{self.dtype.__name__}{'-sink' * self.sink}"

    def sizes(self) -> list[tuple[int, int, bool]]:
        """Queries, keys, and whether there are batches: lengths at the borders of tiles and blocks, and any others."""
        rng = random.Random(str(self))  # noqa: S311
        few = rng.random() < 0.25  # so few queries have a kernel of their own
        return [
            (max(FEW + 1, length(rng)), length(rng), rng.random() < 0.5),
            (rng.randint(1, FEW) if few else max(FEW + 1, length(rng)), length(rng), rng.random() < 0.5),
        ]


def length(rng: random.Random) -> int:
    """A number of items."""
    return rng.choice([rng.choice(BORDERS), rng.randint(1, 300)])


def all_pairs(masks: list[str], scores: list[str]) -> list[Combination]:
    """Every pair but those of a mask and a score rule, in as few combinations as a greedy choice finds.

    Where there are three instruction sets or more, each mask and each score rule leaves one out.
    """
    axes = masks, scores, native_isas(), [np.float32, np.float64], [False, True]
    missing = {
        pair
        for a, b in combinations(range(len(axes)), 2)
        if (a, b) != (0, 1)
        for (m, x), (n, y) in product(enumerate(axes[a]), enumerate(axes[b]))
        for pair in [((a, x), (b, y))]
        if not (a < ISA == b and len(axes[ISA]) > 2 and (m + n) % len(axes[ISA]) == 0)
    }
    rng, found = random.Random(0), []  # noqa: S311
    while missing:
        tried = [Combination(*map(rng.choice, axes)) for _ in range(200)]
        best = max(tried, key=lambda one: len(missing & pairs(one)))
        if missing & pairs(best):
            missing -= pairs(best)
            found.append(best)
    return found


def in_turns(some: Iterable[Any], others: Iterable[Any], count: int = 2) -> list[tuple[Any, Any]]:
    """Each of some with a few of the others, which take turns: what stands for all pairs where each costs a kernel."""
    turns = cycle(others)
    return [(one, next(turns)) for one in some for _ in range(count)]


def isas_and_dtypes() -> list[tuple[str, Any]]:
    """Each instruction set with each dtype, so that neighbours differ in their dtypes."""
    isas, dtypes = native_isas(), [np.float32, np.float64]
    return [(isa, dtypes[(place + turn) % 2]) for turn in range(2) for place, isa in enumerate(isas)]


def each_in_turns(masks: list[str], scores: list[str]) -> list[Combination]:
    """Each mask once; score rules, instruction sets, dtypes and sinks in turns: for kernels beside the forward one.

    What they do with a mask or a score rule is put together by the code that `all_pairs` tries in the forward kernel.
    """
    rest = product([False, True], isas_and_dtypes())
    return [
        Combination(mask, score, isa, dtype, sink)
        for mask, score, (sink, (isa, dtype)) in zip(masks, cycle(scores), cycle(rest), strict=False)
    ]


def pairs(one: Combination) -> set[tuple[tuple[int, Any], ...]]:
    """The pairs of things that meet in a combination."""
    return set(combinations(enumerate(one), 2))
