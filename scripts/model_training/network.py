"""The model in torch, as it is trained: clearhead/model/model.py with gradients, many windows at once.

Its attention is clearhead's, in float32; under autocast the other matrix products are bfloat16.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from clearhead.adapters.torch import scaled_dot_product_attention
from clearhead.model.parameters import EPSILON, ROTARY_BASE

Turn = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Sizes:
    """How large the network is."""

    vocabulary: int = 2048
    context: int = 256
    dim: int = 128
    heads: int = 4
    layers: int = 4
    hidden: int = 512


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)); matrices lie as torch's do, (out, in)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        dim, hidden = sizes.dim, sizes.hidden
        self.heads = sizes.heads
        into = 0.02 / math.sqrt(2 * sizes.layers)  # the residual stream: what is added to it begins small
        self.before_attention, self.before_mlp = (nn.Parameter(torch.ones(dim)) for _ in range(2))  # gains of the norms
        self.inputs = _matrix(3 * dim, dim, dim**-0.5)  # W^Q, W^K and W^V, one below the other
        self.output = _matrix(dim, dim, into)
        self.up, self.down = _matrix(hidden, dim, dim**-0.5), _matrix(dim, hidden, into)

    def forward(self, x: torch.Tensor, turn: Turn) -> torch.Tensor:
        """(windows, n, dim) → the same."""
        y = functional.linear(normed(x) * self.before_attention, self.inputs)
        q, k, v = (self._parted(part) for part in y.chunk(3, dim=-1))
        attended = scaled_dot_product_attention(rotated(q, turn), rotated(k, turn), v, is_causal=True)
        x = x + functional.linear(attended.transpose(1, 2).flatten(2), self.output)
        return x + functional.linear(
            functional.gelu(functional.linear(normed(x) * self.before_mlp, self.up), approximate="tanh"), self.down
        )

    def _parted(self, x: torch.Tensor) -> torch.Tensor:
        """(windows, n, dim) → (windows, heads, n, dim / heads), in float32: attention takes one dtype for all three."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2).float()


class Network(nn.Module):
    """Token embedding, blocks, and the same embedding again to score the next token."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.embedding = _matrix(sizes.vocabulary, sizes.dim, 0.02)
        self.layers = nn.ModuleList(Block(sizes) for _ in range(sizes.layers))
        self.turn = turns(sizes.context, sizes.dim // sizes.heads)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(windows, n) → scores of the token after each (windows, n, vocabulary)."""
        x = self.embedding[tokens]
        turn = tuple(part[: tokens.shape[1]] for part in self.turn)
        for layer in self.layers:
            x = layer(x, turn)
        return functional.linear(normed(x), self.embedding)

    def shipped(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Every matrix (out, in) by its name in the file; a norm's gain is taken into the matrices behind it."""
        yield "embedding", self.embedding
        for number, layer in enumerate(self.layers):
            query, key, value = (layer.inputs * layer.before_attention).chunk(3)
            up = layer.up * layer.before_mlp
            found = {"query": query, "key": key, "value": value, "output": layer.output, "up": up, "down": layer.down}
            yield from ((f"{number}.{name}", matrix) for name, matrix in found.items())


def normed(x: torch.Tensor) -> torch.Tensor:
    """Each row over its root mean square."""
    return functional.rms_norm(x, x.shape[-1:], eps=EPSILON)


def turns(length: int, dim: int) -> Turn:
    """Cosines and sines (length, dim / 2) of the angles by which positions turn q and k."""
    angles = torch.arange(length)[:, None].double() * ROTARY_BASE ** (-torch.arange(0, dim, 2).double() / dim)
    return angles.cos().float(), angles.sin().float()


def rotated(x: torch.Tensor, turn: Turn) -> torch.Tensor:
    """Rotary positions: dims i and i + dim/2 of x (..., n, dim) as a plane, turned."""
    (a, b), (cosine, sine) = x.chunk(2, dim=-1), turn
    return torch.cat([a * cosine - b * sine, a * sine + b * cosine], dim=-1)


def _matrix(rows: int, columns: int, deviation: float) -> nn.Parameter:
    return nn.Parameter(torch.randn(rows, columns) * deviation)
