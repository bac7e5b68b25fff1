"""flash-attention's rotary position embeddings, under its names, on the CPU and with gradients.

Responsible for the position of each item in its sequence; the tables hold the rotation of each pair of dims per
position, applied in float32 or wider. Source: Su et al. 2021.
"""

from __future__ import annotations

from typing import Any

import torch

from clearhead.adapters.torch.arguments import check_axes, check_tensors
from clearhead.errors import InputError, ShapeError


def rotate_at(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, at: torch.Tensor, interleaved: bool
) -> torch.Tensor:
    """Rotate x (…, n, heads, dim) by its positions `at` (…, n), with tables (positions, half of the rotated dims)."""
    check_tensors(cos=cos, sin=sin)
    last = max(at.flatten().tolist(), default=0)
    if cos.shape != sin.shape or cos.dim() != 2 or 2 * cos.shape[-1] > x.shape[-1] or last >= len(cos):
        shapes = f"{tuple(cos.shape)} and {tuple(sin.shape)}"
        raise ShapeError(f"rotary tables of shapes {shapes}: give ({last + 1} or more, {x.shape[-1] // 2} or fewer).")
    return apply_rotary_emb_torch(x, cos[at], sin[at], interleaved)


def apply_rotary_emb_torch(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool = False
) -> torch.Tensor:
    """Rotate x (…, n, heads, dim) with tables (…, n, half of the rotated dims), one row per item."""
    c, s = (table[..., None, :].to(torch.promote_types(x.dtype, torch.float32)) for table in (cos, sin))
    turning = x[..., : 2 * cos.shape[-1]]
    a, b = (turning[..., ::2], turning[..., 1::2]) if interleaved else turning.chunk(2, -1)
    pair = a * c - b * s, a * s + b * c
    rotated = torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)
    return torch.cat([rotated.to(x.dtype), x[..., 2 * cos.shape[-1] :]], -1)


def apply_rotary_emb(
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    interleaved: bool = False,
    inplace: bool = False,
    seqlen_offsets: int | torch.Tensor = 0,
    cu_seqlens: torch.Tensor | None = None,
    max_seqlen: int | None = None,
) -> torch.Tensor:
    """flash-attention's `apply_rotary_emb`: x (batch, n, heads, dim), or packed (all items, heads, dim), rotated.

    `cos` and `sin` (positions, half of the rotated dims); `interleaved` pairs neighbouring dims (GPT-J) rather than
    both halves (GPT-NeoX); `seqlen_offsets` is the first position of each sequence, `cu_seqlens` (sequences + 1,) the
    borders of packed ones. `inplace` writes into x. `max_seqlen` is not needed. Raises ShapeError.

    >>> x, angle = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2), torch.tensor([[0.0], [torch.pi / 2]])
    >>> apply_rotary_emb(x, angle.cos(), angle.sin(), seqlen_offsets=1).round(decimals=3).abs().flatten()
    tensor([0., 1.])
    """
    rotated = rotate_at(x, cos, sin, item_positions(x, seqlen_offsets, cu_seqlens), interleaved)
    return x.copy_(rotated) if inplace else rotated


def item_positions(x: torch.Tensor, offsets: int | torch.Tensor, cu_seqlens: torch.Tensor | None) -> torch.Tensor:
    """The position of each item in its sequence."""
    check_tensors(x=x)
    if cu_seqlens is None:
        if x.dim() != 4:
            raise ShapeError(f"x of shape {tuple(x.shape)} is not (batch, length, heads, dim): give cu_seqlens too.")
        first = first_positions(offsets, x.shape[0], x)
        return first[:, None] + torch.arange(x.shape[1], device=x.device)
    check_axes("(sequences + 1)", cu_seqlens=cu_seqlens)
    borders = cu_seqlens.tolist()
    if x.dim() != 3 or borders != sorted(borders) or borders[:1] != [0] or borders[-1] != x.shape[0]:
        raise ShapeError(
            f"x of shape {tuple(x.shape)} and cu_seqlens {borders}: give x (all items, heads, dim), and borders that "
            "rise from 0 to the number of items."
        )
    counts = cu_seqlens.diff().long()
    first = first_positions(offsets, len(counts), x) - cu_seqlens[:-1]
    return torch.arange(x.shape[0], device=x.device) + first.repeat_interleave(counts)


def first_positions(offsets: int | torch.Tensor, count: int, x: torch.Tensor) -> torch.Tensor:
    """The first position of each of `count` sequences."""
    valid = isinstance(offsets, int | torch.Tensor)
    tensor = torch.as_tensor(offsets if valid else 0.5, device=x.device)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.shape not in ((), (1,), (count,)):
        raise ShapeError(f"seqlen_offsets={offsets!r}: give one integer, or a tensor of ({count},).")
    return tensor.expand(count).long()


apply_rotary_emb_func = apply_rotary_emb


