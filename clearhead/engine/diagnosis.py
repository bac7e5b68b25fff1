"""Find the rule that made a result NaN, such as one that divides by 0 or indexes outside its array at some pair.

Responsible for the pair, operation and line of a user's function that the error names. `rules.fused` turns such a fault
into a visible pair with score NaN. The search runs only after a kernel has returned NaN, and only in those rows.
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
from clearhead.rules.blame import rule_error
from clearhead.rules.document_masks import Documents
from clearhead.rules.evaluation import evaluate
from clearhead.rules.expression import Expression, Formula
from clearhead.rules.faults import faults, possible_faults
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.operations import OPERATIONS
from clearhead.rules.scores import Score

PAIRS = 1 << 20  # evaluated at a time


@dataclass(frozen=True)
class FaultSearch:
    """Evaluates the rules of one problem at single pairs, to find one at fault."""

    problem: Problem
    query: Array  # (heads, queries, dim)
    key: Array  # (heads, keys, dim): the last of all keys

    def leaves(self, head: int, rows: npt.NDArray[np.int64], keys: npt.NDArray[np.int64]) -> dict[str, Any]:
        """The values of an expression's leaves, for rows (r, 1) and keys (m,)."""
        problem = self.problem
        heads = problem.lead[-1] if problem.lead else 1
        spans = problem.rules.spans
        index = np.searchsorted([span.first_query for span in spans], rows, side="right") - 1
        offset, row = (np.array([getattr(span, name) for span in spans])[index] for name in ("offset", "row"))
        leaves: dict[str, Any] = {"batch": np.int64(head // heads), "head": np.int64(head % heads), "row": rows + row}
        leaves |= {"query": rows + offset, "key": keys}
        with np.errstate(all="ignore"):
            q = self.query[head, rows[:, 0]].astype(problem.computed) * np.dtype(problem.computed).type(problem.scale)
            present = keys - (problem.keys - self.key.shape[1])
            leaves["score"] = q @ self.key[head, present].astype(problem.computed).T
        return leaves

    def band(self, leaves: dict[str, Any]) -> Array:
        """Which pairs the band and the documents make visible."""
        rules, distance = self.problem.rules, leaves["key"] - leaves["query"]
        seen: Array = np.ones_like(distance, bool)
        for span in rules.spans:
            index = leaves["row"] - span.row
            in_rows = (index >= span.first_query) & (index < span.first_query + span.queries)
            in_keys = (leaves["key"] >= span.first_key) & (leaves["key"] < span.first_key + span.keys)
            seen &= ~in_rows | in_keys
        if rules.low is not None:
            seen &= distance >= rules.low
        if rules.high is not None:
            seen &= distance <= rules.high
        return seen

    def at_fault(self, head: int, rows: npt.NDArray[np.int64]) -> Iterator[dict[str, Any]]:
        """The leaves of each visible pair at which a rule has no value."""
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
            values = np.broadcast_arrays(*leaves.values())
            yield {name: x[tuple(pair)] for name, x in zip(leaves, values, strict=True)}


def raise_rule_fault(problem: Problem, lost: npt.NDArray[np.bool_], query: Array, key: Array | Paged) -> None:
    """Raise TraceError if a rule made one of the NaN rows, marked in `lost` (..., queries)."""
    if not lost.any():
        return
    flat = lost.reshape(-1, problem.queries)
    keys = key.keys() if isinstance(key, Paged) else key
    search = FaultSearch(problem, by_head(query, problem), by_head(keys, problem))
    step = max(1, PAIRS // max(1, problem.keys))
    for head in np.flatnonzero(flat.any(1)):
        rows = np.flatnonzero(flat[head])
        for start in range(0, len(rows), step):
            for leaves in search.at_fault(int(head), rows[start : start + step, None]):
                raise fault_error(problem, leaves)


def by_head(x: Array, problem: Problem) -> Array:
    """An operand as one matrix per head of the result."""
    heads = x.shape[-3] if x.ndim > 2 else 1
    if problem.lead and 1 < heads < problem.lead[-1]:
        x = np.repeat(x, problem.lead[-1] // heads, -3)
    return np.broadcast_to(x, (*problem.lead, *x.shape[-2:])).reshape(-1, *x.shape[-2:])


def fault_error(problem: Problem, leaves: dict[str, Any]) -> TraceError:
    """The error for one pair, naming the first rule that has no value there and its line."""
    mask, scores = problem.rules.given
    unchecked = (part for part in mask.parts() if not isinstance(part, Documents))  # `problem` checked their lengths
    rules: list[Mask | Score] = [*unchecked, *scores]
    for rule in rules:
        formula, dtype = rule.formula, np.dtype(problem.computed)
        fault = faults(formula)
        if fault is not None and evaluate(Formula(fault, formula.arrays), leaves, dtype=dtype):
            for e, condition in possible_faults(formula):
                if evaluate(Formula(condition, formula.arrays), leaves, dtype=dtype):
                    return rule_error(rule, e, fault_text(e, condition, formula, leaves))
        if isinstance(rule, Score):
            leaves |= {"score": evaluate(formula, leaves, dtype=dtype)}
    return TraceError(f"{mask!r} and {scores!r} have no value for {pair_text(leaves)}.")


def fault_text(e: Expression, condition: Expression, formula: Formula, leaves: dict[str, Any]) -> str:
    """Describe what one operation did wrong at a pair, and the cure."""
    fault = OPERATIONS[e.op].fault if e.op in OPERATIONS else None
    if fault is not None:
        what, cure = fault.what, fault.cure
    elif condition.args[0] == e:
        what, cure = "reads a number of 2⁶³ or more", "convert the array, as by .astype(float)"
    else:
        number = evaluate(Formula(condition.args[0], formula.arrays), leaves)
        shape = formula.arrays[e.array or 0].shape
        what = f"reads place {number} of an axis of an array of shape {shape}"
        cure = "make the array long enough, or bound the index, as by np.clip"
    return f"{what}, for {pair_text(leaves)}: {cure}"


def pair_text(leaves: dict[str, Any]) -> str:
    """Name a pair in an error."""
    return f"query {leaves['query']} and key {leaves['key']} of head {leaves['head']}"
