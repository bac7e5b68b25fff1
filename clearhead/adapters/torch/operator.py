"""Attention of tensors for the rest of the adapter: by the operators, or around them where that means the same.

Rules come as a name and tables (`rule_names`). What an operator does is in `host`, its derivatives in `functional`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.autograd import forward_ad

import clearhead.adapters.torch.register  # noqa: F401  the operators must be known
from clearhead.adapters.torch import functional
from clearhead.adapters.torch.dispatch import called, followed, operator
from clearhead.adapters.torch.host import Pair
from clearhead.adapters.torch.reference import HALF_DTYPES
from clearhead.errors import InputError

AUTOCAST = (torch.float32, torch.float16, torch.bfloat16)  # what autocast makes narrow

OWN = torch.nn.functional.scaled_dot_product_attention


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    tables: Sequence[torch.Tensor],
    sink: torch.Tensor | None,
    rule: str,
    scale: float,
) -> Pair:
    """Output and LSE.

    The operator's output has the LSE's dtype and is rounded here, so that gradients are found from what it was before.
    Autocast makes operands narrow, as for torch's own attention. A sink of 16 bits joins scores of 32.
    """
    check_ranks()
    query, key, value = narrowed(query, key, value)
    if sink is not None and sink.dtype in HALF_DTYPES:
        sink = sink.float()
    output, lse = unrounded(query, key, value, list(tables), sink, rule, scale)
    return (output if output.dtype is query.dtype else output.to(query.dtype)), lse


def check_ranks() -> None:
    """Raise InputError inside torch's `context_parallel`, which gives each rank a piece of the sequence."""
    there = torch.nn.functional.scaled_dot_product_attention
    if there is not OWN and str(there.__module__).startswith("torch.distributed"):
        raise InputError(
            "inside torch's context_parallel this rank has a piece of the sequence, and would attend to that alone: "
            "call torch.nn.functional.scaled_dot_product_attention there (transformers: attn_implementation='sdpa')."
        )


def narrowed(*operands: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What autocast makes of operands."""
    if not torch.is_autocast_enabled("cpu"):
        return operands
    dtype = torch.get_autocast_dtype("cpu")
    return tuple(x.to(dtype) if x.dtype in AUTOCAST else x for x in operands)


def unrounded(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    tables: list[torch.Tensor],
    sink: torch.Tensor | None,
    rule: str,
    scale: float,
) -> Pair:
    """Output and LSE by the cheapest way: where nothing follows operators, an autograd function costs less."""
    if followed():
        return operator(query, key, value, tables, sink, rule, scale)  # type: ignore[no-any-return]
    gradients = torch.is_grad_enabled() and torch._C._any_requires_grad(query, key, value, tables, sink)
    if gradients or forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active():
        return functional.Forward.apply(rule, scale, query, key, value, sink, *tables)  # type: ignore[no-any-return]
    return called(query, key, value, tables, sink, rule, scale)
