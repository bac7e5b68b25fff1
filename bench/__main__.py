"""Measure clearhead beside its peers, each answer checked first. Rows that are lost, or miss a promise, come first.

python -m bench                            everything, in about 20 minutes
python -m bench prefill rules              these groups (--list says which there are)
python -m bench --write docs/benchmarks.md write the page, its pictures and the numbers beside it as JSON
python -m bench --from docs/benchmarks.json --write docs/benchmarks.md     the page again, from numbers kept
python -m bench --quick                    small shapes, half a minute: whether everything runs
python -m bench research --lens …          ten jobs of researchers beside their usual tools
python -m bench eviction smollm            how well models go on from caches cut to a share of their keys
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
STUDIES = {"research": "bench.research.compare", "eviction": "bench.research.eviction"}


def main() -> int:
    """Run groups or a study; exit status 1 if a group failed, or an answer of clearhead's was wrong."""
    if sys.argv[1:2] and sys.argv[1] in STUDIES:
        return subprocess.run([sys.executable, "-m", STUDIES[sys.argv[1]], *sys.argv[2:]]).returncode  # noqa: S603
    asked = arguments().parse_args()
    if asked.inside or asked.memory:
        return inside(asked)
    from bench.groups import GROUPS

    if asked.list:
        print("\n".join(f"{name:10} {group.title}" for name, group in GROUPS.items()))
        return 0
    from bench import report
    from bench.result import Report, joined

    kept = [Report.from_json(file.read_text(encoding="utf-8")) for file in asked.kept]
    found = joined(kept) if kept else measured(asked)
    if asked.write:
        report.write(found, asked.write)
    print(report.text(found))
    return 1 if found.failed else 0


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("groups", nargs="*", help="groups of workloads; all, if none is named")
    parser.add_argument("--list", action="store_true", help="list the groups")
    parser.add_argument("--quick", action="store_true", help="small shapes in one process, without slow compilers")
    parser.add_argument("--only", default="", help="workloads whose name has this in it")
    parser.add_argument("--seconds", type=float, help="processor time of each workload's rounds")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    parser.add_argument("--write", type=Path, help="write the page here, its numbers beside it, its pictures")
    parser.add_argument("--from", dest="kept", type=Path, nargs="+", default=[], help="take numbers from these files")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)  # one group in this process, its report here
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)  # a workload's and a contender's name
    return parser


def measured(asked: argparse.Namespace):
    """Each group in a process of its own, and all they found."""
    from bench.groups import GROUPS, QUICK
    from bench.result import Report, machine

    names = asked.groups or list(QUICK if asked.quick else GROUPS)
    if unknown := [name for name in names if name not in GROUPS]:
        raise SystemExit(
            f"{unknown[0]} is not a group: use one of {', '.join(GROUPS)}, or a study: {', '.join(STUDIES)}."
        )
    start, found = time.perf_counter(), Report(machine(), ())
    if asked.quick:
        settle(1)
    for name in names:
        one = run(name, asked) if asked.quick else child(name, asked)
        minutes = round((time.perf_counter() - start) / 60, 1)
        facts = {**found.machine, "load after": machine()["load"], "minutes": minutes}
        found = Report(facts, found.rows + one.rows, {**found.failed, **one.failed})
        if asked.json:  # what has been measured stays, whatever happens to the rest
            asked.json.write_text(found.as_json(), encoding="utf-8")
    return found


def child(name: str, asked: argparse.Namespace):
    """One group's report, from a process with the group's environment."""
    from bench.groups import GROUPS
    from bench.result import ROOT, Report

    group = GROUPS[name]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.json"
        options = ["--only", asked.only, *(["--seconds", str(asked.seconds)] if asked.seconds is not None else [])]
        command = [sys.executable, "-m", "bench", name, "--inside", str(file), *options]
        environment = os.environ | (ONE_THREAD if group.cores == 1 else {}) | group.environment
        done = subprocess.run(command, cwd=ROOT, env=environment)  # noqa: S603
        if not file.exists():
            return Report({}, (), {name: f"its process ended with status {done.returncode}"})
        return Report.from_json(file.read_text(encoding="utf-8"))


def inside(asked: argparse.Namespace) -> int:
    """What a child does: one group's report, or one contender's memory."""
    from bench.groups import GROUPS

    (name,) = asked.groups
    settle(GROUPS[name].cores)
    if asked.memory:
        from bench.hold import most_memory

        workload = next(one for one in GROUPS[name].workloads(quick=False) if one.name == asked.memory[0])
        print(json.dumps(most_memory(workload, asked.memory[1])))
        return 0
    asked.inside.write_text(run(name, asked).as_json(), encoding="utf-8")
    return 0


def settle(cores: int) -> None:
    """Stay on the last core, where one is enough: what moves between cores loses its caches."""
    if cores == 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def run(name: str, asked: argparse.Namespace):
    """Measure one group here."""
    from bench.groups import GROUPS
    from bench.hold import held, memory_of, taken
    from bench.result import Report, Row
    from bench.workload import Reading
    from clearhead.errors import reason

    group, rows, failed = GROUPS[name], [], {}
    seconds = asked.seconds if asked.seconds is not None else 0.02 if asked.quick else group.seconds
    workloads = group.workloads(quick=asked.quick)
    while True:
        what = name
        try:
            if (one := next(workloads, None)) is None:
                return Report({}, tuple(rows), failed)
            if asked.only not in one.name:
                continue
            what = f"{name}: {one.name}"
            if isinstance(one, Reading):
                row: Row = taken(one, name)
            else:
                row = held(one, name, seconds, None if asked.quick else memory_of(name, one.name))
            if asked.quick:
                row = replace(row, verdicts=())  # promises are of full sizes
        except Exception as error:  # clearhead's own answer is wrong, or the workload is: the others go on
            failed[what] = f"{type(error).__name__}: {reason(error)}"
            print(f"{what}: FAILED: {failed[what]}", file=sys.stderr, flush=True)
            continue
        rows.append(row)
        print(f"{what}: {row.taken:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
