"""`clearhead doctor` tells what a report of a problem needs, and notices wrong numbers."""

import json

import numpy as np
import pytest

from clearhead import settings
from clearhead.cli import command as cli
from clearhead.cli import doctor
from clearhead.machine import store
from clearhead.machine.target import native_isas


@pytest.fixture(scope="module")
def diagnosis():
    return doctor.examine()


def test_every_kernel_this_processor_runs_is_checked(diagnosis):
    assert {(c.isa, c.dtype) for c in diagnosis.checks} == {
        (i, d) for i in native_isas() for d in ("float32", "float64")
    }
    assert diagnosis.healthy
    assert str(diagnosis).endswith("healthy")


def test_it_names_everything_that_makes_the_numbers(diagnosis):
    for name in (
        "clearhead",
        "Python",
        "numpy",
        "llvmlite",
        "processor",
        "instruction set",
        "vectors",
        "threads",
        "kernel cache",
    ):
        assert diagnosis.facts[name]
    assert set(diagnosis.settings) == {setting.name for setting in settings.ALL}
    assert str(store.directory()) in diagnosis.facts["kernel cache"]
    assert all(rate > 0 for rate in diagnosis.peaks.values())
    assert diagnosis.warnings == ()


def test_wrong_numbers_are_a_diagnosis_and_an_exit_code(monkeypatch, capsys):
    monkeypatch.setattr("clearhead.attention", lambda q, k, v, **rules: np.zeros_like(v[..., : q.shape[-2], :]))
    sick = doctor.examine()
    assert not sick.healthy
    assert all(check.fault.startswith("FAIL") for check in sick.checks)
    assert cli.main(["doctor"]) == 1
    assert "NOT healthy" in capsys.readouterr().out


def test_a_cache_that_cannot_be_used_is_a_warning(monkeypatch, tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    monkeypatch.setenv("CLEARHEAD_CACHE_DIR", str(tmp_path / "open"))
    found = doctor.examine()
    assert found.healthy
    assert "not used" in found.facts["kernel cache"]
    assert any("chmod 700" in warning for warning in found.warnings)


def test_programs_get_json(capsys):
    assert cli.main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["healthy"] is True
    assert {"facts", "settings", "peaks", "checks", "warnings"} <= set(told)
