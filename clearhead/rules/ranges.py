"""Between which numbers whole numbers lie, over all pairs that a call may see: exact, in Python's own numbers.

Decides what is known before a call: whether 32 bits hold a formula's whole numbers, whether an index stays inside its
array, whether a divisor can be 0. Blocks of positions, by the million, are `bounds`'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from clearhead.arrays import Array
from clearhead.rules.bounds import interval_of
from clearhead.rules.expression import Expression, Formula, constant, parts
from clearhead.rules.intervals import ANY, Interval, anything

Range: TypeAlias = tuple[int, int]  # least and largest


def ranges(formula: Formula, known: Mapping[Expression, Range]) -> dict[Expression, Range]:
    """The range of each whole number in a formula, `known` for its leaves, or for what is made of them.

    What is made of an array's numbers is cut off at 64 bits, as numpy's own arithmetic is; what is made of positions
    alone is exact.

    >>> query, key = Expression("query", "int"), Expression("key", "int")
    >>> both = Expression("mul", "int", (query, key))
    >>> ranges(Formula(both), {query: (0, 9), key: (0, 99)})[both]
    (0, 891)
    """
    found: dict[Expression, Interval] = {}
    loaded: set[Expression] = set()
    for e in parts(formula.expression):
        if e in known:
            found[e] = exact(*known[e])
            continue
        found[e] = of_part(e, [found[a] for a in e.args], formula.arrays)
        if e.kind == "int" and (e.op == "load" or not loaded.isdisjoint(e.args)):
            loaded.add(e)
            if found[e][0] < ANY[0] or found[e][1] > ANY[1]:
                found[e] = exact(*ANY)
    return {e: (least.item(), largest.item()) for e, (least, largest) in found.items() if e.kind == "int"}


def of_part(e: Expression, args: list[Interval], arrays: tuple[Array, ...]) -> Interval:
    """The interval of one part, whole numbers as Python's own."""
    if e.kind != "int":
        return interval_of(e, args) or anything(e.kind)
    if e.op == "constant":
        return exact(int(e.value or 0), int(e.value or 0))
    if e.op == "load":
        return exact(*contents(arrays[e.array or 0]))
    return exact(*(np.asarray(end).item() for end in interval_of(e, args) or ANY))


def exact(least: int, largest: int) -> Interval:
    """A range as arrays of Python's own numbers, which never overflow; with an axis, so that they stay arrays."""
    return np.array([least], object), np.array([largest], object)


def contents(array: Array) -> Range:
    """The least and largest number of an array that nobody can change, else of its dtype."""
    if constant(array) and array.size:
        return int(array.min()), int(array.max())
    limits = np.iinfo(array.dtype)
    return int(limits.min), int(limits.max)
