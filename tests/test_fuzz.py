"""A share of the fuzzing that `scripts/fuzz` does for as long as asked."""

import importlib
import importlib.machinery
import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "fuzz"
SHARES = {
    "attention": 12,
    "elementary": 12,
    "files": 24,
    "http": 24,
    "masks": 24,
    "prose": 12,
    "reentry": 2,
    "rules": 24,
    "views": 12,
}  # cases of each kind


def command():
    loader = importlib.machinery.SourceFileLoader("fuzz", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("fuzz", loader))
    loader.exec_module(module)
    return module


fuzz = command()


def kind_named(name):
    return importlib.import_module(f"fuzzing.{name}")


def test_every_kind_has_its_share():
    assert sorted(SHARES) == fuzz.KINDS


@pytest.mark.parametrize(("name", "seed"), [(name, seed) for name, count in SHARES.items() for seed in range(count)])
def test_random_cases_are_right(name, seed):
    kind_named(name).check(500_000 + seed)


@pytest.mark.parametrize("name", SHARES)
def test_a_case_can_be_described(name):
    assert kind_named(name).describe(500_000)


def test_a_failure_is_told_with_its_seed(monkeypatch, capsys):
    kind = kind_named("attention")
    monkeypatch.setattr(kind, "attention", lambda *arrays, **rules: kind.attend(*arrays, **rules).output * 1.01)
    monkeypatch.setattr("sys.argv", ["fuzz", "attention", "--cases", "5", "--seed", "11"])
    assert fuzz.main() == 1
    assert "seed 1" in capsys.readouterr().out
