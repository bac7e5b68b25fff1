"""flash-attention's rotary position embeddings, under its names and on any processor, gradients included.

Decides which place in a sequence each item has; a pair of dims turns by its place in the tables' own way, in float32 at
least. Source: Su et al. 2021.
"""

from __future__ import annotations

from typing import Any

import torch

from clearhead.adapters.torch.arguments import check_axes, check_tensors
from clearhead.errors import InputError, ShapeError


def turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, at: torch.Tensor, interleaved: bool) -> torch.Tensor:
    """x (…, n, heads, dim) turned by its places `at` (…, n) in tables (places, half of what is turned)."""
    check_tensors(cos=cos, sin=sin)
    last = max(at.flatten().tolist(), default=0)
    if cos.shape != sin.shape or cos.dim() != 2 or 2 * cos.shape[-1] > x.shape[-1] or last >= len(cos):
        shapes = f"{tuple(cos.shape)} and {tuple(sin.shape)}"
        raise ShapeError(f"rotary tables of shapes {shapes}: give ({last + 1} or more, {x.shape[-1] // 2} or fewer).")
    return apply_rotary_emb_torch(x, cos[at], sin[at], interleaved)


def apply_rotary_emb_torch(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool = False
) -> torch.Tensor:
    """x (…, n, heads, dim) turned by tables (…, n, half of what is turned), a row for each item."""
    c, s = (table[..., None, :].to(torch.promote_types(x.dtype, torch.float32)) for table in (cos, sin))
    turning = x[..., : 2 * cos.shape[-1]]
    a, b = (turning[..., ::2], turning[..., 1::2]) if interleaved else turning.chunk(2, -1)
    pair = a * c - b * s, a * s + b * c
    found = torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)
    return torch.cat([found.to(x.dtype), x[..., 2 * cos.shape[-1] :]], -1)


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
    """flash-attention's `apply_rotary_emb`: x (batch, n, heads, dim), or packed (all items, heads, dim), turned.

    `cos` and `sin` (positions, half of what is turned); `interleaved` turns neighbouring dims (GPT-J) rather than both
    halves (GPT-NeoX); `seqlen_offsets` is where each sequence begins, `cu_seqlens` (sequences + 1,) where packed ones
    do. `inplace` writes into x. `max_seqlen` is not needed. Raises ShapeError.

    >>> x, angle = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2), torch.tensor([[0.0], [torch.pi / 2]])
    >>> apply_rotary_emb(x, angle.cos(), angle.sin(), seqlen_offsets=1).round(decimals=3).abs().flatten()
    tensor([0., 1.])
    """
    found = turned(x, cos, sin, places(x, seqlen_offsets, cu_seqlens), interleaved)
    return x.copy_(found) if inplace else found


def places(x: torch.Tensor, offsets: int | torch.Tensor, cu_seqlens: torch.Tensor | None) -> torch.Tensor:
    """Each item's place in its sequence."""
    check_tensors(x=x)
    if cu_seqlens is None:
        if x.dim() != 4:
            raise ShapeError(f"x of shape {tuple(x.shape)} is not (batch, length, heads, dim): give cu_seqlens too.")
        first = firsts(offsets, x.shape[0], x)
        return first[:, None] + torch.arange(x.shape[1], device=x.device)
    check_axes("(sequences + 1)", cu_seqlens=cu_seqlens)
    borders = cu_seqlens.tolist()
    if x.dim() != 3 or borders != sorted(borders) or borders[:1] != [0] or borders[-1] != x.shape[0]:
        raise ShapeError(
            f"x of shape {tuple(x.shape)} and cu_seqlens {borders}: give x (all items, heads, dim), and numbers that "
            "rise from 0 to all items."
        )
    counts = cu_seqlens.diff().long()
    first = firsts(offsets, len(counts), x) - cu_seqlens[:-1]
    return torch.arange(x.shape[0], device=x.device) + first.repeat_interleave(counts)


