"""A layer's matrices, and queries, keys and values, from a file.

Decides under which names a .npz or .safetensors file holds them and what fits together; how such a file is read is
`files`' affair.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clearhead.arrays import Array
from clearhead.errors import DtypeError, FileError, ShapeError
from clearhead.files import open_arrays

NAMES = {
    "query": ("query", "w_q", "wq", "w^q", "q_proj.weight"),
    "key": ("key", "w_k", "wk", "w^k", "k_proj.weight"),
    "value": ("value", "w_v", "wv", "w^v", "v_proj.weight"),
    "output": ("output", "w_o", "wo", "w^o", "o_proj.weight"),
}  # what a matrix may be called; torch's Linear holds it transposed


@dataclass(frozen=True, eq=False)
class Matrices:
    """W^Q and W^K (dim, heads · d), W^V (dim, heads · dv) and W^O (heads · dv, out), if there is one, in float64."""

    name: str
    query: Array
    key: Array
    value: Array
    output: Array | None = None

    def __str__(self) -> str:
        held = {"W^Q": self.query, "W^K": self.key, "W^V": self.value, "W^O": self.output}
        return ", ".join(f"{name} {x.shape}" for name, x in held.items() if x is not None)


def read_matrices(path: Path) -> Matrices:
    """The matrices in a .npz or .safetensors file: W_Q, W_K, W_V and, if it is there, W_O.

    `query`, `key`, `value` and `output` are understood too, and transformers' q_proj.weight and its like, which are
    turned. Raises FileError, or ShapeError for matrices that do not fit each other.
    """
    held = arrays(path)
    lower = {name.lower(): name for name in held}
    found: dict[str, Array] = {}
    for part, names in NAMES.items():
        name = next((name for name in names if name in lower), None)
        if name is None and part != "output":
            raise FileError(
                f"{path} holds {', '.join(held) or 'nothing'}, and no W^{part[0].upper()}: name the matrices W_Q, W_K, "
                "W_V and W_O."
            )
        if name is not None:
            x = matrix(path, name, held[lower[name]])
            found[part] = x.T if name.endswith(".weight") else x
    made = Matrices(path.name, **found)
    if made.query.shape != made.key.shape or made.value.shape[0] != made.query.shape[0]:
        raise ShapeError(f"{path}: {made} do not fit: give W_Q and W_K of one shape, and W_V of as many rows.")
    if made.output is not None and made.output.shape[0] != made.value.shape[1]:
        raise ShapeError(f"{path}: {made} do not fit: give W_O as many rows as W_V has columns.")
    return made


def read_qkv(path: Path) -> tuple[Array, Array, Array]:
    """The arrays q (n, d), k (m, d) and v (m, dv) in a .npz or .safetensors file, in float64; raises FileError."""
    held = arrays(path)
    missing = [name for name in "qkv" if name not in held]
    if missing:
        raise FileError(f"{path} holds {', '.join(held) or 'nothing'}, and no {missing[0]}: give q, k and v.")
    q, k, v = (matrix(path, name, held[name]) for name in "qkv")
    return q, k, v


def arrays(path: Path) -> Mapping[str, Array]:
    """A file's arrays by name."""
    if path.suffix.lower() not in (".npz", ".safetensors"):
        raise FileError(f"{path} is neither .npz nor .safetensors: save the arrays as one of them, by name.")
    opened = open_arrays(path)
    return {name: opened[name] for name in opened.members}


def matrix(path: Path, name: str, x: Array) -> Array:
    """An array of two axes, in float64."""
    if x.ndim != 2 or 0 in x.shape:
        raise ShapeError(f"{path}: {name} has the shape {x.shape}: give two axes; of several heads, choose one.")
    if x.dtype.kind != "f":
        raise DtypeError(f"{path}: {name} holds {x.dtype}: give real numbers.")
    with np.errstate(invalid="ignore"):  # of not-a-number in the odd form that processors warn of
        wide: Array = np.array(x, np.float64)
    return wide
