"""Save a watch to a .safetensors file, and load it after checking all of it.

Responsible for the format and for checking that the parts of a file fit together. `records` defines what is recorded of
a model, `seen` how it is shown.
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
from clearhead.watched.records import GROWING, TOLERANCES, Record

SAVED = "saved watch", "give a file that Watch.save wrote"
FORMAT = 1
MAX_EXACT_INTEGER = 1 << 53  # integers up to here are exact in float64
NAME = re.compile(r"(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.([a-z_]+)", re.ASCII)  # run, layer, part
NUMBERS = ("about", "heads", "key_heads", "begins", "passes", "rows")  # each (n,) of float64
PARTS = {*NUMBERS, *GROWING, "own"}  # and `sink`, if the model has one


def write_watch(runs: list[dict[int, Record]], path: str | os.PathLike[str], force: bool) -> None:
    """Write a file atomically, without empty runs; raises FileError."""
    if Path(path).suffix.lower() != ".safetensors":
        raise FileError(f"{path} cannot hold a watch: name a .safetensors file.")
    arrays = {"format": np.array([FORMAT], np.float64)}
    for run, records in enumerate(filter(None, runs)):
        for number, record in records.items():
            arrays |= {f"{run}.{number}.{name}": x for name, x in record_arrays(record).items()}
    with new_file(path, {name: Spec(x.shape, x.dtype) for name, x in arrays.items()}, force=force) as file:
        for name, x in arrays.items():
            file[name][...] = x


def record_arrays(record: Record) -> dict[str, Array]:
    """A record as arrays of floats. Integers are exact in float64; NaN stands for None."""

    def numbers(*xs: float | None) -> Array:
        return np.array([np.nan if x is None else x for x in xs], np.float64)

    width = list(TOLERANCES).index(record.dtype)
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


def read_watch(path: str | os.PathLike[str]) -> list[dict[int, Record]]:
    """Read the runs that `write` wrote; raises FileError for any other file."""
    _, arrays = tensors(path, *SAVED)
    try:
        return runs_of(arrays)
    except (KeyError, ValueError) as error:
        why = f"it has no {reason(error)}" if isinstance(error, KeyError) else reason(error)
        raise FileError(f"{path} is not a {SAVED[0]} ({why}): {SAVED[1]}.") from None


def runs_of(arrays: Mapping[str, Array]) -> list[dict[int, Record]]:
    """Runs from a file's arrays; raises KeyError or ValueError if they do not fit together."""
    if arrays["format"].shape != (1,) or arrays["format"].item() != FORMAT:
        raise ValueError(f"its format is {arrays['format'].ravel()[:3]} and not {FORMAT}")
    records: dict[tuple[int, int], dict[str, Array]] = {}
    for name in sorted(set(arrays) - {"format"}):
        match = NAME.fullmatch(name)
        require(match is not None, f"an array is called {name[:40]!r}")
        assert match is not None  # noqa: S101
        records.setdefault((int(match[1]), int(match[2])), {})[match[3]] = arrays[name]
    count = len({run for run, _ in records})
    require(all(run < count for run, _ in records), "a run is missing")
    runs: list[dict[int, Record]] = [{} for _ in range(count)]
    for (run, number), parts_of_layer in sorted(records.items(), key=lambda item: item[0]):
        runs[run][number] = record_of(parts_of_layer, f"layer {number} of run {run}")
    return runs


def record_of(arrays: Mapping[str, Array], where: str) -> Record:
    """One layer, after checking that its parts fit together."""
    require(set(arrays) - {"sink"} == PARTS, f"{where} has the parts {', '.join(sorted(arrays))}")
    require(all(x.dtype in (np.float32, np.float64) for x in arrays.values()), f"{where} is not of floats")
    heads, key_heads, begins, passes, rows = (
        nonnegative_integers(arrays[name], f"{name} of {where}") for name in NUMBERS[1:]
    )
    require(arrays["about"].shape == (6,), f"{where} is described by {arrays['about'].shape} numbers")
    first_query, first_key, width = nonnegative_integers(arrays["about"][:3], f"the beginning of {where}")
    scale, cap, left = (float(x) for x in arrays["about"][3:])
    capped = np.isnan(cap) or 0 < cap < np.inf
    require(width < len(TOLERANCES) and np.isfinite(scale) and capped, f"{where} has scale {scale}, cap {cap}")
    stop = first_query + sum(passes)
    check_record_shapes(arrays, (len(begins), len(heads), sum(passes), stop - first_key, len(rows)), where)
    present = arrays["key"].shape[1]
    require(0 < len(heads) == len(set(heads)) == len(key_heads), f"{where} has heads {heads}, of key heads {key_heads}")
    require(all(n < present for n in key_heads), f"{where} has key heads {key_heads} of {present}")
    require(all(first_key <= n <= stop for n in begins), f"{where} begins at {begins}")
    require(all(first_query <= n < stop for n in rows), f"{where} has rows {rows}, of {first_query} to {stop - 1}")
    return Record(
        heads=heads,
        key_heads=key_heads,
        first_query=first_query,
        first_key=first_key,
        begins=begins,
        dtype=list(TOLERANCES)[width],
        scale=scale,
        cap=None if np.isnan(cap) else cap,
        left=None if np.isnan(left) else nonnegative_integers(arrays["about"][5:], f"the window of {where}")[0],
        sink=arrays.get("sink"),
        passes=list(passes),
        rows=list(rows),
        own=list(arrays["own"]),
        **{name: [arrays[name]] for name in GROWING},  # type: ignore[arg-type]
    )


def check_record_shapes(arrays: Mapping[str, Array], sizes: tuple[int, int, int, int, int], where: str) -> None:
    """Check all shapes, given the numbers of sequences, heads, queries, keys and rows."""
    sequences, heads, queries, keys, rows = sizes
    shapes = {name: arrays[name].shape for name in (*GROWING, "own")} | (
        {"sink": s.shape} if (s := arrays.get("sink")) is not None else {}
    )
    require(
        len(shapes["key"]) == len(shapes["value"]) == 4, f"{where} has keys {shapes['key']}, values {shapes['value']}"
    )
    key_heads, dim, value_dim = shapes["key"][1], shapes["key"][3], shapes["value"][3]
    expected = {
        "query": (sequences, heads, queries, dim),
        "key": (sequences, key_heads, keys, dim),
        "value": (sequences, key_heads, keys, value_dim),
        "lse": (sequences, heads, queries),
        "own": (rows, sequences, heads, value_dim),
        "sink": (heads,),
    }
    for name, shape in shapes.items():
        require(shape == expected[name], f"{name} of {where} is {shape} and not {expected[name]}")
    types = {arrays[name].dtype for name in ("query", "key", "value")}
    require(
        len(types) == 1 and dim > 0 and value_dim > 0, f"{where} has numbers of {dim} and {value_dim} dims, {types}"
    )


def nonnegative_integers(array: Array, name: str) -> tuple[int, ...]:
    """Parse an array of nonnegative integers."""
    valid = array.ndim == 1 and bool(
        (array >= 0).all() and (array < MAX_EXACT_INTEGER).all() and (array % 1 == 0).all()
    )
    require(valid, f"{name} is {array.ravel()[:5]}")
    return tuple(int(x) for x in array)


def require(valid: bool, fault: str) -> None:
    """Raise ValueError with `fault` unless valid."""
    if not valid:
        raise ValueError(fault)
