"""Interval arithmetic for integers and booleans: bounds an operation's value, given intervals of its arguments.

An integer's interval is (least, largest), a boolean's (certainly true, possibly true). Each end is an array: 64-bit
numbers for many blocks at once (`rules.bounds`), or Python's exact integers (`rules.ranges`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from itertools import product
from typing import Any, TypeAlias

import numpy as np

from clearhead.rules.meanings import integer_quotient

Interval: TypeAlias = tuple[Any, Any]

ANY = (-(1 << 63), (1 << 63) - 1)
SAFE = 2.0**62  # a float64 estimate below this proves that the integer fits into 64 bits


def full_interval(kind: str) -> Interval:
    """The interval that contains every value."""
    return (np.asarray(False), np.asarray(True)) if kind == "bool" else (np.asarray(ANY[0]), np.asarray(ANY[1]))


def monotone(function: Callable[..., Any]) -> Callable[..., Interval]:
    """The interval of a function monotone in each argument; the full interval where 64 bits may overflow."""

    def of(*args: Interval) -> Interval:
        values = [function(*ends) for ends in product(*args)]
        least, largest = reduce(np.minimum, values), reduce(np.maximum, values)
        if any(np.asarray(end).dtype == object for arg in args for end in arg):
            return least, largest
        rough = [abs(function(*(np.asarray(x, np.float64) for x in ends))) for ends in product(*args)]
        held = reduce(np.maximum, rough) < SAFE
        return np.where(held, least, ANY[0]), np.where(held, largest, ANY[1])

    return of


def increasing(function: Callable[..., Any]) -> Callable[..., Interval]:
    """The interval of a function that increases in each argument and cannot overflow, such as min."""
    return lambda *args: (function(*(a[0] for a in args)), function(*(a[1] for a in args)))


def absolute(a: Interval) -> Interval:
    """|a|."""
    low, high = monotone(np.abs)(a)
    return np.where((a[0] <= 0) & (a[1] >= 0) & (low > 0), 0, low), high


def quotient_interval(a: Interval, b: Interval) -> Interval:
    """Floor division, 0 for divisor 0. The extremes are at the divisors farthest from 0 and nearest to it."""
    nearest = [np.minimum(np.maximum(near, b[0]), b[1]) for near in (-1, 1)]
    each = [monotone(integer_quotient)(a, (d, d)) for d in (*b, *nearest)]
    return reduce(np.minimum, [low for low, _ in each]), reduce(np.maximum, [high for _, high in each])


def remainder_interval(a: Interval, b: Interval) -> Interval:
    """Remainders have the divisor's sign and are smaller; exact if divisor and quotient are constant."""
    safe = np.where(b[0] == 0, 1, b[0])
    same = (b[0] == b[1]) & (b[0] != 0) & (a[0] // safe == a[1] // safe)
    low, high = np.minimum(0, b[0] + 1), np.maximum(0, b[1] - 1)
    return np.where(same, a[0] % safe, low), np.where(same, a[1] % safe, high)


def where_interval(condition: Interval, a: Interval, b: Interval) -> Interval:
    """a where the condition certainly holds, b where it certainly fails, else their union."""
    surely, perhaps = condition
    low = np.where(surely, a[0], np.where(perhaps, np.minimum(a[0], b[0]), b[0]))
    return low, np.where(surely, a[1], np.where(perhaps, np.maximum(a[1], b[1]), b[1]))


def less_interval(a: Interval, b: Interval) -> Interval:
    """Whether a < b."""
    return a[1] < b[0], a[0] < b[1]


def less_equal_interval(a: Interval, b: Interval) -> Interval:
    """Whether a ≤ b."""
    return a[1] <= b[0], a[0] <= b[1]


def equal_interval(a: Interval, b: Interval) -> Interval:
    """Whether a = b."""
    return (a[0] == b[1]) & (a[1] == b[0]), (a[0] <= b[1]) & (b[0] <= a[1])


def not_interval(a: Interval) -> Interval:
    """Whether a is false."""
    return ~np.asarray(a[1]), ~np.asarray(a[0])


def xor_interval(a: Interval, b: Interval) -> Interval:
    """Whether exactly one holds."""
    return (a[0] & ~b[1]) | (b[0] & ~a[1]), (a[1] & ~b[0]) | (b[1] & ~a[0])
