"""What a watch has seen as a .safetensors file: what is written, and all that is checked of what is read.

Decides what of a file fits together, before anything is made of it; what is kept of a model, and how it is shown, is
decided in `records` and `seen`.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from clearhead.arrays import Array
from clearhead.errors import FileError, reason
from clearhead.files.reading import tensors
from clearhead.files.writing import Spec, new_file
from clearhead.watched.records import GROWING, TRUSTED, Record

SAVED = "saved watch", "give a file that Watch.save wrote"
FORMAT = 1
LARGEST = 1 << 53  # whole numbers up to here are exact in float64
NAME = re.compile(r"(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.([a-z_]+)", re.ASCII)  # run, layer, part
NUMBERS = ("about", "heads", "key_heads", "begins", "passes", "rows")  # each (n,) of float64
PARTS = {*NUMBERS, *GROWING, "own"}  # and perhaps `sink`


def write(runs: list[dict[int, Record]], path: str | os.PathLike[str], force: bool) -> None:
    """Write a file that appears whole or not at all; raises FileError. Runs in which nothing was kept are left out."""
    if Path(path).suffix.lower() != ".safetensors":
        raise FileError(f"{path} cannot hold what was watched: name a .safetensors file.")
    arrays = {"format": np.array([FORMAT], np.float64)}
    for run, records in enumerate(filter(None, runs)):
        for number, record in records.items():
            arrays |= {f"{run}.{number}.{name}": x for name, x in parts(record).items()}
    with new_file(path, {name: Spec(x.shape, x.dtype) for name, x in arrays.items()}, force=force) as file:
        for name, x in arrays.items():
            file[name][...] = x


def parts(record: Record) -> dict[str, Array]:
    """A record as arrays of floats; whole numbers are exact in float64, and what is absent is not a number."""

    def numbers(*xs: float | None) -> Array:
        return np.array([np.nan if x is None else x for x in xs], np.float64)

    width = list(TRUSTED).index(record.dtype)
    grown = {name: record.array(name) for name in GROWING}
    batch, heads, _, dim = (*grown["query"].shape[:3], grown["value"].shape[-1])
    return {
        "about": numbers(record.first_query, record.first_key, width, record.scale, record.cap, record.left),
        "heads": numbers(*record.heads),
        "key_heads": numbers(*record.key_heads),
        "begins": numbers(*record.begins),
        "passes": numbers(*record.passes),
        "rows": numbers(*record.rows),
        "own": np.stack(record.own) if record.own else np.zeros((0, batch, heads, dim), grown["value"].dtype),
        **({} if record.sink is None else {"sink": record.sink}),
        **grown,
    }


def read(path: str | os.PathLike[str]) -> list[dict[int, Record]]:
    """The runs that `write` wrote; raises FileError for anything else."""
    _, arrays = tensors(path, *SAVED)
    try:
        return runs_of(arrays)
    except (KeyError, ValueError) as error:
        why = f"it has no {reason(error)}" if isinstance(error, KeyError) else reason(error)
        raise FileError(f"{path} is no {SAVED[0]} ({why}): {SAVED[1]}.") from None


def runs_of(arrays: Mapping[str, Array]) -> list[dict[int, Record]]:
    """A file's arrays as runs; raises KeyError or ValueError for what does not fit together."""
    if arrays["format"].shape != (1,) or arrays["format"].item() != FORMAT:
        raise ValueError(f"its format is {arrays['format'].ravel()[:3]} and not {FORMAT}")
    records: dict[tuple[int, int], dict[str, Array]] = {}
    for name in sorted(set(arrays) - {"format"}):
        match = NAME.fullmatch(name)
        check(match is not None, f"an array is called {name[:40]!r}")
        assert match is not None  # noqa: S101
        records.setdefault((int(match[1]), int(match[2])), {})[match[3]] = arrays[name]
    count = len({run for run, _ in records})
    check(all(run < count for run, _ in records), "a run is missing")
    runs: list[dict[int, Record]] = [{} for _ in range(count)]
    for (run, number), found in sorted(records.items(), key=lambda item: item[0]):
        runs[run][number] = record_of(found, f"layer {number} of run {run}")
    return runs


