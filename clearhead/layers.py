"""A transformer's attention layer in plain numpy: W^Q, W^K and W^V, attention in several heads, then W^O.

Responsible for applying the matrices and splitting them into heads; `clearhead.attend` computes attention and
gradients.
"""

from dataclasses import dataclass

import numpy as np

from clearhead.arrays import Array
from clearhead.displayed import Brief
from clearhead.errors import DtypeError, InputError, ShapeError
from clearhead.functional import Attended, attend
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.masks import CAUSAL
from clearhead.rules.scores import ScoreLike

MATRICES = ("query", "key", "value", "output")


@dataclass(frozen=True, eq=False, repr=False)
class SelfAttention(Brief):
    """Self-attention of a transformer: heads attend over x W^Q, x W^K and x W^V, and W^O mixes their outputs.

    It extends the textbook's first approach in four steps:

    1. `SelfAttention.plain(dim)` compares the items themselves: y_i = Σ α_ij x_j with scores x_i · x_j, no parameters.
    2. Parameter matrices give each item three roles: query (q_i = x_i W^Q), key (k_j = x_j W^K) and value
       (v_j = x_j W^V). Scores become q_i · k_j, so similarity is learned and need not be symmetric.
    3. A sum of d products grows like √d, which makes softmax hard, so scores are divided by √d.
    4. Several heads attend to different things at once, each with separate d columns of W^Q, W^K and W^V. Their outputs
       are concatenated, and W^O mixes them.

    Shapes: `query` (dim, heads · d), `key` (dim, key_heads · d), `value` (dim, key_heads · dv), `output`
    (heads · dv, out) or None for the concatenated heads. `scale` defaults to 1/√d. All float32 or all float64. Raises
    ShapeError, DtypeError or InputError. Source: Vaswani et al. 2017, section 3.2.

    >>> x = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> SelfAttention.plain(2)(x).round(3)
    array([[1.   , 0.   ],
           [0.269, 0.731],
           [0.788, 0.788]])
    """

    query: Array
    key: Array
    value: Array
    output: Array | None = None
    heads: int = 1
    key_heads: int | None = None
    mask: Mask = CAUSAL
    score: ScoreLike = ()
    scale: float | None = None

    def __post_init__(self) -> None:
        for name in MATRICES:
            matrix = getattr(self, name)
            if matrix is not None:
                object.__setattr__(self, name, np.asarray(matrix))
        self.check()

    @classmethod
    def plain(cls, dim: int) -> "SelfAttention":
        """The first approach: no parameters (every matrix the identity), one head, no scale."""
        one = np.eye(dim)
        return cls(one, one, one, scale=1.0)

    @classmethod
    def random(
        cls, dim: int, heads: int, *, key_heads: int | None = None, dtype: str = "float32", seed: int = 0
    ) -> "SelfAttention":
        """A layer to train, with random matrices of variance 1/dim: (n, dim) → (n, dim).

        >>> layer = SelfAttention.random(64, heads=8, key_heads=2)
        >>> layer.query.shape, layer.key.shape, layer(np.zeros((5, 64), np.float32)).shape
        ((64, 64), (64, 16), (5, 64))
        """
        if heads < 1 or dim % heads:
            raise ShapeError(f"{dim} dims cannot be shared by {heads} heads: use a divisor of {dim}.")
        key_columns = dim // heads * (key_heads or heads)
        draw = np.random.default_rng(seed).standard_normal

        def matrix(columns: int) -> Array:
            drawn: Array = draw((dim, columns)) * dim**-0.5
            return drawn.astype(dtype)

        return cls(matrix(dim), matrix(key_columns), matrix(key_columns), matrix(dim), heads, key_heads)

    def check(self) -> None:
        """Check that the matrices fit each other and the heads."""
        arrays = {name: getattr(self, name) for name in MATRICES if getattr(self, name) is not None}
        shapes = ", ".join(f"{name} {x.shape}" for name, x in arrays.items())
        if any(x.ndim != 2 or 0 in x.shape for x in arrays.values()):
            raise ShapeError(f"matrices have two axes, (dim, columns): these are {shapes}.")
        if len({x.dtype for x in arrays.values()}) > 1 or self.query.dtype.name not in ("float32", "float64"):
            kinds = ", ".join(f"{name} {x.dtype}" for name, x in arrays.items())
            raise DtypeError(f"matrices are float32 or float64, all the same: these are {kinds}.")
        key_heads = self.heads if self.key_heads is None else self.key_heads
        if self.heads < 1 or key_heads < 1 or self.heads % key_heads:
            raise InputError(f"{self.heads} heads cannot share {key_heads} key heads evenly: use a divisor.")
        fits = len({x.shape[0] for name, x in arrays.items() if name != "output"}) == 1
        fits &= not self.query.shape[1] % self.heads and not self.value.shape[1] % key_heads
        fits &= self.key.shape[1] * self.heads == self.query.shape[1] * key_heads
        if self.output is not None:
            fits &= self.output.shape[0] * key_heads == self.value.shape[1] * self.heads
        if not fits:
            raise ShapeError(
                f"{shapes} do not fit {self.heads} heads over {key_heads} key heads: give (dim, heads · d), "
                "(dim, key_heads · d), (dim, key_heads · dv) and (heads · dv, out)."
            )

    def __call__(self, x: Array) -> Array:
        """y (..., n, out) of x (..., n, dim)."""
        return self.forward(x).y

    def forward(self, x: Array) -> "LayerPass":
        """Compute y and keep every step, for inspection (`.attended.weights`) and for `.backward`."""
        x = np.asarray(x)
        if x.ndim < 2 or x.shape[-1] != len(self.query) or x.dtype != self.query.dtype:
            raise ShapeError(
                f"x of shape {x.shape} and {x.dtype} does not fit this layer: give (..., n, {len(self.query)}) in "
                f"{self.query.dtype}."
            )
        key_heads = self.heads if self.key_heads is None else self.key_heads
        q = split_heads(x @ self.query, self.heads)  # (..., heads, n, d)
        k, v = (split_heads(x @ matrix, key_heads) for matrix in (self.key, self.value))  # (..., key heads, n, d or dv)
        attended = attend(q, k, v, mask=self.mask, score=self.score, scale=self.scale)
        joint = join_heads(attended.output)  # (..., n, heads · dv)
        return LayerPass(self, x, attended, joint, joint if self.output is None else joint @ self.output)


