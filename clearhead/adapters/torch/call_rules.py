"""Who sees whom in a model's attention call, and what its scores become, as the name and tables of a rule.

Responsible for translating what a call says, for some of its heads: bands and functions stay rules, tables are read as
the model made them. `calls` describes a call, `operator` computes with what comes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch

from clearhead.adapters.torch.calls import AttentionCall
from clearhead.adapters.torch.flex import float_formula, mask_formula
from clearhead.adapters.torch.reference import HALF_DTYPES
from clearhead.adapters.torch.rule_names import join_rule, split_rules
from clearhead.adapters.torch.sdpa import table_element
from clearhead.adapters.torch.trace import trace_torch_function
from clearhead.errors import ClearheadError
from clearhead.rules.expression import Expression, Formula, rewrite
from clearhead.rules.mask_kinds import Causal, Mask, Window
from clearhead.rules.scores import softcap
from clearhead.rules.spans import Align

SCORE_NAMES = ("score", "batch", "head", "row", "key")


@dataclass(frozen=True, eq=False)
class CallRules:
    """The rules of a call for some of its heads. Arrays of formulas are tensors or arrays, on any device."""

    masks: tuple[Mask, ...]  # causal, window and documents, which kernels implement as loop bounds
    seen: Formula | None  # further condition of visible pairs
    score: Formula | None
    sink: torch.Tensor | None  # (heads,)
    scale: float

    def named(self, hidden: Formula | None = None, added: Formula | None = None) -> tuple[str, list[torch.Tensor]]:
        """The rule's name and tables, with further pairs hidden, and scores changed last."""
        seen, score = self.seen, self.score
        if hidden is not None:
            shown = hidden.combine("not")
            seen = shown if seen is None else seen.combine("and", shown)
        if added is not None:
            score = added if score is None else added.after(score)
        rule, tables = join_rule(self.masks, seen, score)
        return rule.name, [table_tensor(table) for table in tables]


def rules_of(call: AttentionCall, heads: Sequence[int]) -> CallRules:
    """The rules of a call for some of its heads, which become heads 0, 1, 2 …"""
    masks, seen = visible_rules(call, heads)
    score = [] if call.cap is None else [softcap(call.cap).formula]
    for table in call.adds:
        own = of_heads(table, heads, call)
        total = Expression("add", "float", (Expression("score", "float"), table_element(axes_of(own), "float")))
        score.append(Formula(total, (own,)))  # type: ignore[arg-type]
    if call.score_function is not None:
        traced = float_formula(trace_torch_function(call.score_function, SCORE_NAMES, call.query.dtype))
        score.append(with_head_numbers(traced, heads, call))
    sink = None if call.sink is None else on_processor(call.sink.reshape(-1))[list(heads)]
    if sink is not None and sink.dtype in HALF_DTYPES:
        sink = sink.float()
    return CallRules(
        masks, seen, reduce(lambda first, then: then.after(first), score) if score else None, sink, call.scale
    )


def visible_rules(call: AttentionCall, heads: Sequence[int]) -> tuple[tuple[Mask, ...], Formula | None]:
    """Who sees whom: bands, and a formula of what else hides."""
    v, masks, found = call.visibility, list[Mask](), list[Formula]()
    align: Align = "start" if v.causal == "start" else "end"
    if v.causal is not None:
        masks.append(Causal(align))
    if v.left is not None or v.right is not None:
        masks.append(Window(v.left, v.right, align))
    if v.table is not None:
        found.append(hiding(of_heads(v.table, heads, call)))
    if v.tokens is not None:
        found.append(hiding(v.tokens[:, None, None]))
    if v.rows is not None:
        bands, seen = rules_of_rows(call, heads)
        masks += bands
        found += [] if seen is None else [seen]
    return tuple(masks), reduce(lambda a, b: a.combine("and", b), found) if found else None


def rules_of_rows(call: AttentionCall, heads: Sequence[int]) -> tuple[tuple[Mask, ...], Formula | None]:
    """What a call computes where it is needed: as its own rule, or as a table where that cannot be traced."""
    assert call.visibility.rows is not None  # noqa: S101
    rule = None if call.visibility.rule is None else call.visibility.rule()
    try:
        if isinstance(rule, Mask):
            split, arrays = split_rules(rule, ())
            seen = None if split.seen is None else Formula(split.seen, arrays)
            return split.masks, None if seen is None else with_head_numbers(seen, heads, call)
        if rule is not None:
            traced = mask_formula(rule, call.query, call.key)
            return (), None if traced is None else with_head_numbers(traced, heads, call)
    except ClearheadError:
        pass
    table = call.visibility.rows(torch.arange(call.query.shape[2], device=call.query.device))
    return (), hiding(of_heads(table, heads, call))


def hiding(table: torch.Tensor) -> Formula:
    """What a table (batch, heads, queries, keys) shows; axes of 1 broadcast."""
    return Formula(table_element(axes_of(table), "bool"), (table,))  # type: ignore[arg-type]


def axes_of(table: torch.Tensor) -> str:
    """Which axes of a table do not broadcast, as `table_element` takes them."""
    return "".join("1" if n == 1 else "n" for n in table.shape)


def of_heads(table: torch.Tensor, heads: Sequence[int], call: AttentionCall) -> torch.Tensor:
    """The part of a table that belongs to some heads; without a copy if they are all, or neighbours."""
    if table.shape[1] == 1:
        return table
    return table[:, head_index(heads, call.query.shape[1])]


def head_index(heads: Sequence[int], count: int) -> Any:
    """An index of some heads: a slice where they are neighbours."""
    if list(heads) == list(range(heads[0], heads[-1] + 1)):
        return slice(heads[0], heads[-1] + 1)
    return list(heads)


def with_head_numbers(formula: Formula, heads: Sequence[int], call: AttentionCall) -> Formula:
    """A formula over the heads of a call as one over some of them."""
    if "head" not in formula.expression.leaves or list(heads) == list(range(call.query.shape[1])):
        return formula
    numbers = Expression("load", "int", (Expression("head", "int"),), array=len(formula.arrays))
    moved = rewrite(formula.expression, lambda e: numbers if e.op == "head" else None)
    return Formula(moved, (*formula.arrays, torch.tensor(list(heads))))  # type: ignore[arg-type]


def table_tensor(table: Any) -> torch.Tensor:
    """A rule's table as a tensor in the processor's memory; arrays are copied, for many cannot be written."""
    return on_processor(table) if isinstance(table, torch.Tensor) else torch.from_numpy(np.array(table))


def on_processor(x: torch.Tensor) -> torch.Tensor:
    """A tensor in the processor's memory."""
    return x if x.is_cpu else x.cpu()
