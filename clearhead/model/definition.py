"""The model's definition: its forward pass in float64, one line of code for each equation.

It shares only the parameters with the fast path, so agreement between the two is evidence. Rotary positions are
products of complex numbers; attention is `clearhead.definition.textbook.attention`.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from clearhead.definition import textbook
from clearhead.model.parameters import EPSILON, ROTARY_BASE, Parameters

Float64Array = npt.NDArray[np.float64]


def logits(p: Parameters, tokens: Sequence[int]) -> Float64Array:
    """Next-token scores (n, vocabulary) after each of n tokens."""
    embedding = p.embedding.astype(np.float64)
    x = embedding[list(tokens)]  # (n, dim)
    for layer in p.layers:
        u = rms_norm(x)
        q, k, v = (split_heads(u @ w, p.heads) for w in (layer.query, layer.key, layer.value))  # (heads, n, d)
        y = textbook.attention(rotary(q), rotary(k), v)
        x = x + np.concatenate(list(y), axis=-1) @ layer.output
        x = x + gelu(rms_norm(x) @ layer.up) @ layer.down
    return rms_norm(x) @ embedding.T


def rms_norm(x: Float64Array) -> Float64Array:
    """Each row scaled to root mean square 1."""
    y: Float64Array = x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + EPSILON)
    return y


def split_heads(x: Float64Array, count: int) -> Float64Array:
    """(n, heads · d) → (heads, n, d): d consecutive columns for each head."""
    return np.stack(np.split(x, count, axis=-1))


def rotary(x: Float64Array) -> Float64Array:
    """Position p rotates plane i, the complex number x_i + 𝑖 x_(i + d/2), by the angle p · 10000^(−2i/d)."""
    n, d = x.shape[-2:]
    plane = x[..., : d // 2] + 1j * x[..., d // 2 :]
    turned = plane * np.exp(1j * np.outer(np.arange(n), ROTARY_BASE ** (-2 * np.arange(d // 2) / d)))
    return np.concatenate([turned.real, turned.imag], axis=-1)


def gelu(x: Float64Array) -> Float64Array:
    """½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))."""
    y: Float64Array = x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return y
