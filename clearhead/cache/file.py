"""A key/value cache as a .safetensors file: what is written, and all that is checked of what is read.

Decides what of a file fits together, before anything is made of it; which pages hold it is left to `cache`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clearhead.arrays import Array, ceil_div
from clearhead.cache.pages import Layout, Rows
from clearhead.definition.canonical import BLOCK
from clearhead.errors import ClearheadError, DtypeError, FileError, reason
from clearhead.kernels.abi.tiles import ELEMENTS, STORED

PLAIN: dict[str, Any] = {"bfloat16": np.uint16}  # what a file calls numbers that it has no name for
TRUTH = {"True": True, "False": False}
MOST_BLOCKS = 1 << 26  # of all heads and sequences, those that have left the cache included


@dataclass(frozen=True)
class Saved:
    """What makes a cache: `rows` are each sequence's keys and values that it still has, of `counts` in all."""

    layout: Layout
    batched: bool
    window: int | None
    rounding: tuple[float, float]
    counts: tuple[int, ...]
    rows: tuple[tuple[Rows, Rows], ...]

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a file; raises FileError, and then no file is left."""
        from safetensors.numpy import save

        from clearhead.files.writing import write_whole

        arrays, plain = {}, plain_dtype(self.layout)
        for number, both in enumerate(self.rows):
            for name, part in zip(("key", "value"), both, strict=True):
                arrays[f"{name}.{number}"] = np.ascontiguousarray(part.numbers).view(plain)
                if part.scales is not None:
                    arrays[f"{name}_scale.{number}"] = np.ascontiguousarray(part.scales)
        about = {
            "counts": ",".join(map(str, self.counts)),
            "window": str(self.window or ""),
            "batched": str(self.batched),
            "dtype": self.layout.dtype.name,
            "int8": str(self.layout.int8),
            "rounding": ",".join(map(repr, self.rounding)),
        }
        write_whole(path, save(arrays, about), force=True)


def read(path: str | os.PathLike[str]) -> Saved:
    """Read what `Saved.write` wrote; raises FileError for anything else."""
    from safetensors import safe_open

    try:
        if not Path(path).is_file():
            raise ValueError("it is not there" if not Path(path).exists() else "it is not a file")
        with safe_open(path, "numpy") as file:
            about = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return saved(arrays, about)
    except ClearheadError:
        raise
    except Exception as error:  # parsers of foreign bytes raise anything, and here it all means one thing
        why = f"it has no {reason(error)}" if isinstance(error, KeyError) else reason(error)
        raise FileError(f"{path} is no saved cache ({why}): give a file that KeyValueCache.save wrote.") from None


def saved(arrays: Mapping[str, Array], about: Mapping[str, str]) -> Saved:
    """A file's arrays and words as a cache; raises KeyError or ValueError for what does not fit together."""
    counts = tuple(map(whole, about["counts"].split(",")))
    window = whole(about["window"]) if about["window"] else None
    int8, batched = TRUTH[about["int8"]], TRUTH[about["batched"]]
    first, last = arrays["key.0"], arrays["value.0"]
    if first.ndim != 3 or last.ndim != 3 or 0 in (first.shape[-1], last.shape[-1]):
        raise ValueError(f"keys of shape {first.shape} and values of shape {last.shape}")
    layout = Layout(dtype_named(about["dtype"]), int8, first.shape[0], first.shape[-1], last.shape[-1])
    names = [f"{name}.{n}" for n in range(len(counts)) for name in names_of(int8)]
    if set(names) != set(arrays):
        raise ValueError(f"arrays {', '.join(sorted(set(arrays) ^ set(names)))}, which do not belong to {counts} keys")
    if (not batched and len(counts) != 1) or window == 0 or (int8 and layout.dtype == np.float64):
        raise ValueError(f"{len(counts)} sequences, batched {batched}, window {window}, int8 {int8} of {layout.dtype}")
    rows = tuple(checked_rows(arrays, layout, number) for number in range(len(counts)))
    for count, (keys, _) in zip(counts, rows, strict=True):
        check_count(count, keys.numbers.shape[1], window)
    blocks = layout.heads * sum(ceil_div(count, BLOCK) for count in counts)
    if blocks > MOST_BLOCKS:
        raise ValueError(f"{counts} keys for {layout.heads} heads are more than a cache can hold")
    return Saved(layout, batched, window, rounding_of(about["rounding"]), counts, rows)


def names_of(int8: bool) -> tuple[str, ...]:
    """What each sequence's arrays are called."""
    return ("key", "value", "key_scale", "value_scale") if int8 else ("key", "value")


def checked_rows(arrays: Mapping[str, Array], layout: Layout, number: int) -> tuple[Rows, Rows]:
    """One sequence's keys and values, of the layout that all have in common."""
    count = arrays[f"key.{number}"].shape[1:2]
    found = []
    for name, dim in (("key", layout.key_dim), ("value", layout.value_dim)):
        numbers, scales = arrays[f"{name}.{number}"], arrays.get(f"{name}_scale.{number}")
        if numbers.shape != (layout.heads, *count, dim) or numbers.dtype != plain_dtype(layout):
            raise ValueError(f"{name}.{number} of shape {numbers.shape} and dtype {numbers.dtype} in {layout}")
        if scales is not None and (scales.shape != (layout.heads, *count) or scales.dtype != np.float32):
            raise ValueError(f"{name}_scale.{number} of shape {scales.shape} and dtype {scales.dtype}")
        found.append(Rows(numbers.view(layout.kept), scales))
    return found[0], found[1]


def check_count(count: int, kept: int, window: int | None) -> None:
    """What has left a cache is whole pages that its window has passed."""
    gone = count - kept
    passed = 0 if window is None else max(0, count - window + 1) // BLOCK * BLOCK
    if not 0 <= gone <= passed or gone % BLOCK:
        raise ValueError(f"{kept} of {count} keys, which a cache with window={window} would not leave")


def rounding_of(text: str) -> tuple[float, float]:
    """What 8 bits lost of keys and of values."""
    numbers = tuple(map(float, text.split(",")))
    if len(numbers) != 2 or not all(0 <= x < float("inf") for x in numbers):
        raise ValueError(f"rounding {text}")
    return numbers[0], numbers[1]


def whole(text: str) -> int:
    """A whole number of a size that can be."""
    if not re.fullmatch(r"\d{1,40}", text, re.ASCII):
        raise ValueError(f"{text[:40]!r} is no number of keys")
    return int(text)


def plain_dtype(layout: Layout) -> np.dtype[Any]:
    """What the file calls the kept numbers."""
    plain: np.dtype[Any] = np.dtype(PLAIN.get(layout.kept.name, layout.kept))
    return plain


def dtype_named(name: str) -> np.dtype[Any]:
    """A dtype of keys and values by its name; bfloat16 is a package's."""
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
    """Keys and values of a sequence that has none."""
    scales = np.zeros((layout.heads, 0), np.float32) if layout.int8 else None
    made: Sequence[Rows] = [
        Rows(np.zeros((layout.heads, 0, dim), layout.kept), scales) for dim in (layout.key_dim, layout.value_dim)
    ]
    return made[0], made[1]
