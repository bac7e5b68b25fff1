"""The examples' own command lines."""

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
