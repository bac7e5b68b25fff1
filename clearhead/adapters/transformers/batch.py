"""Compute a batch of a model's layer by one call per part.

Responsible for turning a layer's problem into masks and rules for each part, and for joining outputs: kernels write
them where transformers expects them, or torch joins them where something follows its operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import groupby
from typing import Any

import numpy as np
import torch

from clearhead.adapters.torch.dropout import attend_dropped
from clearhead.adapters.torch.host import array_view
from clearhead.adapters.torch.operator import attend
from clearhead.adapters.torch.rule_names import join_rule, split_rules
from clearhead.adapters.torch.sdpa import table_element
from clearhead.adapters.transformers.mask import BatchPart, Pattern
from clearhead.arrays import Array
from clearhead.functional import attend as attend_arrays
from clearhead.functional import attention as attention_arrays
from clearhead.machine.threads import allowed
from clearhead.rules.expression import Expression, Formula
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.masks import dense
from clearhead.rules.scores import Score, bias, softcap

MAX_RULE_NAMES = 256
PLACEHOLDER = (np.empty(0),)  # stands in for a table that each call passes
rule_names: dict[Any, str] = {}  # names of rules without arrays


@dataclass(frozen=True, eq=False)
class LayerProblem:
    """Everything about a layer's attention except its operands. Tables have four axes; axes of 1 broadcast."""

    parts: tuple[BatchPart, ...]
    pattern: Pattern | None  # source of the parts, if clearhead made the model's mask
    hides: torch.Tensor | None  # True where a key is visible
    adds: tuple[torch.Tensor, ...]  # added to scores
    cap: float | None
    scale: float
    sink: torch.Tensor | None
    dropout: float

    @property
    def batch_mask(self) -> Mask:
        """One mask for the full batch, without tables."""
        return self.parts[0].mask if self.pattern is None else self.pattern.batch_mask

    def tensors(self, *operands: torch.Tensor) -> list[torch.Tensor]:
        """The operands and all tensors of this problem."""
        return [*operands, *self.adds, *(x for x in (self.hides, self.sink) if x is not None)]


def table_part(table: torch.Tensor, part: BatchPart) -> torch.Tensor:
    """The part of a table that belongs to a part of the batch."""
    axes = zip(table.shape, (part.batch, slice(None), part.queries, part.keys), strict=True)
    return table[tuple(slice(None) if size == 1 else index for size, index in axes)]


# By the kernels


