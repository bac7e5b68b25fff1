"""Why a call's result is not a number: a rule that has no value at a pair, where that could not be known before.

Decides which pair, operation and line of a user's function the error names. Rules that may be at fault are written so
that such a pair is seen and not a number (see `rules.fused`); only then is anything looked for, in the rows it is in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array
from clearhead.cache.pages import Paged
from clearhead.engine.problem import Problem
from clearhead.errors import TraceError
from clearhead.rules.blame import blamed_rule
from clearhead.rules.evaluation import evaluate
from clearhead.rules.expression import Expression, Formula
from clearhead.rules.faults import faults, suspects
from clearhead.rules.masks import Documents, Mask
from clearhead.rules.operations import OPERATIONS
from clearhead.rules.scores import Score

PAIRS = 1 << 20  # that are looked at together


@dataclass(frozen=True)
class Looked:
    """One call's rows, looked at pair by pair."""

    problem: Problem
    query: Array  # (heads, queries, dim)
    key: Array  # (heads, keys, dim)

    def leaves(self, head: int, rows: npt.NDArray[np.int64], keys: npt.NDArray[np.int64]) -> dict[str, Any]:
        """What expressions read, for rows (r, 1) and keys (m,)."""
        problem = self.problem
        heads = problem.lead[-1] if problem.lead else 1
        spans = problem.rules.spans
        own = np.searchsorted([span.first_query for span in spans], rows, side="right") - 1
        offset = np.array([span.offset for span in spans])[own]
        found: dict[str, Any] = {"batch": np.int64(head // heads), "head": np.int64(head % heads), "row": rows}
        found |= {"query": rows + offset, "key": keys}
        with np.errstate(all="ignore"):
            q = self.query[head, rows[:, 0]].astype(problem.computed) * np.dtype(problem.computed).type(problem.scale)
            found["score"] = q @ self.key[head, keys].astype(problem.computed).T
        return found

    def band(self, leaves: dict[str, Any]) -> Array:
        """Which pairs the band and the documents let see each other."""
        rules, apart = self.problem.rules, leaves["key"] - leaves["query"]
        seen: Array = np.ones_like(apart, bool)
        for span in rules.spans:
            mine = (leaves["row"] >= span.first_query) & (leaves["row"] < span.first_query + span.queries)
            theirs = (leaves["key"] >= span.first_key) & (leaves["key"] < span.first_key + span.keys)
            seen &= ~mine | theirs
        if rules.low is not None:
            seen &= apart >= rules.low
        if rules.high is not None:
            seen &= apart <= rules.high
        return seen

    def at_fault(self, head: int, rows: npt.NDArray[np.int64]) -> Iterator[dict[str, Any]]:
        """The leaves of each pair that is seen and at fault."""
        rules, dtype = self.problem.rules, np.dtype(self.problem.computed)
        leaves = self.leaves(head, rows, np.arange(self.problem.first_key, self.problem.keys))
        wrong: Any = np.zeros((), bool)
        for formula, fault in zip((rules.score, rules.mask), rules.faults, strict=True):
            if fault is not None:
                wrong = wrong | evaluate(Formula(fault, formula.arrays if formula else ()), leaves, dtype=dtype)
        seen = self.band(leaves)
        if rules.seen is not None:
            seen = seen & evaluate(rules.seen, leaves, dtype=dtype)
        for pair in np.argwhere(seen & wrong):
            whole = np.broadcast_arrays(*leaves.values())
            yield {name: x[tuple(pair)] for name, x in zip(leaves, whole, strict=True)}


def check(problem: Problem, lost: npt.NDArray[np.bool_], query: Array, key: Array | Paged) -> None:
    """Raise TraceError if one of the rows that are not numbers, (..., queries), is so because a rule is at fault."""
    if not lost.any():
        return
    flat = lost.reshape(-1, problem.queries)
    looked = Looked(problem, by_head(query, problem), by_head(key.keys() if isinstance(key, Paged) else key, problem))
    step = max(1, PAIRS // max(1, problem.keys))
    for head in np.flatnonzero(flat.any(1)):
        rows = np.flatnonzero(flat[head])
        for start in range(0, len(rows), step):
            for leaves in looked.at_fault(int(head), rows[start : start + step, None]):
                raise explained(problem, leaves)


def by_head(x: Array, problem: Problem) -> Array:
    """An operand as one matrix for each head of the result."""
    own = x.shape[-3] if x.ndim > 2 else 1
    if problem.lead and 1 < own < problem.lead[-1]:
        x = np.repeat(x, problem.lead[-1] // own, -3)
    return np.broadcast_to(x, (*problem.lead, *x.shape[-2:])).reshape(-1, *x.shape[-2:])


def explained(problem: Problem, leaves: dict[str, Any]) -> TraceError:
    """The error for one pair: the first rule that has no value there, and its line."""
    mask, scores = problem.rules.given
    unchecked = (part for part in mask.parts() if not isinstance(part, Documents))  # whose lengths are checked before
    rules: list[Mask | Score] = [*unchecked, *scores]
    for rule in rules:
        formula, dtype = rule.formula, np.dtype(problem.computed)
        fault = faults(formula)
        if fault is not None and evaluate(Formula(fault, formula.arrays), leaves, dtype=dtype):
            for e, condition in suspects(formula):
                if evaluate(Formula(condition, formula.arrays), leaves, dtype=dtype):
                    return blamed_rule(rule, e, told(e, condition, formula, leaves))
        if isinstance(rule, Score):
            leaves |= {"score": evaluate(formula, leaves, dtype=dtype)}
    return TraceError(f"{mask!r} and {scores!r} have no value for {pair(leaves)}.")


def told(e: Expression, condition: Expression, formula: Formula, leaves: dict[str, Any]) -> str:
    """What is wrong with one operation at a pair."""
    fault = OPERATIONS[e.op].fault if e.op in OPERATIONS else None
    if fault is not None:
        what, cure = fault.what, fault.cure
    elif condition.args[0] == e:
        what, cure = "reads a number of 2⁶³ or more", "convert the array, as by .astype(float)"
    else:
        number = evaluate(Formula(condition.args[0], formula.arrays), leaves)
        shape = formula.arrays[e.array or 0].shape
        what = f"reads place {number} of an axis of an array of shape {shape}"
        cure = "make the array as long as is asked, or bound the index, as by np.clip"
    return f"{what}, for {pair(leaves)}: {cure}"


def pair(leaves: dict[str, Any]) -> str:
    """A pair's place."""
    return f"query {leaves['query']} and key {leaves['key']} of head {leaves['head']}"