def rotate_half(x: torch.Tensor, interleaved: bool = False) -> torch.Tensor:
    """Rotate each pair of dims by 90 degrees.

    >>> rotate_half(torch.tensor([1.0, 2.0]))
    tensor([-2.,  1.])
    """
    a, b = (x[..., ::2], x[..., 1::2]) if interleaved else x.chunk(2, -1)
    return torch.stack((-b, a), -1).flatten(-2) if interleaved else torch.cat((-b, a), -1)


def apply_rotary_emb_qkv_(
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    cos_k: torch.Tensor | None = None,
    sin_k: torch.Tensor | None = None,
    interleaved: bool = False,
    seqlen_offsets: int | torch.Tensor = 0,
    num_heads_q: int | None = None,
) -> torch.Tensor:
    """Rotate q and k of qkv (batch, n, 3, heads, dim) or (batch, n, all heads, dim) in position, as flash-attention."""
    if qkv.dim() == 5:
        q, k = qkv[:, :, 0], qkv[:, :, 1]
    elif num_heads_q is None:
        raise InputError(f"qkv of shape {tuple(qkv.shape)} has heads of q, k and v together: give num_heads_q.")
    else:
        q, k = qkv[:, :, :num_heads_q], qkv[:, :, num_heads_q : (qkv.shape[2] + num_heads_q) // 2]
    at = item_positions(q, seqlen_offsets, None)
    q.copy_(rotate_at(q, cos, sin, at, interleaved))
    k.copy_(rotate_at(k, cos if cos_k is None else cos_k, sin if sin_k is None else sin_k, at, interleaved))
    return qkv


def apply_rotary_emb_kv_(
    kv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    interleaved: bool = False,
    seqlen_offsets: int | torch.Tensor = 0,
) -> torch.Tensor:
    """Rotate k of kv (batch, n, 2, heads, dim) in position, as flash-attention."""
    k = kv[:, :, 0]
    k.copy_(rotate_at(k, cos, sin, item_positions(k, seqlen_offsets, None), interleaved))
    return kv


class RotaryEmbedding(torch.nn.Module):
    """flash-attention's `RotaryEmbedding`: rotates queries and keys by their positions, in position.

    Rotates `dim` dims of each head, pair n by position · base^(−2n / dim); `scale_base` also scales lengths (XPos,
    Sun et al. 2022).

    >>> turn = RotaryEmbedding(4)
    >>> turn(torch.ones(1, 3, 3, 2, 8)).shape
    torch.Size([1, 3, 3, 2, 8])
    """

    def __init__(
        self,
        dim: int,
        base: float = 10000.0,
        interleaved: bool = False,
        scale_base: float | None = None,
        device: Any = None,
    ) -> None:
        super().__init__()
        self.dim, self.base, self.interleaved, self.scale_base = dim, float(base), interleaved, scale_base
        pairs = torch.arange(0, dim, 2, device=device, dtype=torch.float32)
        self.register_buffer("inv_freq", self.base ** (-pairs / dim), persistent=False)
        scale = None if scale_base is None else (pairs + 0.4 * dim) / (1.4 * dim)
        self.register_buffer("scale", scale, persistent=False)

    def tables(self, length: int, like: torch.Tensor) -> list[torch.Tensor]:
        """Cosines and sines for `length` positions: for queries, then for keys."""
        pairs = torch.arange(
            0, self.dim, 2, device=like.device, dtype=torch.float32
        )  # float32 for any dtype of buffers
        position = torch.arange(length, device=like.device, dtype=torch.float32)
        angle = torch.outer(position, self.base ** (-pairs / self.dim))
        cos, sin, size = angle.cos(), angle.sin(), torch.ones((), device=like.device)
        if self.scale_base is not None:
            size = ((pairs + 0.4 * self.dim) / (1.4 * self.dim)) ** ((position - length // 2) / self.scale_base)[
                :, None
            ]
        return [x.to(like.dtype) for x in (cos * size, sin * size, cos / size, sin / size)]

    def forward(
        self,
        qkv: torch.Tensor,
        kv: torch.Tensor | None = None,
        seqlen_offset: int | torch.Tensor = 0,
        max_seqlen: int | None = None,
        num_heads_q: int | None = None,
    ) -> Any:
        """Rotate qkv (batch, n, 3, heads, dim), or q (batch, n, heads, dim) and kv (batch, n, 2, heads, dim)."""
        last = int(torch.as_tensor(seqlen_offset).max())
        length = qkv.shape[1] + last if max_seqlen is None else max_seqlen
        cos, sin, cos_k, sin_k = self.tables(length, qkv)
        if kv is None:
            return apply_rotary_emb_qkv_(qkv, cos, sin, cos_k, sin_k, self.interleaved, seqlen_offset, num_heads_q)
        q = apply_rotary_emb(qkv, cos, sin, self.interleaved, True, seqlen_offset)
        return q, apply_rotary_emb_kv_(kv, cos_k, sin_k, self.interleaved, seqlen_offset)
