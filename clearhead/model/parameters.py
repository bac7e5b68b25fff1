"""The model's parameters: the contents of its file, dequantized from 8 bits.

Responsible for names, shapes and constants. Not for the computation, which is in `model` and `block`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.displayed import Brief

Matrix = npt.NDArray[np.float32]

EPSILON = 1e-6  # added to the mean square in RMSNorm
ROTARY_BASE = 10000.0  # each position rotates the planes of q and k by angles from 1 to about 1/10000 (Su et al. 2021)
EMBEDDING, SCALES = "embedding", ".scales"


@dataclass(frozen=True, eq=False, repr=False)
class LayerParameters(Brief):
    """One layer's matrices, each (in, out), applied as x W."""

    query: Matrix
    key: Matrix
    value: Matrix
    output: Matrix
    up: Matrix
    down: Matrix


@dataclass(frozen=True, eq=False, repr=False)
class Parameters(Brief):
    """The token `embedding` (vocabulary, dim), the `layers`, the heads per layer, and the context length in tokens."""

    embedding: Matrix
    layers: tuple[LayerParameters, ...]
    heads: int
    context: int


MATRICES = tuple(field.name for field in fields(LayerParameters))


def dequantize(tensors: Mapping[str, npt.NDArray[Any]], heads: int, context: int) -> Parameters:
    """The parameters from a file's tensors: each matrix's columns as 8-bit integers, and a scale for each column.

    `embedding` (vocabulary, dim) and `embedding.scales` (vocabulary,); for layer 0 `0.query` (out, in) and
    `0.query.scales` (out,), and so on. A parameter is exactly its 8-bit integer times its row's scale.
    """
    count = sum(name.endswith(f".{MATRICES[0]}") for name in tensors)
    layers = (LayerParameters(*(_scaled(tensors, f"{n}.{name}").T for name in MATRICES)) for n in range(count))
    return Parameters(_scaled(tensors, EMBEDDING), tuple(layers), heads, context)


def _scaled(tensors: Mapping[str, npt.NDArray[Any]], name: str) -> Matrix:
    matrix: Matrix = tensors[name] * tensors[name + SCALES].astype(np.float32)[:, None]
    matrix.setflags(write=False)
    return matrix
