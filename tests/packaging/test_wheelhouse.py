"""Installed from a wheelhouse, without a network, clearhead does what it should."""

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "PIP_NO_BUILD_ISOLATION": "0",  # as pip reads it, this switches it off: hatchling is among what tests need
}


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheelhouse") / "here"
    filled = run(ROOT / "scripts" / "wheelhouse", folder, env=HERE)
    if re.search("resolve|connect|No matching distribution", filled.stderr) and filled.returncode:
        pytest.skip("no package index can be reached")
    assert filled.returncode == 0, filled.stderr
    return folder, filled.stdout


def test_it_is_installed_without_a_network(wheelhouse, tmp_path):
    folder, said = wheelhouse
    install = f"pip install --no-index --find-links '{folder}' 'clearhead'"
    assert install in said
    wheels = sorted(path.name for path in folder.iterdir())
    assert all(name.endswith(".whl") for name in wheels)
    assert [name for name in wheels if name.startswith("clearhead-")]
    assert f"{len(wheels)} wheels" in said
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    offline = {**HERE, "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_NO_COMPILE": "1"}
    offline["http_proxy"] = offline["https_proxy"] = "http://127.0.0.1:9"  # nobody listens
    words = install.replace("'", "").split()[1:]
    installed = run(sys.executable, "-m", "pip", "--python", python, *words, env=offline)
    assert installed.returncode == 0, installed.stderr
    tried = run(python, ROOT / "scripts" / "smoke.py", env={**HERE, "PYTHONPATH": ""}, cwd=tmp_path)
    assert re.match(r"clearhead \S+, Python \S+: right; imported in \d+ ms", tried.stdout), tried.stderr


def test_what_it_cannot_do_is_said(tmp_path):
    told = run(ROOT / "scripts" / "wheelhouse", "--pythons", "3.12", env=HERE)
    assert told.returncode == 2
    assert told.stdout.startswith("Fill a folder with wheels")
