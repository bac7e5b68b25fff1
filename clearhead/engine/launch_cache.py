"""Launches of earlier calls, looked up by everything that a later call has in common with them.

Responsible for what makes two calls alike. The look-up is a large part of what a small call costs; where it finds
nothing, `problem` checks the call and `launch` prepares it. Any number of threads may ask.
"""

from typing import Any

import numpy as np

from clearhead.arrays import Array
from clearhead.engine.bounded_cache import BoundedCache
from clearhead.engine.inputs import Operands, Rules
from clearhead.engine.launch import Launch, prepare
from clearhead.engine.problem import check_apart, over_pages, problem_of
from clearhead.rules.current import NO_RULES, current_rules
from clearhead.rules.scores import as_rules

Key = tuple[Any, ...]

launches: BoundedCache[Key, Launch] = BoundedCache(most=1024)


def launch_for(operands: Operands, rules: Rules, out: Array | None, *, unrounded: bool = False) -> Launch:
    """The launch of a call like this one, prepared at the first."""
    q, k, v, pages = operands
    known: Key = rules  # without score rules and sink, the values are their own key
    if rules[1] is not NO_RULES or rules[2] is not None:
        rules, known = keyed(rules)
    key: Key = (
        q.shape, q.strides, q.dtype, k.shape, k.strides, k.dtype, v.shape, v.strides, v.dtype,
        known, unrounded,
        None if out is None else layout_of(out),
        None if pages is None else (pages.first_key, pages.int8),
    )  # fmt: skip
    try:
        launch = launches.get(key)
    except TypeError:  # a rule or scale without a hash is prepared each time; a mask is explained by `problem`
        key, launch = (), None
    if launch is None:
        launch = prepared(operands, rules, out, unrounded=unrounded)
        if key:
            launches.keep(key, launch, launch.held_bytes)
    if out is not None:  # it may overlap an input anew in every call
        check_apart(out, {"q": q, "k": k, "v": v} if pages is None else {"q": q})
    return launch


def prepared(operands: Operands, rules: Rules, out: Array | None, *, unrounded: bool) -> Launch:
    """Check a call and prepare its launch."""
    scores = as_rules(rules.score)
    problem = problem_of(operands, rules._replace(score=scores), out=out, unrounded=unrounded)
    if operands.pages is not None:
        problem = over_pages(problem, rules.mask, first_key=operands.pages.first_key, int8=operands.pages.int8)
    return prepare(problem, scores)


def keyed(rules: Rules) -> tuple[Rules, Key]:
    """Rules with functions as they are now, and their key: of a sink, a launch depends on shape and dtype alone."""
    mask, score, sink, scale, precision = rules
    score = current_rules(score)
    key = mask, score, None if sink is None else (sink.shape, sink.dtype), scale, precision
    return Rules(mask, score, sink, scale, precision), key


def layout_of(out: Array) -> Key:
    """All that is checked of an `out` but where it lies."""
    if not isinstance(out, np.ndarray):
        return (type(out),)
    return out.shape, out.strides, out.dtype, out.flags.writeable
