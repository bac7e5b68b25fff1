"""A layer's matrices, or queries, keys and values, from a .npz or .safetensors file.

Responsible for the names under which they are found, and for checking that their shapes fit. Not for reading the file,
which `files` does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clearhead.arrays import Array
from clearhead.errors import DtypeError, FileError, ShapeError
from clearhead.files import open_arrays

MATRIX_NAMES = {
    "query": ("query", "w_q", "wq", "w^q", "q_proj.weight"),
    "key": ("key", "w_k", "wk", "w^k", "k_proj.weight"),
    "value": ("value", "w_v", "wv", "w^v", "v_proj.weight"),
    "output": ("output", "w_o", "wo", "w^o", "o_proj.weight"),
}  # accepted names of each matrix; torch's Linear stores it transposed


@dataclass(frozen=True, eq=False)
class Matrices:
    """W^Q and W^K (dim, heads · d), W^V (dim, heads · dv) and optionally W^O (heads · dv, out), in float64."""

    name: str
    query: Array
    key: Array
    value: Array
    output: Array | None = None

    def __str__(self) -> str:
        held = {"W^Q": self.query, "W^K": self.key, "W^V": self.value, "W^O": self.output}
        return ", ".join(f"{name} {x.shape}" for name, x in held.items() if x is not None)


def read_matrices(path: Path) -> Matrices:
    """Read the matrices in a .npz or .safetensors file: W_Q, W_K, W_V and, if present, W_O.

    The names `query`, `key`, `value` and `output` are accepted too, as are q_proj.weight and so on from transformers,
    which are transposed. Raises FileError, or ShapeError for matrices that do not fit each other.
    """
    held = arrays_by_name(path)
    lower = {name.lower(): name for name in held}
    parts: dict[str, Array] = {}
    for part, names in MATRIX_NAMES.items():
        name = next((name for name in names if name in lower), None)
        if name is None and part != "output":
            raise FileError(
                f"{path} holds {', '.join(held) or 'nothing'}, and no W^{part[0].upper()}: name the matrices W_Q, W_K, "
                "W_V and W_O."
            )
        if name is not None:
            x = matrix_array(path, name, held[lower[name]])
            parts[part] = x.T if name.endswith(".weight") else x
    matrices = Matrices(path.name, **parts)
    if matrices.query.shape != matrices.key.shape or matrices.value.shape[0] != matrices.query.shape[0]:
        raise ShapeError(f"{path}: {matrices} do not fit: give W_Q and W_K of one shape, and W_V of as many rows.")
    if matrices.output is not None and matrices.output.shape[0] != matrices.value.shape[1]:
        raise ShapeError(f"{path}: {matrices} do not fit: give W_O as many rows as W_V has columns.")
    return matrices


def read_qkv(path: Path) -> tuple[Array, Array, Array]:
    """Read q (n, d), k (m, d) and v (m, dv) from a .npz or .safetensors file, in float64; raises FileError."""
    held = arrays_by_name(path)
    missing = [name for name in "qkv" if name not in held]
    if missing:
        raise FileError(f"{path} holds {', '.join(held) or 'nothing'}, and no {missing[0]}: give q, k and v.")
    q, k, v = (matrix_array(path, name, held[name]) for name in "qkv")
    return q, k, v


def arrays_by_name(path: Path) -> Mapping[str, Array]:
    """A file's arrays by name."""
    if path.suffix.lower() not in (".npz", ".safetensors"):
        raise FileError(f"{path} is neither .npz nor .safetensors: save the arrays as one of them, by name.")
    opened = open_arrays(path)
    return {name: opened[name] for name in opened.members}


def matrix_array(path: Path, name: str, x: Array) -> Array:
    """The array in float64; raises ShapeError unless it has two axes, DtypeError unless it holds floats."""
    if x.ndim != 2 or 0 in x.shape:
        raise ShapeError(f"{path}: {name} has shape {x.shape}: give two axes; of several heads, choose one.")
    if x.dtype.kind != "f":
        raise DtypeError(f"{path}: {name} holds {x.dtype}: give real numbers.")
    with np.errstate(invalid="ignore"):  # converting a signaling NaN warns
        converted: Array = np.array(x, np.float64)
    return converted
