"""The operator as autograd functions: torch.func's transforms need them, and in eager mode they cost less.

Decides nothing of its own: shapes of calls differ, what is done is `torch_operator`'s.
"""

from __future__ import annotations

from typing import Any

import torch

from clearhead.adapters import torch_operator as plain


def arranged(operands: tuple[Any, ...]) -> tuple[Any, ...]:
    """The operator's arguments from (…, q, k, v, sink, rule, scale, *tables)."""
    *first, sink, rule, scale = operands[: len(operands) - operands[-1] - 1]
    tables = list(operands[len(operands) - operands[-1] - 1 : -1])
    return *first, tables, sink, rule, scale


def flat(operands: tuple[Any, ...]) -> tuple[Any, ...]:
    """The other way round: tables last, and then their number."""
    *first, tables, sink, rule, scale = operands
    return *first, sink, rule, scale, *tables, len(tables)


class Forward(torch.autograd.Function):  # type: ignore[misc]
    """Output and LSE."""

    @staticmethod
    def forward(*operands: Any) -> Any:
        """By the operator."""
        return plain.operator(*arranged(operands))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep what the gradient needs."""
        plain.remember(ctx, arranged(inputs), output)

    @staticmethod
    def backward(ctx: Any, *d_outputs: torch.Tensor) -> tuple[Any, ...]:
        """By the operator's own gradient."""
        found = plain.differentiate(ctx, *d_outputs)
        return *flat(found)[:-1], None

    @staticmethod
    def vmap(info: Any, dims: tuple[Any, ...], *operands: Any) -> Any:
        """By the operator's own rule."""
        return plain.batched(info, arranged((*dims[:-1], operands[-1])), *arranged(operands))


class Backward(torch.autograd.Function):  # type: ignore[misc]
    """Gradients of the operands."""

    @staticmethod
    def forward(*operands: Any) -> Any:
        """By the operator."""
        return tuple(plain.backward_operator(*arranged(operands)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep what the second derivative needs."""
        plain.remember_backward(ctx, arranged(inputs), output)

    @staticmethod
    def backward(ctx: Any, *d_gradients: torch.Tensor) -> tuple[Any, ...]:
        """By the formula."""
        found = plain.differentiate_again(ctx, list(d_gradients))
        return *flat(found)[:-1], None

    @staticmethod
    def vmap(info: Any, dims: tuple[Any, ...], *operands: Any) -> Any:
        """By the operator's own rule."""
        found, places = plain.batched_backward(info, arranged((*dims[:-1], operands[-1])), *arranged(operands))
        return tuple(found), tuple(places)


def forward(*operands: Any) -> Any:
    """Output and LSE, differentiable."""
    return Forward.apply(*flat(operands))


def backward(*operands: Any) -> Any:
    """Gradients, differentiable."""
    return Backward.apply(*flat(operands))
