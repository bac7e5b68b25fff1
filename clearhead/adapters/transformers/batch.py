"""A batch of a model's layer, put together from calls over its parts.

Decides how what a layer asks becomes masks and rules for each part, and how the parts' outputs become one: written
where transformers wants them by the kernels, or joined by torch where something follows its operators.
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
from clearhead.adapters.torch.host import view
from clearhead.adapters.torch.operator import attend
from clearhead.adapters.torch.rule_names import divided, joined
from clearhead.adapters.torch.sdpa import loaded
from clearhead.adapters.transformers.mask import Part, Pattern
from clearhead.arrays import Array
from clearhead.functional import attend as attend_arrays
from clearhead.functional import attention as attention_arrays
from clearhead.machine.threads import allowed
from clearhead.rules.expression import Expression, Formula
from clearhead.rules.masks import Mask, dense
from clearhead.rules.scores import Score, bias, softcap

MOST_KNOWN = 256
SOME = (np.empty(0),)  # stands for a table that each call brings
known: dict[Any, str] = {}  # names of rules that hold no arrays


@dataclass(frozen=True, eq=False)
class Asked:
    """What is done to a layer's queries, keys and values; tables have four axes, those of one stand for all."""

    parts: tuple[Part, ...]
    pattern: Pattern | None  # what the parts are of, where the model asked clearhead for its mask
    hides: torch.Tensor | None  # True where a key is seen
    adds: tuple[torch.Tensor, ...]  # added to scores
    cap: float | None
    scale: float
    sink: torch.Tensor | None
    dropout: float

    @property
    def whole(self) -> Mask:
        """The parts' mask as one for the whole batch, without tables."""
        return self.parts[0].mask if self.pattern is None else self.pattern.whole

    def tensors(self, *operands: torch.Tensor) -> list[torch.Tensor]:
        """The operands and all that is not None here."""
        return [*operands, *self.adds, *(x for x in (self.hides, self.sink) if x is not None)]


def cut(table: torch.Tensor, part: Part) -> torch.Tensor:
    """A table's share in a part."""
    own = zip(table.shape, (part.batch, slice(None), part.queries, part.keys), strict=True)
    return table[tuple(slice(None) if size == 1 else place for size, place in own)]


# By the kernels


