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
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.result import Report

STUDIES = {"research": "bench.research.compare", "eviction": "bench.research.eviction"}


def main() -> int:
    """Run groups or a study; exit status 1 if a group failed, or an answer of clearhead's was wrong."""
    if sys.argv[1:2] and sys.argv[1] in STUDIES:
        return subprocess.run([sys.executable, "-m", STUDIES[sys.argv[1]], *sys.argv[2:]]).returncode  # noqa: S603
    asked = arguments().parse_args()
    from bench import measure, report
    from bench.groups import GROUPS, QUICK
    from bench.result import Report, joined

    if asked.list:
        print("\n".join(f"{name:10} {group.title}" for name, group in GROUPS.items()))
        return 0
    names = asked.groups or list(QUICK if asked.quick else GROUPS)
    if unknown := [name for name in names if name not in GROUPS]:
        known = f"{', '.join(GROUPS)}, or a study: {', '.join(STUDIES)}"
        raise SystemExit(f"{unknown[0]} is not a group: use one of {known}.")
    choice = measure.Choice(asked.only, asked.seconds, asked.quick)
    if asked.memory:
        measure.memory_inside(names[0], *asked.memory)
        return 0
    if asked.inside:
        measure.group_inside(names[0], choice, asked.inside)
        return 0

    def save(found: Report) -> None:
        if asked.json:
            asked.json.write_text(found.as_json(), encoding="utf-8")

    for file in filter(None, (asked.json, asked.write)):
        if not file.parent.is_dir():  # before minutes of measuring, which would be lost
            raise SystemExit(f"{file.parent} is not a folder: make it, or name another file.")
    kept = [kept_report(file) for file in asked.kept]
    found = joined(kept) if kept else measure.measured(names, choice, save)
    if not found.rows and not found.failed:
        raise SystemExit(
            f"No workload of {', '.join(names)} has “{asked.only}” in its name: leave out --only to see them."
        )
    if asked.write:
        report.write(found, asked.write)
    print(report.text(found))
    return 1 if found.failed else 0


def kept_report(file: Path) -> "Report":
    """The report that --json or --write left in a file; exits where there is none."""
    from bench.result import Report

    try:
        return Report.from_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise SystemExit(
            f"{file} holds no numbers of this benchmark ({error}): name a file that --json wrote."
        ) from None


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


if __name__ == "__main__":
    sys.exit(main())
