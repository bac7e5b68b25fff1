"""Calls of every kind, each drawn from a seed: what they give must have the same bits each time.

A work takes its seed's random numbers, a folder that it leaves empty and a number of threads, and returns arrays, bytes
or texts. Functions, masks and caches are made anew in each call, as a program that runs for days makes them.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fuzzing.attention import case as attention_case

import clearhead
from clearhead import KeyValueCache, Partial
from clearhead.cli import job as jobs
from clearhead.cli import run as running
from clearhead.engine.launch_cache import launches
from clearhead.explain.notebook import explain
from clearhead.files import open_arrays
from clearhead.rules import functions
from tests.watched import written

STEP_OPERATIONS = 1 << 22  # so that a run has several steps
MOST_LAUNCHES = 64  # so that prepared launches are dropped in each round and do not look like a leak as they gather


@dataclass(frozen=True)
class Draw:
    """What a work is made from."""

    seed: int
    folder: Path
    threads: int

    @property
    def random(self) -> random.Random:
        """Numbers from the seed."""
        return random.Random(self.seed)  # noqa: S311

    def arrays(self, *shapes: tuple[int, ...], dtype: Any = np.float32) -> list[Any]:
        """Normal numbers from the seed."""
        rng = np.random.default_rng(self.seed)
        return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


Work = Callable[[Draw], list[Any]]


def rules(draw: Draw) -> list[Any]:
    """A random problem of `scripts/fuzz attention`: masks, score rules, sinks, dtypes, layouts."""
    (q, k, v), given = attention_case(draw.seed)[:2]
    done = clearhead.attend(q, k, v, threads=draw.threads, **given)
    return [done.output, done.lse]


def function(draw: Draw) -> list[Any]:
    """Rules and masks written in Python, which read numbers and arrays."""
    q, k, v = draw.arrays((4, 150, 16), (2, 150, 16), (2, 150, 8))
    slopes, cap, gap = np.linspace(0.1, 1, 4), 5.0 + draw.seed, 2 + draw.seed % 5

    def score(score, batch, head, query, key):
        return functions.tanh(score / cap) * cap - slopes[head] * (query - key)

    mask = clearhead.causal() & clearhead.where(lambda batch, head, query, key: (query - key) % gap != 1)
    return [clearhead.attention(q, k, v, mask=mask, score=score, threads=draw.threads)]


def gradients(draw: Draw) -> list[Any]:
    """Of operands, sinks and rules, and how they change."""
    q, k, v, d_out, sink, table = draw.arrays((4, 130, 16), (2, 130, 16), (2, 130, 8), (4, 130, 8), (4,), (4, 130, 130))
    score = (clearhead.softcap(20.0), clearhead.bias(table)) if draw.seed % 2 else ()
    done = clearhead.attend(q, k, v, score=score, sink=sink, threads=draw.threads)
    found = done.backward(d_out)
    second = done.second(d_out, None, clearhead.Direction(q=q, v=v))
    moved, _ = done.jvp(clearhead.Direction(k=k))
    return [found.q, found.k, found.v, found.sink, second.gradients.k, second.output, moved]


def caches(draw: Draw) -> list[Any]:
    """Append, fork, reorder, save, load, let go."""
    r, found = draw.random, []
    cache = KeyValueCache(window=r.choice([None, 150]), dtype=r.choice([None, "int8"]))
    mask = clearhead.causal() if cache.window is None else clearhead.window(cache.window - 1)
    rng = np.random.default_rng(draw.seed)
    draw_normal = lambda *shape: rng.standard_normal(shape, np.float32)  # noqa: E731
    for n in (130, 1, 1, 40):
        cache.append(draw_normal(2, 2, n, 16), draw_normal(2, 2, n, 8))
        found.append(clearhead.attention(draw_normal(2, 4, 1, 16), cache, mask=mask, threads=draw.threads))
    other = cache.fork()
    other.reorder([1, 0, 1])
    other.append(draw_normal(3, 2, 3, 16), draw_normal(3, 2, 3, 8))
    path = draw.folder / "cache.safetensors"
    other.save(path)
    again = KeyValueCache.load(path)
    path.unlink()
    done = clearhead.attend(draw_normal(3, 4, 2, 16), again, mask=mask, threads=draw.threads)
    found += [done.output, done.lse, np.asarray(done.weights)]
    again.keep(np.arange(again.lengths[0] - 60, again.lengths[0], 3))
    found.append(clearhead.attention(draw_normal(3, 4, 1, 16), again, mask=mask, threads=draw.threads))
    return found


def weights(draw: Draw) -> list[Any]:
    """Rows, blocks, maps and summaries; what was read of weights that go on living."""
    q, k = draw.arrays((4, 300, 16), (2, 300, 16))
    w = clearhead.weights(q, k, threads=draw.threads)
    summary = w.summary("entropy", "received_mean", "received_max", "distance", "top", "first", "off_first")
    found = [*summary.answers.values(), w.row(299), w[1, 200:210], w.map(size=32), w.lse]
    found += [clearhead.rollout([w, w]), np.float64(clearhead.heaviest_keys([w], 7)[0].weight)]
    return [*found, repr(clearhead.heaviest_rows([w], 5)), *w.rows_of(7)]


def pieces(draw: Draw) -> list[Any]:
    """Sums carried from stretch to stretch, saved in between."""
    q, k, v = draw.arrays((2, 10, 16), (2, 4000, 16), (2, 4000, 8))
    path = draw.folder / "partial.safetensors"
    first = clearhead.partial(q, k[:, :2048], v[:, :2048], mask=clearhead.causal(at=3990), threads=draw.threads)
    first.save(path)
    whole = Partial.load(path)
    path.unlink()
    rest = clearhead.partial(
        q, k[:, 2048:], v[:, 2048:], mask=clearhead.causal(at=3990), first_key=2048, threads=draw.threads
    )
    done = clearhead.join(whole, rest).finish(threads=draw.threads)
    return [done.output, done.lse]


def forks(draw: Draw) -> list[Any]:
    """A child that computes while other threads of its parent do."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            q, k, v = draw.arrays((2, 100, 16), (2, 100, 16), (2, 100, 8))
            os.write(writing, clearhead.attention(q, k, v, threads=draw.threads).tobytes())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        found = pipe.read()
    os.waitpid(child, 0)
    return [found]


