"""A fork at any moment leaves a child that computes, whatever other threads were at."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

START = """
import os, signal, sys, threading, time, warnings
import numpy as np
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later: forks and threads

def forked(work, seconds=30):
    "What becomes of a child that does some work: 'right', 'wrong', or how it ended."
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        os._exit(0 if work() else 1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {0: "right", 1: "wrong"}.get(code, code)
"""


def outcomes(code: str, *arguments: str) -> set[str]:
    """The words that a fresh Python prints."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CLEARHEAD_CACHE": "0"}
    command = [sys.executable, "-X", "faulthandler", "-c", START + code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return set(done.stdout.split())


COMPILING = """
import clearhead
x = np.random.default_rng(0).standard_normal((2, 40, 16))
def busy():
    for n in range(2):
        rules = [clearhead.softcap(3.0)] * n
        clearhead.attend(x, x, x, score=rules).backward(x)
        clearhead.weights(x, x, score=rules).summary("entropy")
def child():
    return np.isfinite(clearhead.attend(x, x, x, threads=1).backward(x).q).all()
thread = threading.Thread(target=busy)
thread.start()
for pause in map(float, sys.argv[1:]):
    time.sleep(pause)
    print(forked(child))
thread.join()
"""


def test_a_child_can_compile_although_another_thread_was_compiling():
    pauses = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2]
    assert outcomes(COMPILING, *map(str, pauses)) == {"right"}


IMPORTING = """
def child():
    import clearhead
    x = np.ones((3, 4))
    return clearhead.attention(x, x, x).shape == (3, 4)
thread = threading.Thread(target=__import__, args=("clearhead",))
thread.start()
while "clearhead.attention_weights.alignment" not in sys.modules:
    time.sleep(1e-4)
time.sleep(float(sys.argv[1]))
print(forked(child))
thread.join()
"""


@pytest.mark.parametrize("pause", ["0.001", "0.01", "0.03"])
def test_a_child_can_import_although_another_thread_was_importing(pause):
    assert outcomes(IMPORTING, pause) == {"right"}


AT_EITHER_END = """
def slowly(frame, event, _):
    if frame.f_globals.get("__name__") == "clearhead" and frame.f_code.co_name == "<module>":
        time.sleep(0.02)
        return slowly
def child():
    import clearhead
    return clearhead.attention(np.ones((3, 4)), np.ones((3, 4)), np.ones((3, 4))).shape == (3, 4)
threading.settrace(slowly)  # so that the first and last lines of the import take long, before and after its locks
thread = threading.Thread(target=__import__, args=("clearhead",))
thread.start()
while not hasattr(sys.modules.get("clearhead.machine.unbroken"), "resume"):
    time.sleep(1e-4)
time.sleep(float(sys.argv[1]))
threading.settrace(None)
print(forked(child, 10))
thread.join()
"""


@pytest.mark.parametrize("pause", ["0.002", "0.1"])
def test_a_child_can_import_though_the_import_has_just_begun_or_is_all_but_over(pause):
    assert outcomes(AT_EITHER_END, pause) == {"right"}


IN_A_CALL = """
import clearhead
from clearhead.machine import threads as machine
machine.SLICE = dict.fromkeys(machine.SLICE, 1)
threads = int(sys.argv[1])
x = np.random.default_rng(0).standard_normal((4, 700, 64))
done = clearhead.attend(x, x, x, threads=threads)
right = [done.output, done.backward(x).k]
children = []
def handler(*_):
    global forks
    forks += 1
    child = os.fork()
    if child:
        children.append(child)
        signal.setitimer(signal.ITIMER_REAL, 0.02 if forks < 6 else 0)
    else:
        signal.alarm(30)  # and on with the call that the handler is in
forks = 0
parent = os.getpid()
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.005)
try:
    for _ in range(1000):
        done = clearhead.attend(x, x, x, threads=threads)
        found = [done.output, done.backward(x).k]
        same = all(a.tobytes() == b.tobytes() for a, b in zip(found, right))
        if not same or parent != os.getpid() or forks == 6:
            break
except clearhead.MachineError as error:
    same = "forked in the middle of a call" in str(error)
if parent != os.getpid():
    os._exit(0 if same else 1)
signal.setitimer(signal.ITIMER_REAL, 0)
for child in children:
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print({0: "right", 1: "wrong"}.get(code, code))
print("right" if same else "wrong")
"""


@pytest.mark.parametrize("threads", ["1", "2", "3"])
def test_a_child_forked_in_the_middle_of_a_call_ends_it_or_says_that_it_cannot(threads):
    assert outcomes(IN_A_CALL, threads) == {"right"}


LOCKS = """
import clearhead
x = np.random.default_rng(0).standard_normal((2, 30, 8))
stop = threading.Event()
def busy(n):
    while not stop.is_set():
        n += 1
        mask = clearhead.window(n % 20) & clearhead.where(lambda b, h, q, k: q + k != 7)
        clearhead.attend(x, x, x, mask=mask, scale=n * 1e-3, threads=2).backward(x)
def child():
    return np.isfinite(clearhead.attend(x, x, x, mask=clearhead.window(3), threads=2).backward(x).q).all()
child()
threads = [threading.Thread(target=busy, args=(n,)) for n in range(3)]
sys.setswitchinterval(1e-5)
for one in threads:
    one.start()
time.sleep(1)
for _ in range(25):
    print(forked(child))
stop.set()
for one in threads:
    one.join()
"""


def test_no_lock_stays_locked_in_a_child():
    assert outcomes(LOCKS) == {"right"}
