"""Exact ranges of a formula's integers over all pairs of a call, in Python's own integers.

Shows before a call whether a formula's integers fit into 32 bits, whether an index stays inside its array, and whether
a divisor can be 0. `rules.bounds` does the same for millions of blocks, in 64 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from clearhead.arrays import Array
from clearhead.rules.bounds import table_interval
from clearhead.rules.expression import Expression, Formula, is_immutable, parts
from clearhead.rules.intervals import ANY, Interval, full_interval

Range: TypeAlias = tuple[int, int]  # least and largest


def ranges(formula: Formula, known: Mapping[Expression, Range]) -> dict[Expression, Range]:
    """The range of each integer in a formula; `known` has the ranges of its leaves or of larger parts.

    Ranges computed from an array's numbers are limited to 64 bits, like numpy's arithmetic; ranges computed from
    positions alone are exact.

    >>> query, key = Expression("query", "int"), Expression("key", "int")
    >>> both = Expression("mul", "int", (query, key))
    >>> ranges(Formula(both), {query: (0, 9), key: (0, 99)})[both]
    (0, 891)
    """
    found: dict[Expression, Interval] = {}
    loaded: set[Expression] = set()
    for e in parts(formula.expression):
        if e in known:
            found[e] = exact_interval(*known[e])
            continue
        found[e] = part_range(e, [found[a] for a in e.args], formula.arrays)
        if e.kind == "int" and (e.op == "load" or not loaded.isdisjoint(e.args)):
            loaded.add(e)
            if found[e][0] < ANY[0] or found[e][1] > ANY[1]:
                found[e] = exact_interval(*ANY)
    return {e: (least.item(), largest.item()) for e, (least, largest) in found.items() if e.kind == "int"}


def part_range(e: Expression, args: list[Interval], arrays: tuple[Array, ...]) -> Interval:
    """The interval of one part; integers are Python's own."""
    if e.kind != "int":
        return table_interval(e, args) or full_interval(e.kind)
    if e.op == "constant":
        return exact_interval(int(e.value or 0), int(e.value or 0))
    if e.op == "load":
        return exact_interval(*array_range(arrays[e.array or 0]))
    return exact_interval(*(np.asarray(end).item() for end in table_interval(e, args) or ANY))


def exact_interval(least: int, largest: int) -> Interval:
    """A range as object arrays of Python integers, which cannot overflow; 1-d, because numpy unpacks 0-d results."""
    return np.array([least], object), np.array([largest], object)


def array_range(array: Array) -> Range:
    """The least and largest number of an immutable array, else of its dtype."""
    if is_immutable(array) and array.size:
        return int(array.min()), int(array.max())
    limits = np.iinfo(array.dtype)
    return int(limits.min), int(limits.max)
