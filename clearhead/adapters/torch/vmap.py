"""What vmap does with the operators: one call for a whole batch where that means the same, else one by one.

Decides how the mapped axis joins the leading axes. A rule here is made of `one`, which calls the operator or the
function that stands for it, and takes torch's (info, mapped axes, *operands).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from clearhead.adapters.torch.rule_names import rule_named

Call = Callable[..., Any]


def together(one: Call) -> Call:
    """Attention of a batch at once: the axis leads q, k and v, unless rules have it, or tell batches apart."""
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
        q, k, v = (own.unsqueeze(1) for own in (q, k, v))  # heads of their own, or they would share keys
        output, lse = one(q, k, v, tables, sink, name, scale)
        return (output.squeeze(1), lse.squeeze(1)), (0, 0)

    return rule


def leading(x: torch.Tensor, dim: int | None, rank: int) -> torch.Tensor:
    """The mapped axis in front of `rank` others."""
    x = x.unsqueeze(0) if dim is None else x.movedim(dim, 0)
    return x.reshape(x.shape[0], *[1] * (rank + 1 - x.dim()), *x.shape[1:])


def one_by_one(one: Call) -> Call:
    """A call for each: what is shared has a gradient for each."""

    def rule(info: Any, dims: Sequence[Any], *operands: Any) -> tuple[Any, Any]:
        parts = [one(*(part(x, dim, n) for x, dim in zip(operands, dims, strict=True))) for n in range(info.batch_size)]
        found = [torch.stack(each) for each in zip(*parts, strict=True)]
        return (found, [0] * len(found)) if isinstance(parts[0], list) else (tuple(found), (0,) * len(found))

    return rule


def part(x: Any, dim: Any, n: int) -> Any:
    """One of a batch, of a tensor or of each in a list."""
    if isinstance(x, list):
        return [part(y, d, n) for y, d in zip(x, dim or [None] * len(x), strict=True)]
    return x if dim is None else x.select(dim, n)
