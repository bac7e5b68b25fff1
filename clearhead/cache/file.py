"""Save a key/value cache to a .safetensors file, and load it after checking all of it.

Responsible for the format and for checking that the parts of a file fit together. `key_value` fills the pages.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clearhead.arrays import Array, ceil_div
from clearhead.cache.kept import Kept
from clearhead.cache.pages import Layout, Rows
from clearhead.definition.canonical import BLOCK
from clearhead.errors import DtypeError
from clearhead.kernels.abi.tiles import ELEMENTS, STORED

FILE_DTYPES: dict[str, Any] = {"bfloat16": np.uint16}  # stand-ins for dtypes that safetensors' numpy interface lacks
TRUTH = {"True": True, "False": False}
MOST_BLOCKS = 1 << 26  # of all heads and sequences, including evicted ones
MOST_DROPPED = 1 << 60


@dataclass(frozen=True)
class Saved:
    """The content of a cache: `rows` are the remaining keys and values of each sequence, of `counts` places in all."""

    layout: Layout
    batched: bool
    window: int | None
    rounding: tuple[float, float]
    counts: tuple[int, ...]
    kept: tuple[Kept, ...]
    rows: tuple[tuple[Rows, Rows], ...]

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a file; raises FileError and then leaves no file."""
        from safetensors.numpy import save

        from clearhead.files.writing import write_whole

        arrays, dtype = {}, file_dtype(self.layout)
        for number, both in enumerate(self.rows):
            for name, part in zip(("key", "value"), both, strict=True):
                arrays[f"{name}.{number}"] = np.ascontiguousarray(part.numbers).view(dtype)
                if part.scales is not None:
                    arrays[f"{name}_scale.{number}"] = np.ascontiguousarray(part.scales)
        cut = any(kept.dropped for kept in self.kept)
        if cut:
            tables = (np.ascontiguousarray(kept.positions) for kept in self.kept)
            arrays |= {f"position.{number}": table for number, table in enumerate(tables)}
        metadata = {
            "counts": ",".join(map(str, self.counts)),
            "window": str(self.window or ""),
            "batched": str(self.batched),
            "dtype": self.layout.dtype.name,
            "int8": str(self.layout.int8),
            "rounding": ",".join(map(repr, self.rounding)),
        } | ({"dropped": ",".join(str(kept.dropped) for kept in self.kept)} if cut else {})
        write_whole(path, save(arrays, metadata), force=True)


def read_cache_file(path: str | os.PathLike[str]) -> Saved:
    """Read a file that `Saved.write` wrote; raises FileError for any other."""
    from clearhead.files.saved import read_saved

    return read_saved(path, saved_cache, "cache", "KeyValueCache.save")


