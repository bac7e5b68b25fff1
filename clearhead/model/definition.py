"""The model's definition: its forward pass in float64, a line for each line of the textbook.

Nothing here is shared with the fast path but the parameters, so that agreement means something. Rotary positions are
multiplications of complex numbers, attention is `clearhead.definition.textbook`'s.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from clearhead.definition import textbook
from clearhead.model.parameters import ROTARY_BASE, TINY, Parameters

Array = npt.NDArray[np.float64]


def logits(p: Parameters, tokens: Sequence[int]) -> Array:
    """Scores (n, vocabulary) of each token to come next, after each of n tokens."""
    embedding = p.embedding.astype(np.float64)
    x = embedding[list(tokens)]  # (n, dim)
    for layer in p.layers:
        u = norm(x)
        q, k, v = (heads(u @ w, p.heads) for w in (layer.query, layer.key, layer.value))  # (heads, n, d)
        y = textbook.attention(rotary(q), rotary(k), v)
        x = x + np.concatenate(list(y), axis=-1) @ layer.output
        x = x + gelu(norm(x) @ layer.up) @ layer.down
    return norm(x) @ embedding.T


def norm(x: Array) -> Array:
    """Rows of root mean square 1."""
    y: Array = x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + TINY)
    return y


def heads(x: Array, count: int) -> Array:
    """(n, heads · d) → (heads, n, d): each head has d columns of its own."""
    return np.stack(np.split(x, count, axis=-1))


def rotary(x: Array) -> Array:
    """Position p turns plane i, the complex number x_i + 𝑖 x_(i + d/2), by the angle p · 10000^(−2i/d)."""
    n, d = x.shape[-2:]
    plane = x[..., : d // 2] + 1j * x[..., d // 2 :]
    turned = plane * np.exp(1j * np.outer(np.arange(n), ROTARY_BASE ** (-2 * np.arange(d // 2) / d)))
    return np.concatenate([turned.real, turned.imag], axis=-1)


def gelu(x: Array) -> Array:
    """½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))."""
    y: Array = x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return y
