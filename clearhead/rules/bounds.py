"""What a formula can come to over a range of positions: how blocks that a mask hides or shows are found beforehand.

Interval arithmetic over whole tables of blocks at once; whatever it cannot tell is "perhaps", which is always right.
Arrays' contents are used only if they cannot change.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clearhead.arrays import Array
from clearhead.rules.expression import Expression, Formula, constant, parts
from clearhead.rules.intervals import Interval, anything
from clearhead.rules.operations import OPERATIONS

NOTHING, ALL, MAYBE = 0, 1, 2  # how much of a block is seen, as known before it is looked at


def bounds(formula: Formula, leaves: Mapping[str, Interval]) -> Interval:
    """For a formula of truth: where it surely holds, and where it perhaps does, for ranges of its leaves.

    >>> from clearhead.rules.masks import causal
    >>> surely, perhaps = bounds(causal().formula, {"query": (np.array([0, 8]), np.array([7, 15])),
    ...                                             "key": (np.array([0, 8]), np.array([7, 15]))})
    >>> surely.tolist(), perhaps.tolist()
    ([False, False], [True, True])
    """
    known: dict[Expression, Interval] = {}
    with np.errstate(over="ignore"):
        for e in parts(formula.expression):
            known[e] = leaves[e.op] if e.op in leaves else of_operation(e, [known[a] for a in e.args], formula.arrays)
    return known[formula.expression]


def of_operation(e: Expression, args: list[Interval], arrays: tuple[Array, ...]) -> Interval:
    """The interval of one operation."""
    if e.op == "constant" and e.kind != "float":
        return np.asarray(e.value), np.asarray(e.value)
    if e.op == "load":
        return of_load(arrays[e.array or 0], args)
    return interval_of(e, args) or anything(e.kind)


def interval_of(e: Expression, args: Sequence[Interval]) -> Interval | None:
    """What the table says of an operation on whole numbers and truth; None of others."""
    if e.op not in OPERATIONS or any(part.kind == "float" for part in (e, *e.args)):
        return None
    interval = OPERATIONS[e.op].interval
    return None if interval is None else interval(*args)


def of_load(array: Array, index: list[Interval]) -> Interval:
    """The least and largest element of a part of an array."""
    kind = "bool" if array.dtype == np.bool_ else "int"
    if not constant(array) or array.dtype.kind not in "biu" or not array.size:
        return anything(kind)
    places = [inside(x, size) for x, size in zip(index, array.shape, strict=True)]
    if array.ndim == 1:
        return extremes(array, *places[0])
    if array.dtype == np.bool_:
        return some_and_all(array, places)
    return np.asarray(int(array.min())), np.asarray(int(array.max()))


def inside(x: Interval, size: int) -> Interval:
    """An index's range once it has been brought into the array; one that may be below 0 can be anywhere."""
    low, high = (np.minimum(np.maximum(end, 0), size - 1).astype(np.int64) for end in x)
    return np.where(x[0] < 0, 0, low), np.where(x[0] < 0, size - 1, high)


def extremes(array: Array, low: Array, high: Array) -> Interval:
    """Least and largest of array[low..high], by a table of the extremes over powers of two."""
    least, largest = [array], [array]
    while 2 * (step := 1 << (len(least) - 1)) <= len(array):
        least.append(np.minimum(least[-1][:-step], least[-1][step:]))
        largest.append(np.maximum(largest[-1][:-step], largest[-1][step:]))
    low, high = np.broadcast_arrays(low, high)
    level = np.frexp((high - low + 1).astype(np.float64))[1] - 1
    result = []
    for tables, pick in ((least, np.minimum), (largest, np.maximum)):
        found = np.empty(low.shape, array.dtype)
        for n, table in enumerate(tables):
            here = level == n
            found[here] = pick(table[low[here]], table[high[here] + 1 - (1 << n)])
        result.append(found if array.dtype == np.bool_ else found.astype(np.int64))
    return result[0], result[1]


def some_and_all(array: Array, places: list[Interval]) -> Interval:
    """Whether all and whether any of a box of booleans are True, by a table of sums."""
    sums = array.astype(np.int64)
    for axis in range(array.ndim):
        sums = np.cumsum(sums, axis=axis)
    sums = np.pad(sums, [(1, 0)] * array.ndim)
    count: Any = 0
    volume: Any = 1
    for low, high in places:
        volume = volume * (high - low + 1)
    for corner in np.ndindex(*(2,) * array.ndim):
        at = [high + 1 if side else low for side, (low, high) in zip(corner, places, strict=True)]
        count = count + (-1) ** (array.ndim - sum(corner)) * sums[tuple(np.broadcast_arrays(*at))]
    return count == volume, count > 0
