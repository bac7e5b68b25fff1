"""`clearhead bench`: what it measures and how it says so; never how fast."""

import json

import numpy as np
import pytest

from clearhead.cli import bench as benchmark
from clearhead.cli import command as cli
from clearhead.definition import textbook
from clearhead.machine.peak import Peak


def test_a_result_holds_every_contender():
    result = benchmark.measure((1, 2, 40, 8), seconds=0.01)
    assert result.gflops > 0
    assert result.numpy_gflops > 0
    assert result.as_dict()["vs_numpy"] == pytest.approx(result.gflops / result.numpy_gflops)
    assert result.of_peak == pytest.approx(result.gflops / result.peak)
    assert 0 <= result.error.mean <= result.error.max < 1e-5


def test_contenders_compute_the_same_thing():
    q, k, v = np.random.default_rng(0).standard_normal((3, 2, 30, 8))
    exact = textbook.attention(q, k, v)
    assert benchmark.plain_numpy(q, k, v) == pytest.approx(exact, abs=1e-12)
    rows = np.array([0, 7, 29])
    assert benchmark.definition_rows(q, k, v, rows) == pytest.approx(exact[:, rows], abs=1e-12)
    theirs = benchmark.torch_attention(q, k, v, threads=1)
    if theirs is not None:
        assert theirs().numpy() == pytest.approx(exact, abs=1e-12)


def test_what_is_left_out_is_said(monkeypatch):
    monkeypatch.setattr(benchmark, "NUMPY_BYTES", 100)
    monkeypatch.setattr(benchmark, "torch_attention", lambda *_: None)
    result = benchmark.measure((1, 1, 40, 8), seconds=0.0)
    assert result.numpy_gflops is None
    assert result.torch_gflops is None
    assert [note.split(":")[0] for note in result.left_out] == ["numpy", "torch"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_peak_only_grows(dtype):
    peak = Peak(dtype)
    first = peak.measure()
    assert first > 0
    assert peak.measure() >= first
    assert np.isfinite(peak.scratch).all()


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "1,2,3,0", "1,2,3,4,5", ""])
def test_a_wrong_shape_is_refused(text, capsys):
    assert cli.main(["bench", "--shape", text]) == 2
    assert "batch,heads,length,dim" in capsys.readouterr().err


def test_a_wrong_dtype_is_refused(capsys):
    assert cli.main(["bench", "--dtype", "float16"]) == 2
    assert "float16" in capsys.readouterr().err


def test_the_command_writes_a_table_or_json(capsys):
    arguments = ["bench", "--shape", "1,1,20,8", "--seconds", "0"]
    assert cli.main(arguments) == 0
    assert "of peak" in capsys.readouterr().out
    assert cli.main([*arguments, "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["shape"] == [1, 1, 20, 8]
    assert {"gflops", "of_peak", "vs_numpy", "vs_torch", "error"} <= set(told)
