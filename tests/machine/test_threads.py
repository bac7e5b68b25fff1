"""Threads share a call without changing a bit, and leave nothing behind."""

import ctypes
import gc
import os
import subprocess
import sys
import threading
import weakref

import pytest

import clearhead
from clearhead import InputError, attend, self_attention
from clearhead.machine import threads as machine
from clearhead.testing import check_same_bits
from tests.arrays import random


def script(code: str, **environment: str) -> str:
    """What a fresh Python prints."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def test_any_number_of_threads_gives_the_same_bits():
    x = random(3, 400, 48)
    alone = attend(x, x, x, threads=1)
    for repeat in range(20):
        for threads in (2, 3, 7):
            shared = attend(x, x, x, threads=threads)
            check_same_bits(shared.output, alone.output, f"{threads} threads, repeat {repeat}")
            check_same_bits(shared.lse, alone.lse, f"{threads} threads, repeat {repeat}")


def test_calls_from_several_threads_at_once_do_not_meet():
    inputs = [random(2, 300 + 10 * n, 32, seed=n) for n in range(6)]
    alone = [self_attention(x, threads=1) for x in inputs]
    failures = []

    def caller(n: int) -> None:
        try:
            for _ in range(10):
                check_same_bits(self_attention(inputs[n], threads=3), alone[n], f"caller {n}")
        except BaseException as error:
            failures.append(error)

    callers = [threading.Thread(target=caller, args=(n,)) for n in range(6)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    assert failures == []


def test_small_problems_wake_nobody():
    assert script(
        "import numpy as np, clearhead; from clearhead.machine.threads import crew\n"
        "clearhead.self_attention(np.ones((100, 16)), threads=8); print(crew.started)\n"
        "x = np.ones((8, 600, 64)); clearhead.self_attention(x, threads=3); print(crew.started)\n"
        "clearhead.self_attention(x, threads=2); print(crew.started)"
    ).split() == ["0", "2", "2"]


def test_the_variable_bounds_the_threads():
    code = (
        "import numpy as np, clearhead; from clearhead.machine.threads import crew\n"
        "clearhead.self_attention(np.ones((8, 600, 64))); print(crew.started)"
    )
    assert script(code, CLEARHEAD_THREADS="1") == "0"
    assert script(code, CLEARHEAD_THREADS="4") == "3"


def test_without_the_variable_every_allowed_core_may_work(monkeypatch):
    monkeypatch.delenv("CLEARHEAD_THREADS", raising=False)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert machine.allowed() == cores


@pytest.mark.parametrize("text", ["many", "-1", "1.5"])
def test_a_variable_that_is_no_number_is_refused(monkeypatch, text):
    monkeypatch.setenv("CLEARHEAD_THREADS", text)
    with pytest.raises(InputError, match=f"CLEARHEAD_THREADS={text}"):
        self_attention(random(8, 600, 64))


def test_a_failing_thread_is_heard_of():
    def fails(table, scratch, budget):
        if threading.current_thread() is threading.main_thread():
            joined.wait(10)
            return 0
        joined.set()
        raise MemoryError("no room")

    joined = threading.Event()
    table = (ctypes.c_int64 * 8)()
    with pytest.raises(MemoryError, match="no room"):
        machine.run_kernel(fails, table, 64, 2, "avx2", ())
    assert self_attention(random(8, 600, 64), threads=2).shape == (8, 600, 64)


def test_arrays_are_let_go_after_the_call():
    x = random(8, 600, 64)
    y = self_attention(x, threads=3)
    seen = [weakref.ref(x), weakref.ref(y)]
    del x, y
    self_attention(random(8, 601, 64), threads=3)  # the waiting threads may hold their last job
    gc.collect()
    assert [ref() for ref in seen] == [None, None]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_computes_with_threads_of_its_own():
    code = """
import os, threading, numpy as np, clearhead
from clearhead.machine.threads import crew
x = np.random.default_rng(0).standard_normal((8, 600, 64))
y = clearhead.self_attention(x, threads=2)
stop = threading.Event()
def busy():
    while not stop.is_set():
        clearhead.self_attention(x, threads=2)
thread = threading.Thread(target=busy)
thread.start()
for _ in range(5):
    child = os.fork()
    if child == 0:
        same = crew.started == 0
        same &= np.array_equal(clearhead.self_attention(x, threads=2), y)
        same &= crew.started == 1
        same &= np.array_equal(clearhead.self_attention(x.astype(np.float32), threads=2).shape, y.shape)
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
stop.set()
thread.join()
print("done")
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, env=env, timeout=120
    )
    assert done.stdout.strip() == "done", done.stderr


def test_leaving_while_threads_wait_is_quiet():
    code = "import numpy as np, clearhead; clearhead.self_attention(np.ones((8, 600, 64)), threads=4); print('bye')"
    assert script(code) == "bye"


def test_one_kernel_serves_all_who_ask_at_once():
    code = """
import threading, numpy as np, clearhead
from clearhead.machine import compile as machine
x = np.ones((3, 4), np.float32)
callers = [threading.Thread(target=clearhead.self_attention, args=(x,)) for _ in range(8)]
for one in callers: one.start()
for one in callers: one.join()
print(machine.compilations)
"""
    assert script(code, CLEARHEAD_CACHE="0") == "1"


def test_a_problem_knows_how_many_threads_it_is_worth():
    from clearhead.engine.launch import prepare

    worth = []
    for shape in ((1, 16, 64), (1, 100, 64), (2, 128, 64), (1, 4000, 64)):
        x = random(*shape)
        worth.append(prepare(clearhead.problem(x, x, x, mask=clearhead.causal()), ()).most_threads)
    assert worth[:2] == [1, 1]
    assert worth == sorted(worth)
    assert worth[3] > 16