def firsts(offsets: int | torch.Tensor, count: int, x: torch.Tensor) -> torch.Tensor:
    """Where each of `count` sequences begins."""
    known = isinstance(offsets, int | torch.Tensor)
    given = torch.as_tensor(offsets if known else 0.5, device=x.device)
    if given.is_floating_point() or given.is_complex() or given.shape not in ((), (1,), (count,)):
        raise ShapeError(f"seqlen_offsets={offsets!r}: give one whole number, or a tensor of ({count},).")
    return given.expand(count).long()


apply_rotary_emb_func = apply_rotary_emb


def rotate_half(x: torch.Tensor, interleaved: bool = False) -> torch.Tensor:
    """A quarter turn of each pair of dims.

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
    """flash-attention's: turns q and k of qkv (batch, n, 3, heads, dim), or (batch, n, all heads, dim), in place."""
    if qkv.dim() == 5:
        q, k = qkv[:, :, 0], qkv[:, :, 1]
    elif num_heads_q is None:
        raise InputError(f"qkv of shape {tuple(qkv.shape)} has heads of all three: say num_heads_q.")
    else:
        q, k = qkv[:, :, :num_heads_q], qkv[:, :, num_heads_q : (qkv.shape[2] + num_heads_q) // 2]
    at = places(q, seqlen_offsets, None)
    q.copy_(turned(q, cos, sin, at, interleaved))
    k.copy_(turned(k, cos if cos_k is None else cos_k, sin if sin_k is None else sin_k, at, interleaved))
    return qkv


def apply_rotary_emb_kv_(
    kv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    interleaved: bool = False,
    seqlen_offsets: int | torch.Tensor = 0,
) -> torch.Tensor:
    """flash-attention's: turns k of kv (batch, n, 2, heads, dim) in place."""
    k = kv[:, :, 0]
    k.copy_(turned(k, cos, sin, places(k, seqlen_offsets, None), interleaved))
    return kv


class RotaryEmbedding(torch.nn.Module):
    """flash-attention's `RotaryEmbedding`: turns queries and keys by their places, in place.

    `dim` dims of each head turn, the pair n by place · base^(−2n / dim); with `scale_base` lengths change too (XPos,
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
        """Cosines and sines of so many places: for queries, then for keys."""
        pairs = torch.arange(
            0, self.dim, 2, device=like.device, dtype=torch.float32
        )  # in float32, whatever buffers are
        place = torch.arange(length, device=like.device, dtype=torch.float32)
        angle = torch.outer(place, self.base ** (-pairs / self.dim))
        cos, sin, size = angle.cos(), angle.sin(), torch.ones((), device=like.device)
        if self.scale_base is not None:
            size = ((pairs + 0.4 * self.dim) / (1.4 * self.dim)) ** ((place - length // 2) / self.scale_base)[:, None]
        return [x.to(like.dtype) for x in (cos * size, sin * size, cos / size, sin / size)]

    def forward(
        self,
        qkv: torch.Tensor,
        kv: torch.Tensor | None = None,
        seqlen_offset: int | torch.Tensor = 0,
        max_seqlen: int | None = None,
        num_heads_q: int | None = None,
    ) -> Any:
        """Turns qkv (batch, n, 3, heads, dim), or q (batch, n, heads, dim) and kv (batch, n, 2, heads, dim)."""
        last = int(torch.as_tensor(seqlen_offset).max())
        length = qkv.shape[1] + last if max_seqlen is None else max_seqlen
        cos, sin, cos_k, sin_k = self.tables(length, qkv)
        if kv is None:
            return apply_rotary_emb_qkv_(qkv, cos, sin, cos_k, sin_k, self.interleaved, seqlen_offset, num_heads_q)
        q = apply_rotary_emb(qkv, cos, sin, self.interleaved, True, seqlen_offset)
        return q, apply_rotary_emb_kv_(kv, cos_k, sin_k, self.interleaved, seqlen_offset)
