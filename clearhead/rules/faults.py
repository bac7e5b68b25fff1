"""Finds the pairs at which a formula is invalid: where Python would raise, or numpy give another result.

Decides what counts as a fault: reading outside an array, dividing an integer by 0, and numbers too large for 64 bits.
The formula's value at such a pair is arbitrary (see `rules.evaluation`), unless a `where` or a condition discards it.
For most rules, the ranges of their integers prove before the call that there is no such pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce

import numpy as np

from clearhead.arrays import Array
from clearhead.rules.expression import Expression, Formula, parts
from clearhead.rules.intervals import ANY
from clearhead.rules.operations import OPERATIONS
from clearhead.rules.ranges import Range, array_range

INT_ZERO = Expression("constant", "int", value=0)
NO_FAULT: Expression | None = None


def faults(formula: Formula, known: Mapping[Expression, Range] | None = None) -> Expression | None:
    """The condition under which a formula is invalid; None if the ranges in `known` prove that it never is.

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
        own = list(faults_of(e, formula.arrays, known or {}))
        match e.op:
            case "where":
                condition, a, b = inherited
                sides = None if a is b is None else where_fault(e.args[0], a, b)
                found[e] = any_condition(condition, sides)
            case "and" | "or":
                found[e] = condition_faults(e, *inherited)
            case _:
                found[e] = any_condition(*inherited, *own)
    return found[formula.expression]


def faults_of(e: Expression, arrays: tuple[Array, ...], known: Mapping[Expression, Range]) -> Iterator[Expression]:
    """The fault conditions of one operation, without those of its arguments."""
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
        if array.dtype == np.uint64 and array_range(array)[1] > ANY[1]:
            yield Expression("lt", "bool", (e, INT_ZERO))  # as a kernel reads it


def any_condition(*conditions: Expression | None) -> Expression | None:
    """The conditions joined by or; None if there is none."""
    held = list(dict.fromkeys(c for c in conditions if c is not None))
    return reduce(lambda a, b: Expression("or", "bool", (a, b)), held) if held else None


def where_fault(condition: Expression, a: Expression | None, b: Expression | None) -> Expression:
    """The fault of a where the condition holds, else that of b."""
    never = Expression("constant", "bool", value=False)
    return Expression("where", "bool", (condition, a or never, b or never))


def condition_faults(e: Expression, a: Expression | None, b: Expression | None) -> Expression | None:
    """The fault of `a & b` or `a | b`: none where the other side alone decides the result."""
    both = any_condition(a, b)
    if both is None:
        return None
    for side, fault in zip(e.args, (a, b), strict=True):
        open_ = side if e.op == "and" else Expression("not", "bool", (side,))
        both = Expression("and", "bool", (both, open_ if fault is None else Expression("or", "bool", (open_, fault))))
    return both


def possible_faults(formula: Formula) -> Iterator[tuple[Expression, Expression]]:
    """Each operation that may be faulty with its condition, arguments first."""
    for e in parts(formula.expression):
        for condition in faults_of(e, formula.arrays, {}):
            yield e, condition
