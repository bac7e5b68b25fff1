"""Derivatives of score rules: from an expression to how its value changes with the score and with what it loads.

Decides how the operations' own derivatives (`rules.operations`) are joined: an expression is walked once from its value
back to its leaves, so that shared parts are derived once. At a kink, min, max, abs and where take the side that the
operation itself takes (abs: 0). What `where` leaves out has derivative 0, even where it is no number itself:
where(d > 0, s / d, s) is smooth for d = 0. Leaves to the kernels and to `definition.gradient` what is multiplied with
the results.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

from clearhead.rules.algebra import ONE, ZERO, plus
from clearhead.rules.expression import Expression, parts
from clearhead.rules.operations import OPERATIONS


def derivatives(e: Expression) -> dict[Expression, Expression]:
    """The derivative of a float expression by its score and by each float that it loads, as expressions; 0 left out.

    >>> score = Expression("score", "float")
    >>> derivatives(Expression("mul", "float", (score, score)))[score]
    (score + score)
    """
    found: dict[Expression, list[Expression]] = {e: [ONE]} if e.kind == "float" else {}
    result = {}
    for part in reversed(list(parts(e))):
        if part not in found:
            continue
        own = reduce(plus, found.pop(part))
        if part.op in ("score", "load"):
            result[part] = own
        for argument, share in shares(part, own):
            if argument.kind == "float":
                found.setdefault(argument, []).append(share)
    return result


def by_score(e: Expression) -> Expression:
    """The derivative by the score alone."""
    return derivatives(e).get(Expression("score", "float"), ZERO)


def by_loads(e: Expression) -> tuple[tuple[Expression, Expression], ...]:
    """What is loaded, and the derivative by it, in the order in which the expression asks for it."""
    found = derivatives(e)
    return tuple((part, found[part]) for part in parts(e) if part.op == "load" and part in found)


def shares(e: Expression, own: Expression) -> Iterator[tuple[Expression, Expression]]:
    """Each argument of an operation, and its share of `own`, the derivative by the operation's value."""
    derivative = OPERATIONS[e.op].derivative if e.op in OPERATIONS else None
    if derivative is not None:
        each = zip(e.args, derivative(own, e, *e.args), strict=True)
        yield from ((argument, share) for argument, share in each if share is not None)
