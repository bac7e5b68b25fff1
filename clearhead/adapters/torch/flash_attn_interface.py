"""flash-attention's functions with its layouts, which lets code written for GPUs run and be tested anywhere.

Responsible for turning (batch, length, heads, dim) and packed sequences into views for the operator. As in
flash-attention and unlike torch, causal aligns with the last keys, and −1 in a window means unlimited.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch

from clearhead.adapters.torch.arguments import check_axes, check_number, check_tensors, scale_or_default
from clearhead.adapters.torch.dropout import attend_dropped
from clearhead.adapters.torch.layers.rotary import rotate_at
from clearhead.adapters.torch.operator import attend
from clearhead.adapters.torch.rule_names import MOST_RULES, join_rule, split_rules
from clearhead.adapters.torch.trace import trace_torch_function
from clearhead.errors import InputError, ShapeError
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.masks import documents, full, window

BATCHED = "(batch, length, heads, dim)"
MaskOptions = tuple[bool, tuple[int, ...], tuple[tuple[int, ...], tuple[int, ...]] | None]  # causal, window, documents


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
    """flash-attention's `flash_attn_func`: q (batch, n, heads, dim), k and v (batch, m, key heads, dim) give q's shape.

    Supports all float dtypes, and gradients; results are always deterministic. With `return_attn_probs`, also returns
    the LSE (batch, heads, n), and None for the probabilities, which are never computed.

    >>> x = torch.eye(2).reshape(1, 2, 1, 2)
    >>> flash_attn_func(x, x, x, causal=True, softmax_scale=1.0)[0, :, 0].round(decimals=3)
    tensor([[1.0000, 0.0000],
            [0.2690, 0.7310]])
    """
    check_axes(BATCHED, q=q, k=k, v=v)
    check_slopes(alibi_slopes, q.shape[0], q.shape[2])
    seen = causal, sides_of(window_size), None
    output, lse = attend_flash_layout(q, k, v, seen, softcap, alibi_slopes, softmax_scale, dropout_p)
    return (output, lse, None) if return_attn_probs else output


def flash_attn_qkvpacked_func(qkv: torch.Tensor, *args: Any, **options: Any) -> Any:
    """flash-attention's `flash_attn_qkvpacked_func`: `flash_attn_func` of qkv (batch, n, 3, heads, dim), read in place.

    >>> flash_attn_qkvpacked_func(torch.zeros(2, 5, 3, 4, 8), causal=True).shape
    torch.Size([2, 5, 4, 8])
    """
    check_tensors(qkv=qkv)
    if qkv.dim() != 5 or qkv.shape[2] != 3:
        raise ShapeError(f"qkv of shape {tuple(qkv.shape)} is not (batch, length, 3, heads, dim): stack q, k and v.")
    q, k, v = qkv.unbind(2)
    return flash_attn_func(q, k, v, *args, **options)


def flash_attn_kvpacked_func(q: torch.Tensor, kv: torch.Tensor, *args: Any, **options: Any) -> Any:
    """flash-attention's `flash_attn_kvpacked_func`: `flash_attn_func` of q and kv (batch, m, 2, key heads, dim).

    >>> flash_attn_kvpacked_func(torch.zeros(2, 5, 4, 8), torch.zeros(2, 7, 2, 1, 8)).shape
    torch.Size([2, 5, 4, 8])
    """
    check_tensors(kv=kv)
    if kv.dim() != 5 or kv.shape[2] != 2:
        raise ShapeError(f"kv of shape {tuple(kv.shape)} is not (batch, length, 2, heads, dim): stack k and v.")
    k, v = kv.unbind(2)
    return flash_attn_func(q, k, v, *args, **options)


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: torch.Tensor | None = None,
    *,
    seqused_k: torch.Tensor | None = None,
) -> Any:
    """flash-attention's `flash_attn_varlen_func`: packed sequences, q (all queries, heads, dim), k and v alike.

    `cu_seqlens_q` and `cu_seqlens_k` (sequences + 1,) hold the start of each sequence, and the end; queries before the
    first or after the last sequence give 0. `seqused_k` (sequences,) is the number of keys used, from the start of each
    sequence. The maxima are not needed. `block_table` is refused: use a `clearhead.KeyValueCache` for paged keys.

    >>> x, borders = torch.eye(2)[:, None], torch.tensor([0, 1, 2])
    >>> flash_attn_varlen_func(x, x, x, borders, borders, 1, 1)[:, 0]
    tensor([[1., 0.],
            [0., 1.]])
    """
    if block_table is not None:
        raise InputError("block_table is not supported: keep keys and values in a clearhead.KeyValueCache.")
    check_axes("(all items, heads, dim)", q=q, k=k, v=v)
    borders = [integers(x, name) for x, name in ((cu_seqlens_q, "cu_seqlens_q"), (cu_seqlens_k, "cu_seqlens_k"))]
    used = None if seqused_k is None else integers(seqused_k, "seqused_k", len(borders[0]) - 1)
    lengths = documents_of(borders, (len(q), len(k)), used)
    count = len(borders[0]) - 1
    check_slopes(alibi_slopes, count, q.shape[1])
    if alibi_slopes is not None and alibi_slopes.dim() == 2:  # slopes per sequence: repeat them for each query
        rows = [sum(at <= n for at in borders[0]) - 1 for n in range(len(q))]
        alibi_slopes = alibi_slopes[torch.tensor(rows).clamp(0, count - 1)][None]
    seen = causal, sides_of(window_size), lengths
    output, lse = attend_flash_layout(q[None], k[None], v[None], seen, softcap, alibi_slopes, softmax_scale, dropout_p)
    return (output[0], lse[0], None) if return_attn_probs else output[0]


def integers(x: torch.Tensor, name: str, count: int | None = None) -> list[int]:
    """Read an integer tensor of `count` elements, by default one more than sequences."""
    check_tensors(**{name: x})
    wanted = "(sequences + 1,)" if count is None else f"({count},)"
    valid = x.dim() == 1 and (len(x) == count if count is not None else len(x) > 0)
    if not valid or x.is_floating_point():
        raise ShapeError(f"{name} of shape {tuple(x.shape)} and {x.dtype}: give integers, {wanted}.")
    numbers: list[int] = x.tolist()
    return numbers


def documents_of(
    borders: list[list[int]], totals: tuple[int, int], used: list[int] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Lengths of documents in keys and in queries: the sequences, and the gaps between them."""
    (first, *_), (start, *_) = borders
    if len(borders[0]) != len(borders[1]):
        counts = [len(x) - 1 for x in borders]
        raise ShapeError(f"cu_seqlens have {counts[0]} and {counts[1]} sequences: give equally many.")
    for name, ends, total in zip(("cu_seqlens_q", "cu_seqlens_k"), borders, totals, strict=True):
        if ends[0] < 0 or ends[-1] > total or any(a > b for a, b in pairwise(ends)):
            raise ShapeError(f"{name} {ends}: give numbers that rise from 0 to at most {total}.")
    pairs = [(first, 0), (0, start)]
    for n, (queries, keys) in enumerate(zip(*map(pairwise, borders), strict=True)):
        available = keys[1] - keys[0]
        count = available if used is None else used[n]
        if not 0 <= count <= available:
            raise ShapeError(f"seqused_k {used}: sequence {n} has {available} keys, so {count} cannot be used.")
        pairs += [(queries[1] - queries[0], count), (0, available - count)]
    pairs += [(totals[0] - borders[0][-1], 0), (0, totals[1] - borders[1][-1])]
    kept = [pair for pair in pairs if pair != (0, 0)] or [(0, 0)]
    return tuple(m for _, m in kept), tuple(n for n, _ in kept)


