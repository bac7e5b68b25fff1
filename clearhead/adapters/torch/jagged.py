"""Nested tensors: sequences of different lengths behind each other, as torch's jagged layout keeps them.

Decides how they become packed documents, each of which is computed as it would be alone, without padding.
"""

from __future__ import annotations

from typing import Any

import torch

from clearhead.adapters.torch.dropout import attend_dropped
from clearhead.adapters.torch.operator import attend
from clearhead.adapters.torch.rule_names import divided
from clearhead.rules.masks import Causal, Full, Mask, Window, conjunction, documents


def mask_over(mask: Mask, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> Mask | None:
    """A mask of each sequence alone; None if there is none, or if these are no sequences of the same batch.

    Tensors are (sequences, heads, their items, dim) with nothing left out in between.
    """
    tensors: tuple[Any, ...] = (query, key, value)  # nested ones have members that torch's types do not name
    for x in tensors:
        if not x.is_nested or x.layout is not torch.jagged or x.dim() != 4 or x._ragged_idx != 2:
            return None
        if x.lengths() is not None or not x.is_cpu:
            return None
    queries, keys, values = (tuple(x.offsets().diff().tolist()) for x in tensors)
    factors = list(conjunction(mask))
    if len(queries) != len(keys) or keys != values or not all(isinstance(x, Causal | Window | Full) for x in factors):
        return None
    if queries != keys and any(isinstance(x, Causal | Window) and x.align != "end" for x in factors):
        return None  # documents align with their ends
    return documents(keys, queries=queries) & mask


def attend_jagged(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Mask, scale: float, dropout_p: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and LSE, nested as the queries are; `mask` is what `mask_over` gave."""
    q, k, v = (x.transpose(1, 2).values().transpose(0, 1)[None] for x in (query, key, value))
    rule = divided(mask, ())[0].name
    if dropout_p:
        output, lse = attend_dropped(q, k, v, (), None, rule, scale, dropout_p)
    else:
        output, lse = attend(q, k, v, (), None, rule, scale)
    packed = output[0].transpose(0, 1), lse[0].transpose(0, 1)
    offsets = query.offsets()  # type: ignore[attr-defined]
    nested = [torch.nested.nested_tensor_from_jagged(x, offsets).transpose(1, 2) for x in packed]
    return nested[0], nested[1]