def saved_cache(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> Saved:
    """A cache from a file's arrays and metadata; raises KeyError or ValueError if they do not fit together."""
    counts = tuple(map(key_count, metadata["counts"].split(",")))
    window = key_count(metadata["window"]) if metadata["window"] else None
    int8, batched = TRUTH[metadata["int8"]], TRUTH[metadata["batched"]]
    first, last = arrays["key.0"], arrays["value.0"]
    if first.ndim != 3 or last.ndim != 3 or 0 in (first.shape[-1], last.shape[-1]):
        raise ValueError(f"keys of shape {first.shape} and values of shape {last.shape}")
    layout = Layout(dtype_named(metadata["dtype"]), int8, first.shape[0], first.shape[-1], last.shape[-1])
    cut = "dropped" in metadata
    names = [f"{name}.{n}" for n in range(len(counts)) for name in sequence_array_names(int8, cut)]
    if set(names) != set(arrays):
        raise ValueError(f"arrays {', '.join(sorted(set(arrays) ^ set(names)))}, which do not fit {counts} keys")
    if (not batched and len(counts) != 1) or window == 0 or (int8 and layout.dtype == np.float64):
        raise ValueError(f"{len(counts)} sequences, batched {batched}, window {window}, int8 {int8} of {layout.dtype}")
    rows = tuple(checked_rows(arrays, layout, number) for number in range(len(counts)))
    dropped = tuple(map(key_count, metadata["dropped"].split(","))) if cut else (0,) * len(counts)
    kept = tuple(
        checked_kept(arrays[f"position.{number}"], layout.heads, many) if cut else Kept.all(layout.heads)
        for number, many in enumerate(dropped)
    )
    for count, (keys, _), one in zip(counts, rows, kept, strict=True):
        check_count(count, keys.numbers.shape[1], window, one)
    blocks = layout.heads * sum(ceil_div(count, BLOCK) for count in counts)
    if blocks > MOST_BLOCKS:
        raise ValueError(f"{counts} keys for {layout.heads} heads are more than a cache can hold")
    return Saved(layout, batched, window, rounding_of(metadata["rounding"]), counts, kept, rows)


def sequence_array_names(int8: bool, cut: bool) -> tuple[str, ...]:
    """The names of each sequence's arrays."""
    return ("key", "value", *(("key_scale", "value_scale") if int8 else ()), *(("position",) if cut else ()))


def checked_rows(arrays: Mapping[str, Array], layout: Layout, number: int) -> tuple[Rows, Rows]:
    """One sequence's keys and values; raises ValueError unless they have the common layout."""
    count = arrays[f"key.{number}"].shape[1:2]
    result = []
    for name, dim in (("key", layout.key_dim), ("value", layout.value_dim)):
        numbers, scales = arrays[f"{name}.{number}"], arrays.get(f"{name}_scale.{number}")
        if numbers.shape != (layout.heads, *count, dim) or numbers.dtype != file_dtype(layout):
            raise ValueError(f"{name}.{number} of shape {numbers.shape} and dtype {numbers.dtype} in {layout}")
        if scales is not None and (scales.shape != (layout.heads, *count) or scales.dtype != np.float32):
            raise ValueError(f"{name}_scale.{number} of shape {scales.shape} and dtype {scales.dtype}")
        result.append(Rows(numbers.view(layout.stored), scales))
    return result[0], result[1]


def checked_kept(positions: Array, heads: int, dropped: int) -> Kept:
    """The positions of kept keys; raises ValueError unless they ascend and `dropped` keys could have been let go."""
    if positions.ndim != 2 or len(positions) != heads or positions.dtype != np.int64:
        raise ValueError(f"positions of shape {positions.shape} and dtype {positions.dtype}")
    if dropped > MOST_DROPPED:
        raise ValueError(f"{dropped} keys let go")
    last = positions.shape[1] + dropped - 1
    if positions.size and (
        positions.min() < 0 or positions.max() > last or (positions[:, 1:] <= positions[:, :-1]).any()
    ):
        raise ValueError(f"positions that do not ascend from 0 to {last} at most")
    return Kept(positions, dropped)


def check_count(count: int, present: int, window: int | None, kept: Kept) -> None:
    """Check that a table of positions fits, and that the missing places are full pages that the window has passed."""
    gone = count - present
    passed = 0 if window is None else kept.passed(count, window) // BLOCK * BLOCK
    if not 0 <= gone <= max(0, passed) or gone % BLOCK:
        raise ValueError(f"{present} of {count} keys, which a cache with window={window} does not leave")
    if kept.places > count:
        raise ValueError(f"positions of {kept.places} keys for {count}")


def rounding_of(text: str) -> tuple[float, float]:
    """Parse the rounding errors of keys and values."""
    numbers = tuple(map(float, text.split(",")))
    if len(numbers) != 2 or not all(0 <= x < float("inf") for x in numbers):
        raise ValueError(f"rounding {text}")
    return numbers[0], numbers[1]


def key_count(text: str) -> int:
    """Parse a number of keys or a window."""
    if not re.fullmatch(r"\d{1,40}", text, re.ASCII):
        raise ValueError(f"{text[:40]!r} is not a number of keys")
    return int(text)


def file_dtype(layout: Layout) -> np.dtype[Any]:
    """The dtype in the file of the stored numbers."""
    dtype: np.dtype[Any] = np.dtype(FILE_DTYPES.get(layout.stored.name, layout.stored))
    return dtype


def dtype_named(name: str) -> np.dtype[Any]:
    """A dtype of keys and values by name; bfloat16 comes from ml_dtypes."""
    if name not in {*ELEMENTS, *STORED}:
        raise ValueError(f"keys of dtype {name[:40]!r}")
    if name == "bfloat16":
        try:
            import ml_dtypes
        except ImportError:
            raise DtypeError("this cache holds bfloat16, which numpy lacks: install ml_dtypes to load it.") from None
        name = ml_dtypes.bfloat16
    return np.dtype(name)


def empty_rows(layout: Layout) -> tuple[Rows, Rows]:
    """Keys and values of an empty sequence."""
    scales = np.zeros((layout.heads, 0), np.float32) if layout.int8 else None
    rows: Sequence[Rows] = [
        Rows(np.zeros((layout.heads, 0, dim), layout.stored), scales) for dim in (layout.key_dim, layout.value_dim)
    ]
    return rows[0], rows[1]