def flash_attn_varlen_qkvpacked_func(
    qkv: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int | None = None, *args: Any, **options: Any
) -> Any:
    """flash-attention's `flash_attn_varlen_qkvpacked_func`: packed sequences of qkv (all items, 3, heads, dim).

    >>> flash_attn_varlen_qkvpacked_func(torch.zeros(5, 3, 4, 8), torch.tensor([0, 2, 5]), 3, causal=True).shape
    torch.Size([5, 4, 8])
    """
    check_tensors(qkv=qkv)
    if qkv.dim() != 4 or qkv.shape[1] != 3:
        raise ShapeError(f"qkv of shape {tuple(qkv.shape)} is not (all items, 3, heads, dim): stack q, k and v.")
    q, k, v = qkv.unbind(1)
    return flash_attn_varlen_func(q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, *args, **options)


def flash_attn_varlen_kvpacked_func(q: torch.Tensor, kv: torch.Tensor, *args: Any, **options: Any) -> Any:
    """flash-attention's `flash_attn_varlen_kvpacked_func`: packed sequences of q, and kv (all items, 2, heads, dim).

    >>> borders = torch.tensor([0, 2, 5])
    >>> flash_attn_varlen_kvpacked_func(torch.zeros(5, 4, 8), torch.zeros(5, 2, 1, 8), borders, borders, 3, 3).shape
    torch.Size([5, 4, 8])
    """
    check_tensors(kv=kv)
    if kv.dim() != 4 or kv.shape[1] != 2:
        raise ShapeError(f"kv of shape {tuple(kv.shape)} is not (all items, 2, key heads, dim): stack k and v.")
    k, v = kv.unbind(1)
    return flash_attn_varlen_func(q, k, v, *args, **options)


