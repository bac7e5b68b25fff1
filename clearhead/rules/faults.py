"""Pairs at which Python would raise an error, or numpy say something else, as a condition where there may be any.

Decides what a formula must not do: read outside of an array, divide by 0, read what is too large for 64 bits. A
formula's value there means nothing (see `rules.expression`), unless a `where` or a condition leaves it out. Most rules
are shown to be free of such pairs before the call, by the ranges of their whole numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce

import numpy as np

from clearhead.arrays import Array
from clearhead.rules.expression import Expression, Formula, parts
from clearhead.rules.intervals import ANY
from clearhead.rules.operations import OPERATIONS
from clearhead.rules.ranges import Range, contents

ZERO = Expression("constant", "int", value=0)
NEVER: Expression | None = None


def faults(formula: Formula, known: Mapping[Expression, Range] | None = None) -> Expression | None:
    """Where a formula has no value, as a condition; None if it has one at every pair, `known` being ranges.

    >>> table, key = np.zeros(10), Expression("key", "int")
    >>> read = Formula(Expression("load", "float", (key,), array=0), (table,))
    >>> faults(read)
    ((key < neg(size0.0)) | (key >= size0.0))
    >>> faults(read, {key: (0, 9)}) is None
    True
    """
    found: dict[Expression, Expression | None] = {}
    for e in parts(formula.expression):
        inherited = [found[a] for a in e.args]
        own = list(own_faults(e, formula.arrays, known or {}))
        match e.op:
            case "where":
                condition, a, b = inherited
                sides = None if a is b is None else choice(e.args[0], a, b)
                found[e] = either(condition, sides)
            case "and" | "or":
                found[e] = of_condition(e, *inherited)
            case _:
                found[e] = either(*inherited, *own)
    return found[formula.expression]


def own_faults(e: Expression, arrays: tuple[Array, ...], known: Mapping[Expression, Range]) -> Iterator[Expression]:
    """What may be wrong with one operation itself."""
    fault = OPERATIONS[e.op].fault if e.op in OPERATIONS else None
    if fault is not None:
        yield from fault.where(e.args, [known.get(a, ANY) for a in e.args])
    if e.op == "load":
        array = arrays[e.array or 0]
        for axis, index in enumerate(e.args):
            size, (least, largest) = array.shape[axis], known.get(index, ANY)
            end = Expression("size", "int", value=axis, array=e.array)
            if least < -size:
                yield Expression("lt", "bool", (index, Expression("neg", "int", (end,))))
            if largest >= size:
                yield Expression("ge", "bool", (index, end))
        if array.dtype == np.uint64 and contents(array)[1] > ANY[1]:
            yield Expression("lt", "bool", (e, ZERO))  # as a kernel reads it


def either(*conditions: Expression | None) -> Expression | None:
    """Whether any of some conditions holds."""
    held = list(dict.fromkeys(c for c in conditions if c is not None))
    return reduce(lambda a, b: Expression("or", "bool", (a, b)), held) if held else None


def choice(condition: Expression, a: Expression | None, b: Expression | None) -> Expression:
    """a's fault where the condition holds, else b's."""
    never = Expression("constant", "bool", value=False)
    return Expression("where", "bool", (condition, a or never, b or never))


def of_condition(e: Expression, a: Expression | None, b: Expression | None) -> Expression | None:
    """Faults of `a & b` and `a | b`: none where the other side decides alone."""
    both = either(a, b)
    if both is None:
        return None
    for side, fault in zip(e.args, (a, b), strict=True):
        open_ = side if e.op == "and" else Expression("not", "bool", (side,))
        both = Expression("and", "bool", (both, open_ if fault is None else Expression("or", "bool", (open_, fault))))
    return both


def suspects(formula: Formula) -> Iterator[tuple[Expression, Expression]]:
    """Each operation that may be at fault, with its own condition, arguments before what is made of them."""
    for e in parts(formula.expression):
        for condition in own_faults(e, formula.arrays, {}):
            yield e, condition
