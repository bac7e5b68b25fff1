"""Attention inside torch's own layers, `MultiheadAttention` and `TransformerEncoderLayer`, however they compute it.

Where they call `scaled_dot_product_attention`, `intercept` sees it. Elsewhere (weights asked for, or torch's fused fast
paths) the layer's answer is computed by torch as always, and once more by that function, which handlers see; both must
agree.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from clearhead.adapters.torch.calls import Handler, handled, inside
from clearhead.errors import TrustError

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


@dataclass
class Repeated:
    """A layer whose attention is computed a second time, for handlers to see."""

    module: torch.nn.Module
    dropout: float
    changed: bool = False  # a handler gave another answer


@contextmanager
def repeating(repeated: Repeated) -> Iterator[None]:
    """Tell the calls made meanwhile for which layer they are."""
    before, inside.repeated = getattr(inside, "repeated", None), repeated
    try:
        yield
    finally:
        inside.repeated = before


def attention_of(module: torch.nn.Module) -> torch.nn.Module:
    """The attention of torch's own encoder layer, whose fast path computes it itself; other modules as they are."""
    return module.self_attn if isinstance(module, torch.nn.TransformerEncoderLayer) else module


def call_multihead(original: Any, module: torch.nn.Module, chain: list[Handler], *args: Any, **options: Any) -> Any:
    """`multi_head_attention_forward`; without weights it calls `scaled_dot_product_attention` itself."""
    given = inspect.signature(inspect.unwrap(original)).bind(*args, **options)
    given.apply_defaults()
    if not given.arguments["need_weights"]:
        return original(*args, **options)
    with handled():
        result = original(*args, **options)
    training = given.arguments["training"]
    repeated = Repeated(module, given.arguments["dropout_p"] if training else 0.0)
    given.arguments |= {"need_weights": False, "dropout_p": 0.0, "is_causal": False}
    with repeating(repeated):
        output, _ = original(*given.args, **given.kwargs)
    if repeated.changed:
        return output, None
    check_equal(output, result[0], repeated)
    return result


def call_native(
    original: Any,
    module: torch.nn.Module,
    chain: list[Handler],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *args: Any,
) -> Any:
    """`_native_multi_head_attention`, the fast path of self-attention in evaluation."""
    with handled():
        result = original(query, key, value, *args)
    _, heads, weight, bias, out_weight, out_bias, mask, *_, mask_type = args
    repeated = Repeated(module, 0.0)
    output = attention_again(repeated, query, heads, weight, bias, out_weight, out_bias, mask, mask_type)
    if repeated.changed:
        return output if not query.is_nested else nested_like(output, query), None
    check_equal(output, padded(result[0]), repeated, tokens_of(query))
    return result


def call_encoder_layer(
    original: Any, module: torch.nn.Module, chain: list[Handler], src: torch.Tensor, *args: Any
) -> Any:
    """`_transformer_encoder_layer_fwd`, the fast path of a whole layer in evaluation."""
    with handled():
        result = original(src, *args)
    layer: Any = module
    _, heads, weight, bias, out_weight, out_bias, *_, mask, mask_type = args
    x = padded(src)
    repeated = Repeated(layer.self_attn, 0.0)
    attended = layer.norm1(x) if layer.norm_first else x
    output = attention_again(
        repeated, attended, heads, weight, bias, out_weight, out_bias, mask, mask_type, tokens_of(src)
    )
    with handled():
        x = x + output if layer.norm_first else layer.norm1(x + output)
        x = x + layer._ff_block(layer.norm2(x)) if layer.norm_first else layer.norm2(x + layer._ff_block(x))
    if repeated.changed:
        return nested_like(x, src) if src.is_nested else x
    check_equal(x, padded(result), repeated, tokens_of(src))
    return result


MULTIHEAD: dict[str, tuple[Any, Callable[..., Any]]] = {
    "multi_head_attention_forward": (functional, call_multihead),
    "_native_multi_head_attention": (torch, call_native),
    "_transformer_encoder_layer_fwd": (torch, call_encoder_layer),
}


def attention_again(
    repeated: Repeated,
    x: torch.Tensor,
    heads: int,
    weight: torch.Tensor,
    bias: torch.Tensor,
    out_weight: torch.Tensor,
    out_bias: torch.Tensor,
    mask: torch.Tensor | None,
    mask_type: int | None,
    tokens: torch.Tensor | None = None,
) -> torch.Tensor:
    """Self-attention of x (batch, n, dim) by `multi_head_attention_forward`."""
    tokens = tokens_of(x) if tokens is None else tokens
    x = padded(x)
    pads, attn_mask = None if tokens is None else ~tokens, None
    if mask is not None and mask_type == 1:
        pads = mask
    elif mask is not None:
        attn_mask = mask.flatten(0, 1) if mask.dim() == 4 else mask
    rows = x.transpose(0, 1)
    with repeating(repeated):
        output, _ = functional.multi_head_attention_forward(
            rows, rows, rows, x.shape[-1], heads, weight, bias, None, None, False, 0.0, out_weight, out_bias,
            training=False, key_padding_mask=pads, need_weights=False, attn_mask=attn_mask,
        )  # fmt: skip
    result: torch.Tensor = output.transpose(0, 1)
    return result


def padded(x: torch.Tensor) -> torch.Tensor:
    """A nested tensor with zeros at its ends; others as they are."""
    return x.to_padded_tensor(0.0) if x.is_nested else x


def tokens_of(x: torch.Tensor) -> torch.Tensor | None:
    """Where a nested tensor has items, (batch, n)."""
    if not x.is_nested:
        return None
    lengths = torch.tensor([len(part) for part in x.unbind()], device=x.device)
    return torch.arange(int(lengths.max()), device=x.device) < lengths[:, None]


def nested_like(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A padded tensor as a nested one with the lengths of another."""
    return torch.nested.nested_tensor([row[: len(part)] for row, part in zip(x.unbind(), like.unbind(), strict=True)])


def check_equal(again: torch.Tensor, own: torch.Tensor, repeated: Repeated, tokens: torch.Tensor | None = None) -> None:
    """Raise TrustError unless a layer's attention, computed a second time, gives the layer's answer."""
    if repeated.dropout or not own.numel():
        return
    again, own = again.detach(), own.detach()
    if tokens is not None:
        again, own = again[tokens], own[tokens]
    error, limit = (again - own).abs().max(), TOLERANCES.get(own.dtype, 5e-2) * own.abs().max()
    if not bool(error <= limit) and not bool(torch.isnan(own).any()):
        raise TrustError(
            f"{type(repeated.module).__name__}: its attention computed a second time differs by {float(error):.2g} "
            f"(allowed: {float(limit):.2g}) from what it returned, so its weights cannot be shown: leave it out."
        )