def watches(draw: Draw) -> list[Any]:
    """A watch, saved, loaded and asked."""
    path = draw.folder / "watch.safetensors"
    made = written.watch({0: written.record(), 1: written.record(cap=5.0)}, {0: written.record(left=3)})
    made.save(path)
    seen = clearhead.load_watch(path)
    path.unlink()
    layer = seen.layer(0, run=draw.seed % 2)
    return [layer.weights.row(3), layer.head(1).step(1), layer.values, layer.weights.summary("entropy").entropy]


def stopped(draw: Draw) -> list[Any]:
    """`clearhead run --resume`, stopped by an error after some steps, or killed in a child; then gone on with."""
    q, k, v = draw.arrays((2, 900, 32), (2, 900, 32), (2, 900, 16))
    source, target = draw.folder / "in.npz", draw.folder / f"out.{('npy', 'npz', 'safetensors')[draw.seed % 3]}"
    np.savez(source, q=q, k=k, v=v)
    asked = jobs.Options(threads=1, lse=target.suffix != ".npy")
    begun = lambda show: running.execute(jobs.job_for(source, asked), target, resume=True, show=show)  # noqa: E731
    if draw.seed % 2:
        child = os.fork()
        if not child:
            try:
                begun(lambda total, done: nullcontext(lambda pairs: time.sleep(0.01)))
            finally:
                os._exit(0)
        time.sleep(random.uniform(0, 0.1))  # noqa: S311
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    else:
        left = [1 + draw.random.randrange(5)]

        def stop(pairs: int) -> None:
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt

        with suppress(KeyboardInterrupt):
            begun(lambda total, done: nullcontext(stop))
    if not target.exists():
        begun(lambda total, done: nullcontext(lambda pairs: None))
    found = {name: np.array(open_arrays(target)[name]) for name in open_arrays(target).members}
    for path in (source, target):
        path.unlink()
    return [found[name] for name in sorted(found)]


def explained(draw: Draw) -> list[Any]:
    """Worked steps, in every format."""
    worked = explain("the river bank was wide and the boat", position=draw.seed % 8)
    return [str(worked), worked._repr_html_(), worked._repr_markdown_()]


WORKS: dict[str, Work] = {work.__name__: work for work in (
    rules, function, gradients, caches, weights, pieces, forks, watches, stopped, explained,
)}  # fmt: skip
SEEDS = {"rules": 24, "function": 4, "gradients": 4, "caches": 8, "weights": 4, "pieces": 2, "forks": 3, "stopped": 6,
         "watches": 2, "explained": 4}  # fmt: skip


def prepare() -> None:
    """Make runs' steps short, so that some are done when they are stopped, and keep few prepared launches."""
    jobs.STEP_OPERATIONS, running.SAVED_EVERY = STEP_OPERATIONS, 0
    launches.most = MOST_LAUNCHES
