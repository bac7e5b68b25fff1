"""Derivatives of score rules: from an expression to how its value changes with the score and with what it loads.

Decides the derivative of every operation; walks an expression once from its value back to its leaves, so that shared
parts are derived once. At a kink, min, max, abs and where take the side that the operation itself takes (abs: 0). What
`where` leaves out has derivative 0, even where it is no number itself: where(d > 0, s / d, s) is smooth for d = 0.
Leaves to the kernels and to `definition.gradient` what is multiplied with the results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce

from clearhead.rules.expression import Expression, parts

ZERO, ONE = (Expression("constant", "float", value=x) for x in (0.0, 1.0))


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
    match e.op, e.args:
        case "add", (a, b):
            yield from ((a, own), (b, own))
        case "sub", (a, b):
            yield from ((a, own), (b, minus(own)))
        case "mul", (a, b):
            yield from ((a, times(own, b)), (b, times(own, a)))
        case "div", (a, b):
            yield from ((a, over(own, b)), (b, minus(over(times(own, e), b))))
        case "neg", (a,):
            yield a, minus(own)
        case "abs", (a,):
            sign = choose(compare("gt", a, ZERO), own, choose(compare("lt", a, ZERO), minus(own), ZERO))
            yield a, sign
        case (("min" | "max"), (a, b)):
            first = compare("lt" if e.op == "min" else "gt", a, b)
            yield from ((a, choose(first, own, ZERO)), (b, choose(first, ZERO, own)))
        case "where", (condition, a, b):
            yield from ((a, choose(condition, own, ZERO)), (b, choose(condition, ZERO, own)))
        case "exp", (a,):
            yield a, times(own, e)
        case "log", (a,):
            yield a, over(own, a)
        case "sqrt", (a,):
            yield a, over(own, plus(e, e))
        case "tanh", (a,):
            yield a, times(own, Expression("sub", "float", (ONE, times(e, e))))
        case "sigmoid", (a,):
            yield a, times(own, times(e, Expression("sub", "float", (ONE, e))))


# Operations; what times 1 and plus 0 is left out, and where(c, x, 0) · y is where(c, x · y, 0): 0 · ∞ cannot arise


def plus(a: Expression, b: Expression) -> Expression:
    """a + b."""
    if ZERO in (a, b):
        return b if a == ZERO else a
    if a.op == b.op == "where" and a.args[0] == b.args[0]:
        return choose(a.args[0], *(plus(x, y) for x, y in zip(a.args[1:], b.args[1:], strict=True)))
    return Expression("add", "float", (a, b))


def minus(a: Expression) -> Expression:
    """−a."""
    if guards(a):
        return within(a, minus)
    return a.args[0] if a.op == "neg" else a if a == ZERO else Expression("neg", "float", (a,))


def times(a: Expression, b: Expression) -> Expression:
    """a · b."""
    if guards(a):
        return within(a, lambda x: times(x, b))
    if ONE in (a, b):
        return b if a == ONE else a
    return Expression("mul", "float", (a, b))


def over(a: Expression, b: Expression) -> Expression:
    """a / b."""
    if guards(a):
        return within(a, lambda x: over(x, b))
    return Expression("div", "float", (a, b))


def guards(a: Expression) -> bool:
    """Whether a is 0 where a condition says so."""
    return a.op == "where" and ZERO in a.args[1:]


def within(a: Expression, change: Callable[[Expression], Expression]) -> Expression:
    """A guard with what it lets through changed."""
    condition, *sides = a.args
    return choose(condition, *(x if x == ZERO else change(x) for x in sides))


def choose(condition: Expression, a: Expression, b: Expression) -> Expression:
    """a where the condition holds, else b."""
    return a if a == b else Expression("where", "float", (condition, a, b))


def compare(op: str, a: Expression, b: Expression) -> Expression:
    """A comparison."""
    return Expression(op, "bool", (a, b))
