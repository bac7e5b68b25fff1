"""Measuring groups: each in a process of its own, so that none changes another's caches, threads or memory."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.groups import GROUPS
from bench.hold import held, memory_of, most_memory, taken
from bench.result import ROOT, Report, Row, machine
from bench.workload import Reading, Workload
from clearhead.errors import reason

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
QUICK_SECONDS = 0.02
Save = Callable[[Report], object]


@dataclass(frozen=True)
class Choice:
    """What is measured: workloads whose name has `only` in it, for so many seconds each, of small shapes if `quick`."""

    only: str = ""
    seconds: float | None = None
    quick: bool = False


def measured(names: Sequence[str], choice: Choice, save: Save) -> Report:
    """All groups, one after another; what has been measured is saved, whatever happens to the rest."""
    start, found = time.perf_counter(), Report(machine(), ())
    if choice.quick:
        settle(1)
    for name in names:
        one = group(name, choice) if choice.quick else child(name, choice)
        minutes = round((time.perf_counter() - start) / 60, 1)
        facts = {**found.machine, "load after": machine()["load"], "minutes": minutes}
        found = Report(facts, found.rows + one.rows, {**found.failed, **one.failed})
        save(found)
    return found


def child(name: str, choice: Choice) -> Report:
    """One group's report, from a process with the group's environment; what it measured before it died counts."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.json"
        seconds = [] if choice.seconds is None else ["--seconds", str(choice.seconds)]
        command = [sys.executable, "-m", "bench", name, "--inside", str(file), "--only", choice.only, *seconds]
        environment = os.environ | (ONE_THREAD if GROUPS[name].cores == 1 else {}) | GROUPS[name].environment
        done = subprocess.run(command, cwd=ROOT, env=environment)  # noqa: S603
        found = Report.from_json(file.read_text(encoding="utf-8")) if file.exists() else Report({}, ())
    if done.returncode:
        return replace(found, failed={**found.failed, name: f"its process ended with status {done.returncode}"})
    return found


def group(name: str, choice: Choice, save: Save = lambda report: None) -> Report:
    """Measure one group here, and save its report after each workload."""
    found = Report({}, ())
    seconds = choice.seconds if choice.seconds is not None else GROUPS[name].seconds
    workloads = GROUPS[name].workloads(quick=choice.quick)
    while True:
        what = name
        try:
            if (one := next(workloads, None)) is None:
                return found
            if choice.only not in one.name:
                continue
            what = f"{name}: {one.name}"
            row = row_of(one, name, replace(choice, seconds=seconds))
        except Exception as error:  # clearhead's own answer is wrong, or the workload is: the others go on
            why = f"{type(error).__name__}: {reason(error)}"
            found = replace(found, failed={**found.failed, what: why})
            print(f"{what}: FAILED: {why}", file=sys.stderr, flush=True)
        else:
            found = replace(found, rows=(*found.rows, row))
            print(f"{what}: {row.taken:.0f} s", file=sys.stderr, flush=True)
        save(found)


def row_of(one: Workload | Reading, name: str, choice: Choice) -> Row:
    """One workload's row. A quick one judges no promise: those are of full sizes."""
    if isinstance(one, Reading):
        row = taken(one, name)
    elif choice.quick:
        row = held(one, name, min(choice.seconds or 0.0, QUICK_SECONDS))
    else:
        row = held(one, name, choice.seconds or 0.0, memory_of(name, one.name))
    return replace(row, verdicts=()) if choice.quick else row


def memory_inside(name: str, workload: str, contender: str) -> None:
    """Print one contender's memory: what `memory_of` starts a process for."""
    settle(1)
    chosen = next(one for one in GROUPS[name].workloads(quick=False) if one.name == workload)
    assert isinstance(chosen, Workload)
    print(json.dumps(most_memory(chosen, contender)))


def group_inside(name: str, choice: Choice, file: Path) -> None:
    """Measure one group, its report in a file: what `child` starts a process for."""
    settle(GROUPS[name].cores)
    group(name, choice, lambda report: file.write_text(report.as_json(), encoding="utf-8"))


def settle(cores: int) -> None:
    """Stay on the last core, where one is enough: what moves between cores loses its caches."""
    if cores == 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
