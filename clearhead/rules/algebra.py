"""Builds the float expressions of derivatives, and drops operations that change nothing.

Responsible for dropping · 1 and + 0, and for moving factors inside guards: where(c, x, 0) · y becomes
where(c, x · y, 0), so that a hidden branch cannot produce 0 · ∞.
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
        return where_or_same(a.args[0], *(plus(x, y) for x, y in zip(a.args[1:], b.args[1:], strict=True)))
    return Expression("add", "float", (a, b))


def negative(a: Expression) -> Expression:
    """−a."""
    if is_guard(a):
        return inside_guard(a, negative)
    return a.args[0] if a.op == "neg" else a if a == ZERO else Expression("neg", "float", (a,))


def minus(a: Expression, b: Expression) -> Expression:
    """a − b."""
    return Expression("sub", "float", (a, b))


def times(a: Expression, b: Expression) -> Expression:
    """a · b."""
    if is_guard(a):
        return inside_guard(a, lambda x: times(x, b))
    if ONE in (a, b):
        return b if a == ONE else a
    return Expression("mul", "float", (a, b))


def over(a: Expression, b: Expression) -> Expression:
    """a / b."""
    if is_guard(a):
        return inside_guard(a, lambda x: over(x, b))
    return Expression("div", "float", (a, b))


def is_guard(a: Expression) -> bool:
    """Whether a is `where(condition, x, 0)` or `where(condition, 0, x)`."""
    return a.op == "where" and ZERO in a.args[1:]


def inside_guard(a: Expression, change: Callable[[Expression], Expression]) -> Expression:
    """Apply `change` to the branch of a guard that is not 0."""
    condition, *sides = a.args
    return where_or_same(condition, *(x if x == ZERO else change(x) for x in sides))


def where_or_same(condition: Expression, a: Expression, b: Expression) -> Expression:
    """a where the condition holds, else b."""
    return a if a == b else Expression("where", "float", (condition, a, b))


def compare(op: str, a: Expression, b: Expression) -> Expression:
    """Compare two floats."""
    return Expression(op, "bool", (a, b))


def float_operation(op: str, *args: Expression) -> Expression:
    """An operation from floats to a float."""
    return Expression(op, "float", args)


def float_constant(x: float) -> Expression:
    """A float constant."""
    return Expression("constant", "float", value=float(x))
