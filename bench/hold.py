"""One workload held: each answer checked, all calls timed in turns, each one's memory in a process of its own."""

import ctypes
import gc
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.result import ROOT, Entry, Row, Verdict
from bench.workload import Promise, Reading, Workload
from clearhead import self_attention
from clearhead.cli.race import Contender, Deviation, Times, checked, race
from clearhead.errors import reason
from clearhead.machine.peak import Peak

OUTSIDE_CACHES = 64 << 20  # bytes that are read before each run of a cold call
Memory = Callable[[str], float | None]  # by contender, in MiB


def held(workload: Workload, group: str, seconds: float, memory: Memory | None = None) -> Row:
    """Measure a workload. A peer that is missing, refuses or is wrong is left out; clearhead's wrong answer raises."""
    start = time.perf_counter()
    contenders: dict[str, Contender] = {}
    roles: dict[str, Any] = {}
    errors: dict[str, Deviation] = {}
    left_out: dict[str, str] = {}
    exact = None if workload.exact is None else workload.exact()
    for role in ("ours", "references", "peers"):
        for name, make in getattr(workload, role).items():
            try:
                contender = make()
                if exact is not None and role != "references":
                    errors[name] = checked(contender, exact)
            except Exception as error:  # whatever a peer may raise: it is told, and the others go on
                if role == "ours":
                    raise
                left_out[name] = f"{type(error).__name__}: {reason(error)}"[:160]
            else:
                contenders[name], roles[name] = contender, role.removesuffix("s") if role != "ours" else role
    peak = Peak(workload.dtype)
    times = race(
        {name: contender.call for name, contender in contenders.items()},
        seconds,
        peak=peak,
        before=workload.before,
        rounds=workload.rounds,
    )
    first = next(iter(workload.ours))
    entries = {
        name: entry(taken, times[first], workload.clock, roles[name], errors.get(name)) for name, taken in times.items()
    }
    if workload.memory and memory is not None:
        for name in entries:
            entries[name] = replace(entries[name], memory=memory(name))
    row = Row(
        group, workload.name, entries,
        operations=workload.operations,
        bytes=workload.bytes,
        operations_of=workload.operations_of,
        peak=peak.best,
        clock=workload.clock,
        rounds=len(times[first].wall),
        left_out=left_out,
        cause=workload.cause,
        taken=time.perf_counter() - start,
    )  # fmt: skip
    return judged(row, workload.promises)


def entry(taken: Times, own: Times, clock: Any, role: Any, error: Deviation | None) -> Entry:
    """One contender's numbers."""
    ratios = own.ratios(taken, clock)
    quartiles = statistics.quantiles(ratios, n=4, method="inclusive")
    return Entry(
        role,
        taken.least(clock),
        taken.median(clock),
        taken.least("wall"),
        (quartiles[0], quartiles[1], quartiles[2]),
        error and error.mean,
        error and error.max,
    )


def taken(reading: Reading, group: str) -> Row:
    """Take a reading."""
    start = time.perf_counter()
    figures = dict(reading.take())
    row = Row(
        group, reading.name, figures=figures, unit=reading.unit, cause=reading.cause, taken=time.perf_counter() - start
    )
    return judged(row, reading.promises)


def judged(row: Row, promises: tuple[Promise, ...]) -> Row:
    """The row with its verdicts; a promise beside something that is missing has none."""
    found = [(one, one.measured(row)) for one in promises]
    verdicts = [Verdict(one.what, one.bound, value, one.unit, one.at_most) for one, value in found if value is not None]
    return replace(row, verdicts=tuple(verdicts))


def evict() -> None:
    """Read other memory, so that operands come from memory and not from a cache."""
    np.dot(OTHER, OTHER)


OTHER = np.ones(OUTSIDE_CACHES // 4, np.float32)


def memory_of(group: str, name: str) -> Memory:
    """How a contender's memory is found: in a process of its own, since no process gives all memory back."""

    def found(contender: str) -> float | None:
        command = [sys.executable, "-m", "bench", group, "--memory", name, contender]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)  # noqa: S603
        return float(json.loads(done.stdout)) if done.returncode == 0 else None

    return found


def most_memory(workload: Workload, contender: str) -> float:
    """MiB that a process has at most while a contender is called twice, beyond what it had when all was prepared."""
    makes = {**workload.ours, **workload.references, **workload.peers}
    ready = makes[contender]()
    self_attention(np.zeros((1, 1), np.float32))  # loads LLVM, as peers were loaded when they were imported
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak begins anew
    before = resident("VmRSS")
    for _ in range(2):
        ready.call()
    return resident("VmHWM") - before


def resident(what: str) -> float:
    """MiB of this process, by a line of its status."""
    told = Path(f"/proc/{os.getpid()}/status").read_text(encoding="utf-8")
    return float(re.findall(rf"{what}:\s*(\d+)", told)[0]) / 1024
