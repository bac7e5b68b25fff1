"""flash-attention's functions with its layouts, so that code written for GPUs runs and is tested anywhere.

Decides how (batch, length, heads, dim) and packed sequences become views for the operator. What flash-attention decides
differently from torch holds here too: causal aligns with the last keys, and a window's −1 is no limit.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from clearhead.adapters.torch.dropout import attend_dropped
from clearhead.adapters.torch.operator import attend
from clearhead.adapters.torch.rule import divided, joined
from clearhead.adapters.torch.trace import trace
from clearhead.errors import InputError, ShapeError
from clearhead.rules.masks import Mask, documents, full, window


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Any:
    """flash-attention's `flash_attn_func`: q (batch, n, heads, dim), k and v (batch, m, key heads, dim); gives q's.

    All float dtypes, gradients included; results are always deterministic. With `return_attn_probs`, also the LSE
    (batch, heads, n), and None for the probabilities, which are never made.

    >>> x = torch.eye(2).reshape(1, 2, 1, 2)
    >>> flash_attn_func(x, x, x, causal=True, softmax_scale=1.0)[0, :, 0].round(decimals=3)
    tensor([[1.0000, 0.0000],
            [0.2690, 0.7310]])
    """
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.dim() != 4:
            raise ShapeError(f"{name} of shape {tuple(x.shape)} is not (batch, length, heads, dim): give four axes.")
    mask = seen(causal, window_size)
    output, lse = attended(q, k, v, mask, softcap, alibi_slopes, softmax_scale, dropout_p)
    return (output, lse, None) if return_attn_probs else output


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: torch.Tensor | None = None,
) -> Any:
    """flash-attention's `flash_attn_varlen_func`: packed sequences, q (all queries, heads, dim), k and v alike.

    `cu_seqlens_q` and `cu_seqlens_k` are where sequences begin, and the end: (sequences + 1,). The maxima are not
    needed. Paged keys (`block_table`) are refused: `clearhead.KeyValueCache` is for those.

    >>> x, borders = torch.eye(2)[:, None], torch.tensor([0, 1, 2])
    >>> flash_attn_varlen_func(x, x, x, borders, borders, 1, 1)[:, 0]
    tensor([[1., 0.],
            [0., 1.]])
    """
    if block_table is not None:
        raise InputError("block_table is not known here: keep keys and values in a clearhead.KeyValueCache.")
    lengths = [tuple(x.diff().tolist()) for x in (cu_seqlens_q, cu_seqlens_k)]
    if len(lengths[0]) != len(lengths[1]):
        raise ShapeError(f"cu_seqlens tell of {len(lengths[0])} and of {len(lengths[1])} sequences: give equally many.")
    mask = documents(lengths[1], queries=lengths[0]) & seen(causal, window_size)
    if alibi_slopes is not None and alibi_slopes.dim() > 1:
        raise ShapeError(f"alibi_slopes of shape {tuple(alibi_slopes.shape)} and packed sequences: give one a head.")
    output, lse = attended(q[None], k[None], v[None], mask, softcap, alibi_slopes, softmax_scale, dropout_p)
    return (output[0], lse[0], None) if return_attn_probs else output[0]


def flash_attn_with_kvcache(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    k: torch.Tensor | None = None,
    v: torch.Tensor | None = None,
    cache_seqlens: int | torch.Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    return_softmax_lse: bool = False,
) -> Any:
    """flash-attention's `flash_attn_with_kvcache`: k and v are written behind `cache_seqlens`, then q looks at all.

    q (batch, n, heads, dim), caches (batch, room, key heads, dim), k and v (batch, new, key heads, dim). No gradients,
    rotary embeddings or pages; sequences of equal length go together, others one by one.

    >>> cache = torch.zeros(1, 4, 1, 2)
    >>> x = torch.ones(1, 1, 1, 2)
    >>> flash_attn_with_kvcache(x, cache, cache.clone(), x, 2 * x, cache_seqlens=0).tolist()
    [[[[2.0, 2.0]]]]
    """
    batch, room = k_cache.shape[:2]
    held = [room] * batch if cache_seqlens is None else torch.as_tensor(cache_seqlens).expand(batch).tolist()
    new = 0 if k is None else k.shape[1]
    if (k is None) != (v is None):
        raise InputError("k and v come together: give both, or neither.")
    if (new and cache_seqlens is None) or max(held, default=0) + new > room:
        raise ShapeError(f"{new} new keys behind {held} do not fit into caches of {room}: make room, or say where.")
    mask = seen(causal, window_size)
    outputs, sums = [], []
    with torch.no_grad():
        for n, length in enumerate(held):
            stop = length + new
            if k is not None and v is not None:
                k_cache[n, length:stop], v_cache[n, length:stop] = k[n], v[n]
        alike = len(set(held)) == 1
        for part, length in [(slice(None), held[0])] if alike else [(slice(n, n + 1), m) for n, m in enumerate(held)]:
            stop = length + new
            slopes = alibi_slopes if alibi_slopes is None or alibi_slopes.dim() == 1 else alibi_slopes[part]
            keys, values = k_cache[part, :stop], v_cache[part, :stop]
            output, lse = attended(q[part], keys, values, mask, softcap, slopes, softmax_scale, 0.0)
            outputs.append(output)
            sums.append(lse)
    output = outputs[0] if alike else torch.cat(outputs)
    return (output, sums[0] if alike else torch.cat(sums)) if return_softmax_lse else output


def seen(causal: bool, window_size: tuple[int, int]) -> Mask:
    """causal and window_size as a mask; the queries are the last items."""
    left, right = (None if n < 0 else n for n in window_size)
    if causal:
        right = 0
    return full() if left is None and right is None else window(left, right, align="end")


def attended(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: Mask,
    softcap: float,
    slopes: torch.Tensor | None,
    scale: float | None,
    dropout_p: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output in flash-attention's layout, and the LSE."""

    def changed(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
        if softcap:
            score = softcap * torch.tanh(score / softcap)
        if slopes is not None:
            slope = slopes[head] if slopes.dim() == 1 else slopes[batch, head]
            score = score - slope * abs(query - key)
        return score

    if slopes is not None:
        mask &= window(None, None, align="end")  # distances count from the last key
    formula = trace(changed, ("score", "batch", "head", "query", "key")) if softcap or slopes is not None else None
    rule, tables = joined(divided(mask, ())[0].masks, None, formula)
    query, key, value = (x.transpose(1, 2) for x in (q, k, v))
    factor = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    if dropout_p:
        output, lse = attend_dropped(query, key, value, tables, None, rule.name, factor, dropout_p)
    else:
        output, lse = attend(query, key, value, tables, None, rule.name, factor)
    return output.transpose(1, 2), lse
