"""vmap rules for the operators: one call for the full batch where that is equivalent, else one call per element.

Responsible for merging the mapped axis into the leading axes. A rule is made from `one`, which calls the operator or
its autograd function, and takes torch's (info, mapped axes, *operands).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from clearhead.adapters.torch.rule_names import rule_named

Call = Callable[..., Any]


def together(one: Call) -> Call:
    """One call for the batch, unless tables or sink are mapped, or the rule reads the batch index."""
    alone = one_by_one(one)

    def rule(info: Any, dims: Sequence[Any], *operands: Any) -> tuple[Any, Any]:
        query, key, value, tables, sink, name, scale = operands
        if "batch" in rule_named(name).leaves or any(d is not None for d in (*(dims[3] or ()), dims[4])):
            return alone(info, dims, *operands)  # type: ignore[no-any-return]
        x = list(zip((query, key, value), dims, strict=False))
        rank = max(own.dim() - (d is not None) for own, d in x)
        q, k, v = (leading(own, d, rank) for own, d in x)
        if rank > 2:
            return one(q, k, v, tables, sink, name, scale), (0, 0)
        q, k, v = (own.unsqueeze(1) for own in (q, k, v))  # separate heads, or they would share keys
        output, lse = one(q, k, v, tables, sink, name, scale)
        return (output.squeeze(1), lse.squeeze(1)), (0, 0)

    return rule


def leading(x: torch.Tensor, dim: int | None, rank: int) -> torch.Tensor:
    """Move the mapped axis in front of `rank` others."""
    x = x.unsqueeze(0) if dim is None else x.movedim(dim, 0)
    return x.reshape(x.shape[0], *[1] * (rank + 1 - x.dim()), *x.shape[1:])


def one_by_one(one: Call) -> Call:
    """One call per element; shared operands get one gradient per element."""

    def rule(info: Any, dims: Sequence[Any], *operands: Any) -> tuple[Any, Any]:
        parts = [one(*(part(x, dim, n) for x, dim in zip(operands, dims, strict=True))) for n in range(info.batch_size)]
        stacked = [torch.stack(each) for each in zip(*parts, strict=True)]
        return (stacked, [0] * len(stacked)) if isinstance(parts[0], list) else (tuple(stacked), (0,) * len(stacked))

    return rule


def part(x: Any, dim: Any, n: int) -> Any:
    """One element of a batched tensor, or of each tensor in a list."""
    if isinstance(x, list):
        return [part(y, d, n) for y, d in zip(x, dim or [None] * len(x), strict=True)]
    return x if dim is None else x.select(dim, n)
