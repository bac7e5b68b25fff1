"""Sums, products and choices of float expressions, as derivatives are made of them: what changes nothing is left out.

Decides that what times 1 and plus 0 is no operation, and that where(c, x, 0) · y is where(c, x · y, 0): 0 · ∞ cannot
arise.
"""

from __future__ import annotations

from collections.abc import Callable

from clearhead.rules.expression import Expression

ZERO, ONE = (Expression("constant", "float", value=x) for x in (0.0, 1.0))


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


def less(a: Expression, b: Expression) -> Expression:
    """a − b."""
    return Expression("sub", "float", (a, b))


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


def function(op: str, *args: Expression) -> Expression:
    """An operation on floats that gives a float."""
    return Expression(op, "float", args)


def number(x: float) -> Expression:
    """A constant."""
    return Expression("constant", "float", value=float(x))
