"""A share of the soak that `scripts/soak` does for an hour, and leaks that it must find."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "soak"
SHORT = f"""
import runpy
soak = runpy.run_path({str(SCRIPT)!r})
from soaking import works
works.SEEDS = dict.fromkeys(works.WORKS, 1)
raise SystemExit(soak["main"](["--seconds", "1", "--threads", "2", "--without", "models"]))
"""
LEAKING = f"""
import itertools, os, runpy, sys, tempfile, threading, time
soak = runpy.run_path({str(SCRIPT)!r})
from soaking import works
kept, count = [], itertools.count()

def leaking(draw):
    kept.append(bytearray(os.urandom(1 << 10)) * 2048)
    time.sleep(0.03)
    kept.append(open(os.devnull))
    os.close(tempfile.mkstemp()[0])
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    return [next(count) // 9]

def leaving(draw):
    (draw.folder / "left").touch()
    return []

works.WORKS.clear()
works.WORKS.update(leaking=leaking, leaving=leaving)
works.SEEDS = {{"leaking": 8, "leaving": 1}}
sys.stdout.flush()
os._exit(soak["main"](["--seconds", "2", "--without", "models", "page"]))
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def soaked(*command: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-u", *command], capture_output=True, text=True, timeout=900, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_short_soak_finds_nothing() -> None:
    code, said = soaked("-c", SHORT)
    assert code == 0, said
    assert ", 0 faults" in said
    for name in ("asked", "forks", "stopped", "gradients"):
        assert re.search(rf"\b[1-9]\d* {name}\b", said), (name, said)


def test_leaks_are_found() -> None:
    code, said = soaked("-c", LEAKING)
    assert code == 1, said
    for found in ("the memory of this process grows", "open files of this process", "threads of this process",
                  "files in temporary files", ": other bits", "leaving 0: OSError"):  # fmt: skip
        assert found in said, (found, said)
