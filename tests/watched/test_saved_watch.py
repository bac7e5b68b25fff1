"""A saved watch is what was written, or an error that names the file: no part of it is taken on trust."""

import json
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import clearhead
from clearhead.errors import FileError, TrustError
from tests.watched.written import record, watch


@pytest.fixture
def saved(tmp_path):
    """A saved watch and its arrays."""
    seen = watch({0: record(), 3: record(left=3)}, {0: record(sink=np.zeros(4, np.float32), cap=5.0)})
    seen.runs[0].names = {n: f"t{n}" for n in range(12)}
    seen.runs[1].grids = {"vision": (2, 3)}
    seen.save(tmp_path / "seen.safetensors")
    return tmp_path / "seen.safetensors", load_file(tmp_path / "seen.safetensors")


def test_what_was_seen_is_read_back(saved):
    again = clearhead.load_watch(saved[0])
    assert [sorted(run.records) for run in again.runs] == [[("decoder", 0), ("decoder", 3)], [("decoder", 0)]]
    for run, layer, options in ((0, 0, {}), (0, 3, {"left": 3}), (1, 0, {"sink": np.zeros(4, np.float32), "cap": 5.0})):
        for sequence in range(2):
            before = watch({layer: record(**options)}).layer(layer, sequence=sequence)
            after = again.layer(layer, run=run, sequence=sequence)
            assert np.array_equal(np.asarray(before.weights), np.asarray(after.weights))
            assert np.array_equal(before.values, after.values)
            assert repr(before.sequence.mask) == repr(after.sequence.mask)
    assert again.steps(0) == (5, 1)
    assert again.sequences(0) == 2
    assert again.token_ids(run=0, sequence=1).tolist() == [6, 7, 8, 9, 10, 11]
    assert again.tokens(run=0, sequence=1) == [f"t{n}" for n in range(6, 12)]
    assert again.runs[1].grids == {"vision": (2, 3)}
    assert again.nbytes == again.memory > 0


def test_what_was_loaded_is_saved_again_as_it_was(saved, tmp_path):
    clearhead.load_watch(saved[0]).save(tmp_path / "again.safetensors")
    again = load_file(tmp_path / "again.safetensors")
    assert sorted(again) == sorted(saved[1])
    assert all(np.array_equal(again[name], x) for name, x in saved[1].items())


def test_a_loaded_layer_is_checked_before_it_is_shown(saved):
    path, arrays = saved
    arrays["0.value"] *= 1.01
    save_file(arrays, path)
    again = clearhead.load_watch(path)
    with pytest.raises(TrustError):
        again.layer(0, run=0)
    again.layer(0, run=0, sequence=1)


def test_a_record_without_rows_of_the_models_own_is_saved(tmp_path):
    own = record()
    own.passes[:] = [replace(one, checked=(), output=None) for one in own.passes]
    watch({0: own}).save(tmp_path / "seen.safetensors")
    assert clearhead.load_watch(tmp_path / "seen.safetensors").layer(0).sequence.checks == ()


def test_a_watch_that_saw_nothing(tmp_path):
    watch().save(tmp_path / "seen.safetensors")
    assert clearhead.load_watch(tmp_path / "seen.safetensors").runs == []


def test_other_names_and_files_that_exist_are_refused(saved, tmp_path):
    seen = clearhead.load_watch(saved[0])
    with pytest.raises(FileError, match="exists already"):
        seen.save(saved[0])
    seen.save(saved[0], force=True)
    with pytest.raises(FileError, match=r"name a \.safetensors file"):
        seen.save(tmp_path / "seen.npz")


def about(change):
    """A damage to the description."""

    def damage(arrays):
        told = json.loads(arrays["about"].tobytes())
        found = change(told)
        arrays["about"] = np.frombuffer(json.dumps(told if found is None else found).encode(), np.uint8)

    return damage


def first(name, value):
    """A damage to what is told of the first sequence."""
    return about(lambda told: told["sequences"][0].__setitem__(name, value))


