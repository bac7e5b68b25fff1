"""Save a watch to a .safetensors file, and load it after checking all of it.

A file holds sequences as they are shown: what padding, rejected candidates and other beams took is left out. `about` is
a text in JSON, which describes them; the arrays of sequence n are called n.query, n.key and so on.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clearhead.arrays import Array
from clearhead.errors import FileError, reason
from clearhead.files.reading import tensors
from clearhead.files.writing import Spec, new_file
from clearhead.watched.added import Added
from clearhead.watched.records import Record
from clearhead.watched.run import Run
from clearhead.watched.sequences import TOLERANCES, Sequence
from clearhead.watched.visible import Shown

SAVED = "saved watch", "give a file that Watch.save wrote"
FORMAT = 2
FLOATS = ("query", "key", "value", "checks", "sink", "added")
WHOLE = ("low", "high", "until", "queries", "key_ids", "query_ids")


def write_watch(runs: list[Run], path: str | os.PathLike[str], force: bool) -> None:
    """Write a file atomically; raises FileError, or TrustError for a layer that cannot be shown."""
    if Path(path).suffix.lower() != ".safetensors":
        raise FileError(f"{path} cannot hold a watch: name a .safetensors file.")
    described: list[dict[str, Any]] = []
    arrays: dict[str, Array] = {}
    for number, run in enumerate(runs):
        for (part, layer), record in run.records.items():
            for n in range(record.sequences):
                own = run.sequence(part, layer, n)
                name = f"layer {layer} of {part}"
                if record.rules:
                    raise FileError(f"{path} cannot hold {name}: it has a score function, and a file holds arrays.")
                if own.changes:
                    raise FileError(
                        f"{path} cannot hold {name}: interventions changed its weights ({own.changes[0]!r}, …). Save a "
                        "watch that was opened around the intervene block, or one without it."
                    )
                own.check(name)
                arrays |= {f"{len(described)}.{key}": x for key, x in sequence_arrays(own).items()}
                place = {"run": number, "part": part, "layer": layer, "sequence": n}
                described.append(place | described_sequence(own))
    about = {
        "format": FORMAT,
        "sequences": described,
        "runs": [{"names": run.names, "grids": run.grids} for run in runs],
    }
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    with new_file(path, {name: Spec(x.shape, x.dtype) for name, x in arrays.items()}, force=force) as file:
        for name, x in arrays.items():
            file[name][...] = x


def described_sequence(own: Sequence) -> dict[str, Any]:
    """What is not an array of a sequence."""
    record = own.record
    return {
        "heads": record.heads,
        "key_heads": record.key_heads,
        "count": record.count,
        "dtype": record.dtype,
        "scale": record.scale,
        "cap": record.cap,
        "steps": own.steps,
        "passes": record.steps,
        "by_distance": own.added is not None and own.added.by_distance,
    }


def sequence_arrays(own: Sequence) -> dict[str, Array]:
    """The arrays of a sequence; 16-bit numbers become float32, which changes none."""
    queries = [query for query, _ in own.checks]
    dims = len(own.record.heads), own.value.shape[-1]
    arrays: dict[str, Array | None] = {
        "query": own.query,
        "key": own.key,
        "value": own.value,
        "low": own.shown.low,
        "high": own.shown.high,
        "until": own.shown.until,
        "table": None if own.shown.table is None else np.packbits(own.shown.table, axis=-1),
        "added": None if own.added is None else own.added.table,
        "sink": own.record.sink,
        "queries": np.array(queries, np.int64),
        "checks": np.stack([x for _, x in own.checks]) if queries else np.zeros((0, *dims), np.float32),
        "key_ids": own.key_ids,
        "query_ids": own.query_ids,
    }
    present = {name: x for name, x in arrays.items() if x is not None}
    return {name: storable(x) for name, x in present.items()}


def storable(x: Array) -> Array:
    """An array in a dtype that files hold."""
    if x.dtype.kind in "iu":
        return x if x.dtype == np.uint8 else x.astype(np.int64)
    return x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)


def read_watch(path: str | os.PathLike[str]) -> list[Run]:
    """Read the runs that `write_watch` wrote; raises FileError for any other file."""
    _, arrays = tensors(path, *SAVED)
    try:
        return runs_of(arrays)
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        why = f"it has no {reason(error)}" if isinstance(error, KeyError) else reason(error)
        raise FileError(f"{path} is not a {SAVED[0]} ({why}): {SAVED[1]}.") from None


def runs_of(arrays: Mapping[str, Array]) -> list[Run]:
    """Runs from a file's arrays; raises KeyError, ValueError or TypeError if they do not fit together."""
    require("format" not in arrays, "an older version wrote it: record it again")
    text = arrays["about"]
    require(text.dtype == np.uint8 and text.ndim == 1, f"its description is {text.dtype}")
    about = json.loads(text.tobytes().decode())
    require(isinstance(about, dict) and about.get("format") == FORMAT, f"its format is not {FORMAT}")
    runs = [Run(names=names_of(one["names"]), grids=grids_of(one["grids"])) for one in about["runs"]]
    used = {"about"}
    for number, one in enumerate(about["sequences"]):
        own = {name: arrays[f"{number}.{name}"] for name in (*FLOATS, *WHOLE, "table") if f"{number}.{name}" in arrays}
        used |= {f"{number}.{name}" for name in own}
        place = f"layer {whole(one['layer'])} of run {whole(one['run'])}"
        require(one["run"] < len(runs) and isinstance(one["part"], str), f"{place} is in no run")
        record = loaded_record(one, own, place)
        there = runs[one["run"]].records.setdefault((one["part"], one["layer"]), record)
        require(whole(one["sequence"]) == len(there.views), f"{place} has sequence {one['sequence']} out of order")
        there.views[one["sequence"]] = loaded_sequence(there, one, own, place)
    require(used == set(arrays), f"it also has {', '.join(sorted(set(arrays) - used)[:3])}")
    return runs


