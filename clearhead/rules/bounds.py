"""Bounds of a formula over ranges of positions: finds the blocks that a mask hides or shows entirely.

Uses interval arithmetic on whole tables of blocks at once. Where it cannot decide, the answer is "perhaps", which is
always correct. It reads the contents of an array only if they cannot change.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clearhead.arrays import Array
from clearhead.rules.expression import Expression, Formula, is_immutable, parts
from clearhead.rules.intervals import Interval, full_interval
from clearhead.rules.operations import OPERATIONS

ALL_HIDDEN, ALL_SEEN, PARTLY_SEEN = 0, 1, 2  # how much of a block is seen, as known before the kernel runs


def bounds(formula: Formula, leaves: Mapping[str, Interval]) -> Interval:
    """Where a boolean formula certainly holds, and where it may hold, for ranges of its leaves.

    >>> from clearhead.rules.masks import causal
    >>> surely, perhaps = bounds(causal().formula, {"query": (np.array([0, 8]), np.array([7, 15])),
    ...                                             "key": (np.array([0, 8]), np.array([7, 15]))})
    >>> surely.tolist(), perhaps.tolist()
    ([False, False], [True, True])
    """
    known: dict[Expression, Interval] = {}
    with np.errstate(over="ignore"):
        for e in parts(formula.expression):
            known[e] = (
                leaves[e.op] if e.op in leaves else operation_interval(e, [known[a] for a in e.args], formula.arrays)
            )
    return known[formula.expression]


def operation_interval(e: Expression, args: list[Interval], arrays: tuple[Array, ...]) -> Interval:
    """The interval of one operation."""
    if e.op == "constant" and e.kind != "float":
        return np.asarray(e.value), np.asarray(e.value)
    if e.op == "load":
        return load_interval(arrays[e.array or 0], args)
    return table_interval(e, args) or full_interval(e.kind)


def table_interval(e: Expression, args: Sequence[Interval]) -> Interval | None:
    """The interval from the operations table; None if it has none or if floats take part."""
    if e.op not in OPERATIONS or any(part.kind == "float" for part in (e, *e.args)):
        return None
    interval = OPERATIONS[e.op].interval
    return None if interval is None else interval(*args)


def load_interval(array: Array, index: list[Interval]) -> Interval:
    """The least and largest element that an indexed load can read."""
    kind = "bool" if array.dtype == np.bool_ else "int"
    if not is_immutable(array) or array.dtype.kind not in "biu" or not array.size:
        return full_interval(kind)
    places = [index_range(x, size) for x, size in zip(index, array.shape, strict=True)]
    if array.ndim == 1:
        return range_extremes(array, *places[0])
    if array.dtype == np.bool_:
        return box_all_and_any(array, places)
    return np.asarray(int(array.min())), np.asarray(int(array.max()))


def index_range(x: Interval, size: int) -> Interval:
    """An index's range, clamped to the array; an index that may be negative can reach any element."""
    low, high = (np.minimum(np.maximum(end, 0), size - 1).astype(np.int64) for end in x)
    return np.where(x[0] < 0, 0, low), np.where(x[0] < 0, size - 1, high)


def range_extremes(array: Array, low: Array, high: Array) -> Interval:
    """Least and largest of array[low..high], from a sparse table of extremes over power-of-two lengths."""
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


def box_all_and_any(array: Array, places: list[Interval]) -> Interval:
    """Whether all and whether any booleans in a box are True, from a summed-area table."""
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
