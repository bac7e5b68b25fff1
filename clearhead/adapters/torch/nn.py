"""Layers around attention: the textbook's SelfAttention, and one with the names and weights of nn.MultiheadAttention.

Responsible for projections and layouts; the operator computes scores, softmax and sums.
"""

from __future__ import annotations

import math

import torch

from clearhead.adapters.torch.arguments import check_dtype, check_number, check_tensors
from clearhead.adapters.torch.attention_api import attention
from clearhead.adapters.torch.sdpa import FULL, mask_rule, scaled_dot_product_attention
from clearhead.adapters.torch.weights import LazyWeights, weights_of
from clearhead.errors import DtypeError, InputError, ShapeError
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.masks import CAUSAL
from clearhead.rules.scores import ScoreLike

__all__ = ["LazyWeights", "MultiheadAttention", "SelfAttention"]


class SelfAttention(torch.nn.Module):
    """A textbook self-attention layer: q = x W^Q, k = x W^K, v = x W^V for each head, joined by W^O.

    x (..., n, dim) gives (..., n, dim). With one head and without W^O, it is the single-head layer; `mask` (default:
    causal) and `score` are clearhead's. Source: Vaswani et al. 2017, section 3.2.2.

    >>> layer = SelfAttention(8, heads=2)
    >>> layer(torch.zeros(3, 5, 8)).shape
    torch.Size([3, 5, 8])
    """

    def __init__(
        self, dim: int, heads: int = 1, *, key_heads: int | None = None, mask: Mask = CAUSAL, score: ScoreLike = ()
    ) -> None:
        super().__init__()
        for name, number in (("dim", dim), ("heads", heads), ("key_heads", heads if key_heads is None else key_heads)):
            check_number(name, number)
        if heads < 1 or dim % heads or (key_heads is not None and (key_heads < 1 or heads % key_heads)):
            sizes = f"{dim} dims, {heads} heads and {key_heads or heads} key heads"
            raise ShapeError(f"{sizes} do not divide: heads must divide dims, and key heads the heads.")
        self.heads, self.key_heads, self.mask, self.score = heads, key_heads or heads, mask, score
        width = dim // heads
        self.query = torch.nn.Linear(dim, heads * width, bias=False)
        self.key = torch.nn.Linear(dim, self.key_heads * width, bias=False)
        self.value = torch.nn.Linear(dim, self.key_heads * width, bias=False)
        self.output = torch.nn.Linear(heads * width, dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the layer's output for x."""
        check_tensors(x=x)
        if x.dim() < 2 or x.shape[-1] != self.query.in_features:
            raise ShapeError(f"x of shape {tuple(x.shape)}: give (..., n, {self.query.in_features}), the layer's dims.")
        check_dtype("x", x, self.query.weight)
        q = self.query(x).unflatten(-1, (self.heads, -1)).transpose(-2, -3)
        k = self.key(x).unflatten(-1, (self.key_heads, -1)).transpose(-2, -3)
        v = self.value(x).unflatten(-1, (self.key_heads, -1)).transpose(-2, -3)
        y = attention(q, k, v, mask=self.mask, score=self.score)
        result: torch.Tensor = self.output(y.transpose(-2, -3).flatten(-2))
        return result


class MultiheadAttention(torch.nn.MultiheadAttention):
    """`torch.nn.MultiheadAttention` on clearhead's kernels: same arguments, same parameters, same state_dict.

    The weights that forward returns with the output are lazy: `LazyWeights`, a tensor that is computed on first use.
    They are the weights before dropout.

    >>> layer = MultiheadAttention(8, 2, batch_first=True)
    >>> x = torch.zeros(1, 3, 8)
    >>> output, weights = layer(x, x, x)
    >>> weights, weights().shape
    (LazyWeights((1, 3, 3)), torch.Size([1, 3, 3]))
    """

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Compute as torch does: boolean masks are True where a key is hidden, float masks are added to scores.

        Raises ShapeError for masks that do not fit, DtypeError, and InputError for `is_causal` without `attn_mask`.
        """
        if is_causal and attn_mask is None:
            raise InputError("is_causal=True is a hint about attn_mask, which is None: give the mask too.")
        check_tensors(query=query, key=key, value=value)
        for name, mask in (("key_padding_mask", key_padding_mask), ("attn_mask", attn_mask)):
            if mask is not None:
                check_tensors(**{name: mask})
        if query.is_nested or key.is_nested or value.is_nested:
            self.check_nested(need_weights, key_padding_mask, attn_mask)
        axis = 1 if self.batch_first or query.dim() == 2 else 0
        q, k, v = (x if x.dim() != 3 or self.batch_first else x.transpose(0, 1) for x in (query, key, value))
        self.check(q, k, v, key_padding_mask, attn_mask)
        q, k, v = self.projected(q, k, v)
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k[0].expand(*k.shape[:-2], 1, -1)], -2)
            v = torch.cat([v, self.bias_v[0].expand(*v.shape[:-2], 1, -1)], -2)
        heads = [x.unflatten(-1, (self.num_heads, -1)).transpose(-2, -3) for x in (q, k, v)]
        if self.add_zero_attn:
            heads[1:] = (torch.cat([x, x.new_zeros(*x.shape[:-2], 1, x.shape[-1])], -2) for x in heads[1:])
        mask = self.joined_mask(attn_mask, key_padding_mask, heads[0], heads[1].shape[-2])
        q, k, v = heads
        y = scaled_dot_product_attention(q, k, v, mask, self.dropout if self.training else 0.0)
        output = self.out_proj(y.transpose(-2, -3).flatten(-2))
        if axis == 0:
            output = output.transpose(0, 1)
        if not need_weights:
            return output, None
        rule, tables = (FULL, ()) if mask is None else mask_rule(mask, q, k)
        return output, weights_of(q, k, tables, None, rule, 1 / math.sqrt(q.shape[-1]), average=average_attn_weights)

    def check_nested(self, need_weights: bool, padding: torch.Tensor | None, attn_mask: torch.Tensor | None) -> None:
        """Raise InputError for options that nested tensors do not support."""
        unsupported = self.bias_k is not None or self.add_zero_attn or not self.batch_first
        if need_weights or unsupported or padding is not None or attn_mask is not None:
            raise InputError(
                "nested tensors need batch_first=True, need_weights=False, and no masks or extra keys "
                "(add_bias_kv, add_zero_attn): pad them, as by x.to_padded_tensor(0.0), and give key_padding_mask."
            )

    def check(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        padding: torch.Tensor | None,
        attn_mask: torch.Tensor | None,
    ) -> None:
        """Check operands and masks as torch's layer does."""
        if not q.dim() == k.dim() == v.dim() or q.dim() not in (2, 3):
            shapes = ", ".join(str(tuple(x.shape)) for x in (q, k, v))
            raise ShapeError(f"operands of shapes {shapes}: give all three a batch axis, or none.")
        dims = self.embed_dim, self.kdim, self.vdim
        matching = k.shape[:-1] == v.shape[:-1] and q.shape[:-2] == k.shape[:-2]
        if (q.shape[-1], k.shape[-1], v.shape[-1]) != dims or not matching:
            shapes = ", ".join(str(tuple(x.shape)) for x in (q, k, v))
            raise ShapeError(
                f"operands of shapes {shapes}, batch first: the layer takes {dims[0]}, {dims[1]} and {dims[2]} dims, "
                "as many values as keys, and equal batches."
            )
        for name, x in (("query", q), ("key", k), ("value", v)):
            check_dtype(name, x, self.out_proj.weight)
        *lead, keys = k.shape[:-1]
        pairs = (q.shape[-2], keys)
        per_head = (math.prod(lead) * self.num_heads, *pairs)
        for name, mask, fitting in (
            ("key_padding_mask", padding, [(*lead, keys)]),
            ("attn_mask", attn_mask, [pairs, per_head]),
        ):
            if mask is not None and mask.shape not in fitting:
                raise ShapeError(f"{name} has shape {tuple(mask.shape)}: give {' or '.join(map(str, fitting))}.")
            if mask is not None and mask.dtype is not torch.bool and not mask.is_floating_point():
                raise DtypeError(
                    f"{name} has dtype {mask.dtype}: give torch.bool, True where a key is hidden, or floats."
                )

    def projected(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> list[torch.Tensor]:
        """Queries, keys and values of all heads."""
        packed = self.in_proj_weight is not None
        names = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        matrices = self.in_proj_weight.chunk(3) if packed else names
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        linear = torch.nn.functional.linear
        return [linear(x, w, b) for x, w, b in zip((q, k, v), matrices, biases, strict=True)]

    def joined_mask(
        self, attn_mask: torch.Tensor | None, padding: torch.Tensor | None, query: torch.Tensor, keys: int
    ) -> torch.Tensor | None:
        """Combine both masks into one: floats to add, or True where a key is visible."""
        parts = []
        if attn_mask is not None:
            parts.append(attn_mask.unflatten(0, query.shape[:-2]) if attn_mask.dim() == 3 else attn_mask)
        if padding is not None:
            parts.append(padding[..., None, None, :])
        parts = [torch.nn.functional.pad(x, (0, keys - x.shape[-1])) for x in parts]
        if all(x.dtype is torch.bool for x in parts):
            hidden = parts[0] if len(parts) == 1 else parts[0] | parts[1] if parts else None
            return None if hidden is None else ~hidden
        added = [query.new_zeros(x.shape).masked_fill(x, -torch.inf) if x.dtype is torch.bool else x for x in parts]
        return sum(added[1:], added[0])