def names_of(names: Any) -> dict[int, str] | None:
    """The texts of tokens."""
    return None if names is None else {int(number): str(name) for number, name in names.items()}


def grids_of(grids: Any) -> dict[str, tuple[int, int]]:
    """The patches of images."""
    return {str(part): (whole(rows), whole(columns)) for part, (rows, columns) in grids.items()}


def loaded_record(one: dict[str, Any], arrays: dict[str, Array], place: str) -> Record:
    """A layer's record, without passes."""
    heads, key_heads = (tuple(whole(n) for n in one[name]) for name in ("heads", "key_heads"))
    scale, cap, sink = one["scale"], one["cap"], arrays.get("sink")
    require(arrays["key"].ndim == 3, f"{place} has keys {arrays['key'].shape}")
    present = len(arrays["key"])
    require(0 < len(heads) == len(set(heads)) == len(key_heads), f"{place} has heads {heads}, of key heads {key_heads}")
    require(all(n < present for n in key_heads), f"{place} has key heads {key_heads} of {present}")
    require(one["dtype"] in TOLERANCES, f"{place} is of dtype {one['dtype']!r}"[:80])
    require(is_finite(scale) and (cap is None or (is_finite(cap) and cap > 0)), f"{place} has scale {scale}, cap {cap}")
    require(sink is None or sink.shape == (len(heads),), f"{place} has sinks of another shape")
    passes = tuple(whole(n) for n in one["passes"])
    count = whole(one["count"])
    require(max(heads) < count, f"{place} has heads {heads} of {count}")
    return Record(heads, key_heads, count, one["dtype"], float(scale), cap, sink, loaded_steps=passes)


def loaded_sequence(record: Record, one: dict[str, Any], arrays: dict[str, Array], place: str) -> Sequence:
    """One sequence, after checking that its parts fit together."""
    for name, x in arrays.items():
        kinds = (np.float32, np.float64) if name in FLOATS else (np.uint8,) if name == "table" else (np.int64,)
        require(x.dtype in kinds, f"{name} of {place} is of {x.dtype}")
    query, key, value = (arrays[name] for name in ("query", "key", "value"))
    require(query.ndim == key.ndim == value.ndim == 3, f"{place} has queries {query.shape}, keys {key.shape}")
    heads, queries, dim = query.shape
    key_heads, keys, value_dim = value.shape
    require(query.dtype == key.dtype == value.dtype and dim > 0 and value_dim > 0, f"{place} has numbers of no dims")
    checks = arrays["queries"]
    expected: dict[str, tuple[int, ...]] = {
        "query": (len(record.heads), queries, dim), "key": (key_heads, keys, dim), "low": (queries,),
        "high": (queries,), "until": (keys,), "queries": (len(checks),), "checks": (len(checks), heads, value_dim),
        "key_ids": (keys,), "query_ids": (queries,),
    }  # fmt: skip
    for name, shape in expected.items():
        require(name not in arrays or arrays[name].shape == shape, f"{name} of {place} is not {shape}")
    steps = tuple(whole(n) for n in one["steps"])
    require(sum(steps) == queries, f"{place} has steps {steps[:9]} for {queries} queries")
    require(bool(((checks >= 0) & (checks < queries)).all()), f"{place} checks queries {checks[:9]}")
    low, high = arrays["low"], arrays["high"]
    fits = (low >= 0) & (low <= keys) & (high >= 0) & (high <= keys)
    require(bool(fits.all()), f"{place} shows keys beyond {keys}")
    table, added = arrays.get("table"), arrays.get("added")
    if table is not None:
        require(table.ndim == 3 and table.shape[0] in (1, heads), f"{place} has a mask {table.shape}")
        require(table.shape[1:] == (queries, -(-keys // 8)), f"{place} has a mask {table.shape}")
        table = np.unpackbits(table, axis=-1, count=keys).astype(bool)
    if added is not None:
        distances = (heads, 2 * max(1, keys - 1) + 1) if queries == keys else None
        pairs = heads, queries, keys
        require(added.shape == (distances if one["by_distance"] else pairs), f"{place} adds {added.shape}")
    return Sequence(
        record,
        (one["part"], one["layer"]),
        one["sequence"],
        query,
        key,
        value,
        Shown(low, high, keys, arrays.get("until"), table),
        None if added is None else Added(added, bool(one["by_distance"])),
        steps,
        arrays.get("key_ids"),
        arrays.get("query_ids"),
        tuple(zip(checks.tolist(), arrays["checks"], strict=True)),
    )


def whole(number: Any) -> int:
    """A whole number, not negative."""
    require(isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 1 << 53, f"{number!r}"[:40])
    return int(number)


def is_finite(number: Any) -> bool:
    """Whether this is a finite number, of a size that floats have."""
    if isinstance(number, bool) or not isinstance(number, int | float):
        return False
    return math.isfinite(number) if isinstance(number, float) else abs(number) < 1 << 53


def require(valid: bool, fault: str) -> None:
    """Raise ValueError with `fault` unless valid."""
    if not valid:
        raise ValueError(fault)
