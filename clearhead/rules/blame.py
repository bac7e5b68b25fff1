"""Finds the line of a user's function that produced a faulty operation.

Formulas do not record line numbers, because tracing has to stay cheap. After a fault, the function is traced once more
and the line of each operation is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from clearhead.errors import TraceError
from clearhead.rules.expression import Expression, parts
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.scores import SCORE_PARAMETERS, Score
from clearhead.rules.spans import POSITIONS
from clearhead.rules.trace import operation_lines


def fault_error(given: tuple[Mask, tuple[Score, ...]], wrong: Expression, what: str) -> TraceError:
    """The error for a faulty operation of one of a call's rules."""
    mask, scores = given
    rules: list[Mask | Score] = [*scores, *mask.parts()]
    for rule in rules:
        if wrong in rule_operations(rule):
            return rule_error(rule, wrong, what)
    return TraceError(f"{wrong!r}: {what}.")


def rule_error(rule: Mask | Score, wrong: Expression, what: str) -> TraceError:
    """The error for a faulty operation of one rule; it names the source line if the rule is a function."""
    function = getattr(rule, "function", None)
    if function is None:
        return TraceError(f"{rule!r}, {wrong!r}: {what}.")
    return TraceError(
        f"{line_of_operation(function, SCORE_PARAMETERS if isinstance(rule, Score) else POSITIONS, wrong)}: {what}."
    )


def line_of_operation(function: Callable[..., Any], names: tuple[str, ...], wrong: Expression) -> str:
    """The source line that produces an operation, or the function's name and the operation if no line does."""
    for operation, line in operation_lines(function, names):
        if operation == wrong:
            return line
    return f"{getattr(function, '__name__', function)!s}, {wrong!r}"


def rule_operations(rule: Mask | Score) -> Iterator[Expression]:
    """All operations of a rule's formula."""
    return parts(rule.formula.expression)
