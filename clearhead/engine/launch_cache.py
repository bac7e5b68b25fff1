"""Cache of prepared launches, keyed by layouts, dtypes and rules.

Responsible for deciding which calls can share a launch. The lookup is a large part of the cost of a small call. On a
miss, `problem` checks the call and `launch` prepares it. Safe to use from any number of threads.
"""

from dataclasses import replace
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


def launch_for(
    operands: Operands, rules: Rules, out: Array | None, *, unrounded: bool = False, stretch: int | None = None
) -> Launch:
    """The launch for a call, prepared when the first call of its kind arrives.

    With `stretch`, it carries sums over keys of which the first is that of all keys.
    """
    q, k, v, pages = operands
    known: Key = rules  # without score rules and sink, the tuple itself is the key
    if rules[1] is not NO_RULES or rules[2] is not None:
        rules, known = current_rules_and_key(rules)
    key: Key = (
        q.shape, q.strides, q.dtype, k.shape, k.strides, k.dtype, v.shape, v.strides, v.dtype,
        known, unrounded, stretch,
        None if out is None else out_layout(out),
        None if pages is None else (pages.first_key, pages.int8),
    )  # fmt: skip
    try:
        launch = launches.get(key)
    except TypeError:  # unhashable rules or scales are not cached; `problem` reports a mask like that
        key, launch = (), None
    if launch is None:
        launch = prepare_launch(operands, rules, out, unrounded=unrounded, stretch=stretch)
        if key:
            launches.keep(key, launch, launch.held_bytes)
    if out is not None:  # overlap depends on addresses, which are not in the key
        check_apart(out, {"q": q, "k": k, "v": v} if pages is None else {"q": q})
    return launch


def prepare_launch(
    operands: Operands, rules: Rules, out: Array | None, *, unrounded: bool, stretch: int | None
) -> Launch:
    """Check a call, then prepare its launch."""
    scores = as_rules(rules.score)
    problem = problem_of(operands, rules._replace(score=scores), out=out, unrounded=unrounded, first_key=stretch or 0)
    problem = problem if stretch is None else replace(problem, carried=True)
    if operands.pages is not None:
        problem = over_pages(problem, rules.mask, first_key=operands.pages.first_key, int8=operands.pages.int8)
    return prepare(problem, scores)


def current_rules_and_key(rules: Rules) -> tuple[Rules, Key]:
    """Rules with their functions retraced if they changed, and a key. Of a sink, only shape and dtype matter."""
    mask, score, sink, scale, precision = rules
    score = current_rules(score)
    key = mask, score, None if sink is None else (sink.shape, sink.dtype), scale, precision
    return Rules(mask, score, sink, scale, precision), key


def out_layout(out: Array) -> Key:
    """Everything about `out` that is checked, except its address."""
    if not isinstance(out, np.ndarray):
        return (type(out),)
    return out.shape, out.strides, out.dtype, out.flags.writeable