def record_of(arrays: Mapping[str, Array], where: str) -> Record:
    """One layer, of parts that fit each other."""
    check(set(arrays) - {"sink"} == PARTS, f"{where} has the parts {', '.join(sorted(arrays))}")
    check(all(x.dtype in (np.float32, np.float64) for x in arrays.values()), f"{where} is not of floats")
    heads, key_heads, begins, passes, rows = (whole(arrays[name], f"{name} of {where}") for name in NUMBERS[1:])
    check(arrays["about"].shape == (6,), f"{where} is described by {arrays['about'].shape} numbers")
    first_query, first_key, width = whole(arrays["about"][:3], f"the beginning of {where}")
    scale, cap, left = (float(x) for x in arrays["about"][3:])
    capped = np.isnan(cap) or 0 < cap < np.inf
    check(width < len(TRUSTED) and np.isfinite(scale) and capped, f"{where} has scale {scale}, cap {cap}")
    stop = first_query + sum(passes)
    fits(arrays, (len(begins), len(heads), sum(passes), stop - first_key, len(rows)), where)
    kept = arrays["key"].shape[1]
    check(0 < len(heads) == len(set(heads)) == len(key_heads), f"{where} has heads {heads}, of key heads {key_heads}")
    check(all(n < kept for n in key_heads), f"{where} has key heads {key_heads} of {kept}")
    check(all(first_key <= n <= stop for n in begins), f"{where} begins at {begins}")
    check(all(first_query <= n < stop for n in rows), f"{where} has rows {rows}, of {first_query} to {stop - 1}")
    return Record(
        heads=heads,
        key_heads=key_heads,
        first_query=first_query,
        first_key=first_key,
        begins=begins,
        dtype=list(TRUSTED)[width],
        scale=scale,
        cap=None if np.isnan(cap) else cap,
        left=None if np.isnan(left) else whole(arrays["about"][5:], f"the window of {where}")[0],
        sink=arrays.get("sink"),
        passes=list(passes),
        rows=list(rows),
        own=list(arrays["own"]),
        **{name: [arrays[name]] for name in GROWING},  # type: ignore[arg-type]
    )


def fits(arrays: Mapping[str, Array], sizes: tuple[int, int, int, int, int], where: str) -> None:
    """Check every shape, given how many sequences, heads, queries, keys and known rows there are."""
    sequences, heads, queries, keys, rows = sizes
    shapes = {name: arrays[name].shape for name in (*GROWING, "own")} | (
        {"sink": s.shape} if (s := arrays.get("sink")) is not None else {}
    )
    check(
        len(shapes["key"]) == len(shapes["value"]) == 4, f"{where} has keys {shapes['key']}, values {shapes['value']}"
    )
    kept, dim, value_dim = shapes["key"][1], shapes["key"][3], shapes["value"][3]
    right = {
        "query": (sequences, heads, queries, dim),
        "key": (sequences, kept, keys, dim),
        "value": (sequences, kept, keys, value_dim),
        "lse": (sequences, heads, queries),
        "own": (rows, sequences, heads, value_dim),
        "sink": (heads,),
    }
    for name, shape in shapes.items():
        check(shape == right[name], f"{name} of {where} is {shape} and not {right[name]}")
    types = {arrays[name].dtype for name in ("query", "key", "value")}
    check(len(types) == 1 and dim > 0 and value_dim > 0, f"{where} has numbers of {dim} and {value_dim} dims, {types}")


def whole(array: Array, name: str) -> tuple[int, ...]:
    """Whole numbers from 0 on."""
    right = array.ndim == 1 and bool((array >= 0).all() and (array < LARGEST).all() and (array % 1 == 0).all())
    check(right, f"{name} is {array.ravel()[:5]}")
    return tuple(int(x) for x in array)


def check(right: bool, fault: str) -> None:
    """Raise ValueError for a fault."""
    if not right:
        raise ValueError(fault)