def by_kernel(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, problem: LayerProblem, wants_lse: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The output in transformers' layout, (batch, n, heads, dim), and the LSE (batch, heads, n)."""
    q, k, v = array_view(query), array_view(key), array_view(value)
    batch, heads, queries, _ = q.shape
    all_covered = covered(problem.parts, batch, queries)
    output = (torch.empty if all_covered else torch.zeros)((batch, queries, heads, v.shape[-1]), dtype=query.dtype)
    out, lse = array_view(output).transpose(0, 2, 1, 3), None
    if wants_lse:
        lse = np.full(q.shape[:-1], -np.inf, np.float64 if q.dtype == np.float64 else np.float32)
    sink = (
        None
        if problem.sink is None
        else array_view(problem.sink if problem.sink.dtype is query.dtype else problem.sink.float())
    )
    options: dict[str, Any] = {"sink": sink, "scale": problem.scale, "threads": min(torch.get_num_threads(), allowed())}
    for part in problem.parts:
        operands = q[part.batch, :, part.queries], k[part.batch, :, part.keys], v[part.batch, :, part.keys]
        mask, score = rules_for(problem, part)
        target = out[part.batch, :, part.queries]
        if lse is None:
            attention_arrays(*operands, mask=mask, score=score, out=target, **options)
        else:
            done = attend_arrays(*operands, mask=mask, score=score, out=target, **options)
            lse[part.batch, :, part.queries] = done.lse
    return output, None if lse is None else torch.from_numpy(lse)


def covered(parts: tuple[BatchPart, ...], batch: int, queries: int) -> bool:
    """Whether the parts cover all queries of all sequences."""
    sizes = (len(range(*part.batch.indices(batch))) * len(range(*part.queries.indices(queries))) for part in parts)
    return sum(sizes) == batch * queries


def rules_for(problem: LayerProblem, part: BatchPart) -> tuple[Mask, tuple[Score, ...]]:
    """A part's mask and score rules, in the model's order."""
    mask = part.mask if problem.hides is None else part.mask & dense(array_view(table_part(problem.hides, part)))
    capped: list[Score] = [] if problem.cap is None else [softcap(problem.cap)]
    return mask, (*capped, *(bias(array_view(table_part(table, part))) for table in problem.adds))


# By the operator


def by_operator(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, problem: LayerProblem
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and LSE by torch's operator, one group of sequences after another."""
    batch, at = query.shape[0], 0
    sizes: list[int] = []
    owners: list[list[BatchPart]] = []
    for (start, stop, _), group in groupby(problem.parts, lambda part: part.batch.indices(batch)):
        if start > at:
            sizes.append(start - at)
            owners.append([])
        sizes.append(stop - start)
        owners.append(list(group))
        at = stop
    if at < batch:
        sizes.append(batch - at)
        owners.append([])
    if len(sizes) == 1:
        return run_sequences(query, key, value, owners[0], problem)
    pieces = zip(query.split(sizes), key.split(sizes), value.split(sizes), owners, strict=True)
    outputs, sums = zip(*(run_sequences(q, k, v, owned, problem) for q, k, v, owned in pieces), strict=True)
    return torch.cat(outputs), torch.cat(sums)


def run_sequences(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, parts: Sequence[BatchPart], problem: LayerProblem
) -> tuple[torch.Tensor, torch.Tensor]:
    """A group of sequences: the outputs of its parts in order, and 0 for queries that are in no part."""
    batch, heads, queries, _ = query.shape
    outputs, sums, at = [], [], 0

    def skip(to: int) -> None:
        if to > at:
            outputs.append(value.new_zeros(batch, to - at, heads, value.shape[-1]))
            computed = torch.float64 if query.dtype is torch.float64 else torch.float32
            sums.append(query.new_full((batch, heads, to - at), -torch.inf, dtype=computed))

    for part in parts:
        start, stop, _ = part.queries.indices(queries)
        skip(start)
        rows = query if (start, stop) == (0, queries) else query[:, :, start:stop]
        output, lse = run_part(rows, key[:, :, part.keys], value[:, :, part.keys], part, problem)
        outputs.append(output.transpose(1, 2))
        sums.append(lse)
        at = stop
    skip(queries)
    return (outputs[0], sums[0]) if len(outputs) == 1 else (torch.cat(outputs, 1), torch.cat(sums, 2))


def run_part(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, part: BatchPart, problem: LayerProblem
) -> tuple[torch.Tensor, torch.Tensor]:
    """Call the operator for one part."""
    rule, tables = rule_for(problem, part)
    if problem.dropout:
        return attend_dropped(query, key, value, tables, problem.sink, rule, problem.scale, problem.dropout)
    return attend(query, key, value, tables, problem.sink, rule, problem.scale)


def rule_for(problem: LayerProblem, part: BatchPart) -> tuple[str, tuple[torch.Tensor, ...]]:
    """A part's mask and score rules as a name and tables."""
    tables = [table_part(table, part) for table in ((problem.hides,) if problem.hides is not None else ())]
    tables += [table_part(table, part) for table in problem.adds]
    axes = tuple("".join("1" if n == 1 else "n" for n in table.shape) for table in tables)
    name, arrays = named_rule(part.mask, problem.cap, axes, problem.hides is not None)
    return name, (*(torch.from_numpy(np.array(array)) for array in arrays), *tables)


def named_rule(mask: Mask, cap: float | None, axes: tuple[str, ...], hides: bool) -> tuple[str, tuple[Array, ...]]:
    """The name of a rule with tables of some axes, of which the first may hide; and the arrays before these."""
    signature = mask, cap, axes, hides
    try:
        return rule_names[signature], ()
    except (KeyError, TypeError):
        mask_rule, arrays = split_rules(mask, ())
    seen = None if mask_rule.seen is None else Formula(mask_rule.seen, arrays)
    if hides:
        table = Formula(table_element(axes[0], "bool"), PLACEHOLDER)
        seen = table if seen is None else seen.combine("and", table)
    rules = [] if cap is None else [softcap(cap).formula]
    for table_axes in axes[hides:]:
        total = Expression("add", "float", (Expression("score", "float"), table_element(table_axes, "float")))
        rules.append(Formula(total, PLACEHOLDER))
    score = reduce(lambda first, then: then.after(first), rules) if rules else None
    rule, _ = join_rule(mask_rule.masks, seen, score)
    if not arrays and len(rule_names) < MAX_RULE_NAMES:
        rule_names[signature] = rule.name
    return rule.name, arrays