DAMAGES = {
    "nothing": lambda a: a.clear(),
    "no description": lambda a: a.pop("about"),
    "a description of numbers": lambda a: a.update(about=np.ones(3)),
    "a description that is no text": lambda a: a.update(about=np.full(9, 255, np.uint8)),
    "a description that is no JSON": lambda a: a.update(about=np.frombuffer(b"{]", np.uint8)),
    "an empty description": lambda a: a.update(about=np.zeros(0, np.uint8)),
    "a deep description": lambda a: a.update(about=np.frombuffer(b"[" * 100_000, np.uint8)),
    "a description that is a list": about(lambda told: [told]),
    "another format": about(lambda told: told.__setitem__("format", 3)),
    "no format": about(lambda told: told.pop("format")),
    "no runs": about(lambda told: told.pop("runs")),
    "runs that are a number": about(lambda told: told.__setitem__("runs", 3)),
    "a run that is a number": about(lambda told: told["runs"].__setitem__(0, 3)),
    "names that are a list": about(lambda told: told["runs"][0].__setitem__("names", ["a"])),
    "names of no numbers": about(lambda told: told["runs"][0].__setitem__("names", {"x": "a"})),
    "grids that are a list": about(lambda told: told["runs"][0].__setitem__("grids", [1])),
    "a grid of three": about(lambda told: told["runs"][0].__setitem__("grids", {"vision": [1, 2, 3]})),
    "a grid of texts": about(lambda told: told["runs"][0].__setitem__("grids", {"vision": "12"})),
    "no sequences": about(lambda told: told.pop("sequences")),
    "sequences that are a number": about(lambda told: told.__setitem__("sequences", 1)),
    "a sequence that is a number": about(lambda told: told["sequences"].__setitem__(0, 1)),
    "fewer sequences": about(lambda told: told["sequences"].pop()),
    "the same sequence twice": about(lambda told: told["sequences"].__setitem__(1, told["sequences"][0])),
    "sequences in another order": about(lambda told: told["sequences"].reverse()),
    "a part that is missing": lambda a: a.pop("0.key"),
    "low ends that are missing": lambda a: a.pop("0.low"),
    "checks that are missing": lambda a: a.pop("0.checks"),
    "a part of another name": lambda a: a.update({"0.extra": np.ones(3)}),
    "a name that is none": lambda a: a.update({"x.y": np.ones(3)}),
    "a number written otherwise": lambda a: a.update({"00.key": a.pop("0.key")}),
    "other keys than values": lambda a: a.update({"0.value": a["0.value"][:, :5]}),
    "fewer queries": lambda a: a.update({"0.query": a["0.query"][:, :5]}),
    "more heads of queries": lambda a: a.update({"0.query": np.concatenate([a["0.query"]] * 2)}),
    "another dim": lambda a: a.update({"0.query": a["0.query"][..., :3]}),
    "no dim": lambda a: a.update({n: a[n][..., :0] for n in ("0.query", "0.key")}),
    "queries wider than keys": lambda a: a.update({"0.query": a["0.query"].astype(np.float64)}),
    "whole numbers": lambda a: a.update({"0.query": a["0.query"].astype(np.int64)}),
    "halves": lambda a: a.update({"0.query": a["0.query"].astype(np.float16)}),
    "a flat array": lambda a: a.update({"0.key": a["0.key"].ravel()}),
    "ends beyond the keys": lambda a: a.update({"0.high": np.full(6, 7)}),
    "ends below 0": lambda a: a.update({"0.high": np.full(6, -1)}),
    "beginnings below 0": lambda a: a.update({"0.low": np.full(6, -1)}),
    "huge beginnings": lambda a: a.update({"0.low": np.full(6, 1 << 62)}),
    "ends as fractions": lambda a: a.update({"0.high": a["0.high"].astype(np.float64)}),
    "ends of 32 bits": lambda a: a.update({"0.high": a["0.high"].astype(np.int32)}),
    "fewer ends": lambda a: a.update({"0.high": a["0.high"][:5]}),
    "keys that go too soon": lambda a: a.update({"0.until": np.zeros(5, np.int64)}),
    "a mask of another shape": lambda a: a.update({"0.table": np.ones((1, 6, 2), np.uint8)}),
    "a mask of two axes": lambda a: a.update({"0.table": np.ones((6, 1), np.uint8)}),
    "a mask of numbers": lambda a: a.update({"0.table": np.ones((1, 6, 1), np.float32)}),
    "a bias of another shape": lambda a: a.update({"0.added": np.ones((4, 6, 5), np.float32)}),
    "sinks of other heads": lambda a: a.update({"0.sink": np.ones(3, np.float32)}),
    "rows that are not there": lambda a: a.update({"0.queries": np.array([0, 4, 6])}),
    "rows below 0": lambda a: a.update({"0.queries": np.array([0, 4, -1])}),
    "fewer of the model's rows": lambda a: a.update({"0.checks": a["0.checks"][:1]}),
    "tokens of other keys": lambda a: a.update({"0.key_ids": np.arange(5)}),
    "tokens as fractions": lambda a: a.update({"0.query_ids": np.ones(6)}),
    "the same head twice": first("heads", [0, 0, 1, 2]),
    "fewer heads": first("heads", [0, 1, 2]),
    "no heads": first("heads", []),
    "a layer of fewer heads": first("count", 3),
    "a number of heads that is a text": first("count", "4"),
    "heads that are none": first("heads", ["0", 1, 2, 3]),
    "key heads that are not there": first("key_heads", [0, 0, 1, 2]),
    "key heads below 0": first("key_heads", [0, 0, 1, -1]),
    "other steps": first("steps", [5]),
    "half a step": first("steps", [5.5, 0.5]),
    "a huge step": first("steps", [1 << 60, 6]),
    "steps that are a number": first("steps", 6),
    "a dtype that is not there": first("dtype", "float8"),
    "a dtype that is a list": first("dtype", ["float32"]),
    "a scale that is a text": first("scale", "1"),
    "a scale that is no number": first("scale", float("nan")),
    "a scale beyond all": first("scale", 10**400),
    "a softcap of 0": first("cap", 0),
    "a softcap below 0": first("cap", -1e9),
    "an endless softcap": first("cap", float("inf")),
    "a softcap that is true": first("cap", True),
    "a run far away": first("run", 99999),
    "a negative run": first("run", -1),
    "a negative layer": first("layer", -1),
    "a layer that is a text": first("layer", "0"),
    "a part that is a number": first("part", 0),
    "a sequence out of order": first("sequence", 1),
    "passes that are a text": first("passes", "56"),
    "by distance without a table": lambda a: (
        first("by_distance", True)(a), a.update({"0.added": np.ones((4, 6, 6), np.float32)})
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_does_not_fit_is_refused(saved, damage):
    path, arrays = saved
    DAMAGES[damage](arrays)
    save_file({name: np.ascontiguousarray(x) for name, x in arrays.items()}, path)
    why = r"safetensors is not a saved watch \(.*give a file that Watch\.save wrote"
    with pytest.raises(FileError, match=why) as told:
        clearhead.load_watch(path)
    assert len(str(told.value)) < 500 + len(str(path))


@pytest.mark.parametrize("name", ["0.query", "0.key", "0.value", "0.low", "0.high", "0.queries", "0.checks", "about"])
@pytest.mark.parametrize("made", [np.float32, np.float64, np.int64, np.uint8])
@pytest.mark.parametrize("shape", [(), (0,), (6,), (4, 6), (2, 6, 4), (4, 6, 4), (1, 4, 6, 4)])
def test_any_array_in_anothers_place_fits_or_is_refused(saved, name, made, shape):
    path, arrays = saved
    arrays[name] = np.ones(shape, made)
    save_file(arrays, path)
    with suppress(FileError, TrustError):
        np.asarray(clearhead.load_watch(path).layer(0, run=0).weights)


def test_a_file_of_the_first_format_says_to_record_again(tmp_path):
    """As versions before wrote: a number for the format, and arrays named by run and layer."""
    path = tmp_path / "old.safetensors"
    parts = {name: np.ones(3) for name in ("about", "begins", "heads", "key_heads", "passes", "rows")}
    save_file({"format": np.array([1.0]), **{f"0.0.{name}": x for name, x in parts.items()}}, path)
    with pytest.raises(FileError, match=r"old\.safetensors .*record it again"):
        clearhead.load_watch(path)


def test_a_file_cut_off_is_refused(saved):
    path = saved[0]
    content = path.read_bytes()
    for length in (0, 7, 8, 100, 1000, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(FileError, match=path.name):
            clearhead.load_watch(path)