def by_kernel(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, asked: Asked, wants_lse: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The output as transformers wants it, (batch, n, heads, dim), written there; and the LSE (batch, heads, n)."""
    q, k, v = view(query), view(key), view(value)
    batch, heads, queries, _ = q.shape
    whole = covered(asked.parts, batch, queries)
    output = (torch.empty if whole else torch.zeros)((batch, queries, heads, v.shape[-1]), dtype=query.dtype)
    out, lse = view(output).transpose(0, 2, 1, 3), None
    if wants_lse:
        lse = np.full(q.shape[:-1], -np.inf, np.float64 if q.dtype == np.float64 else np.float32)
    sink = None if asked.sink is None else view(asked.sink if asked.sink.dtype is query.dtype else asked.sink.float())
    options: dict[str, Any] = {"sink": sink, "scale": asked.scale, "threads": min(torch.get_num_threads(), allowed())}
    for part in asked.parts:
        operands = q[part.batch, :, part.queries], k[part.batch, :, part.keys], v[part.batch, :, part.keys]
        mask, score = rules_for(asked, part)
        to = out[part.batch, :, part.queries]
        if lse is None:
            attention_arrays(*operands, mask=mask, score=score, out=to, **options)
        else:
            done = attend_arrays(*operands, mask=mask, score=score, out=to, **options)
            lse[part.batch, :, part.queries] = done.lse
    return output, None if lse is None else torch.from_numpy(lse)


def covered(parts: tuple[Part, ...], batch: int, queries: int) -> bool:
    """Whether each query of each sequence is in some part."""
    sizes = (len(range(*part.batch.indices(batch))) * len(range(*part.queries.indices(queries))) for part in parts)
    return sum(sizes) == batch * queries


def rules_for(asked: Asked, part: Part) -> tuple[Mask, tuple[Score, ...]]:
    """A part's mask and its score rules, in the model's order."""
    mask = part.mask if asked.hides is None else part.mask & dense(view(cut(asked.hides, part)))
    capped: list[Score] = [] if asked.cap is None else [softcap(asked.cap)]
    return mask, (*capped, *(bias(view(cut(table, part))) for table in asked.adds))


# By the operator


def by_operator(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, asked: Asked
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same by torch's operator, one run of sequences after the other."""
    batch, at = query.shape[0], 0
    sizes: list[int] = []
    owners: list[list[Part]] = []
    for (start, stop, _), own in groupby(asked.parts, lambda part: part.batch.indices(batch)):
        if start > at:
            sizes.append(start - at)
            owners.append([])
        sizes.append(stop - start)
        owners.append(list(own))
        at = stop
    if at < batch:
        sizes.append(batch - at)
        owners.append([])
    if len(sizes) == 1:
        return run_of(query, key, value, owners[0], asked)
    pieces = zip(query.split(sizes), key.split(sizes), value.split(sizes), owners, strict=True)
    outputs, sums = zip(*(run_of(q, k, v, own, asked) for q, k, v, own in pieces), strict=True)
    return torch.cat(outputs), torch.cat(sums)


def run_of(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, parts: Sequence[Part], asked: Asked
) -> tuple[torch.Tensor, torch.Tensor]:
    """Some sequences: their parts' queries behind each other, and 0 for those that no part has."""
    batch, heads, queries, _ = query.shape
    outputs, sums, at = [], [], 0

    def skip(to: int) -> None:
        if to > at:
            outputs.append(value.new_zeros(batch, to - at, heads, value.shape[-1]))
            wide = torch.float64 if query.dtype is torch.float64 else torch.float32
            sums.append(query.new_full((batch, heads, to - at), -torch.inf, dtype=wide))

    for part in parts:
        start, stop, _ = part.queries.indices(queries)
        skip(start)
        own = query if (start, stop) == (0, queries) else query[:, :, start:stop]
        output, lse = one(own, key[:, :, part.keys], value[:, :, part.keys], part, asked)
        outputs.append(output.transpose(1, 2))
        sums.append(lse)
        at = stop
    skip(queries)
    return (outputs[0], sums[0]) if len(outputs) == 1 else (torch.cat(outputs, 1), torch.cat(sums, 2))


def one(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, part: Part, asked: Asked
) -> tuple[torch.Tensor, torch.Tensor]:
    """One part's call."""
    rule, tables = rule_for(asked, part)
    if asked.dropout:
        return attend_dropped(query, key, value, tables, asked.sink, rule, asked.scale, asked.dropout)
    return attend(query, key, value, tables, asked.sink, rule, asked.scale)


def rule_for(asked: Asked, part: Part) -> tuple[str, tuple[torch.Tensor, ...]]:
    """A part's mask and score rules as a name and tables."""
    tables = [cut(table, part) for table in ((asked.hides,) if asked.hides is not None else ())]
    tables += [cut(table, part) for table in asked.adds]
    axes = tuple("".join("1" if n == 1 else "n" for n in table.shape) for table in tables)
    name, arrays = named(part.mask, asked.cap, axes, asked.hides is not None)
    return name, (*(torch.from_numpy(np.array(array)) for array in arrays), *tables)


def named(mask: Mask, cap: float | None, axes: tuple[str, ...], hides: bool) -> tuple[str, tuple[Array, ...]]:
    """The name of a rule with tables of some axes, the first of which perhaps hides; and the arrays before those."""
    about = mask, cap, axes, hides
    try:
        return known[about], ()
    except (KeyError, TypeError):
        own, arrays = divided(mask, ())
    seen = None if own.seen is None else Formula(own.seen, arrays)
    if hides:
        table = Formula(loaded(axes[0], "bool"), SOME)
        seen = table if seen is None else seen.combine("and", table)
    rules = [] if cap is None else [softcap(cap).formula]
    for own_axes in axes[hides:]:
        total = Expression("add", "float", (Expression("score", "float"), loaded(own_axes, "float")))
        rules.append(Formula(total, SOME))
    score = reduce(lambda first, then: then.after(first), rules) if rules else None
    rule, _ = joined(own.masks, seen, score)
    if not arrays and len(known) < MOST_KNOWN:
        known[about] = rule.name
    return rule.name, arrays
