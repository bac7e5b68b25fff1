"""Intervals of whole numbers and of truth: between what an operation's value lies, its arguments lying in intervals.

An interval is its least and its largest value, of truth whether it surely and whether it perhaps holds, each an array:
of 64 bits for many blocks at once (`rules.bounds`), or of Python's own exact numbers (`rules.ranges`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from itertools import product
from typing import Any, TypeAlias

import numpy as np

from clearhead.rules.meanings import quotient

Interval: TypeAlias = tuple[Any, Any]

ANY = (-(1 << 63), (1 << 63) - 1)
SAFE = 2.0**62  # whole numbers below it are exact in 64 bits, whatever was rounded to tell


def anything(kind: str) -> Interval:
    """Nothing is known."""
    return (np.asarray(False), np.asarray(True)) if kind == "bool" else (np.asarray(ANY[0]), np.asarray(ANY[1]))


def corners(function: Callable[..., Any]) -> Callable[..., Interval]:
    """The interval of a function that is monotone in each argument; anything where 64 bits may not hold it."""

    def of(*args: Interval) -> Interval:
        values = [function(*ends) for ends in product(*args)]
        least, largest = reduce(np.minimum, values), reduce(np.maximum, values)
        if any(np.asarray(end).dtype == object for arg in args for end in arg):
            return least, largest
        rough = [abs(function(*(np.asarray(x, np.float64) for x in ends))) for ends in product(*args)]
        held = reduce(np.maximum, rough) < SAFE
        return np.where(held, least, ANY[0]), np.where(held, largest, ANY[1])

    return of


def each_end(function: Callable[..., Any]) -> Callable[..., Interval]:
    """The interval of a function that grows with each argument, and never beyond one of them."""
    return lambda *args: (function(*(a[0] for a in args)), function(*(a[1] for a in args)))


def of_size(a: Interval) -> Interval:
    """|a|."""
    low, high = corners(np.abs)(a)
    return np.where((a[0] <= 0) & (a[1] >= 0) & (low > 0), 0, low), high


def of_quotient(a: Interval, b: Interval) -> Interval:
    """Floor division; by 0 it is 0. Extremes are at the divisors farthest from 0 and nearest to it."""
    nearest = [np.minimum(np.maximum(near, b[0]), b[1]) for near in (-1, 1)]
    each = [corners(quotient)(a, (d, d)) for d in (*b, *nearest)]
    return reduce(np.minimum, [low for low, _ in each]), reduce(np.maximum, [high for _, high in each])


def of_remainder(a: Interval, b: Interval) -> Interval:
    """0, or of the divisor's sign and nearer to 0 than it: exact while divisor and quotient stay the same."""
    safe = np.where(b[0] == 0, 1, b[0])
    same = (b[0] == b[1]) & (b[0] != 0) & (a[0] // safe == a[1] // safe)
    low, high = np.minimum(0, b[0] + 1), np.maximum(0, b[1] - 1)
    return np.where(same, a[0] % safe, low), np.where(same, a[1] % safe, high)


def of_choice(condition: Interval, a: Interval, b: Interval) -> Interval:
    """a where the condition surely holds, b where it surely does not, else both."""
    surely, perhaps = condition
    low = np.where(surely, a[0], np.where(perhaps, np.minimum(a[0], b[0]), b[0]))
    return low, np.where(surely, a[1], np.where(perhaps, np.maximum(a[1], b[1]), b[1]))


def less(a: Interval, b: Interval) -> Interval:
    """Whether a < b."""
    return a[1] < b[0], a[0] < b[1]


def less_equal(a: Interval, b: Interval) -> Interval:
    """Whether a ≤ b."""
    return a[1] <= b[0], a[0] <= b[1]


def of_equal(a: Interval, b: Interval) -> Interval:
    """Whether both are the same."""
    return (a[0] == b[1]) & (a[1] == b[0]), (a[0] <= b[1]) & (b[0] <= a[1])


def opposite(a: Interval) -> Interval:
    """Whether something does not hold."""
    return ~np.asarray(a[1]), ~np.asarray(a[0])


def of_difference(a: Interval, b: Interval) -> Interval:
    """Whether just one of two holds."""
    return (a[0] & ~b[1]) | (b[0] & ~a[1]), (a[1] & ~b[0]) | (b[1] & ~a[0])
