"""Attention of tensors for the rest of the adapter: through the operators, or past them where that is equivalent.

Rules are a name and tables (`rule_names`). `host` implements the operators, `functional` their derivatives.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.autograd import forward_ad

import clearhead.adapters.torch.register  # noqa: F401  registers the operators
from clearhead.adapters.torch import functional
from clearhead.adapters.torch.card import wants_gradients
from clearhead.adapters.torch.dispatch import call_forward, needs_operators, operator
from clearhead.adapters.torch.host import Pair
from clearhead.adapters.torch.reference import HALF_DTYPES
from clearhead.errors import InputError

AUTOCAST = (torch.float32, torch.float16, torch.bfloat16)  # dtypes that autocast converts

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

    The operator's output has the LSE's dtype and is rounded here, since gradients need the unrounded one. Autocast
    converts operands as for torch's own attention. A 16-bit sink is converted to float32, like the scores.
    """
    check_ranks()
    query, key, value = autocast_operands(query, key, value, device="cuda" if query.is_cuda else "cpu")
    if sink is not None and sink.dtype in HALF_DTYPES:
        sink = sink.float()
    output, lse = attend_unrounded(query, key, value, list(tables), sink, rule, scale)
    return (output if output.dtype is query.dtype else output.to(query.dtype)), lse


def check_ranks() -> None:
    """Raise InputError inside torch's `context_parallel`, where each rank has only a part of the sequence."""
    current = torch.nn.functional.scaled_dot_product_attention
    if current is not OWN and str(current.__module__).startswith("torch.distributed"):
        raise InputError(
            "inside torch's context_parallel this rank has only a part of the sequence to attend to: "
            "call torch.nn.functional.scaled_dot_product_attention there (transformers: attn_implementation='sdpa'), "
            "or leave it and call clearhead.adapters.torch.distributed.sharded_attention."
        )


def autocast_operands(*operands: torch.Tensor, device: str = "cpu") -> tuple[torch.Tensor, ...]:
    """Operands in autocast's dtype for a device, if autocast is enabled there."""
    if not torch.is_autocast_enabled(device):
        return operands
    dtype = torch.get_autocast_dtype(device)
    return tuple(x.to(dtype) if x.dtype in AUTOCAST else x for x in operands)


def attend_unrounded(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    tables: list[torch.Tensor],
    sink: torch.Tensor | None,
    rule: str,
    scale: float,
) -> Pair:
    """Output and LSE by the cheapest route: if nothing needs operators, an autograd function costs less."""
    if needs_operators():
        return operator(query, key, value, tables, sink, rule, scale)  # type: ignore[no-any-return]
    gradients = wants_gradients(query, key, value, tables, sink)
    if gradients or forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active():
        return functional.ForwardFunction.apply(rule, scale, query, key, value, sink, *tables)  # type: ignore[no-any-return]
    return call_forward(query, key, value, tables, sink, rule, scale)
