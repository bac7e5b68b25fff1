"""Derivatives of score rules by the score and by the floats that they load, as expressions.

Responsible for the chain rule: one reverse pass over the expression joins the derivatives of its operations
(`rules.operations`), so shared parts are differentiated once. At a kink, min, max and where use the branch that the
operation itself takes; abs uses 0. A branch that `where` does not take has derivative 0 even if its value is NaN:
where(d > 0, s / d, s) is smooth at d = 0. Not for applying the results: the kernels and `definition.gradient` do that.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

from clearhead.rules.algebra import ONE, ZERO, plus
from clearhead.rules.expression import Expression, parts
from clearhead.rules.operations import OPERATIONS


def derivatives(e: Expression) -> dict[Expression, Expression]:
    """The derivatives of a float expression by its score and by each float it loads; zeros are left out.

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
        for argument, share in argument_shares(part, own):
            if argument.kind == "float":
                found.setdefault(argument, []).append(share)
    return result


def by_score(e: Expression) -> Expression:
    """The derivative by the score alone."""
    return derivatives(e).get(Expression("score", "float"), ZERO)


def by_loads(e: Expression) -> tuple[tuple[Expression, Expression], ...]:
    """Each load and the derivative by it, in the order of evaluation."""
    found = derivatives(e)
    return tuple((part, found[part]) for part in parts(e) if part.op == "load" and part in found)


def argument_shares(e: Expression, own: Expression) -> Iterator[tuple[Expression, Expression]]:
    """Each argument and its share of `own`, the derivative by the operation's value."""
    derivative = OPERATIONS[e.op].derivative if e.op in OPERATIONS else None
    if derivative is not None:
        each = zip(e.args, derivative(own, e, *e.args), strict=True)
        yield from ((argument, share) for argument, share in each if share is not None)
