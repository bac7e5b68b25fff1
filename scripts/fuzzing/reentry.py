"""Calls that begin in the middle of calls: at random moments Python runs something that calls attention too.

What runs is a signal handler, a callback of the garbage collector, a finalizer, a weak reference's callback, a
profiler, a tracer at any instruction, or another thread; what it calls needs other kernels and more or less scratch
memory than the call it is in. Every result must have the bits that it has in peace. A case is a process of its own,
for a fault here ends the process; it is what `python reentry.py SEED` runs.
"""

import gc
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
KERNELS = tempfile.TemporaryDirectory(prefix="clearhead-fuzz-")
LIMIT = 120  # seconds for a case that takes two or three


def check(seed: int) -> dict:
    """One case; what its process told."""
    kept = {"CLEARHEAD_CACHE": "0"} if Case(seed).cold else {"CLEARHEAD_CACHE_DIR": KERNELS.name}
    env = {**os.environ, **kept, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-X", "faulthandler", __file__, str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=LIMIT, check=False)  # noqa: S603
    if done.returncode or done.stderr:
        raise AssertionError(f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    told = json.loads(done.stdout)
    if told["wrong"]:
        raise AssertionError(f"other bits: {told['wrong']}")
    return told


def describe(seed: int) -> str:
    """What a case is made of."""
    case = Case(seed)
    return f"{case.moment}{', before anything is compiled' if case.cold else ''}: {case.outer} meet {case.inner}"


class Case:
    """What is interrupted, by what, and when."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311
        self.moment = self.random.choice(sorted(MOMENTS))
        self.cold = self.random.random() < 0.3
        self.outer = [self.work() for _ in range(2)]
        self.inner = [self.work() for _ in range(2)]

    def work(self) -> tuple:
        """A kind of call, and what its sizes are drawn from."""
        return self.random.choice(sorted(WORKS)), self.random.randrange(1 << 20)


def forward(r, arrays, threads):
    """A plain call, and one whose rules make a kernel of its own."""
    import clearhead

    heads, n, d = r.choice([1, 4]), r.choice([3, 70, 700]), r.choice([4, 64, 300])
    q, k, v = arrays(heads, n, d), arrays(heads, n, d), arrays(heads, n, r.choice([4, 64, 300]))
    score = r.choice([(), clearhead.softcap(r.choice([10.0, 20.0])), (clearhead.alibi(heads), clearhead.scale(0.5))])
    return lambda: [clearhead.attention(q, k, v, score=score, threads=threads)]


def decode(r, arrays, threads):
    """Few queries over a cache."""
    import clearhead

    cache, n, d = clearhead.KeyValueCache(), r.choice([5, 300, 5000]), r.choice([16, 64, 128])
    cache.append(arrays(2, n, d), arrays(2, n, d))
    q = arrays(2, r.choice([1, 3]), d)
    return lambda: [clearhead.attention(q, cache, threads=threads)]


def derivatives(r, arrays, threads):
    """Gradients, and how they change."""
    import clearhead

    n, d = r.choice([3, 70, 400]), r.choice([4, 64])
    q, k, v, along = (arrays(2, n, d) for _ in range(4))
    second = n < 100 and r.random() < 0.5

    def work():
        done = clearhead.attend(q, k, v, threads=threads)
        if second:
            changed = done.second(along, None, clearhead.Direction(q=along))
            return [changed.output, changed.gradients.k]
        found = done.backward(along)
        return [done.lse, found.q, found.k, found.v]

    return work


def weights(r, arrays, threads):
    """A sweep over the weights, some rows, and what is asked of them."""
    import clearhead

    n, d = r.choice([3, 70, 600]), r.choice([4, 64])
    q, k = arrays(2, n, d), arrays(2, n, d)

    def work():
        seen = clearhead.weights(q, k, threads=threads)
        return [seen.summary("entropy", "received_mean").entropy, seen.row(n - 1), seen[0, : n // 2 + 1]]

    return work


WORKS = {work.__name__: work for work in (forward, decode, derivatives, weights)}


def made(work: tuple) -> Any:
    """A call that is ready to be made, again and again."""
    import numpy as np

    name, seed = work
    r, rng = random.Random(seed), np.random.default_rng(seed)  # noqa: S311
    dtype = r.choice([np.float32, np.float64])
    return WORKS[name](r, lambda *shape: rng.standard_normal(shape).astype(dtype), r.choice([1, 1, 2, 3]))  # type: ignore[attr-defined]


def digest(arrays) -> str:
    """The bits of a result."""
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


class Intruder:
    """Makes one of some calls wherever it is let in, and keeps what came out."""

    def __init__(self, works, most: int) -> None:
        self.works, self.left, self.depth, self.found = works, most, 0, []

    def __call__(self, *_) -> None:
        """Make the next call, unless too many are under way."""
        if self.depth < 2 and self.left > 0:
            self.left -= 1
            self.depth += 1
            number = self.left % len(self.works)
            self.found.append((number, digest(self.works[number]())))
            self.depth -= 1


def by_signal(case, intrude, run):
    """Handlers at random moments, even of one another."""

    def handler(*_):
        for _ in range(1 + (intrude.depth < 2)):  # before the call within, which may be interrupted too, and after
            signal.setitimer(signal.ITIMER_REAL, case.random.uniform(1e-4, 1e-2))
            intrude()

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 1e-3)
    run()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)


def by_collector(case, intrude, run):
    """Callbacks of the garbage collector, which runs almost always."""
    gc.set_threshold(case.random.choice([1, 7, 50]))
    gc.callbacks.append(intrude)
    run()
    gc.callbacks.remove(intrude)


class Circle:
    """Garbage that only the collector finds."""

    def __init__(self, last) -> None:
        self.me, self.last = self, last


class Dying(Circle):
    """Garbage with a finalizer."""

    def __del__(self) -> None:
        self.last()


def by_finalizer(case, intrude, run):
    """`__del__` of what the collector finds."""
    gc.set_threshold(case.random.choice([1, 7, 50]))
    gc.callbacks.append(lambda *_: Dying(intrude))
    run()
    gc.callbacks.clear()


def by_weak_reference(case, intrude, run):
    """A weak reference's callback."""
    kept = []
    gc.set_threshold(case.random.choice([1, 7, 50]))
    gc.callbacks.append(lambda *_: kept.append(weakref.ref(Circle(None), intrude)))
    run()
    gc.callbacks.clear()


def by_profiler(case, intrude, run):
    """A profiler, called at calls and returns."""
    sys.setprofile(lambda *_: intrude() if case.random.random() < 0.01 else None)
    run()
    sys.setprofile(None)


def by_tracer(case, intrude, run):
    """A tracer, called at any instruction."""

    def trace(frame, event, _):
        frame.f_trace_opcodes = True
        if case.random.random() < 0.001:
            intrude()
        return trace

    sys.settrace(trace)
    run()
    sys.settrace(None)


def by_thread(case, intrude, run):
    """Other threads, between which Python changes as often as it can."""
    sys.setswitchinterval(1e-6)
    intrude.depth = -100
    others = [threading.Thread(target=lambda: [intrude() for _ in range(20)]) for _ in range(3)]
    for one in others:
        one.start()
    run()
    for one in others:
        one.join()


MOMENTS = {moment.__name__: moment for moment in (
    by_signal, by_collector, by_finalizer, by_weak_reference, by_profiler, by_tracer, by_thread,
)}  # fmt: skip


def main(seed: int) -> None:
    """Run a case and tell what was seen."""
    case = Case(seed)
    outer, inner = [made(work) for work in case.outer], [made(work) for work in case.inner]
    peace = [] if case.cold else [[digest(work()) for work in works] for works in (outer, inner)]
    intrude, found = Intruder(inner, 60), []

    def run() -> None:
        for _ in range(1 if case.cold else 4):
            found.extend((number, digest(work())) for number, work in enumerate(outer))

    MOMENTS[case.moment](case, intrude, run)
    gc.set_threshold(700)
    peace = peace or [[digest(work()) for work in works] for works in (outer, inner)]
    wrong = [case.outer[n] for n, bits in found if bits != peace[0][n]]
    wrong += [case.inner[n] for n, bits in intrude.found if bits != peace[1][n]]
    print(json.dumps({"calls": len(found), "in them": len(intrude.found), "wrong": wrong}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
