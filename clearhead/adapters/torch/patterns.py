"""Another run's weights and values, as operands for this run's pass.

A pattern is the other run's queries, keys and rules. Responsible for choosing the queries and keys that stand where
those of a pass do, and for saying what does not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from clearhead.adapters.torch.call_rules import CallRules
from clearhead.adapters.torch.rule_names import split_rules
from clearhead.arrays import Array
from clearhead.attention_weights.matrix import Weights
from clearhead.errors import InputError
from clearhead.interventions.edits import Layer, Patch
from clearhead.interventions.places import Places
from clearhead.rules.expression import Expression, Formula, rewrite
from clearhead.rules.mask_kinds import Causal, Full, Window, conjunction
from clearhead.rules.masks import window
from clearhead.rules.placement import at_end
from clearhead.rules.scores import as_rules


@dataclass(frozen=True, eq=False)
class Pattern:
    """Weights as operands: queries (1, heads, n, dim), keys (1, heads, m, dim), and rules."""

    query: torch.Tensor
    key: torch.Tensor
    rules: CallRules
    lse: torch.Tensor | None  # (1, heads, n), where it is not that of these queries, keys and rules


def pattern_of(edit: Patch, layer: Layer, places: Places, heads: Sequence[int], count: int) -> Pattern:
    """The pattern of an edit for the queries and keys of one sequence."""
    weights = seen_weights(edit, layer, places, heads, count)
    source, (queries, keys) = weights.source, weights.shape[-2:]
    problem = source.problem
    if source.pages is not None:
        raise InputError(f"{edit!r} gives weights over a cache: give those of plain arrays, clearhead.weights(q, k).")
    mask, rules = problem.rules.given
    score = as_rules(rules)
    rows, columns = places.query[0], places.key[0]
    whole = len(rows) == queries and len(columns) == keys and (rows == np.arange(queries)).all()
    if not whole:
        check_part(edit, weights, rows, columns)
        mask = at_end(mask) & window(None, None, align="end")
    flat = [int(n) for n in weights.heads.reshape(-1)]
    query, key = (over_heads(x, problem.lead, flat) for x in (source.query, source.key))
    split, arrays = split_rules(mask, score)
    seen, changed = (
        None if e is None else of_source_heads(Formula(e, arrays), flat, problem.lead)
        for e in (split.seen, split.score)
    )
    sink = None if source.sink is None else np.broadcast_to(source.sink, problem.lead).reshape(-1)[flat]
    known = source.known if source.known is not None and not source.matching else None
    lse = None if known is None else known.reshape(-1, queries)[flat][:, rows]
    return Pattern(
        tensor(query[:, rows])[None],
        tensor(key[:, columns])[None],
        CallRules(split.masks, seen, changed, None if sink is None else tensor(sink), problem.scale),
        None if lse is None else tensor(lse)[None],
    )


def check_part(edit: Patch, weights: Weights, rows: Any, columns: Any) -> None:
    """Check that some rows of a pattern can be had by its rules alone: causal ones go on at any length."""
    queries, keys = weights.shape[-2:]
    mask, score = weights.source.problem.rules.given
    if rows.max(initial=-1) >= queries or columns.max(initial=-1) >= keys:
        raise InputError(
            f"{edit!r} gives the weights of {queries} queries over {keys} keys, but a pass has "
            f"{rows.max(initial=-1) + 1} and {columns.max(initial=-1) + 1}: give those of a run as long, or choose "
            "some by queries=…"
        )
    bands = all(isinstance(part, Causal | Window | Full) for part in conjunction(mask))
    looks_back = any(isinstance(part, Causal) or getattr(part, "right", None) == 0 for part in conjunction(mask))
    tail = (np.diff(rows) == 1).all() and rows[-1:].tolist() == columns[-1:].tolist()
    placed = any({"row", "query", "key"} & rule.formula.expression.leaves for rule in as_rules(score))
    if not (bands and looks_back and tail and queries == keys and not placed):
        raise InputError(
            f"{edit!r} gives the weights of {queries} queries over {keys} keys, of which a pass needs "
            f"{len(rows)} over {len(columns)}: only causal weights are known for a part of a sequence. Run the model "
            "once over the whole text, without a cache."
        )


def seen_weights(edit: Patch, layer: Layer, places: Places, heads: Sequence[int], count: int) -> Weights:
    """The weights of some heads, (heads, queries, keys)."""
    seen = edit.source(layer, int(places.sequences[0]))
    if hasattr(seen, "head"):
        return Weights(seen.weights.source, seen.weights.heads[[seen.head(head).index for head in heads]])
    order = order_in(edit, seen, heads, count)
    return Weights(seen.source, np.repeat(seen.heads, len(heads)) if order is None else seen.heads[order])


def order_in(edit: Patch, given: Any, heads: Sequence[int], count: int) -> list[int] | None:
    """Where some heads are in given weights: all heads of the layer, those of the edit, or one for all (None)."""
    own = edit.heads_of(count)
    if given.ndim == 2:
        return None
    if given.ndim == 3 and given.shape[0] == len(own):
        return [own.index(head) for head in heads]
    if given.ndim == 3 and given.shape[0] == count:
        return list(heads)
    raise InputError(
        f"{edit!r} gives weights of shape {tuple(given.shape)} for {len(own)} heads: give (queries, keys), or "
        f"({len(own)}, queries, keys), and say sequence=… for one of several."
    )


def values_of(edit: Patch, layer: Layer, places: Places, heads: Sequence[int], count: int) -> torch.Tensor:
    """The values of some heads at a sequence's keys, (heads, keys, dim)."""
    seen = edit.source(layer, int(places.sequences[0]))
    if not hasattr(seen, "head"):
        raise InputError(f"{edit!r} gives weights alone: for values, give what clearhead.watch saw.")
    values, keys = seen.values[[seen.head(head).index for head in heads]], places.key[0]
    if keys.max(initial=-1) >= values.shape[1]:
        raise InputError(
            f"{edit!r} gives values of {values.shape[1]} tokens, but a pass has {keys.max() + 1}: give those of a run "
            "as long."
        )
    return tensor(values[:, keys])


def over_heads(x: Array, lead: tuple[int, ...], heads: list[int]) -> Array:
    """An operand (…, n, dim) for some of its heads; key heads are shared."""
    own = x.shape[:-2]
    if own and lead and own[-1] not in (1, lead[-1]):
        x = np.repeat(x, lead[-1] // own[-1], axis=-3)
    return np.broadcast_to(x, (*lead, *x.shape[-2:])).reshape(-1, *x.shape[-2:])[heads]


def of_source_heads(formula: Formula, heads: list[int], lead: tuple[int, ...]) -> Formula:
    """A formula over batch and head of the other run as one over the chosen heads."""
    count = lead[-1] if lead else 1
    arrays, loads = list(formula.arrays), dict[str, Expression]()
    for leaf, numbers in (("batch", [head // count for head in heads]), ("head", [head % count for head in heads])):
        if leaf in formula.expression.leaves:
            loads[leaf] = Expression("load", "int", (Expression("head", "int"),), array=len(arrays))
            arrays.append(np.array(numbers))
    return Formula(rewrite(formula.expression, lambda e: loads.get(e.op)), tuple(arrays))


def tensor(x: Array) -> torch.Tensor:
    """An array as a tensor."""
    if x.dtype.name == "bfloat16":
        return torch.from_numpy(np.ascontiguousarray(x).view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(np.ascontiguousarray(x))