@dataclass(frozen=True, eq=False, repr=False)
class LayerGradients(Brief):
    """Gradients of a loss with respect to the layer's input and matrices, in their shapes."""

    x: Array
    query: Array
    key: Array
    value: Array
    output: Array | None


@dataclass(frozen=True, eq=False, repr=False)
class LayerPass(Brief):
    """One pass through a layer: its input, the attention, the concatenated heads, and y."""

    layer: SelfAttention
    x: Array
    attended: Attended
    joint: Array
    y: Array

    def backward(self, d_y: Array) -> LayerGradients:
        """Gradients of Σ d_y ∘ y: the chain rule through W^O, attention, and W^Q, W^K, W^V.

        >>> layer = SelfAttention.random(4, heads=2, dtype="float64")
        >>> done = layer.forward(np.eye(4)[:3])
        >>> done.backward(np.ones((3, 4))).query.shape
        (4, 4)
        """
        layer, d_y = self.layer, np.asarray(d_y)
        if not np.can_cast(d_y.dtype, self.y.dtype, "same_kind"):
            raise DtypeError(f"d_y has dtype {d_y.dtype}, y {self.y.dtype}: give real numbers, as by d_y.real.")
        d_y = d_y.astype(self.y.dtype, copy=False)
        if d_y.shape != self.y.shape:
            raise ShapeError(f"d_y of shape {d_y.shape} does not fit y {self.y.shape}: give equal shapes.")
        d_joint = d_y if layer.output is None else d_y @ layer.output.T
        gradients = self.attended.backward(split_heads(d_joint, layer.heads), rules=False)
        d_q, d_k, d_v = join_heads(gradients.q), join_heads(gradients.k), join_heads(gradients.v)
        d_x = d_q @ layer.query.T + d_k @ layer.key.T + d_v @ layer.value.T
        d_query, d_key, d_value = (summed(self.x, d) for d in (d_q, d_k, d_v))
        d_output = None if layer.output is None else summed(self.joint, d_y)
        return LayerGradients(d_x, d_query, d_key, d_value, d_output)


def split_heads(x: Array, heads: int) -> Array:
    """(..., n, heads · d) as (..., heads, n, d), a view.

    >>> split_heads(np.arange(4).reshape(1, 4), 2).tolist()
    [[[0, 1]], [[2, 3]]]
    """
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads).swapaxes(-2, -3)


def join_heads(x: Array) -> Array:
    """(..., heads, n, d) as (..., n, heads · d)."""
    by_item = x.swapaxes(-2, -3)  # (..., n, heads, d)
    return by_item.reshape(*by_item.shape[:-2], by_item.shape[-2] * by_item.shape[-1])


def summed(a: Array, b: Array) -> Array:
    """aᵀ b over all items of all sequences."""
    return a.reshape(-1, a.shape[-1]).T @ b.reshape(-1, b.shape[-1])
