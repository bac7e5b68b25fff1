"""The model's layer: attention over a normed residual stream, added to it; then an MLP over it normed again, added too.

Decides what a layer computes, and keeps all of it for whoever wants to look. Whose keys are attended to is the
caller's: those of the same text, or of a cache.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clearhead.layers import join_heads, split_heads
from clearhead.model.parameters import ROTARY_BASE, TINY, LayerParameters, Matrix
from clearhead.rules.masks import CAUSAL, Mask

if TYPE_CHECKING:
    from clearhead.attention_weights.matrix import Weights

Attend = Callable[[Matrix, Matrix, Matrix], Matrix]
Turn = tuple[Matrix, Matrix]


@dataclass(frozen=True, eq=False)
class LayerPass:
    """All that a layer computed, in order; n is the number of tokens, d = dim / heads.

    The residual stream is `entering`, then `between`, then `leaving`, each (n, dim).
    """

    entering: Matrix
    normed: Matrix  # (n, dim): `entering`, each row over its root mean square
    q: Matrix  # (heads, n, d): normed W^Q, turned by its positions
    k: Matrix  # (heads, n, d): normed W^K, turned likewise
    v: Matrix  # (heads, n, d): normed W^V
    scale: float  # of the scores: 1/√d
    mask: Mask  # causal
    attended: Matrix  # (heads, n, d): each head's weighted sums of v
    attention: Matrix  # (n, dim): the heads side by side, times W^O
    between: Matrix  # entering + attention
    normed_between: Matrix  # (n, dim)
    hidden: Matrix  # (n, 4 dim): gelu(normed_between W^up)
    mlp: Matrix  # (n, dim): hidden W^down
    leaving: Matrix  # between + mlp

    @property
    def weights(self) -> "Weights":
        """Every head's weights, (heads, n, n)."""
        from clearhead.attention_weights.matrix import weights

        return weights(self.q, self.k, mask=self.mask, scale=self.scale)


def layer_pass(x: Matrix, layer: LayerParameters, heads: int, turn: Turn, attend: Attend) -> LayerPass:
    """One layer over the residual stream x (n, dim); `attend` gives the heads' outputs of q, k and v."""
    u = normed(x)
    q, k, v = (split_heads(times(u, matrix), heads) for matrix in (layer.query, layer.key, layer.value))
    q, k = rotated(q, turn), rotated(k, turn)
    attended = attend(q, k, v)
    attention = times(join_heads(attended), layer.output)
    between = x + attention
    w = normed(between)
    hidden = gelu(times(w, layer.up))
    mlp = times(hidden, layer.down)
    scale = q.shape[-1] ** -0.5
    return LayerPass(x, u, q, k, v, scale, CAUSAL, attended, attention, between, w, hidden, mlp, between + mlp)


def times(x: Matrix, matrix: Matrix) -> Matrix:
    """x W, each row by itself: then it has the same bits whichever rows stand beside it, decoded one by one or all.

    >>> times(np.array([[1, 2], [3, 4]], np.float32), np.eye(2, dtype=np.float32)).tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    product: Matrix = (x[:, None, :] @ matrix)[:, 0]  # (n, 1, in) @ (in, out): n products of a vector and a matrix
    return product


def normed(x: Matrix) -> Matrix:
    """Each row over the root of the mean of its squares (RMSNorm, Zhang & Sennrich 2019, without a gain).

    >>> normed(np.array([[3, 4], [0, 0]], np.float32)).round(3)
    array([[0.849, 1.131],
           [0.   , 0.   ]], dtype=float32)
    """
    over: Matrix = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.float32(TINY))
    return over


def gelu(x: Matrix) -> Matrix:
    """x times about the chance that a normal number is below it (Hendrycks & Gimpel 2016, the tanh form).

    >>> gelu(np.array([-3, 0, 3], np.float32)).round(3)
    array([-0.004,  0.   ,  2.996], dtype=float32)
    """
    half, cube, root = np.float32(0.5), np.float32(0.044715), np.float32((2 / np.pi) ** 0.5)
    soft: Matrix = half * x * (1 + np.tanh(root * (x + cube * x * x * x)))
    return soft


def turns(length: int, dim: int) -> Turn:
    """Cosines and sines (length, dim / 2) of the angles by which each position turns the planes of q and k."""
    angles = np.arange(length)[:, None] * ROTARY_BASE ** (-np.arange(0, dim, 2) / dim)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def rotated(x: Matrix, turn: Turn) -> Matrix:
    """Rotary positions (Su et al. 2021): dims i and i + d/2 of x (..., n, d) are a plane, turned by its position.

    A score of two turned rows then depends on how far apart they stand, not on where.

    >>> x = np.ones((3, 2), np.float32)
    >>> (rotated(x, turns(3, 2)) @ x[0]).round(3)    # 2 cos(0), 2 cos(1), 2 cos(2)
    array([ 2.   ,  1.081, -0.832], dtype=float32)
    """
    (a, b), (cosine, sine) = np.split(x, 2, axis=-1), turn
    return np.concatenate([a * cosine - b * sine, a * sine + b * cosine], axis=-1)
