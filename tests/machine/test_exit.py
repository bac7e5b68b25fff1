"""The interpreter may end while daemon threads are inside attention: quietly, and with the exit code it should have."""

import os
import subprocess
import sys

import pytest

CODE = """
import sys, threading, time
import numpy as np
import clearhead

work, threads, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
x = np.random.default_rng(0).standard_normal((8, 600, 64))
cache = clearhead.KeyValueCache()
cache.append(x, x)

def forward():
    clearhead.attention(x, x, x, threads=threads)

def backward():
    clearhead.attend(x, x, x, threads=threads).backward(x)

def decode():
    clearhead.attention(x[:, :1], cache, threads=threads)

def weights():
    clearhead.weights(x, x, threads=threads).summary("entropy")

def compile(rules=[]):
    rules.append(clearhead.softcap(3.0))
    clearhead.attention(x[:, :9], x[:, :9], x[:, :9], score=rules)

call = globals()[work]
if work != "compile":
    call()
def forever():
    while True:
        call()
for _ in range(2):
    threading.Thread(target=forever, daemon=True).start()
time.sleep(pause)
"""


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("work", ["forward", "backward", "decode", "weights", "compile"])
def test_daemon_threads_may_be_at_work_at_the_end(work, threads):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CLEARHEAD_CACHE": "0" if work == "compile" else "1"}
    for pause in (0.0, 0.02, 0.15):
        command = [sys.executable, "-X", "faulthandler", "-c", CODE, work, threads, str(pause)]
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), pause


def test_attention_answers_while_the_interpreter_ends():
    code = """
import atexit
def late():
    y = clearhead.attend(x, x, x, threads=3)
    print(np.isfinite(y.backward(x).q).all())
atexit.register(late)  # runs after what is registered below, which waits for nothing then
import numpy as np
import clearhead
x = np.ones((8, 600, 64))
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CLEARHEAD_CACHE": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
