"""Functions as rules, as they are now: each call sees what a function's names stand for at that moment, as Python does.

Decides when a function is traced: at the first call, and again when what it reads has changed, or in every call where
that cannot be told. What it does then is compared with what it did: equal rules share all that is prepared.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any, NamedTuple

from clearhead.rules.captured_names import CapturedNames, captured_names
from clearhead.rules.scores import NAMES, Function, Score, ScoreLike, as_score
from clearhead.rules.trace import traced

MOST_KNOWN = 256
NO_RULES: ScoreLike = ()


class Known(NamedTuple):
    """A function that has been traced, held so that nothing else can be taken for it."""

    function: Callable[..., Any]
    rule: Function
    captured: CapturedNames | None


known: dict[tuple[int, ...], Known] = {}


def current(score: ScoreLike) -> ScoreLike:
    """The same rules, functions among them as rules that they are now."""
    if score is NO_RULES or isinstance(score, Score):  # the usual ones, asked for in every call
        return score
    if isinstance(score, list | tuple):
        return tuple(map(current, score))  # type: ignore[arg-type]
    return rule_of(score) if callable(score) else score


def rule_of(function: Callable[..., Any]) -> Function:
    """A function as a rule: the one it was, if it still does the same."""
    own = identity(function)
    before = known.get(own)
    if before is not None and before.captured is not None and before.captured.unchanged():
        return before.rule
    seen = None if before is not None and before.captured is None else captured_names(function)
    formula, looked_at = traced(function, NAMES, twice=before is None)
    if seen is not None and not (seen.add_numbers(looked_at) and seen.unchanged()):
        seen = None
    rule = Function(function, as_score(formula, function))
    if before is not None and rule == before.rule:
        rule = before.rule
    if len(known) >= MOST_KNOWN:
        known.clear()
    known[own] = Known(function, rule, seen)
    return rule


def identity(function: Callable[..., Any]) -> tuple[int, ...]:
    """What tells functions apart: themselves, not what they say of being equal; a method is made anew each time."""
    if isinstance(function, MethodType):
        return id(function.__func__), id(function.__self__)
    return (id(function),)
