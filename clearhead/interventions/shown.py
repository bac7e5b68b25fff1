"""Edited weights as `Weights`: what a model's queries gave its keys under the edits of a run, at any length.

Rules change the scores, and the log-sum-exp is that of the rules that renormalize. Responsible for one sequence,
without padding, over all its passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from clearhead.arrays import Array
from clearhead.attention_weights.matrix import Weights, weights
from clearhead.errors import InputError
from clearhead.functional import attend
from clearhead.interventions.edits import Edit, Layer, PairEdit, Patch, Scale, Sink, Uniform
from clearhead.interventions.places import Places, in_order
from clearhead.interventions.rules import added, hidden, rows_of
from clearhead.rules.expression import Formula
from clearhead.rules.mask_kinds import Mask, Where
from clearhead.rules.scores import Given, Score, as_rules

MOST_PASSES = 64  # edits that count from the end differ from pass to pass, and each is a formula of its own


@dataclass(frozen=True, eq=False)
class EditedRules:
    """The rules of edited weights; `kept` are those whose log-sum-exp they have, if not their own."""

    mask: Mask
    score: tuple[Score, ...]
    kept: tuple[Score, ...] | None


def edited_rules(
    edits: Sequence[Edit],
    mask: Mask,
    score: tuple[Score, ...],
    passes: Sequence[Places],
    heads: Sequence[int],
    count: int,
) -> EditedRules:
    """Mask and score rules under edits, for some heads of a layer that has `count`."""
    pairs = [edit for edit in edits if isinstance(edit, PairEdit | Uniform)]
    parts = [(own, places) for places in passes if (own := [edit for edit in pairs if rows_of(edit, places).any()])]
    hides = [formula for own, places in parts if (formula := hidden(own, places, heads, count)) is not None]
    if hides:
        shown = reduce(lambda a, b: a.combine("or", b), hides).combine("not")
        mask = mask & Where(hidden, shown)
    every, kept = ((*score, *given(parts, heads, count, kept=kept)) for kept in (True, False))
    lasting = any(isinstance(edit, Scale) and not edit.renormalize for edit in pairs)
    return EditedRules(mask, every, kept if lasting else None)


def given(parts: Any, heads: Sequence[int], count: int, *, kept: bool) -> Iterator[Score]:
    """What edits make of scores, in each pass."""
    for own, places in parts:
        formula = added(own, places, heads, count, kept=kept)
        if formula is not None:
            yield Given(Formula(formula.expression, tuple(map(plain, formula.arrays))))


def plain(table: Any) -> Array:
    """A table as an array, whichever library it is of."""
    return np.asarray(table.detach().cpu() if hasattr(table, "detach") else table)


def passes_of(edits: Sequence[Edit], steps: Sequence[int], keys: int, crosses: bool, sequence: int) -> list[Places]:
    """The places of each pass, −1 for the queries of others; one for all passes if nothing counts from the end."""
    queries = sum(steps)
    if not any(counts_back(edit) for edit in edits):
        return [in_order(queries, keys, sequence=sequence)]
    if len(steps) > MOST_PASSES:
        raise InputError(
            f"edits that count from the end of {len(steps)} passes cannot be shown, only of {MOST_PASSES}: give "
            "positions from the beginning."
        )
    found, start = [], 0
    for step in steps:
        stop = start + step
        query = np.full((1, queries), -1)
        query[0, start:stop] = np.arange(start, stop)
        known = keys if crosses else keys - queries + stop
        key = np.where(np.arange(keys) < known, np.arange(keys), -1)[None]
        found.append(Places(query, key, np.array([stop]), np.array([known]), np.array([sequence])))
        start = stop
    return found


def counts_back(edit: Edit) -> bool:
    """Whether an edit's positions count from the end."""
    chosen = [edit.queries, *([edit.keys] if isinstance(edit, PairEdit) else [])]
    return any(n < 0 for one in chosen for n in (*(one.listed or ()), *(x or 0 for x in (one.bounds or ())[:2])))


