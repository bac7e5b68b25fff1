"""`clearhead run --resume`: killed anywhere and gone on with, it gives the bits of an uninterrupted run."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, nullcontext

import numpy as np
import pytest

import clearhead
from clearhead.cli import job as jobs
from clearhead.cli import run as streaming
from clearhead.cli import steps
from clearhead.engine import execute
from clearhead.errors import FileError
from clearhead.files import resumable_file, resuming
from tests.cli.test_run import COMMAND, LINUX, complains, draw, load, run, save

POSIX = pytest.mark.skipif(os.name != "posix", reason="needs signals")
SHORT_STEPS = """if True:
    import sys
    from clearhead.cli import command, job, run
    job.STEP_OPERATIONS, run.SAVED_EVERY = 1 << 29, 0
    sys.exit(command.main(sys.argv[1:]))
"""


class Killed(BaseException):
    """Stands for a process that ends in the middle."""


@pytest.fixture
def short_steps(monkeypatch):
    """A few rows a step, saved after each."""
    monkeypatch.setattr(steps, "STEP_BYTES", 400)
    monkeypatch.setattr(steps, "WHOLE_TILES", 4)
    monkeypatch.setattr(jobs, "STEP_OPERATIONS", 20_000)
    monkeypatch.setattr(streaming, "SAVED_EVERY", 0)


def killed_after(count, *arguments):
    """Run until `count` steps are done; returns how many were begun, one more if it was killed."""
    begun, original = [], execute.execute_rows

    def step(*given, **named):
        if len(begun) == count:
            raise Killed
        begun.append(given[2])
        return original(*given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "execute_rows", step)
        try:
            assert run(*arguments) == 0
        except Killed:
            return count + 1
    return len(begun)


CASES = {
    "x.npy": (("x",), [(2, 3, 40, 8)], ()),
    "qkv.npz": (("q", "k", "v"), [(6, 40, 8), (2, 40, 8), (1, 40, 4)], ("--lse", "--weights", "4,0,-2,4")),
    "qkv.safetensors": (("q", "k", "v"), [(40, 8), (50, 8), (50, 4)], ("--align", "end", "--lse")),
    "far.npz": (("q", "k", "v"), [(6, 40, 8), (2, 40, 8), (2, 40, 8)], ("--score", "alibi", "--weights", "3,-1")),
    "packed.npz": (("x",), [(3, 40, 8)], ("--mask", "documents:7,30,3 & causal", "--lse")),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("short_steps")
def test_any_number_of_kills_between_steps_changes_no_bit(tmp_path, name):
    names, shapes, arguments = CASES[name]
    source = save(tmp_path / name, **dict(zip(names, draw(*shapes), strict=True)))
    whole, target = tmp_path / f"whole{source.suffix}", tmp_path / f"out{source.suffix}"
    total = killed_after(10**9, source, whole, *arguments)
    assert total > 5
    counts = []
    while not target.exists():
        counts.append(killed_after(3, source, target, *arguments, "--resume"))
    assert sum(count - 1 for count in counts[:-1]) + counts[-1] == total, "nothing is computed twice"
    assert target.read_bytes() == whole.read_bytes()
    assert sorted(os.listdir(tmp_path)) == sorted([name, whole.name, target.name])


@POSIX
def test_a_run_killed_at_random_moments_has_the_bits_of_one_that_was_not(tmp_path):
    source = save(tmp_path / "in.npy", x=draw((2, 12_000, 64))[0])
    moments, progress, generator = [], [], random.Random(time.time_ns())  # noqa: S311
    for n in range(3):
        target = tmp_path / f"out{n}.npy"
        command = [sys.executable, "-c", SHORT_STEPS, "run", source, "-o", target, "--resume", "--threads", "1"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while lines(target) < 1 + n and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        moments.append(generator.uniform(0, 0.05 if n else 0.3))
        time.sleep(moments[-1])
        process.kill()
        process.wait()
        progress.append(lines(target) > 1)
        assert run(source, target, *(() if target.exists() else ("--resume",)), "--force") == 0
        assert (np.load(target) == clearhead.self_attention(np.load(source))).all(), moments
        assert sorted(os.listdir(tmp_path)) == ["in.npy", *(f"out{i}.npy" for i in range(n + 1))], moments
    assert any(progress), moments


def lines(target):
    """How many lines the journal of an unfinished run has, the first of which says what the run is of."""
    journal = target.with_name(f"{target.name}.clearhead-progress")
    return journal.read_bytes().count(b"\n") if journal.exists() and not target.exists() else 0


@pytest.fixture
def begun(tmp_path, short_steps):
    """An unfinished run of in.npz into out.npz."""
    source = save(tmp_path / "in.npz", x=draw((40, 8))[0])
    assert killed_after(3, source, tmp_path / "out.npz", "--resume") == 4
    assert sorted(os.listdir(tmp_path)) == ["in.npz", "out.npz.clearhead-progress", "out.npz.clearhead-unfinished"]
    return source, tmp_path / "out.npz"


def test_a_new_run_does_not_pass_over_an_unfinished_one(begun, capsys):
    complains(capsys, r"out\.npz has an unfinished run.*: go on with it by --resume, or begin anew by --force", *begun)
    assert run(*begun, "--force") == 0
    assert sorted(os.listdir(begun[0].parent)) == ["in.npz", "out.npz"]
    np.testing.assert_array_equal(load(begun[1])["output"], clearhead.self_attention(np.load(begun[0])["x"]))


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("stopped", [False, True])
def test_a_new_run_leaves_one_that_was_begun_meanwhile(tmp_path, short_steps, force, stopped):
    source, target = save(tmp_path / "in.npz", x=draw((40, 8))[0]), tmp_path / "out.npz"
    job, other = jobs.job_for(source, jobs.Options()), ExitStack()

    def begin_another(total, done):
        filling = other.enter_context(resumable_file(target, job.specs, job.undertaking()))
        filling.save(7)
        if stopped:
            other.__exit__(Killed, Killed(), None)
        return nullcontext(lambda pairs: None)

    streaming.execute(job, target, force=force, show=begin_another)
    np.testing.assert_array_equal(load(target)["output"], clearhead.self_attention(np.load(source)["x"]))
    with pytest.raises(FileError, match="exists already") if not stopped else nullcontext():
        other.close()
    with resumable_file(target, job.specs, job.undertaking(), force=True) as filling:
        assert filling.done == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--mask", "window:5"), r"--mask was causal\(\) and is window\(5, 0\): give --mask as it was, or begin anew"),
        (("--score", "softcap:3"), r"--score was not given and is softcap:3: give --score as it was"),
        (("--scale", "0.5"), r"--scale was 1\.0 and is 0\.5"),
        (("--lse",), r"--lse was not given and is given"),
        (("--weights", "0"), r"--weights was not given and is 0"),
    ],
)
def test_other_options_are_refused_by_name(begun, capsys, arguments, message):
    complains(capsys, message, *begun, "--resume", *arguments)
    assert killed_after(10**9, *begun, "--resume") > 0
    np.testing.assert_array_equal(load(begun[1])["output"], clearhead.self_attention(np.load(begun[0])["x"]))


def test_another_number_of_threads_is_no_other_run(begun):
    assert run(*begun, "--resume", "--threads", "2") == 0


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((41, 8), r"the input was x \(40, 8\) in float32 and is x \(41, 8\) in float32: give the input as it was"),
        ((40, 8), r"the input's time was .*: give the file that it began with \(if this is a copy, touch -d"),
    ],
)
def test_another_input_is_refused_by_what_differs(begun, capsys, shape, message):
    save(begun[0], x=draw(shape)[0])
    complains(capsys, message, *begun, "--resume")
    assert run(*begun, "--resume", "--force") == 0
    np.testing.assert_array_equal(load(begun[1])["output"], clearhead.self_attention(draw(shape)[0]))


def test_another_content_of_equal_size_and_time_is_refused(begun, capsys):
    status = begun[0].stat()
    save(begun[0], x=draw((40, 8))[0] + 1)
    os.utime(begun[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    complains(capsys, r"the input's content was \w+ and is \w+: give the file that it began with", *begun, "--resume")


def test_a_rule_that_means_something_else_now_is_refused(tmp_path, monkeypatch, capsys, short_steps):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.py").write_text("def near(s, b, h, q, k):\n    return s - (q - k) * 0.1\n")
    source = save(tmp_path / "in.npz", x=draw((40, 8))[0])
    killed_after(3, source, tmp_path / "out.npz", "--resume", "--rule", "rules.py:near")
    (tmp_path / "rules.py").write_text("def near(s, b, h, q, k):\n    return s - (q - k) * 0.2\n")
    again = (source, tmp_path / "out.npz", "--resume", "--rule", "rules.py:near")
    complains(capsys, r"what the rules compute was \w+ and is \w+: give --rule the file as it was", *again)


def test_other_code_is_refused(begun, capsys, monkeypatch):
    monkeypatch.setattr(jobs, "of_code", lambda: {"the code": "1234 cpython-399"})
    complains(
        capsys, r"the code was \w+ cpython.* and is 1234 cpython-399: use the clearhead, Python", *begun, "--resume"
    )


def test_an_input_that_is_written_to_meanwhile_is_refused(tmp_path, capsys, short_steps, monkeypatch):
    source = save(tmp_path / "in.npz", x=draw((40, 8))[0])
    original = execute.execute_rows

    def touched(*given, **named):
        os.utime(source)
        return original(*given, **named)

    monkeypatch.setattr(streaming, "execute_rows", touched)
    complains(
        capsys, r"in\.npz was changed while it was read: run it again when it is complete", source, tmp_path / "a.npz"
    )
    assert os.listdir(tmp_path) == ["in.npz"]


def test_an_input_that_was_written_to_is_never_gone_on_with(begun, capsys, monkeypatch):
    source, before, original = begun[0], begun[0].stat().st_mtime_ns, execute.execute_rows

    def touched(*given, **named):
        os.utime(source)
        return original(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(streaming, "execute_rows", touched)
        complains(
            capsys,
            r"changed while it was read: begin anew by --force when it is complete",
            *begun,
            "--resume",
            "--quiet",
        )
    os.utime(source, ns=(before, before))
    complains(capsys, r"cannot go on: .*in\.npz was changed while it was read: begin anew by", *begun, "--resume")
    assert run(*begun, "--resume", "--force") == 0


@pytest.mark.parametrize("done", [41, 10**30])
def test_a_journal_that_counts_more_rows_than_there_are_is_refused(begun, capsys, done):
    with open(resuming.journal_of(begun[1]), "ab", buffering=0) as journal:
        resuming.add_line(journal, {"done": done})
    complains(capsys, rf"the journal counts {done} rows of 40, so it is damaged: begin anew", *begun, "--resume")


def test_a_resumed_run_says_where_it_goes_on_from(begun, capsys):
    capsys.readouterr()
    assert run(*begun, "--resume") == 0
    assert re.fullmatch(r"clearhead: resumed at \d+\.\d%\n", capsys.readouterr().err)


def test_a_full_disk_keeps_the_journal_and_says_so(begun, capsys, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(resuming, "add_line", full)
        complains(
            capsys,
            r"out\.npz cannot be written \(No space left on device\): check its directory and free",
            *begun,
            "--resume",
            "--quiet",
        )
    assert run(*begun, "--resume") == 0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs another user to be")
@pytest.mark.parametrize("case", ["folder", "journal"])
def test_what_belongs_to_others_is_named(begun, capsys, case):
    source, target = begun
    folder = target.parent
    for parent in list(folder.parents)[:3]:
        parent.chmod(parent.stat().st_mode | 0o055)
    folder.chmod(0o755 if case == "folder" else 0o777)
    to = folder / "new.npz" if case == "folder" else target
    os.seteuid(65534)
    try:
        complains(
            capsys,
            rf"{to.name}\.clearhead-progress cannot be written \(Permission denied\): check its",
            source,
            to,
            "--resume",
        )
    finally:
        os.seteuid(0)
    assert run(*begun, "--resume") == 0


@POSIX
@pytest.mark.parametrize(("ending", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_run_that_is_stopped_says_how_to_go_on(tmp_path, ending, code):
    source, target = save(tmp_path / "in.npy", x=draw((60_000, 64))[0]), tmp_path / "out.npy"
    process = subprocess.Popen([*COMMAND, source, "-o", target, "--resume"], stderr=subprocess.PIPE, text=True)
    while len(os.listdir(tmp_path)) < 3 and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.3)
    second = subprocess.run([*COMMAND, source, "-o", target, "--resume"], capture_output=True, text=True)
    process.send_signal(getattr(signal, ending))
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (code, "clearhead: stopped; the same command goes on from here.\n")
    assert second.returncode == 2
    assert "is being computed by another process" in second.stderr
    assert len(os.listdir(tmp_path)) == 3


@LINUX
def test_a_long_head_takes_little_memory_of_its_own(tmp_path):
    """One head of a quarter of a million items: 64 MB each for x and the output, and anonymous memory stays below 8."""
    np.lib.format.open_memmap(tmp_path / "in.npy", "w+", np.float32, (250_000, 64)).flush()
    code = """if True:
        import sys
        from pathlib import Path
        from clearhead import self_attention
        from clearhead.cli import job, run
        import numpy as np
        self_attention(np.zeros((2, 256, 64), np.float32))
        anonymous = lambda: int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0])
        job.STEP_OPERATIONS = 1 << 33
        before, peak = anonymous(), []
        class Done(Exception): pass
        def watched(*given, **named):
            peak.append(anonymous())
            if len(peak) > 8: raise Done
            return original(*given, **named)
        original, run.execute_rows = run.execute_rows, watched
        try:
            run.execute(job.job_for(sys.argv[1], job.Options(lse=True, threads=1)), sys.argv[2], resume=True)
        except Done:
            print(max(peak) - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "in.npy", tmp_path / "out.npz"], capture_output=True, text=True
    )
    assert int(done.stdout) < 8 << 10, done.stderr


def test_progress_is_told_in_pairs_from_where_it_goes_on(begun):
    shown = []

    class Shown:
        def __enter__(self):
            return shown.append

        def __exit__(self, *args):
            pass

    job = jobs.job_for(begun[0], jobs.Options())
    streaming.execute(job, begun[1], resume=True, show=lambda *given: shown.append(given) or Shown())
    total, done = shown[0]
    assert total == 40 * 41 // 2
    assert 0 < done < total
    assert done + sum(shown[1:]) == total
