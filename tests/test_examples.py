"""The examples' own command lines."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("steps", ["0", "-1"])
def test_training_takes_a_step_at_least(steps):
    pytest.importorskip("torch")
    command = [sys.executable, EXAMPLES / "train.py", "--steps", steps]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"--steps {steps} trains nothing: give 1 or more." in done.stderr


INTERVENTIONS = {
    "head_ablation": "The answer needs head 1 of layer 1 most.",
    "activation_patching": "Head 0 of layer 0 brings back most.",
    "path_patching": "0    0      0.00                     3.77",
    "edge_attribution": "3    3 ' Elizabeth'      2.09     2.60",
}


@pytest.mark.parametrize("recipe", INTERVENTIONS)
def test_interventions_find_the_heads_that_copy(recipe, monkeypatch, capsys):
    pytest.importorskip("transformers")
    monkeypatch.syspath_prepend(EXAMPLES / "interventions")
    runpy.run_path(str(EXAMPLES / f"interventions/{recipe}.py"), run_name="__main__")
    assert INTERVENTIONS[recipe] in capsys.readouterr().out
