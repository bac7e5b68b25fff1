"""The recipes of docs/scale.md for job arrays, as they stand there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import clearhead
from clearhead.cli.command import main
from tests.cli.test_run import draw, load, save

ROOT = Path(__file__).parents[2]


def recipe(title, language):
    """The first block of code after a title."""
    found = re.search(rf"^{title}:\n\n```{language}\n(.*?)^```", (ROOT / "docs/scale.md").read_text(), re.M | re.S)
    assert found, f"docs/scale.md has no recipe for {title}"
    return found[1]


@pytest.fixture
def place(tmp_path):
    """A folder with in.npz, and `clearhead` to be called by its name."""
    save(tmp_path / "in.npz", **dict(zip("qkv", draw((4, 300, 16), (2, 300, 16), (2, 300, 8)), strict=True)))
    command = tmp_path / "bin/clearhead"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m clearhead "$@"\n')
    command.chmod(0o755)
    return tmp_path


def follow(place, *command):
    """Run a recipe; the whole file must have the bits of one call, and nothing else may be left."""
    path = f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    q, k, v = (np.load(place / "in.npz")[name] for name in "qkv")
    np.testing.assert_array_equal(load(place / "out.npz")["output"], clearhead.attention(q, k, v))
    assert {"in.npz", "out.npz", "bin"} >= {name for name in os.listdir(place) if not name.endswith((".py", "space"))}


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_a_shell_computes_parts_side_by_side(place):
    follow(place, "sh", "-ec", recipe("A shell", "sh"))


def test_dask_computes_parts_side_by_side(place):
    (place / "parts.py").write_text(recipe("Dask", "python"))
    follow(place, sys.executable, "parts.py")


def test_the_other_recipes_name_options_that_exist(capsys):
    for code in (recipe("Ray", "python"), recipe("Slurm, as [^\n]*", "sh")):
        (command,) = re.findall(r"clearhead run .*", code)
        options = set(re.findall(r"--[a-z]+", command))
        assert options >= {"--part", "--resume", "--threads"}
        assert main(["run", "--help"]) == 0
        shown = capsys.readouterr().out
        assert all(option in shown for option in options)