def flash_attn_with_kvcache(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    k: torch.Tensor | None = None,
    v: torch.Tensor | None = None,
    rotary_cos: torch.Tensor | None = None,
    rotary_sin: torch.Tensor | None = None,
    cache_seqlens: int | torch.Tensor | None = None,
    cache_batch_idx: torch.Tensor | None = None,
    cache_leftpad: torch.Tensor | None = None,
    block_table: torch.Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    rotary_interleaved: bool = True,
    alibi_slopes: torch.Tensor | None = None,
    num_splits: int = 0,
    return_softmax_lse: bool = False,
) -> Any:
    """flash-attention's `flash_attn_with_kvcache`: write k and v after `cache_seqlens`, then attend over all keys.

    q (batch, n, heads, dim), caches (batch, room, key heads, dim), k and v (batch, new, key heads, dim);
    `cache_batch_idx` (batch,) is the row of each sequence in the caches. `rotary_cos` and `rotary_sin` (positions, half
    of the rotated dims) rotate k from position `cache_seqlens` on, and so q if causal or windowed; otherwise all of q
    is at `cache_seqlens`. No gradients; `cache_leftpad` and `block_table` are refused; `num_splits` has no effect.
    Sequences of equal length are computed together, others one by one.

    >>> cache = torch.zeros(1, 4, 1, 2)
    >>> x = torch.ones(1, 1, 1, 2)
    >>> flash_attn_with_kvcache(x, cache, cache.clone(), x, 2 * x, cache_seqlens=0).tolist()
    [[[[2.0, 2.0]]]]
    """
    for name, x in (("cache_leftpad", cache_leftpad), ("block_table", block_table)):
        if x is not None:
            raise InputError(f"{name} is not supported: keep keys and values in a clearhead.KeyValueCache.")
    rows, cached_lengths = cache_rows_and_lengths(q, k_cache, v_cache, k, v, cache_seqlens, cache_batch_idx)
    check_slopes(alibi_slopes, q.shape[0], q.shape[2])
    seen = causal, sides_of(window_size), None
    new = 0 if k is None else k.shape[1]
    alike = not cached_lengths or (cache_batch_idx is None and len(set(cached_lengths)) == 1)
    outputs, sums = [], []
    with torch.no_grad():
        if rotary_cos is not None or rotary_sin is not None:
            moves = causal or sides_of(window_size) != (-1, -1)
            k = rotated(k, rotary_cos, rotary_sin, cached_lengths, rotary_interleaved, True)
            q = rotated(q, rotary_cos, rotary_sin, cached_lengths, rotary_interleaved, moves)
        if k is not None and v is not None:
            for n, (row, length) in enumerate(zip(rows, cached_lengths, strict=True)):
                k_cache[row, length : length + new], v_cache[row, length : length + new] = k[n], v[n]
        together = [(slice(None), slice(len(cached_lengths)), max(cached_lengths, default=0))]
        alone = [(slice(n, n + 1), slice(row, row + 1), cached_lengths[n]) for n, row in enumerate(rows)]
        for queries, cached, length in together if alike else alone:
            slopes = alibi_slopes if alibi_slopes is None or alibi_slopes.dim() == 1 else alibi_slopes[queries]
            keys, values = (x[cached, : length + new] for x in (k_cache, v_cache))
            output, lse = attend_flash_layout(q[queries], keys, values, seen, softcap, slopes, softmax_scale, 0.0)
            outputs.append(output)
            sums.append(lse)
    output = outputs[0] if alike else torch.cat(outputs)
    return (output, sums[0] if alike else torch.cat(sums)) if return_softmax_lse else output


