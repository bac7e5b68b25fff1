"""Ctrl-C during a long call is answered at once, and the process goes on."""

import os
import subprocess
import sys

import pytest

CODE = """
import os, signal, sys, threading, time
import numpy as np, clearhead
threads = int(sys.argv[1])
small = np.random.default_rng(0).standard_normal((4, 600, 64)).astype(np.float32)
before = clearhead.self_attention(small, threads=threads)
x = np.zeros((64, 40000, 64), np.float32)
sent = []
def interrupt():
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)
for _ in range(3):
    timer = threading.Timer(0.3, interrupt)
    timer.start()
    start = time.perf_counter()
    try:
        clearhead.self_attention(x, threads=threads)
        print("finished", time.perf_counter() - start)
    except KeyboardInterrupt:
        print(time.perf_counter() - sent[-1])
    timer.join()
    assert np.array_equal(clearhead.self_attention(small, threads=threads), before)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")
@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_is_answered_and_the_process_stays_usable(threads):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(threads)], capture_output=True, text=True, env=env, timeout=120
    )
    assert done.returncode == 0, done.stderr
    answered = [float(line) for line in done.stdout.split("\n") if line and not line.startswith("finished")]
    assert len(answered) == 3, done.stdout
    assert min(answered) < 0.2  # seconds; the promise
    assert max(answered) < 2.0  # room for a loaded machine
