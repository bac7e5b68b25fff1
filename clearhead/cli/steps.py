"""The order in which a run computes its rows, cut into steps, and shared among the parts of a job array.

Rows are numbered head after head, or, where a rule reads the batch or the head, all heads together row after row. A run
and each part of one is one or two stretches of these numbers; a step is the beginning of what is left of one. Any cut
gives the same bits, so steps may have any size; how far a run is, is one number.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from clearhead.errors import InputError

WHOLE_TILES = 192  # rows: a multiple of each processor's tile
STEP_BYTES = 1 << 25  # of the operands and results of a step's rows, unless the fewest rows need more

PART_NUMBER = r"[1-9]\d{0,5}"  # more parts than this allows would be too many files for one folder

Stretch = tuple[int, int]  # numbers of rows, from the first to before the second


class Step(NamedTuple):
    """Rows of some neighbouring heads, computed together."""

    start: int  # the number of its first row
    stop: int
    outer: tuple[int, ...]  # where the heads are: indices of all leading axes but the last
    heads: slice  # of the last leading axis; both are empty if all heads are computed together
    rows: tuple[int, int]


class Budget(NamedTuple):
    """The most that a step may take on."""

    pairs: int
    head_bytes: int  # of one head, its keys and values included
    row_bytes: int  # of one row
    groups: tuple[int, ...] = ()  # how many heads share one, for each operand that has fewer


@dataclass(frozen=True)
class Order:
    """The numbered rows of all heads."""

    lead: tuple[int, ...]
    queries: int
    together: bool  # whether all heads are computed at once
    pairs_before: Callable[[int], int] = field(default=lambda row: 0, compare=False)  # visible pairs of one head

    @property
    def heads(self) -> int:
        """The number of heads, over all leading axes."""
        return math.prod(self.lead)

    @property
    def rows(self) -> int:
        """How many numbers there are."""
        return self.queries * (min(self.heads, 1) if self.together else self.heads)

    @property
    def width(self) -> int:
        """How many rows of single heads have one number."""
        return self.heads if self.together else 1

    def pairs(self, start: int, stop: int) -> int:
        """The visible pairs of a stretch."""
        return self.width * (self._before(stop) - self._before(start))

    def _before(self, number: int) -> int:
        whole, row = divmod(number, self.queries) if self.queries else (0, 0)
        return whole * self.pairs_before(self.queries) + self.pairs_before(row)

    def share(self, part: int, parts: int) -> tuple[Stretch, ...]:
        """The rows of one part of `parts`, the first being 1: a stretch from the front and one from the back.

        All stretches have equally many pairs, each row counted as one pair more.

        >>> order = Order((2,), 4, False, lambda row: row * (row + 1) // 2)
        >>> order.share(1, 2), order.share(2, 2)
        (((0, 3), (7, 8)), ((3, 4), (4, 7)))
        """
        if not 1 <= part <= parts:
            raise InputError(f"--part {part}/{parts} is not a part: count from 1/{parts} to {parts}/{parts}.")
        count = 2 * parts
        work = self._before(self.rows) + self.rows

        def border(n: int) -> int:
            return bisect_left(range(self.rows + 1), n * work // count, key=lambda x: self._before(x) + x)

        return tuple((border(n), border(n + 1)) for n in (part - 1, count - part))

    def steps(self, stretches: Sequence[Stretch], done: int, budget: Budget) -> Iterator[Step]:
        """The steps that are left of some stretches when their first `done` rows are computed."""
        for at, stop in remaining(stretches, done):
            while at < stop:
                step = self._step(at, stop, budget)
                yield step
                at = step.stop

    def _step(self, at: int, stop: int, budget: Budget) -> Step:
        number, row = divmod(at, self.queries)
        size, outer, head = (self.lead or (1,))[-1], list[int](), number
        if not self.together:
            rest, head = divmod(number, size)
            for axis in reversed(self.lead[:-1]):
                rest, index = divmod(rest, axis)
                outer.insert(0, index)
            whole = 0 if row else min((stop - at) // self.queries, size - head, self._fitting_heads(budget))
            while whole > 1 and any(cuts(head, head + whole, group) for group in budget.groups):
                whole -= 1
            if whole:
                stop = at + whole * self.queries
                return Step(at, stop, tuple(outer), slice(head, head + whole), (0, self.queries))
        last = min(self.queries, row + stop - at)
        last = min(last, row + max(self._fitting_rows(row, last, budget), WHOLE_TILES))
        heads = slice(0) if self.together else slice(head, head + 1)
        return Step(at, at + last - row, tuple(outer), heads, (row, last))

    def _fitting_heads(self, budget: Budget) -> int:
        by_pairs = budget.pairs // max(1, self.pairs_before(self.queries))
        return min(by_pairs, STEP_BYTES // max(1, budget.head_bytes))

    def _fitting_rows(self, first: int, last: int, budget: Budget) -> int:
        """How many rows from `first` on, in whole tiles."""
        most = self.pairs_before(first) + budget.pairs // self.width
        fitting = bisect_left(range(first, last), most, key=lambda row: self.pairs_before(row + 1))
        fitting = min(fitting, STEP_BYTES // max(1, budget.row_bytes * self.width))
        return fitting if first + fitting == last else fitting // WHOLE_TILES * WHOLE_TILES


def remaining(stretches: Sequence[Stretch], done: int) -> Iterator[Stretch]:
    """What is left of stretches without their first `done` rows."""
    for start, stop in stretches:
        first = min(start + done, stop)
        done -= first - start
        yield first, stop


def cuts(first: int, stop: int, group: int) -> bool:
    """Whether the heads from `first` to before `stop` need parts of several groups of heads that share one."""
    return first // group != (stop - 1) // group and bool(first % group or stop % group)
