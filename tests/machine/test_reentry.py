"""A call may begin wherever Python runs something in the middle of another: nothing is shared, no bit changes."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import clearhead
from clearhead.machine import threads

EVERY_STEP = Path(__file__).with_name("every_step.py")


def python(*arguments: str, **environment: str) -> str:
    """What a fresh Python prints; nothing else may be said."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    command = [sys.executable, "-X", "faulthandler", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def test_a_call_in_a_call_works_elsewhere():
    places = []

    def entry(table, scratch, budget):
        places.append(scratch)
        if len(places) < 3:
            threads.run_kernel(entry, table, 64, 1, "avx2", ())
        places.append(scratch)
        return 0

    table = (ctypes.c_int64 * 8)()
    threads.run_kernel(entry, table, 64, 1, "avx2", ())
    first, second, third = places[:3]
    assert len({first, second, third}) == 3
    assert places[3:] == [third, second, first]


def test_memory_is_used_again_by_the_next_call():
    found = []

    def entry(table, scratch, budget):
        found.append(scratch)
        return 0

    for size in (1 << 20, 64, 1 << 20):
        threads.run_kernel(entry, (ctypes.c_int64 * 8)(), size, 1, "avx2", ())
    assert len(set(found)) == 1


@pytest.mark.parametrize("threads", ["1", "3"])
@pytest.mark.parametrize("outer", ["forward", "new", "backward", "weights", "decode", "second"])
def test_a_call_may_begin_at_any_instruction_of_another(outer, threads):
    points = {"forward": 400, "new": 200, "decode": 400}.get(outer, 100)
    inner = "backward" if outer == "forward" else "forward"
    assert "of" in python(str(EVERY_STEP), outer, inner, threads, str(points))


SIGNALS = """
import random, signal, sys
import numpy as np
import clearhead
from clearhead.machine import threads as machine

machine.SLICE = dict.fromkeys(machine.SLICE, 1)  # a slice is one task, however small
cold, threads = sys.argv[1] == "cold", int(sys.argv[2])
random.seed(0)
small, large = (np.random.default_rng(n).standard_normal((4, 2, 500, n)).astype(np.float32) for n in (16, 300))

def outer():
    done = clearhead.attend(*small[:3], threads=threads)
    return [done.output, done.backward(small[3]).k, done.weights.summary("entropy").entropy]

def inner():
    return [clearhead.attention(*large[:3], score=clearhead.softcap(9.0), threads=threads)]

found, depth = {outer: [], inner: []}, 0
def handler(*_):
    global depth
    if len(found[inner]) < 40:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-3, 2e-2))
    if depth < 3:
        depth += 1
        found[inner].append(inner())
        depth -= 1

if not cold:
    outer(), inner()
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 1e-3)
for _ in range(2 if cold else 20):
    found[outer].append(outer())
signal.setitimer(signal.ITIMER_REAL, 0)
for work, results in found.items():
    right = work()
    assert results, work
    for result in results:
        assert all(a.tobytes() == b.tobytes() for a, b in zip(result, right, strict=True)), work
print("same bits")
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")
@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("start", ["cold", "warm"])
def test_signal_handlers_may_call_attention(start, threads):
    assert python("-c", SIGNALS, start, threads, CLEARHEAD_CACHE="0") == "same bits\n"


COLLECTOR = """
import gc
import numpy as np
import clearhead

small, large = (np.random.default_rng(n).standard_normal((3, 2, 60, n)) for n in (4, 300))
found, passed = [], 0

class Dying:
    def __init__(self):
        self.me = self
    def __del__(self):
        found.append(clearhead.attention(*large))

def callback(phase, about):
    global passed
    passed += 1
    if passed % 97 == 0 and len(found) < 400:
        found.append(clearhead.attention(*large))
        Dying()

gc.set_threshold(1)
gc.callbacks.append(callback)
for scale in range(1, 40):
    clearhead.attend(*small, scale=float(scale)).backward(small[0])
gc.callbacks.clear()
right = clearhead.attention(*large)
assert len(found) > 100
assert all(np.array_equal(one, right) for one in found)
print("same bits")
"""


def test_finalizers_and_callbacks_of_the_collector_may_call_attention():
    assert python("-c", COLLECTOR, CLEARHEAD_CACHE="0") == "same bits\n"


def test_a_call_goes_on_alone_where_no_thread_can_be_started(monkeypatch):
    monkeypatch.setattr(threads, "crew", threads.Crew())

    def refused(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads.threading.Thread, "start", refused)  # type: ignore[attr-defined]
    x = np.random.default_rng(0).standard_normal((8, 600, 64))
    alone = clearhead.self_attention(x, threads=1)
    assert np.array_equal(clearhead.self_attention(x, threads=3), alone)
    assert threads.crew.jobs.empty()
