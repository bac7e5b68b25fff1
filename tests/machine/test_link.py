"""Code that is mapped into a process reaches its constants, wherever free addresses lie."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it fills addresses by Linux's mmap")
def test_a_crowded_process_still_gets_its_kernels():
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(
        [sys.executable, str(HERE / "crowded.py")], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "linked 59\n"), done.stderr[-500:]
