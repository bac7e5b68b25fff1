"""An output that torch treats as computed from its weights, which gives a loss a gradient by them.

The kernels still compute both passes. The gradient by the weights is a lazy tensor, d_output · vᵀ; unless it is read or
changed, the gradients by queries and keys come from the backward kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from clearhead.adapters.torch.weights import by_weights, lazy_gradient


class Weighed(torch.autograd.Function):
    """weights @ value, computed by another function."""

    @staticmethod
    def forward(
        ctx: Any, compute: Callable[..., torch.Tensor], weights: torch.Tensor, value: torch.Tensor, *operands: Any
    ) -> torch.Tensor:
        """Return `compute(value, *operands)`, (…, queries, value_dim)."""
        ctx.save_for_backward(weights, value)
        ctx.leaves = [x if x is None else x.detach().requires_grad_(x.requires_grad) for x in (value, *operands)]
        with torch.enable_grad():
            output = ctx.output = compute(*ctx.leaves)
        return output.detach()

    @staticmethod
    def backward(ctx: Any, d_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients by weights and value; the operands get theirs through the weights."""
        weights, value = ctx.saved_tensors
        others = (None,) * (len(ctx.leaves) - 1)
        if torch.is_grad_enabled():  # to be differentiated again
            d_value = weights.mT @ d_output
            group = d_output.shape[-3] // value.shape[-3]
            d_value = d_value.unflatten(-3, (-1, group)).sum(-3) if group > 1 else d_value
            return None, by_weights(d_output, value), d_value, *others
        wanted = [n for n, x in enumerate(ctx.leaves) if x is not None and x.requires_grad]
        leaves = [ctx.leaves[n] for n in wanted]
        gradients = torch.autograd.grad(ctx.output, leaves, d_output, retain_graph=True, allow_unused=True)
        by_number = dict(zip(wanted, gradients, strict=True))
        d_value, *d_operands = (by_number.get(n) for n in range(len(ctx.leaves)))
        return None, lazy_gradient((d_output, value.detach()), d_operands), d_value, *others
