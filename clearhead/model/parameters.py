"""The model's parameters: what its file holds, and how eight bits become numbers again.

Decides names, shapes and constants; what is computed with them is `model`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]

TINY = 1e-6  # added to the mean square by whose root a row is divided
ROTARY_BASE = 10000.0  # a position turns the planes of q and k by angles from 1 to about 1/10000 (Su et al. 2021)
EMBEDDING, SCALES = "embedding", ".scales"


@dataclass(frozen=True, eq=False)
class LayerParameters:
    """One layer's matrices, each (in, out): a row x becomes x W."""

    query: Matrix
    key: Matrix
    value: Matrix
    output: Matrix
    up: Matrix
    down: Matrix


@dataclass(frozen=True, eq=False)
class Parameters:
    """The token `embedding` (vocabulary, dim), the `layers`, each one's `heads`, and the longest text in tokens."""

    embedding: Matrix
    layers: tuple[LayerParameters, ...]
    heads: int
    context: int


MATRICES = tuple(field.name for field in fields(LayerParameters))


def read(held: Mapping[str, npt.NDArray[Any]], heads: int, context: int) -> Parameters:
    """The parameters from a file's tensors: of each matrix its columns as whole numbers in 8 bits, and their scales.

    `embedding` (vocabulary, dim) and `embedding.scales` (vocabulary,); for layer 0 `0.query` (out, in) and
    `0.query.scales` (out,), and so on. A number is its 8 bits times its row's scale, exactly.
    """
    count = sum(name.endswith(f".{MATRICES[0]}") for name in held)
    layers = (LayerParameters(*(_widened(held, f"{n}.{name}").T for name in MATRICES)) for n in range(count))
    return Parameters(_widened(held, EMBEDDING), tuple(layers), heads, context)


def _widened(held: Mapping[str, npt.NDArray[Any]], name: str) -> Matrix:
    wide: Matrix = held[name] * held[name + SCALES].astype(np.float32)[:, None]
    wide.setflags(write=False)
    return wide
