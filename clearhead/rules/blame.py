"""Which line of a user's function made an operation that turned out to be wrong.

A formula knows nothing of lines, so that tracing stays cheap: here its function is traced once more, and each
operation's line is written down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from clearhead.errors import TraceError
from clearhead.rules.expression import Expression, parts
from clearhead.rules.masks import POSITIONS, Mask
from clearhead.rules.scores import SCORE_PARAMETERS, Score
from clearhead.rules.trace import operation_lines


def fault_error(given: tuple[Mask, tuple[Score, ...]], wrong: Expression, what: str) -> TraceError:
    """The error that says what is wrong with an operation, of whichever rule it is."""
    mask, scores = given
    rules: list[Mask | Score] = [*scores, *mask.parts()]
    for rule in rules:
        if wrong in rule_operations(rule):
            return rule_error(rule, wrong, what)
    return TraceError(f"{wrong!r}: {what}.")


def rule_error(rule: Mask | Score, wrong: Expression, what: str) -> TraceError:
    """The error that says what is wrong with an operation of one rule: by its line, if a function made it."""
    function = getattr(rule, "function", None)
    if function is None:
        return TraceError(f"{rule!r}, {wrong!r}: {what}.")
    return TraceError(
        f"{line_of_operation(function, SCORE_PARAMETERS if isinstance(rule, Score) else POSITIONS, wrong)}: {what}."
    )


def line_of_operation(function: Callable[..., Any], names: tuple[str, ...], wrong: Expression) -> str:
    """The line of a function that makes an operation, or what the operation is."""
    for made, where in operation_lines(function, names):
        if made == wrong:
            return where
    return f"{getattr(function, '__name__', function)!s}, {wrong!r}"


def rule_operations(rule: Mask | Score) -> Iterator[Expression]:
    """The operations of a rule; a combined mask's are its parts'."""
    return parts(rule.formula.expression)
