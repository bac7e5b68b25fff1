"""One row or column in numbers: its sum, its heaviest items, and its bins for a strip along the text."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from clearhead.arrays import Array, ceil_div

MOST_LISTED = 200
MOST_BINS = 400
SHARES = (0.5, 0.9, 0.99)


@dataclass(frozen=True, eq=False)
class Line:
    """A row or a column of weights, and what the page says about it."""

    values: Array  # (length,)
    by: str  # "row" or "column"
    at: int
    without: bool = False  # whether the first key is left out of lists and sums

    def described(self) -> dict[str, Any]:
        """Its numbers: the sum, the first key's weight, the fewest items that carry so much, the heaviest, the bins."""
        x = self.values
        first = float(x[0]) if self.by == "row" and len(x) else None
        if self.without and first is not None:
            x = x.copy()
            x[0] = 0
        running = np.cumsum(np.sort(x)[::-1], dtype=np.float64)
        total = float(running[-1]) if len(x) else 0.0
        listed = [j for j in heaviest_first(x, MOST_LISTED) if x[j] > 0]
        share = running / total if total else running
        others = int(np.count_nonzero(x)) - len(listed)
        seen = np.flatnonzero(self.values)
        return {
            "at": self.at,
            "by": self.by,
            "length": len(x),
            "seen": [int(seen[0]), int(seen[-1]) + 1] if len(seen) else [0, 0],
            "sum": float(self.values.sum(dtype=np.float64)),
            "first": first,
            "carriers": {f"{100 * goal:g}": carriers(running, goal) for goal in SHARES},
            "top": [[j, float(x[j]), float(share[n])] for n, j in enumerate(listed)],
            "rest": {"count": others, "share": max(0.0, 1 - float(share[len(listed) - 1])) if others else 0.0},
            "bins": bins(x),
        }


def heaviest_first(x: Array, most: int) -> list[int]:
    """The indices of the `most` largest numbers, the largest first; of equals, the earlier one.

    >>> heaviest_first(np.array([0.2, 0.5, 0.2, 0.1]), 2)
    [1, 0]
    """
    if len(x) > most:
        least = np.partition(x, -most)[-most]
        above = np.flatnonzero(x > least)
        chosen = np.concatenate([above, np.flatnonzero(x == least)[: most - len(above)]])
    else:
        chosen = np.arange(len(x))
    return [int(j) for j in chosen[np.lexsort((chosen, -x[chosen]))]]


def carriers(running: Array, goal: float) -> int:
    """The fewest items that carry a share of the sum, to a millionth; `running` sums from the heaviest on.

    >>> carriers(np.array([0.6, 0.9, 1.0]), 0.9)
    2
    """
    if not len(running) or not running[-1]:
        return 0
    return int(np.searchsorted(running, goal * running[-1] * (1 - 1e-6))) + 1


def bins(x: Array) -> dict[str, list[float]]:
    """The maximum and the mean of at most 400 equal stretches, the last of which may be shorter.

    >>> bins(np.array([0.25, 0.75]))
    {'max': [0.25, 0.75], 'mean': [0.25, 0.75]}
    """
    size = max(1, ceil_div(len(x), MOST_BINS))
    starts = np.arange(0, len(x), size)
    if not len(starts):
        return {"max": [], "mean": []}
    counts = np.minimum(starts + size, len(x)) - starts
    most, sums = np.maximum.reduceat(x, starts), np.add.reduceat(x, starts, dtype=np.float64)
    return {"max": shortened(most), "mean": shortened(sums / counts)}


def shortened(x: Array) -> list[float]:
    """Numbers of four digits, for a drawing."""
    return [float(f"{value:.4g}") for value in x]
