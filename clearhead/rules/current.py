"""Cache of traced functions: each call uses the current values of the names that a function reads, as Python does.

Decides when to trace a function: in the first call, again when something it reads has changed, and in every call if
changes cannot be detected. If the new formula equals the old one, the old rule is reused with everything prepared for
it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any, NamedTuple

from clearhead.rules.captured_names import CapturedNames, captured_names
from clearhead.rules.scores import SCORE_PARAMETERS, Function, Score, ScoreLike, as_score
from clearhead.rules.trace import trace_with_arrays
from clearhead.rules.uncalled import check_called

MOST_TRACED_FUNCTIONS = 256
NO_RULES: ScoreLike = ()


class TracedFunction(NamedTuple):
    """A traced function; holding the function keeps its id from being reused."""

    function: Callable[..., Any]
    rule: Function
    captured: CapturedNames | None


traced_functions: dict[tuple[int, ...], TracedFunction] = {}


def current_rules(score: ScoreLike) -> ScoreLike:
    """The same rules, with each function replaced by its current rule."""
    if score is NO_RULES or isinstance(score, Score):  # the common case, on every call's path
        return score
    if isinstance(score, list | tuple):
        return tuple(map(current_rules, score))  # type: ignore[arg-type]
    return current_rule(score) if callable(score) else score


def current_rule(function: Callable[..., Any]) -> Function:
    """A function's rule, the previous one if the function still does the same."""
    own = function_identity(function)
    before = traced_functions.get(own)
    if before is not None and before.captured is not None and before.captured.unchanged():
        return before.rule
    if before is None:
        check_called(function, "score")
    seen = None if before is not None and before.captured is None else captured_names(function)
    formula, looked_at = trace_with_arrays(function, SCORE_PARAMETERS, twice=before is None)
    if seen is not None and not (seen.add_numbers(looked_at) and seen.unchanged()):
        seen = None
    rule = Function(function, as_score(formula, function))
    if before is not None and rule == before.rule:
        rule = before.rule
    if len(traced_functions) >= MOST_TRACED_FUNCTIONS:
        traced_functions.clear()
    traced_functions[own] = TracedFunction(function, rule, seen)
    return rule


def function_identity(function: Callable[..., Any]) -> tuple[int, ...]:
    """The cache key: identity rather than ==; a bound method by its parts, because each access makes a new one."""
    if isinstance(function, MethodType):
        return id(function.__func__), id(function.__self__)
    return (id(function),)
