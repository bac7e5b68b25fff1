"""One transformer layer, pre-norm: x + attention(norm(x)), then x + MLP(norm(x)).

Responsible for what a layer computes; every intermediate value is kept. Not for the source of the keys: the caller
passes the attention function, over the same text or over a cache.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clearhead.layers import join_heads, split_heads
from clearhead.model.parameters import EPSILON, ROTARY_BASE, LayerParameters, Matrix
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.masks import CAUSAL

if TYPE_CHECKING:
    from clearhead.attention_weights.matrix import Weights

Attend = Callable[[Matrix, Matrix, Matrix], Matrix]
Rotation = tuple[Matrix, Matrix]


@dataclass(frozen=True, eq=False)
class LayerPass:
    """Every value that a layer computed, in order; n is the number of tokens, d = dim / heads.

    The residual stream is `entering`, then `between`, then `leaving`, each (n, dim).
    """

    entering: Matrix
    normed: Matrix  # (n, dim): `entering`, each row divided by its root mean square
    q: Matrix  # (heads, n, d): normed W^Q, rotated by position
    k: Matrix  # (heads, n, d): normed W^K, rotated by position
    v: Matrix  # (heads, n, d): normed W^V
    scale: float  # of the scores: 1/√d
    mask: Mask  # causal
    attended: Matrix  # (heads, n, d): each head's weighted sums of v
    attention: Matrix  # (n, dim): the concatenated heads times W^O
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


def layer_pass(x: Matrix, layer: LayerParameters, heads: int, turn: Rotation, attend: Attend) -> LayerPass:
    """Run one layer over the residual stream x (n, dim); `attend` computes the heads' outputs from q, k and v."""
    u = rms_norm(x)
    q, k, v = (split_heads(matmul_rows(u, matrix), heads) for matrix in (layer.query, layer.key, layer.value))
    q, k = rotate_pairs(q, turn), rotate_pairs(k, turn)
    attended = attend(q, k, v)
    attention = matmul_rows(join_heads(attended), layer.output)
    between = x + attention
    w = rms_norm(between)
    hidden = gelu_tanh(matmul_rows(w, layer.up))
    mlp = matmul_rows(hidden, layer.down)
    scale = q.shape[-1] ** -0.5
    return LayerPass(x, u, q, k, v, scale, CAUSAL, attended, attention, between, w, hidden, mlp, between + mlp)


def matmul_rows(x: Matrix, matrix: Matrix) -> Matrix:
    """x W, one product per row, so that a row's bits do not depend on how many rows are computed together.

    >>> matmul_rows(np.array([[1, 2], [3, 4]], np.float32), np.eye(2, dtype=np.float32)).tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    product: Matrix = (x[:, None, :] @ matrix)[:, 0]  # (n, 1, in) @ (in, out): n products of a vector and a matrix
    return product


def rms_norm(x: Matrix) -> Matrix:
    """Each row divided by its root mean square (RMSNorm, Zhang & Sennrich 2019, without a gain).

    >>> rms_norm(np.array([[3, 4], [0, 0]], np.float32)).round(3)
    array([[0.849, 1.131],
           [0.   , 0.   ]], dtype=float32)
    """
    y: Matrix = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.float32(EPSILON))
    return y


def gelu_tanh(x: Matrix) -> Matrix:
    """x times the probability that a standard normal number is below x (Hendrycks & Gimpel 2016, tanh approximation).

    >>> gelu_tanh(np.array([-3, 0, 3], np.float32)).round(3)
    array([-0.004,  0.   ,  2.996], dtype=float32)
    """
    half, cube, root = np.float32(0.5), np.float32(0.044715), np.float32((2 / np.pi) ** 0.5)
    y: Matrix = half * x * (1 + np.tanh(root * (x + cube * x * x * x)))
    return y


def rotation_table(length: int, dim: int) -> Rotation:
    """Cosines and sines (length, dim / 2) of the angles by which each position rotates q and k."""
    angles = np.arange(length)[:, None] * ROTARY_BASE ** (-np.arange(0, dim, 2) / dim)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def rotate_pairs(x: Matrix, turn: Rotation) -> Matrix:
    """Rotary positions (Su et al. 2021): dims i and i + d/2 of x (..., n, d) form a plane, rotated by its position.

    The score of two rotated rows then depends only on the distance between their positions.

    >>> x = np.ones((3, 2), np.float32)
    >>> (rotate_pairs(x, rotation_table(3, 2)) @ x[0]).round(3)    # 2 cos(0), 2 cos(1), 2 cos(2)
    array([ 2.   ,  1.081, -0.832], dtype=float32)
    """
    (a, b), (cosine, sine) = np.split(x, 2, axis=-1), turn
    return np.concatenate([a * cosine - b * sine, a * sine + b * cosine], axis=-1)
