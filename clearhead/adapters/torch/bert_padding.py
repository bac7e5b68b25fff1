"""Remove padding from a batch and put it back, under flash-attention's names, for use with its packed functions.

Responsible for which items of (batch, length, …) are kept, in which order, and for the borders of their sequences.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch.nn import functional

from clearhead.adapters.torch.arguments import check_tensors
from clearhead.errors import ShapeError

Packed = tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]


def index_first_axis(x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Select items (all, …) by index.

    >>> index_first_axis(torch.arange(6.0).reshape(3, 2), torch.tensor([2, 0]))
    tensor([[4., 5.],
            [0., 1.]])
    """
    return x[indices]


def index_put_first_axis(values: torch.Tensor, indices: torch.Tensor, first_axis_dim: int) -> torch.Tensor:
    """Zeros of shape (`first_axis_dim`, …) with values at the given indices."""
    return values.new_zeros((first_axis_dim, *values.shape[1:])).index_put((indices,), values)


def index_first_axis_residual(x: torch.Tensor, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The selected items, and all items."""
    return x[indices], x


def unpad_input(
    hidden_states: torch.Tensor, attention_mask: torch.Tensor, unused_mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int, torch.Tensor]:
    """The items of (batch, length, …) that a mask (batch, length) keeps: 1 or True is a token.

    Returns them packed (all tokens, …), their indices in the flattened batch, the borders of sequences (batch + 1,),
    the length of the longest, and the number of used items in each: items of `unused_mask` are packed but not used.

    >>> x = torch.arange(6.0).reshape(2, 3, 1)
    >>> packed, indices, borders, longest, used = unpad_input(x, torch.tensor([[1, 1, 0], [0, 0, 1]]))
    >>> packed.flatten(), borders, longest, used
    (tensor([0., 1., 5.]), tensor([0, 2, 3], dtype=torch.int32), 2, tensor([2, 1], dtype=torch.int32))
    """
    check_mask(hidden_states, attention_mask)
    every = attention_mask if unused_mask is None else attention_mask + unused_mask
    packed, indices, borders, longest = gathered(hidden_states, every.bool(), every.sum(-1, dtype=torch.int32))
    return packed, indices, borders, longest, attention_mask.sum(-1, dtype=torch.int32)


def unpad_input_for_concatenated_sequences(
    hidden_states: torch.Tensor, attention_mask_in_length: torch.Tensor
) -> Packed:
    """Like `unpad_input`, for rows of several sequences; a mask row holds their lengths, then zeros."""
    check_mask(hidden_states, attention_mask_in_length)
    counts = attention_mask_in_length.sum(-1, keepdim=True)
    kept = torch.arange(attention_mask_in_length.shape[-1], device=counts.device) < counts
    return gathered(hidden_states, kept, attention_mask_in_length[attention_mask_in_length != 0])


def check_mask(x: torch.Tensor, mask: torch.Tensor) -> None:
    """Raise ShapeError for a mask that does not have one number per item."""
    check_tensors(hidden_states=x, attention_mask=mask)
    if mask.dim() != 2 or x.dim() < 2 or x.shape[:2] != mask.shape:
        shapes = f"{tuple(x.shape)} and a mask of shape {tuple(mask.shape)}"
        raise ShapeError(f"items of shape {shapes}: give (batch, length, ...) and (batch, length).")


def gathered(x: torch.Tensor, kept: torch.Tensor, lengths: torch.Tensor) -> Packed:
    """The kept items, their indices, the borders of sequences and the longest length."""
    indices = kept.flatten().nonzero().flatten()
    borders = functional.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
    return index_first_axis(x.flatten(0, 1), indices), indices, borders, int(lengths.max()) if len(lengths) else 0


def pad_input(hidden_states: torch.Tensor, indices: torch.Tensor, batch: int, seqlen: int) -> torch.Tensor:
    """Put packed items (all tokens, …) back, (batch, length, …); the rest is 0.

    >>> pad_input(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 3]), 2, 2)[..., 0]
    tensor([[1., 0.],
            [0., 2.]])
    """
    padded: torch.Tensor = index_put_first_axis(hidden_states, indices, batch * seqlen).unflatten(0, (batch, seqlen))
    return padded


def __getattr__(name: str) -> Any:
    """`rearrange` and `repeat` from einops, which many programs import from here."""
    if name not in ("rearrange", "repeat"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("einops"), name)
