"""What a formula can come to over a range of positions: how blocks that a mask hides or shows are found beforehand.

Interval arithmetic over whole tables of blocks at once; whatever it cannot tell is "perhaps", which is always right.
Arrays' contents are used only if they cannot change.
"""

from collections.abc import Callable, Mapping
from functools import reduce
from itertools import product
from typing import Any, TypeAlias

import numpy as np

from clearhead.arrays import Array
from clearhead.rules.expression import Expression, Formula, constant, parts
from clearhead.rules.ranges import ANY
from clearhead.rules.threefry import BITS

Range: TypeAlias = tuple[Array, Array]  # least and largest; of truth: surely and perhaps

NOTHING, ALL, MAYBE = 0, 1, 2  # how much of a block is seen, as known before it is looked at
LEAST, LARGEST = ANY
SAFE = 2.0**62  # whole numbers below it are exact in 64 bits, whatever was rounded to tell


def bounds(formula: Formula, leaves: Mapping[str, Range]) -> Range:
    """For a formula of truth: where it surely holds, and where it perhaps does, for ranges of its leaves.

    >>> from clearhead.rules.masks import causal
    >>> surely, perhaps = bounds(causal().formula, {"query": (np.array([0, 8]), np.array([7, 15])),
    ...                                             "key": (np.array([0, 8]), np.array([7, 15]))})
    >>> surely.tolist(), perhaps.tolist()
    ([False, False], [True, True])
    """
    known: dict[Expression, Range] = {}
    with np.errstate(over="ignore"):
        for e in parts(formula.expression):
            known[e] = leaves[e.op] if e.op in leaves else of_operation(e, [known[a] for a in e.args], formula.arrays)
    return known[formula.expression]


def of_operation(e: Expression, args: list[Range], arrays: tuple[Array, ...]) -> Range:
    """The range of one operation."""
    if e.op == "constant" and e.kind != "float":
        return np.asarray(e.value), np.asarray(e.value)
    if e.op == "load":
        return of_load(arrays[e.array or 0], args)
    kinds = {a.kind for a in e.args}
    if e.op in LOGIC and "float" not in kinds:
        return LOGIC[e.op](*args)
    if e.op in COMPARISONS and kinds == {"int"}:
        return COMPARISONS[e.op](*args)
    if e.op in WHOLE and kinds == {"int"}:
        return WHOLE[e.op](*args)
    if e.op == "where" and e.kind != "float":
        (surely, perhaps), (a0, a1), (b0, b1) = args
        low = np.where(surely, a0, np.where(perhaps, np.minimum(a0, b0), b0))
        return low, np.where(surely, a1, np.where(perhaps, np.maximum(a1, b1), b1))
    if e.op == "threefry":
        return np.asarray(0), np.asarray((1 << BITS) - 1)
    return anything(e.kind)


def anything(kind: str) -> Range:
    """Nothing is known."""
    return (np.asarray(False), np.asarray(True)) if kind == "bool" else (np.asarray(LEAST), np.asarray(LARGEST))


def corners(function: Callable[..., Any]) -> Callable[..., Range]:
    """The range of a function that is monotone in each argument; anything where 64 bits may not hold it."""

    def of(*args: Range) -> Range:
        values = [function(*ends) for ends in product(*args)]
        rough = [abs(function(*(np.asarray(x, np.float64) for x in ends))) for ends in product(*args)]
        held = reduce(np.maximum, rough) < SAFE
        return np.where(held, reduce(np.minimum, values), LEAST), np.where(held, reduce(np.maximum, values), LARGEST)

    return of


def of_division(a: Range, b: Range) -> Range:
    """Floor division by a positive number; else anything."""
    if np.any(b[0] <= 0):
        return anything("int")
    values = [x // y for x in a for y in b]
    return reduce(np.minimum, values), reduce(np.maximum, values)


def of_remainder(a: Range, b: Range) -> Range:
    """A remainder by a positive number: exact while the quotient stays the same."""
    if np.any(b[0] <= 0) or np.any(b[0] != b[1]):
        return anything("int")
    same = a[0] // b[0] == a[1] // b[0]
    return np.where(same, a[0] % b[0], 0), np.where(same, a[1] % b[0], b[0] - 1)


def of_size(a: Range) -> Range:
    """|a|."""
    low, high = corners(np.abs)(a)
    return np.where((a[0] <= 0) & (a[1] >= 0) & (low > 0), 0, low), high


def of_load(array: Array, index: list[Range]) -> Range:
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


def inside(x: Range, size: int) -> Range:
    """An index's range once it has been brought into the array; one that may be below 0 can be anywhere."""
    low, high = (np.minimum(np.maximum(end, 0), size - 1).astype(np.int64) for end in x)
    return np.where(x[0] < 0, 0, low), np.where(x[0] < 0, size - 1, high)


def extremes(array: Array, low: Array, high: Array) -> Range:
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


def some_and_all(array: Array, places: list[Range]) -> Range:
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


COMPARISONS: dict[str, Callable[[Range, Range], Range]] = {
    "lt": lambda a, b: (a[1] < b[0], a[0] < b[1]),
    "le": lambda a, b: (a[1] <= b[0], a[0] <= b[1]),
    "gt": lambda a, b: (a[0] > b[1], a[1] > b[0]),
    "ge": lambda a, b: (a[0] >= b[1], a[1] >= b[0]),
    "eq": lambda a, b: ((a[0] == b[1]) & (a[1] == b[0]), (a[0] <= b[1]) & (b[0] <= a[1])),
    "ne": lambda a, b: ((a[1] < b[0]) | (b[1] < a[0]), ~((a[0] == b[1]) & (a[1] == b[0]))),
}
LOGIC: dict[str, Callable[..., Range]] = {
    "and": lambda a, b: (a[0] & b[0], a[1] & b[1]),
    "or": lambda a, b: (a[0] | b[0], a[1] | b[1]),
    "not": lambda a: (~np.asarray(a[1]), ~np.asarray(a[0])),
    "xor": lambda a, b: ((a[0] & ~b[1]) | (b[0] & ~a[1]), (a[1] & ~b[0]) | (b[1] & ~a[0])),
    "int": lambda a: (np.asarray(a[0]).astype(np.int64), np.asarray(a[1]).astype(np.int64)),
}
WHOLE: dict[str, Callable[..., Range]] = {
    "add": corners(np.add),
    "sub": corners(np.subtract),
    "mul": corners(np.multiply),
    "min": lambda a, b: (np.minimum(a[0], b[0]), np.minimum(a[1], b[1])),
    "max": lambda a, b: (np.maximum(a[0], b[0]), np.maximum(a[1], b[1])),
    "neg": corners(np.negative),
    "abs": of_size,
    "floordiv": of_division,
    "mod": of_remainder,
}
