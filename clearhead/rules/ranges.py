"""Between which numbers whole numbers lie, over all pairs that a call may see: exact, in Python's own numbers.

Decides what is known before a call: whether 32 bits hold a formula's whole numbers, whether an index stays inside its
array, whether a divisor can be 0. Blocks of positions, by the million, are `bounds`'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from clearhead.arrays import Array
from clearhead.rules.expression import Expression, Formula, constant, parts
from clearhead.rules.threefry import BITS

Range: TypeAlias = tuple[int, int]  # least and largest

ANY: Range = (-(1 << 63), (1 << 63) - 1)


def ranges(formula: Formula, known: Mapping[Expression, Range]) -> dict[Expression, Range]:
    """The range of each whole number in a formula, `known` for its leaves, or for what is made of them.

    What is made of an array's numbers is cut off at 64 bits, as numpy's own arithmetic is; what is made of positions
    alone is exact.

    >>> query, key = Expression("query", "int"), Expression("key", "int")
    >>> both = Expression("mul", "int", (query, key))
    >>> ranges(Formula(both), {query: (0, 9), key: (0, 99)})[both]
    (0, 891)
    """
    found: dict[Expression, Range] = {}
    loaded: set[Expression] = set()
    for e in parts(formula.expression):
        if e.kind != "int":
            continue
        if e in known:
            found[e] = known[e]
            continue
        own = [a for a in e.args if a.kind == "int"]
        least, largest = of_operation(e, [found[a] for a in own], formula.arrays)
        if e.op == "load" or not loaded.isdisjoint(own):
            loaded.add(e)
            if least < ANY[0] or largest > ANY[1]:
                least, largest = ANY
        found[e] = least, largest
    return found


def of_operation(e: Expression, args: list[Range], arrays: tuple[Array, ...]) -> Range:
    """The range of one operation, of its whole arguments' ranges."""
    match e.op:
        case "constant":
            return int(e.value or 0), int(e.value or 0)
        case "load":
            return contents(arrays[e.array or 0])
        case "int":
            return 0, 1
        case "threefry":
            return 0, (1 << BITS) - 1
        case "neg":
            return -args[0][1], -args[0][0]
        case "abs":
            inside = args[0][0] <= 0 <= args[0][1]
            return 0 if inside else min(map(abs, args[0])), max(map(abs, args[0]))
        case "where":
            return min(a[0] for a in args), max(a[1] for a in args)
        case "floordiv":
            return quotient(*args)
        case "mod":
            return remainder(*args)
    return corners(MONOTONE[e.op], *args)


def contents(array: Array) -> Range:
    """The least and largest number of an array that nobody can change, else of its dtype."""
    if constant(array) and array.size:
        return int(array.min()), int(array.max())
    limits = np.iinfo(array.dtype)
    return int(limits.min), int(limits.max)


def corners(function: Callable[[int, int], int], a: Range, b: Range) -> Range:
    """The range of a function that is monotone in each argument."""
    values = [function(x, y) for x in a for y in b]
    return min(values), max(values)


def quotient(a: Range, b: Range) -> Range:
    """Floor division; by 0 it is 0."""
    divisors = {x for x in (*b, -1, 1) if x and b[0] <= x <= b[1]}
    values = [x // y for x in a for y in divisors] + [0] * (b[0] <= 0 <= b[1])
    return min(values), max(values)


def remainder(a: Range, b: Range) -> Range:
    """What is left of a floor division: 0, or of the divisor's sign and below it."""
    if b[0] == b[1] != 0 and a[0] // b[0] == a[1] // b[0]:
        return a[0] % b[0], a[1] % b[0]
    return min(0, b[0] + 1), max(0, b[1] - 1)


MONOTONE: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "min": min, "max": max,
}  # fmt: skip
