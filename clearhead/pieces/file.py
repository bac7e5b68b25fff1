"""A partial sum in a .safetensors file, written whole or not at all and checked before it is used."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from clearhead.arrays import Array
from clearhead.cache.file import dtype_named
from clearhead.engine.carried import Sums
from clearhead.kernels.abi.tiles import STORED
from clearhead.pieces.origin import Origin

NUMBERS = ("first_key", "stop", "segments")


def write_partial(
    path: str | os.PathLike[str], sums: Sums, numbers: Sequence[int], dtype: np.dtype[Any], origin: Origin
) -> None:
    """Write a file; `numbers` are those of NUMBERS. Raises FileError and then leaves no file."""
    from safetensors.numpy import save

    from clearhead.files.writing import write_whole

    arrays = {name: np.ascontiguousarray(x) for name, x in sums._asdict().items()}
    metadata = {name: str(n) for name, n in zip(NUMBERS, numbers, strict=True)} | {"dtype": dtype.name}
    metadata |= {"at": "" if origin.at is None else str(origin.at), "rules": origin.rules}
    write_whole(path, save(arrays, metadata), force=True)


def read_partial(path: str | os.PathLike[str]) -> tuple[Any, ...]:
    """The fields of the partial sum in a file; raises FileError for any file that `write_partial` did not write."""
    from clearhead.files.saved import read_saved

    return read_saved(path, checked_fields, "partial sum", "Partial.save")


def checked_fields(arrays: dict[str, Array], metadata: dict[str, str]) -> tuple[Any, ...]:
    """The fields, in order; raises KeyError or ValueError if they do not fit together."""
    m, l, o = (arrays.pop(name) for name in ("m", "l", "o"))
    dtype = dtype_named(metadata["dtype"])
    computed = np.dtype(np.float32) if dtype.name in STORED else dtype
    if (
        arrays
        or not (m.shape == l.shape == o.shape[:-1])
        or o.ndim < 2
        or not o.shape[-1]
        or {m.dtype, l.dtype, o.dtype} != {computed}
    ):
        raise ValueError(f"arrays of shapes {m.shape}, {l.shape} and {o.shape}, and others {sorted(arrays)}")
    if (l < 0).any():
        raise ValueError("its sums of exponentials are negative")
    if np.isnan(m).any() or not np.isnan(o[np.isnan(l)]).all():  # a score that is not a number makes its whole row so
        raise ValueError("it has sums that are not numbers for outputs that are")
    first_key, stop, segments = (whole_number(metadata[name]) for name in NUMBERS)
    if not first_key <= stop or segments > stop - first_key or (segments == 0) != (stop == first_key):
        raise ValueError(f"{segments} segments from key {first_key} to {stop}")
    origin = Origin(whole_number(metadata["at"]) if metadata["at"] else None, metadata["rules"])
    return m, l, o, first_key, stop, segments, dtype, origin


def whole_number(text: str) -> int:
    """Parse a number of keys, or a position."""
    if not re.fullmatch(r"\d{1,18}", text, re.ASCII):
        raise ValueError(f"{text[:40]!r} is not a number of keys")
    return int(text)
