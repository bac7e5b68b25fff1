"""A share of the fuzzing that `scripts/fuzz` does for as long as asked."""

import importlib.machinery
import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "fuzz"


def load():
    loader = importlib.machinery.SourceFileLoader("fuzz", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("fuzz", loader))
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", range(500_000, 500_030))
def test_random_problems_are_what_the_definition_says(seed):
    load().check(seed)


def test_a_failure_is_told_with_its_seed(monkeypatch, capsys):
    fuzz = load()
    monkeypatch.setattr(fuzz, "attention", lambda *arrays, **rules: fuzz.attend(*arrays, **rules).output * 1.01)
    monkeypatch.setattr("sys.argv", ["fuzz", "--cases", "5", "--seed", "11"])
    assert fuzz.main() == 1
    assert "seed 1" in capsys.readouterr().out