def cache_rows_and_lengths(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    k: torch.Tensor | None,
    v: torch.Tensor | None,
    lengths: int | torch.Tensor | None,
    rows: torch.Tensor | None,
) -> tuple[list[int], list[int]]:
    """Each sequence's row in the caches and its cached length."""
    check_axes(BATCHED, q=q, k_cache=k_cache, v_cache=v_cache)
    if k is not None and v is not None:
        check_axes(BATCHED, k=k, v=v)
    batch, (sequences, room) = q.shape[0], k_cache.shape[:2]
    if k_cache.shape[:3] != v_cache.shape[:3]:
        raise ShapeError(
            f"caches of shapes {tuple(k_cache.shape)} and {tuple(v_cache.shape)}: give them equal lengths."
        )
    if (k is None) != (v is None):
        raise InputError("k and v come together: give both, or neither.")
    for name, x, cache in (("k", k, k_cache), ("v", v, v_cache)):
        wanted = (batch, k.shape[1] if k is not None else 0, *cache.shape[2:])
        if x is not None and x.shape != wanted:
            raise ShapeError(f"{name} of shape {tuple(x.shape)} does not fit its cache: give {wanted}.")
    if rows is None and sequences != batch:
        raise ShapeError(f"{batch} sequences of q and {sequences} in the caches: select them with cache_batch_idx.")
    indices = list(range(batch)) if rows is None else integers(rows, "cache_batch_idx", batch)
    if len(indices) != batch or not all(0 <= row < sequences for row in indices):
        raise ShapeError(
            f"cache_batch_idx {indices} does not fit {batch} queries and caches of {sequences} sequences: give {batch} "
            f"numbers from 0 to {sequences - 1}."
        )
    if not isinstance(lengths, (int, torch.Tensor, type(None))):
        raise InputError(f"cache_seqlens is {type(lengths).__name__}: give one number, or a tensor of ({batch},).")
    tensor = torch.as_tensor(room if lengths is None else lengths)
    if (tensor.dim() and tensor.shape != (batch,)) or tensor.is_floating_point() or tensor.is_complex():
        actual = f"{tuple(tensor.shape)} and {tensor.dtype}"
        raise ShapeError(f"cache_seqlens of shape {actual}: give one integer, or ({batch},) of them.")
    cached_lengths, new = tensor.expand(batch).tolist(), 0 if k is None else k.shape[1]
    if (new and lengths is None) or not all(0 <= length <= room - new for length in cached_lengths):
        raise ShapeError(
            f"{new} new keys after {cached_lengths} do not fit into caches of {room}: make room, or give cache_seqlens."
        )
    return indices, cached_lengths


