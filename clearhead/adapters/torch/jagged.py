"""Nested tensors in torch's jagged layout: concatenated sequences of different lengths.

Responsible for turning them into packed documents, which need no padding and have the same bits as alone.
"""

from __future__ import annotations

from typing import Any

import torch

from clearhead.adapters.torch.dropout import attend_dropped
from clearhead.adapters.torch.operator import attend
from clearhead.adapters.torch.rule_names import split_rules
from clearhead.rules.mask_kinds import Causal, Full, Mask, Window, conjunction
from clearhead.rules.masks import documents


def mask_over(mask: Mask, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> Mask | None:
    """A mask that separates the sequences; None if that is impossible, or if the tensors have different batches.

    Tensors are (sequences, heads, items, dim) without gaps.
    """
    tensors: tuple[Any, ...] = (query, key, value)  # torch's type stubs lack members of nested tensors
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
        return None  # documents are aligned with their ends
    return documents(keys, queries=queries) & mask


def attend_jagged(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Mask, scale: float, dropout_p: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and LSE, nested like the queries; `mask` comes from `mask_over`."""
    q, k, v = (x.transpose(1, 2).values().transpose(0, 1)[None] for x in (query, key, value))
    rule = split_rules(mask, ())[0].name
    if dropout_p:
        output, lse = attend_dropped(q, k, v, (), None, rule, scale, dropout_p)
    else:
        output, lse = attend(q, k, v, (), None, rule, scale)
    packed = output[0].transpose(0, 1), lse[0].transpose(0, 1)
    offsets = query.offsets()  # type: ignore[attr-defined]
    nested = [torch.nested.nested_tensor_from_jagged(x, offsets).transpose(1, 2) for x in packed]
    return nested[0], nested[1]
