"""A saved watch is what was written, or an error that names the file: no part of it is taken on trust."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import clearhead
from clearhead.errors import FileError
from clearhead.watched.records import Record
from clearhead.watched.seen import Watch


def record(**changes) -> Record:
    """Two sequences of 6 tokens, 4 heads over 2 key heads."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((2, heads, 6, 4)).astype(np.float32) for heads in (4, 2, 2))
    done = clearhead.attend(q, k, v)
    fields = {
        "heads": (0, 1, 2, 3), "key_heads": (0, 0, 1, 1), "first_query": 0, "first_key": 0, "begins": (0, 0),
        "dtype": "float32", "scale": 0.5, "cap": None, "left": None, "sink": None, "query": [q], "key": [k],
        "value": [v], "lse": [done.lse], "passes": [5, 1], "rows": [0, 5],
        "own": [done.output[:, :, n] for n in (0, 5)],
    }  # fmt: skip
    return Record(**fields | changes)


@pytest.fixture
def saved(tmp_path):
    """A saved watch and its arrays."""
    seen = Watch(None, None, 1 << 20)
    seen.runs += [{0: record(), 3: record(cap=None, left=3)}, {}, {0: record(sink=np.zeros(4, np.float32))}]
    seen.save(tmp_path / "seen.safetensors")
    return tmp_path / "seen.safetensors", load_file(tmp_path / "seen.safetensors")


def test_what_was_seen_is_read_back(saved):
    again = clearhead.load_watch(saved[0])
    assert [sorted(run) for run in again.runs] == [[0, 3], [0]], "a run in which nothing was kept is not written"
    assert again.layer(0).head(2).weights.row(5) == pytest.approx(
        clearhead.weights(record().query[0][0, 2], record().key[0][0, 1], scale=0.5).row(5)
    )
    assert again.runs[0][3].left == 3
    assert again.nbytes == again.memory > 0


def test_a_record_without_rows_of_the_models_own_is_saved(tmp_path):
    seen = Watch(None, None, 1 << 20)
    seen.runs.append({0: record(rows=[], own=[])})
    seen.save(tmp_path / "seen.safetensors")
    assert clearhead.load_watch(tmp_path / "seen.safetensors").runs[0][0].own == []


DAMAGES = {
    "another format": lambda a: a.update(format=np.array([2.0])),
    "no format": lambda a: a.pop("format"),
    "format of another shape": lambda a: a.update(format=np.ones((1, 1))),
    "a missing part": lambda a: a.pop("0.0.key"),
    "a part of another name": lambda a: a.update({"0.0.extra": np.ones(3)}),
    "a name that is none": lambda a: a.update({"x.y": np.ones(3)}),
    "a negative run": lambda a: a.update({"-1.0.key": np.ones(3)}),
    "a run far away": lambda a: a.update({f"99999.0.{n[4:]}": x for n, x in list(a.items()) if n.startswith("1.0.")}),
    "a number written otherwise": lambda a: a.update({"00.0.key": a.pop("0.0.key")}),
    "other keys than values": lambda a: a.update({"0.0.value": a["0.0.value"][:, :, :5]}),
    "more heads": lambda a: a.update({"0.0.heads": np.arange(5.0)}),
    "the same head twice": lambda a: a.update({"0.0.heads": np.zeros(4)}),
    "key heads that are not there": lambda a: a.update({"0.0.key_heads": np.full(4, 2.0)}),
    "fewer begins": lambda a: a.update({"0.0.begins": np.zeros(1)}),
    "begins behind the end": lambda a: a.update({"0.0.begins": np.full(2, 7.0)}),
    "other passes": lambda a: a.update({"0.0.passes": np.array([5.0])}),
    "no pass": lambda a: a.update({"0.0.passes": np.zeros(0)}),
    "half a pass": lambda a: a.update({"0.0.passes": np.array([5.5, 0.5])}),
    "endless passes": lambda a: a.update({"0.0.passes": np.array([np.inf, 1])}),
    "rows that are not there": lambda a: a.update({"0.0.rows": np.array([0.0, 6.0])}),
    "fewer of the model's rows": lambda a: a.update({"0.0.own": a["0.0.own"][:1]}),
    "a scale that is no number": lambda a: a["0.0.about"].__setitem__(3, np.nan),
    "a softcap of 0": lambda a: a["0.0.about"].__setitem__(4, 0),
    "a softcap below 0": lambda a: a["0.0.about"].__setitem__(4, -1e9),
    "an endless softcap": lambda a: a["0.0.about"].__setitem__(4, np.inf),
    "a dtype that is not there": lambda a: a["0.0.about"].__setitem__(2, 4),
    "a negative window": lambda a: a["0.0.about"].__setitem__(5, -1),
    "an infinite window": lambda a: a["0.0.about"].__setitem__(5, np.inf),
    "a huge position": lambda a: a["0.0.about"].__setitem__(0, 1e300),
    "no position": lambda a: a["0.0.about"].__setitem__(0, np.nan),
    "whole numbers": lambda a: a.update({"0.0.query": a["0.0.query"].astype(np.int64)}),
    "halves": lambda a: a.update({"0.0.lse": a["0.0.lse"].astype(np.float16)}),
    "queries wider than keys": lambda a: a.update({"0.0.query": a["0.0.query"].astype(np.float64)}),
    "a flat array": lambda a: a.update({"0.0.key": a["0.0.key"].ravel()}),
    "nothing": lambda a: a.clear(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_does_not_fit_is_refused(saved, damage):
    path, arrays = saved
    DAMAGES[damage](arrays)
    save_file({name: np.ascontiguousarray(x) for name, x in arrays.items()}, path)
    with pytest.raises(FileError, match=r"safetensors is not a saved watch \(.*give a file that Watch\.save wrote"):
        clearhead.load_watch(path)