def edited_weights(
    own: Weights,
    edits: Sequence[Edit],
    layer: Layer,
    *,
    heads: Sequence[int] | None = None,
    count: int | None = None,
    steps: Sequence[int] | None = None,
    crosses: bool = False,
    sequence: int = 0,
) -> Weights:
    """The weights (heads, queries, keys) of a layer's recorded queries and keys as edits made them.

    `heads` are the model's numbers of the heads, of `count`; `steps` the queries of each pass. Edits of other layers
    and of outputs change no weights here. Raises InputError for patches of some queries alone.
    """
    source, (total, queries, keys) = own.source, own.shape
    heads = tuple(range(total)) if heads is None else tuple(heads)
    count = total if count is None else count
    edits = [edit for edit in edits if edit.of(layer) and set(edit.heads_of(count)) & set(heads)]
    mask, score = source.problem.rules.given
    q, k, sink = source.query, source.key, source.sink
    if k.shape[0] != total:
        k = np.repeat(k, total // k.shape[0], axis=0)
    passes = passes_of(edits, steps or (queries,), keys, crosses, sequence)
    for edit in edits:
        if isinstance(edit, Patch) and edit.pattern:
            q, k = patched_operands(edit, layer, q, k, own, heads, count, sequence)
    rules = edited_rules(edits, mask, as_rules(score), passes, heads, count)
    sink = edited_sink(edits, sink, heads, count)
    options: dict[str, Any] = {"mask": rules.mask, "scale": source.problem.scale}
    evened = [edit for edit in edits if isinstance(edit, Uniform)] if source.sink is not None else []
    if rules.kept is None and not evened:
        return weights(q, k, score=rules.score, sink=sink, **options)
    kept = rules.score if rules.kept is None else rules.kept
    lse = attend(q, k, k[..., :1], score=kept, sink=sink, **options).lse
    if evened:  # rows with even weights give the model's own sink none
        forced = edited_sink(edits, None, heads, count)
        without = attend(q, k, k[..., :1], score=kept, sink=forced, **options).lse
        for edit in evened:
            mine = np.array([head in edit.heads_of(count) for head in heads])[:, None]
            rows = reduce(np.logical_or, (rows_of(edit, places)[0] for places in passes))
            lse = np.where(mine & rows, without, lse)
    return weights(q, k, score=rules.score, sink=sink, lse=lse, **options)


def edited_sink(edits: Sequence[Edit], own: Array | None, heads: Sequence[int], count: int) -> Array | None:
    """Each head's sink, after edits."""
    sink = own
    for edit in edits:
        if isinstance(edit, Sink):
            mine = np.array([head in edit.heads_of(count) for head in heads])
            old = np.full(len(heads), -np.inf) if sink is None else np.broadcast_to(sink, len(heads))
            sink = np.where(mine, -np.inf if edit.value is None else edit.value, old)
    return sink


def patched_operands(
    edit: Patch, layer: Layer, q: Array, k: Array, own: Weights, heads: Sequence[int], count: int, sequence: int
) -> tuple[Array, Array]:
    """Queries and keys with those of another run in the patched heads; its rules must be the same."""
    if edit.sequence not in (None, sequence):
        return q, k
    seen = edit.source(layer, sequence)
    there = [n for n, head in enumerate(heads) if head in edit.heads_of(count)]
    index = [seen.head(heads[n]).index for n in there] if hasattr(seen, "head") else None
    other = seen.weights if hasattr(seen, "head") else seen
    rules, others = own.source.problem, other.source.problem
    alike = repr(rules.rules.given) == repr(others.rules.given) and rules.scale == others.scale
    if index is None or not edit.queries.everything or not alike or other.shape[-2:] != own.shape[-2:]:
        raise InputError(f"the weights under {edit!r} are of two runs with different rules: look at each run's own.")
    keys = np.repeat(other.source.key, other.shape[0] // other.source.key.shape[0], axis=0)
    q, k = q.copy(), k.copy()
    q[there], k[there] = other.source.query[index], keys[index]
    return q, k
