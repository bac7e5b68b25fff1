"""Models of plain PyTorch: every way of calling its attention functions and layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import flex_attention as flex
from torch.nn.attention.bias import causal_lower_right
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from clearhead.adapters.torch.attention_layers import AttentionLayer, attention_layers, layers_like
from scripts.watched_kinds.rows import Row


def numbers(*shape: int) -> torch.Tensor:
    """Random numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """A model in evaluation, with the same random weights each time."""
    torch.manual_seed(0)
    return make().eval()


class Block(nn.Module):
    """Attention as in nanoGPT or timm: one projection for queries, keys and values, then a function."""

    def __init__(self, attend: Callable[..., torch.Tensor], dim: int = 32, heads: int = 4, key_heads: int = 4) -> None:
        super().__init__()
        self.attend, self.heads, self.key_heads = attend, heads, key_heads
        self.qkv = nn.Linear(dim, (heads + 2 * key_heads) * (dim // heads))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, past: Any = None) -> Any:
        b, n, dim = x.shape
        x = 3 * self.qkv(x).view(b, n, -1, dim // self.heads).transpose(1, 2)
        q, k, v = x.split([self.heads, self.key_heads, self.key_heads], 1)
        if past is not None:
            k, v = (torch.cat(pair, 2) for pair in zip(past, (k, v), strict=True))
        y = self.attend(q, k, v).transpose(1, 2).reshape(b, n, dim)
        return (self.proj(y), (k, v)) if past is not None else self.proj(y)


class Stack(nn.Module):
    """Layers one after the other."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x


class Cached(Stack):
    """A decoder with a cache of its own."""

    def forward(self, x: torch.Tensor, past: Any = None) -> Any:
        past = past or [(x.new_zeros(len(x), 4, 0, 8),) * 2 for _ in self.layers]
        after = []
        for layer, own in zip(self.layers, past, strict=True):
            y, new = layer(x, own)
            x = x + y
            after.append(new)
        return x, after


class Cross(nn.Module):
    """A block of a diffusion model: pixels attend to a text of another length."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = nn.Linear(32, 32), nn.Linear(16, 32), nn.Linear(16, 32)

    def forward(self, x: torch.Tensor, text: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        q, k, v = (y.unflatten(-1, (4, 8)).transpose(1, 2) for y in (3 * self.to_q(x), self.to_k(text), self.to_v(text)))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


class Twice(nn.Module):
    """Self-attention and cross-attention in one module."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(32, 96)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (y.unflatten(-1, (4, 8)).transpose(1, 2) for y in (2 * self.qkv(x)).chunk(3, -1))
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return (a + F.scaled_dot_product_attention(q, k[:, :, :3], v[:, :, :3])).transpose(1, 2).flatten(2)


class OwnCode(nn.Module):
    """Attention by matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(32, 96)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return torch.softmax(q @ k.mT, -1) @ v


def own_function(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """A function of the model's file that calls torch's."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class ByFunction(Block):
    """Calls attention in a function of its own file."""

    def forward(self, x: torch.Tensor, past: Any = None) -> Any:
        q, k, v = (y.unflatten(-1, (4, 8)).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
        return own_function(q, k, v).transpose(1, 2).flatten(2)


class Heads(nn.Module):
    """One head at a time: no axis of heads."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(32, 96)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(*(2 * self.qkv(x)).chunk(3, -1), is_causal=True)


class Both(nn.Module):
    """Two axes of sequences: attention over rows of a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(32, 96)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (y.unflatten(-1, (4, 8)).transpose(-3, -2) for y in (2 * self.qkv(x)).chunk(3, -1))
        return F.scaled_dot_product_attention(q, k, v).transpose(-3, -2).flatten(-2)


class Shared(nn.Module):
    """One layer that runs three times."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = Block(causal)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = x + self.layer(x)
        return x


class Wrapper(nn.Module):
    """What DataParallel and its like put around a model."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any) -> Any:
        return self.module(*args)


def causal(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Causal attention; the queries are the last ones."""
    if q.shape[2] == k.shape[2]:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=causal_lower_right(q.shape[2], k.shape[2]))


def plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention without a mask."""
    return F.scaled_dot_product_attention(q, k, v)


def shared_keys(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Grouped queries."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def biased(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """A float mask: ALiBi, and half a bias that no distance tells."""
    n = q.shape[2]
    bias = -0.1 * (torch.arange(n)[:, None] - torch.arange(n)).abs() + numbers(4, n, n)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.masked_fill(~torch.ones(n, n).tril().bool(), -torch.inf))


def scattered(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """A mask without a pattern, another for each head; and a scale."""
    mask = (numbers(4, q.shape[2], k.shape[2]) > 0) | torch.eye(q.shape[2], dtype=torch.bool)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.5)


def flex_plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """flex_attention with a score_mod."""
    return flex.flex_attention(q, k, v, score_mod=lambda s, b, h, i, j: s - (h + 1) * (i - j).abs() * 0.1)


def flex_masked(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """flex_attention with a BlockMask: a window."""
    n = q.shape[2]
    mask = create_block_mask(lambda b, h, i, j: (i >= j) & (i - j < 5), None, None, n, n, device="cpu")
    return flex.flex_attention(q, k, v, block_mask=mask, score_mod=lambda s, b, h, i, j: 5 * torch.tanh(s / 5))


def held_layers(model: nn.Module) -> list[AttentionLayer]:
    """The layers of a model whose blocks are given their attention."""
    first = next((m for m in model.modules() if hasattr(m, "attend") or hasattr(m, "processor")), None)
    if first is None or attention_layers(model):
        return attention_layers(model)
    others = [m for m in model.modules() if type(m) is type(first)]
    found: list[AttentionLayer] = []
    for module in others:
        if module not in [layer.module for layer in found]:
            found += layers_like(model, module, found)
    return found


def model_row(name: str, make: Callable[[], nn.Module], *args: torch.Tensor, **more: Any) -> Row:
    """A row of plain PyTorch."""
    run = more.pop("run", None) or (lambda model, given: model(*args))
    return Row("PyTorch", name, lambda: (seeded(make), {}), run, layers=held_layers, **more)


def rows() -> Iterator[Row]:
    """Functions first, then layers."""
    x = numbers(2, 12, 32)
    yield model_row("nanoGPT's block, is_causal", lambda: Stack(Block(causal), Block(causal)), x)
    yield model_row("timm's block, packed qkv, no mask", lambda: Stack(Block(plain), Block(plain)), x)
    yield model_row("grouped queries, enable_gqa", lambda: Stack(Block(shared_keys, key_heads=2)), x)
    yield model_row("a float mask of biases", lambda: Stack(Block(biased)), x)
    yield model_row("a mask without pattern, scale", lambda: Stack(Block(scattered)), x)
    yield model_row("a cache of its own, in pieces", lambda: Cached(Block(causal), Block(causal)), run=in_pieces)
    yield model_row("cross-attention, other length", lambda: Stack2(Cross()), x, numbers(2, 7, 16))
    mask = torch.ones(2, 1, 1, 7, dtype=torch.bool)
    mask[1, ..., 4:] = False
    yield model_row("cross-attention, padded text", lambda: Stack2(Cross()), x, numbers(2, 7, 16), mask, pads=lambda _: {"cross": mask[:, 0, 0], "self": mask[:, 0, 0]})
    yield model_row("self- and cross-attention in a module", Twice, x)
    yield model_row("a layer that runs three times", Shared, x)
    yield model_row("a function of the model's file", lambda: Stack(ByFunction(causal)), x)
    yield model_row("no axis of heads", Heads, x)
    yield model_row("two axes of sequences", Both, numbers(2, 3, 5, 32))
    yield model_row("a wrapper around it", lambda: Wrapper(Stack(Block(causal))), x)
    yield model_row("matrix products of its own", lambda: Stack(OwnCode()), x)
    yield model_row("flex_attention, score_mod", lambda: Stack(Block(flex_plain)), x)
    yield model_row("flex_attention, BlockMask and softcap", lambda: Stack(Block(flex_masked)), x)
    yield model_row("flex_attention by a name of the file", lambda: Stack(Block(lambda q, k, v: flex_attention(q, k, v))), x)
    compiled = torch.compile(flex_attention)
    yield model_row("compiled flex_attention", lambda: Stack(Block(lambda q, k, v: compiled(q, k, v, score_mod=lambda s, b, h, i, j: torch.where(i >= j, s, -float("inf"))))), x)
    yield model_row("torch.compile of the model", lambda: torch.compile(Stack(Block(causal)), backend="eager"), x)
    yield model_row("float64", lambda: Stack(Block(causal)).double(), x.double())
    yield model_row("bfloat16", lambda: Stack(Block(causal)).bfloat16(), x.bfloat16(), tolerance=1e-2)
    yield model_row("float16", lambda: Stack(Block(causal)).half(), x.half(), tolerance=2e-3)
    yield model_row("autocast to bfloat16", lambda: Stack(Block(causal)), run=under_autocast, tolerance=1e-2)
    yield model_row("training, loss.backward", lambda: Stack(Block(causal), Block(causal)), run=trained, grad=True)
    yield model_row("gradient checkpointing", lambda: Checkpointed(Block(causal), Block(causal)), run=trained, again=lambda model, given: model(numbers(2, 12, 32)), grad=True)
    yield model_row("torch.func.functional_call, vmap outside", lambda: Stack(Block(causal)), run=functionally)
    yield model_row("torch.inference_mode", lambda: Stack(Block(causal)), run=in_inference)
    yield model_row("nn.DataParallel on the processor", lambda: nn.DataParallel(Stack(Block(causal))), x)
    yield from layer_rows()
    yield from installed_rows()


class Stack2(Stack):
    """Layers with a text beside."""

    def forward(self, x: torch.Tensor, *beside: Any) -> torch.Tensor:  # type: ignore[override]
        for layer in self.layers:
            x = x + layer(x, *beside)
        return x


class Checkpointed(Stack):
    """Layers that run once more for gradients."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
        return x


def in_pieces(model: Any, given: Any) -> Any:
    """A text in pieces of several sizes."""
    x, past, outputs = numbers(2, 12, 32), None, []
    for piece in x.split([5, 3, 1, 1, 2], 1):
        y, past = model(piece, past)
        outputs.append(y)
    return outputs


def under_autocast(model: Any, given: Any) -> Any:
    with torch.autocast("cpu", torch.bfloat16):
        return model(numbers(2, 12, 32))


def trained(model: Any, given: Any) -> Any:
    """The gradients of all parameters."""
    model.zero_grad()
    y = model(numbers(2, 12, 32))
    y.sin().sum().backward()
    return [y, *(p.grad.clone() for p in model.parameters())]


def functionally(model: Any, given: Any) -> Any:
    return torch.func.functional_call(model, dict(model.named_parameters()), (numbers(2, 12, 32),))


def in_inference(model: Any, given: Any) -> Any:
    with torch.inference_mode():
        return model(numbers(2, 12, 32)).clone()


class Asked(nn.Module):
    """nn.MultiheadAttention as somebody calls it."""

    def __init__(self, call: dict[str, Any], cross: bool = False, **options: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 4, **options)
        self.call, self.cross, self.first = call, cross, options.get("batch_first", False)

    def forward(self, x: torch.Tensor, other: torch.Tensor | None = None) -> Any:
        other = x if other is None else other
        if not self.first:
            x, other = x.transpose(0, 1), other.transpose(0, 1)
        return self.attention(3 * x, other, other, **self.call)


def layer_rows() -> Iterator[Row]:
    """torch's own layers."""
    x, n = numbers(2, 12, 32), 12
    pad = torch.zeros(2, 12, dtype=torch.bool)
    pad[1, 8:] = True
    real = {"": ~pad}
    hides = ~torch.ones(n, n, dtype=torch.bool).tril()
    name = "nn.MultiheadAttention"
    yield model_row(f"{name}, weights asked for", lambda: Asked({"need_weights": True}), x)
    yield model_row(f"{name}, none asked for", lambda: Asked({"need_weights": False}), x)
    yield model_row(f"{name}, batch_first, each head's weights", lambda: Asked({"average_attn_weights": False}, batch_first=True), x)
    yield model_row(f"{name}, fast path", lambda: Asked({"need_weights": False}, batch_first=True), x)
    yield model_row(f"{name}, key_padding_mask", lambda: Asked({"key_padding_mask": pad}), x, pads=lambda _: real)
    yield model_row(f"{name}, causal attn_mask", lambda: Asked({"attn_mask": hides}), x)
    yield model_row(f"{name}, float attn_mask", lambda: Asked({"attn_mask": numbers(n, n), "need_weights": False}), x)
    yield model_row(f"{name}, other keys and values", lambda: Asked({}, kdim=16, vdim=16), x, numbers(2, 7, 16))
    yield model_row(f"{name}, add_zero_attn", lambda: Asked({}, add_zero_attn=True), x)
    yield model_row(f"{name}, add_bias_kv", lambda: Asked({}, add_bias_kv=True), x)
    yield model_row(f"{name}, unbatched", lambda: nn.MultiheadAttention(32, 4), run=lambda m, g: m(x[0], x[0], x[0]))

    def encoder(**options: Any) -> nn.Module:
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, **options)
        return nn.TransformerEncoder(layer, 2)

    yield model_row("nn.TransformerEncoder, fast path", encoder, x)
    yield model_row("nn.TransformerEncoder, norm_first", lambda: encoder(norm_first=True), x)
    yield model_row("nn.TransformerEncoder, causal mask", encoder, run=lambda m, g: m(x, mask=hides, is_causal=True))
    nested = lambda m, g: m(x, src_key_padding_mask=pad)  # noqa: E731
    yield model_row("nn.TransformerEncoder, padding, nested", encoder, run=nested, pads=lambda _: real)
    yield model_row("nn.TransformerEncoder, training", lambda: encoder(dropout=0.0), run=trained, grad=True)
    memory = numbers(2, 7, 32)

    def decoder() -> nn.Module:
        return nn.TransformerDecoder(nn.TransformerDecoderLayer(32, 4, 64, batch_first=True), 2)

    yield model_row("nn.TransformerDecoder", decoder, run=lambda m, g: m(x, memory, tgt_mask=hides))
    yield model_row("nn.Transformer", lambda: nn.Transformer(32, 4, 2, 2, 64, batch_first=True), run=lambda m, g: m(memory, x))


def installed_rows() -> Iterator[Row]:
    """Other libraries' models, where they are installed."""
    images = numbers(2, 3, 32, 32)
    with suppress(ImportError):
        import timm

        for kind in ("vit_tiny_patch16_224", "deit3_small_patch16_224", "vit_small_patch14_reg4_dinov2", "eva02_tiny_patch14_224", "swin_tiny_patch4_window7_224"):
            with nullcontext():
                yield model_row(f"timm's {kind}", lambda kind=kind: timm.create_model(kind, img_size=56 if "14" in kind else 64), numbers(1, 3, 56 if "14" in kind else 64, 56 if "14" in kind else 64))
    with suppress(ImportError):
        from torchvision.models import VisionTransformer
        from torchvision.models import swin_t

        yield model_row("torchvision's VisionTransformer", lambda: VisionTransformer(32, 8, 2, 4, 32, 64), images)
        yield model_row("torchvision's swin_t", swin_t, numbers(1, 3, 64, 64))
    with suppress(ImportError):
        from diffusers.models.attention import BasicTransformerBlock

        yield model_row("diffusers' BasicTransformerBlock", lambda: BasicTransformerBlock(32, 4, 8, cross_attention_dim=16), run=lambda m, g: m(numbers(2, 12, 32), encoder_hidden_states=numbers(2, 7, 16)))
