"""Gradients of a loss by weights, never built as matrices, and the relevance of inputs that follows from them.

Responsible for dL/dα_ij = dL/dy_i · v_j, and for methods that multiply weights by their gradients. `rollout` walks
layers in the same way, without gradients.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array
from clearhead.attention_weights.lazy import ALL_ITEMS, axis_indices, check_memory
from clearhead.attention_weights.matrix import Weights
from clearhead.attention_weights.rollout import checked_layers, passed_on
from clearhead.attention_weights.weights_like import as_layers, as_weights
from clearhead.errors import InputError, ShapeError


def weight_gradients(d_outputs: npt.ArrayLike, values: npt.ArrayLike) -> "WeightGradients":
    """The gradients of a loss by the weights of one layer, (heads, queries, keys), computed where they are read.

    dL/dα_ij = dL/dy_i · v_j, for the output y of each head before the output projection: `d_outputs` (heads, queries,
    dv), `values` (heads or key heads, keys, dv). Both are kept, so do not change them. Index by head and queries, or
    read a row. Pairs that a mask hides have a gradient too, of a weight that stays 0. Raises ShapeError. Definition:
    `clearhead.definition.weights.gradients`.

    >>> gradients = weight_gradients([[[1.0], [2.0]]], [[[3.0], [4.0]]])
    >>> gradients.shape, gradients.row(1)
    ((1, 2, 2), array([[6., 8.]]))
    """
    d, v = np.asarray(d_outputs), np.asarray(values)
    if d.ndim != 3 or v.ndim != 3 or not len(v) or len(d) % len(v) or d.shape[-1] != v.shape[-1]:
        raise ShapeError(
            f"d_outputs of shape {d.shape} and values of shape {v.shape} do not fit: give (heads, queries, dv) and "
            "(heads or key heads, keys, dv)."
        )
    dtype = np.result_type(d, v, np.float32)  # 16-bit values are widened, as attention widens them
    return WeightGradients(d.astype(dtype, copy=False), v.astype(dtype, copy=False))


@dataclass(frozen=True, eq=False)
class WeightGradients:
    """Gradients by weights, of which only those that are read are computed."""

    d_outputs: Array
    values: Array

    @property
    def shape(self) -> tuple[int, int, int]:
        """(heads, queries, keys)."""
        return (*self.d_outputs.shape[:2], self.values.shape[1])

    def __repr__(self) -> str:
        return f"WeightGradients(shape={self.shape})"

    def __getitem__(self, index: tuple[int, slice | int]) -> Array:
        """The gradients of one head and some queries: `gradients[head, rows]`."""
        head, rows = index
        head = range(len(self.d_outputs))[head]
        of_key_head = self.values[head * len(self.values) // len(self.d_outputs)]
        return self.d_outputs[head, rows] @ of_key_head.T  # type: ignore[no-any-return]

    def row(self, i: int) -> Array:
        """The gradients of query i: (heads, keys)."""
        return np.stack([self[head, i] for head in range(len(self.d_outputs))])


def relevance(layers: Any, gradients: Sequence[Any], queries: slice | npt.ArrayLike = ALL_ITEMS) -> Array:
    """How relevant each input is to a loss, through each of the outputs `queries`: (queries, keys).

    `layers` as for `rollout`, of one sequence; `gradients` are the loss's by each layer's weights, (heads, n, n):
    arrays, or `weight_gradients`, which need no matrix. Starting from R = 1, each layer adds mean over heads of
    max(0, gradient · weight), times R. Needs twice the memory of the result and a few MiB. Raises ShapeError or
    InputError. Source: Chefer, Gur & Wolf 2021, "Generic attention-model explainability", equations 5 and 6.
    Definition: `clearhead.definition.weights.relevance`.

    >>> from clearhead import weights
    >>> layer = weights(np.zeros((1, 2, 1)), np.zeros((1, 2, 1)))
    >>> relevance([layer], [weight_gradients([[[1.0], [1.0]]], [[[-1.0], [2.0]]])])
    array([[1., 0.],
           [0., 2.]])
    """
    layers = as_layers(layers)
    n = checked_layers(layers, 0)
    check_gradients(layers, gradients)
    rows, at = axis_indices(queries, n)
    check_memory((len(rows), n), layers[0].dtype)
    shares = np.zeros((len(rows), n), layers[0].dtype)
    shares[np.arange(len(rows)), rows] = 1
    for layer, gradient in zip(reversed(layers), reversed(gradients), strict=True):
        shares += passed_on(shares, positive_rows(layer, gradient))
    return shares[at]  # type: ignore[no-any-return]


def weights_times_gradients(w: Weights, gradient: Any, queries: slice | npt.ArrayLike = ALL_ITEMS) -> Array:
    """Gradient times weight of each head and key, summed over `queries`: Σ_i α_ij dL/dα_ij, (heads, keys).

    To first order, what the loss would lose if the key lost its weight. `w` (heads, n, m), `gradient` of the same
    shape: an array, or `weight_gradients`. Raises ShapeError. Definition:
    `clearhead.definition.weights.weights_times_gradients`.

    >>> from clearhead import weights
    >>> w = weights(np.zeros((1, 2, 1)), np.zeros((1, 2, 1)))
    >>> weights_times_gradients(w, weight_gradients([[[1.0], [1.0]]], [[[-1.0], [2.0]]]))
    array([[-1.5,  1. ]])
    """
    w = as_weights(w)
    check_gradients([w], [gradient])
    rows, _ = axis_indices(queries, w.shape[-2])
    wanted = np.zeros(w.shape[-2], np.bool_)
    wanted[rows] = True
    total = np.zeros((len(w), w.shape[-1]), w.dtype)
    for part in parts_with(w, wanted):
        for head in range(len(w)):
            total[head] += product(w, gradient, head, part)[wanted[part]].sum(axis=0)
    return total


def positive_rows(layer: Weights, gradient: Any) -> Iterator[Array]:
    """The mean over heads of max(0, gradient · weight), a few rows at a time."""
    for part in layer.slices():
        total = np.zeros((part.stop - part.start, layer.shape[-1]), layer.dtype)
        for head in range(len(layer)):
            total += np.maximum(product(layer, gradient, head, part), 0)
        yield total / len(layer)


def parts_with(w: Weights, wanted: Array) -> Iterator[slice]:
    """The parts of weights that have wanted queries."""
    return (part for part in w.slices() if wanted[part].any())


def product(w: Weights, gradient: Any, head: int, part: slice) -> Array:
    """Weights times gradients for some rows of a head: 0 without weight, even where a gradient is no number."""
    a, by = w[head, part], np.asarray(gradient[head, part])
    with np.errstate(invalid="ignore"):
        return np.where(a > 0, a * by, 0)


def check_gradients(layers: Sequence[Weights], gradients: Sequence[Any]) -> None:
    """Check gradients against layers of one sequence."""
    if len(gradients) != len(layers):
        raise InputError(f"{len(gradients)} gradients do not fit {len(layers)} layers: give one for each.")
    for layer, gradient in zip(layers, gradients, strict=True):
        if layer.ndim != 3:
            raise ShapeError(f"weights of shape {layer.shape} are not of one sequence: give (heads, queries, keys).")
        shape = tuple(getattr(gradient, "shape", ()))
        if shape != layer.shape:
            raise ShapeError(f"gradients of shape {shape} do not fit weights of shape {layer.shape}: give equal ones.")