def rotated(
    x: torch.Tensor | None,
    cos: torch.Tensor | None,
    sin: torch.Tensor | None,
    first: list[int],
    interleaved: bool,
    moves: bool,
) -> torch.Tensor:
    """Rotary embedding of x (batch, n, heads, dim), from each sequence's first position on, or all at it."""
    if x is None or cos is None or sin is None:
        raise InputError("rotary_cos and rotary_sin need each other, and k and v: give all of them.")
    at = torch.tensor(first, dtype=torch.int64)[:, None] + torch.arange(x.shape[1]) * moves
    return rotate_at(x, cos, sin, at, interleaved)


def sides_of(window_size: Any) -> tuple[int, ...]:
    """Number of visible keys on each side; −1 for all."""
    sides = tuple(window_size) if isinstance(window_size, (tuple, list)) else ()
    if len(sides) != 2 or not all(isinstance(n, int) for n in sides):
        raise InputError(
            f"window_size={window_size!r}: give (left, right), such as (256, 0), where -1 means unlimited."
        )
    return sides


def check_slopes(slopes: torch.Tensor | None, batch: int, heads: int) -> None:
    """Check slopes: one per head, or per sequence and head."""
    if slopes is None:
        return
    check_tensors(alibi_slopes=slopes)
    if slopes.shape not in ((heads,), (batch, heads)):
        raise ShapeError(
            f"alibi_slopes of shape {tuple(slopes.shape)}: give ({heads},), or ({batch}, {heads}) for separate slopes "
            "per sequence."
        )


def attend_flash_layout(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    seen: MaskOptions,
    softcap: float,
    slopes: torch.Tensor | None,
    scale: float | None,
    dropout_p: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output in flash-attention's layout, and the LSE."""
    check_number("causal", seen[0])
    check_number("dropout_p", dropout_p, 0, 1)
    check_number("softcap", softcap, 0)
    rule, tables = (
        flash_rule(*seen, softcap, 0 if slopes is None else slopes.dim()),
        () if slopes is None else (slopes,),
    )
    query, key, value = (x.transpose(1, 2) for x in (q, k, v))
    factor = scale_or_default(query, scale)
    if dropout_p:
        output, lse = attend_dropped(query, key, value, tables, None, rule, factor, dropout_p)
    else:
        output, lse = attend(query, key, value, tables, None, rule, factor)
    return output.transpose(1, 2), lse


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def flash_rule(causal: bool, sides: tuple[int, ...], lengths: Any, softcap: float, axes: int) -> str:
    """The name of the rule for scores: queries are the last items, and slopes are a table with `axes` axes."""
    return write_flash_rule(causal, sides, lengths, softcap, axes)


@lru_cache(MOST_RULES)
def write_flash_rule(causal: bool, sides: tuple[int, ...], lengths: Any, softcap: float, axes: int) -> str:
    """`flash_rule` outside the graph, since torch.compile cannot trace it."""
    slopes = torch.ones((1,) * axes)

    def changed(score: Any, batch: Any, head: Any, row: Any, query: Any, key: Any) -> Any:
        if softcap:
            score = softcap * torch.tanh(score / softcap)
        if axes:
            score = score - slopes[((head,), (batch, head), (batch, row, head))[axes - 1]] * abs(query - key)
        return score

    left, right = (None if n < 0 else n for n in sides)
    mask: Mask = full() if lengths is None else documents(lengths[0], queries=lengths[1])
    if causal or axes or (left, right) != (None, None):  # distances also count from the last key
        mask &= window(left, 0 if causal else right, align="end")
    formula = (
        trace_torch_function(changed, ("score", "batch", "head", "row", "query", "key")) if softcap or axes else None
    )
    return join_rule(split_rules(mask, ())[0].masks, None, formula)[0].name
