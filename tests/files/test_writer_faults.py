"""Whatever befalls a writer, a file is there whole or not at all, the one before is intact, and the error helps.

`WRITERS` are all functions of the package that write a file; `FAULTS` befall a whole call, `STEPS` befall each line of
the code that writes, one line after another. Each case is a child of its own.
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import clearhead
from clearhead import FileError, KeyValueCache, Partial, plot
from clearhead.attention_weights.figures.canvas import picture_of
from clearhead.cli import pieces
from clearhead.cli.job import Options, job_for
from clearhead.cli.run import execute
from clearhead.files import open_arrays
from clearhead.files.writing import write_whole
from clearhead.machine import store
from tests.watched.written import record
from tests.watched.written import watch as watch_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs forks, resource limits and users of Linux")
ROOT = os.name == "posix" and os.getuid() == 0
NOBODY, SOMEBODY = 65534, 65533
OLD, NEW = 1, 2  # what files hold
WRITING = tuple(
    str(Path(clearhead.__file__).parent / name)
    for name in ("files/", "machine/appearing", "machine/store", "cli/pieces")
)
SPACE = Path("/dev/shm") if Path("/dev/shm").is_dir() else None  # noqa: S108 where waiting for the disk takes no time


@dataclass(frozen=True)
class Writer:
    """A function that writes a file of OLD or NEW, and one that tells which it is; raises for any other."""

    suffix: str
    write: Callable[[Path, int], None]
    read: Callable[[Path], int]
    before: Callable[[Path, int], None] = lambda path, content: None  # what it needs in the folder
    resumes: bool = False
    steps: bool = True  # whether its lines are not another writer's


def numbers(content: int) -> np.ndarray:
    """What is written."""
    return np.full((2, 6, 4), content, np.float32)


def source(path: Path, content: int) -> Path:
    """The input of a run, elsewhere."""
    place = path.parent.with_name(f"in{content}.npy")
    if not place.exists():
        np.save(place, numbers(content))
    return place


def write_cache(path: Path, content: int) -> None:
    cache = KeyValueCache()
    cache.append(numbers(content), numbers(content))
    cache.save(path)


def write_partial(path: Path, content: int) -> None:
    x = numbers(content)
    clearhead.partial(x, x, x, mask=clearhead.causal(at=0)).save(path)


@contextmanager
def kernels_in(folder: Path) -> Iterator[None]:
    before = os.environ["CLEARHEAD_CACHE_DIR"]
    os.environ["CLEARHEAD_CACHE_DIR"] = str(folder)
    try:
        yield
    finally:
        os.environ["CLEARHEAD_CACHE_DIR"] = before


def write_kernel(path: Path, content: int) -> None:
    with kernels_in(path.parent):
        store.save_code(path.name, bytes([content]) * 3000)


def read_kernel(path: Path) -> int:
    with kernels_in(path.parent):
        (content,) = set(store.load_code(path.name) or b"\0")
    return content


def run(resume: bool = False, part: tuple[int, int] | None = None) -> Callable[[Path, int], None]:
    return lambda path, content: execute(
        job_for(source(path, content), Options(threads=1)), path, force=True, resume=resume, part=part
    ) and None  # fmt: skip


def write_parts(path: Path, content: int) -> None:
    for number in (1, 2):
        run(part=(number, 2))(path, content)


def array_in(path: Path) -> int:
    (content,) = set(np.ravel(open_arrays(path)["x" if path.suffix == ".npy" else "output"]))
    return int(content)


def part_in(path: Path) -> int:
    return array_in(path.with_name(f"{path.name}.1-of-2.safetensors"))


def figure_in(path: Path) -> int:
    return PICTURES[path.read_bytes()]


def page_in(path: Path) -> int:
    content = path.read_bytes()
    assert content in (PAGE % OLD, PAGE % NEW)
    return int(content[3:4])


PAGE = b"<p>%d" + b" and a page" * 500
FIGURES = {n: plot.heat(clearhead.weights(np.eye(n + 1), np.eye(n + 1))) for n in (OLD, NEW)}
DRAWN = [picture_of(figure) for figure in FIGURES.values()]  # places things; from then on a figure stays as it is
PICTURES = {picture_of(figure): n for n, figure in FIGURES.items()}
WRITERS = {
    "kernel": Writer("", write_kernel, read_kernel),
    "cache": Writer(".safetensors", write_cache, lambda path: int(KeyValueCache.load(path).arrays()[0].max())),
    "partial": Writer(".safetensors", write_partial, lambda path: int(Partial.load(path).finish().output.max()),
                      steps=False),
    "watch": Writer(
        ".safetensors", lambda path, n: watch_of(dict.fromkeys(range(n), record())).save(path, force=True),
        lambda path: len(clearhead.load_watch(path).layers()), steps=False,
    ),
    "run .npy": Writer(".npy", run(), array_in, steps=False),
    "run .npz": Writer(".npz", run(), array_in),
    "run .safetensors": Writer(".safetensors", run(), array_in, steps=False),
    "run --resume": Writer(".npz", run(resume=True), array_in, resumes=True),
    "run --part": Writer(".npy", run(part=(1, 2)), part_in, steps=False),
    "join": Writer(".npy", lambda path, content: pieces.join(path, force=True) and None, array_in, write_parts),
    "figure": Writer(".png", lambda path, content: plot.save(FIGURES[content], path), figure_in, steps=False),
    "page": Writer(".html", lambda path, content: write_whole(path, PAGE % content, force=True), page_in, steps=False),
}  # fmt: skip


# What a call in a child comes to


def outcome(write: Callable[[], None], before: Callable[[], None] = lambda: None) -> str:
    """What a child says after a call: "done", the error that helps, "killed" or what else happened."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.close(reading)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                try:
                    before()
                    write()
                    said = "done"
                except FileError as error:
                    said = f"FileError: {error}"
                except KeyboardInterrupt:
                    said = "interrupted"
                except BaseException:
                    said = traceback.format_exc()
            sys.settrace(None)
            said = f"warned: {caught[0].message}" if caught and said == "done" else said
            os.write(writing, said.encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return "killed" if status == -signal.SIGKILL else said or f"exit code {status}"


def helps(said: str, path: Path) -> bool:
    """Whether an error or warning names the file or its folder, and a next step after a colon, in one line."""
    kind, _, message = said.partition(": ")
    named = path.name in message or (kind == "warned" and str(path.parent) in message)
    return kind in ("FileError", "warned") and named and "\n" not in message and bool(message.rpartition(": ")[2])


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can reach."""
    with tempfile.TemporaryDirectory(prefix="clearhead-faults-", dir=SPACE) as name:
        Path(name).chmod(0o755)
        made = Path(name) / "folder"
        made.mkdir(mode=0o700)
        yield made


def prepared(writer: Writer, folder: Path) -> tuple[Path, set[str]]:
    """A file of OLD, what a call that writes NEW needs, and the names that are there."""
    path = folder / f"file{writer.suffix}"
    writer.before(path, OLD)
    writer.write(path, OLD)
    assert writer.read(path) == OLD
    writer.before(path, NEW)
    source(path, NEW)
    return path, set(os.listdir(folder))


def check_intact(writer: Writer, path: Path, names: set[str], said: str) -> None:
    """The file is the old one or the new one, and nothing is left over but what a run needs to go on."""
    held = writer.read(path)
    assert held in ((NEW,) if said == "done" else (OLD, NEW) if said in ("killed", "interrupted") else (OLD,)), said
    left = set(os.listdir(path.parent)) - names
    unfinished = {f"{path.name}.clearhead-{what}" for what in ("unfinished", "progress")} if writer.resumes else set()
    parts = {name for name in left if name.startswith(".clearhead-") and said in ("killed", "interrupted")}
    assert left <= unfinished | parts, (left, said)


def check_next(writer: Writer, path: Path, names: set[str]) -> None:
    """The next call writes the file and leaves nothing over."""
    with suppress(FileError):  # all parts, or what a killed `join` left of them
        writer.before(path, NEW)
    writer.write(path, NEW)
    assert writer.read(path) == NEW
    assert set(os.listdir(path.parent)) <= names


# What befalls a whole call


def full(path: Path) -> None:
    """No more than 50 bytes of any file can be written, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))


def half_full(path: Path) -> None:
    """Some of a file can be written."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))


def read_only(path: Path) -> None:
    """The folder is another user's, or may not be written."""
    path.parent.chmod(0o555)
    if ROOT:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def others_file(path: Path) -> None:
    """The files are another user's, in a folder where all may write but replace only their own."""
    path.parent.chmod(0o1777)
    for name in os.listdir(path.parent):
        os.chown(path.parent / name, SOMEBODY, SOMEBODY)
        os.chmod(path.parent / name, 0o600 if name == path.name else 0o644)
    os.chown(path.parent, SOMEBODY, SOMEBODY)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def clock_back(path: Path) -> None:
    """All files were written in the future."""
    time.time = lambda: 1e9
    for name in os.listdir(path.parent):
        os.utime(path.parent / name, (4e9, 4e9))


FAULTS = {"full": full, "half full": half_full, "read-only": read_only, "another user's": others_file,
          "clock set back": clock_back}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", WRITERS)
def test_what_cannot_be_written_changes_nothing_and_is_said(name: str, fault: str, folder: Path) -> None:
    if fault == "another user's" and not ROOT:
        pytest.skip("only root can make files of other users")
    writer = WRITERS[name]
    path, names = prepared(writer, folder)
    said = outcome(lambda: writer.write(path, NEW), lambda: FAULTS[fault](path))
    for file in (folder, *folder.iterdir()):  # give it back
        if ROOT:
            os.chown(file, 0, 0)
        os.chmod(file, 0o700)
    if fault == "clock set back":
        assert said == "done"
    else:
        assert helps(said, path), said
    check_intact(writer, path, names, said)
    check_next(writer, path, names)


@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_is_full_is_said(name: str, folder: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "clearhead-full", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("no disk of our own can be mounted here")
    try:
        folder.chmod(0o700)
        writer = WRITERS[name]
        path, names = prepared(writer, folder)
        with suppress(OSError), open(folder / "full", "wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        said = outcome(lambda: writer.write(path, NEW))
        assert helps(said, path), said
        assert "No space left" in said
        check_intact(writer, path, names | {"full"}, said)
        (folder / "full").unlink()
        check_next(writer, path, names)
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("name", WRITERS)
def test_two_writers_at_once_leave_one_whole_file(name: str, folder: Path) -> None:
    writer = WRITERS[name]
    path, names = prepared(writer, folder)
    children = []
    for content in (OLD, NEW, OLD, NEW):
        child = os.fork()
        if not child:
            with suppress(FileError):  # one that says that the other is at it
                for _ in range(3):
                    if writer.before is Writer.before:
                        writer.write(path, content)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert writer.read(path) in (OLD, NEW)
    check_next(writer, path, names)


# What befalls a line


def at_line(number: int, happens: Callable[[], None]) -> None:
    """Let something happen before the n-th line that writes is run."""
    left = [number]

    def trace(frame, event, _):
        if not frame.f_code.co_filename.startswith(WRITING):
            return None
        if event == "line":
            left[0] -= 1
            if left[0] < 0:
                sys.settrace(None)
                happens()
        return trace

    sys.settrace(trace)


def killed(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupted(path: Path) -> None:
    raise KeyboardInterrupt


def folder_gone(path: Path) -> None:
    shutil.rmtree(path.parent)


STEPS = {
    "killed": (killed, 23),
    "interrupted": (interrupted, 41),
    "folder gone": (folder_gone, 41),
}  # at every so many lines


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", [name for name, writer in WRITERS.items() if writer.steps])
def test_whatever_happens_at_a_line_the_file_is_whole(name: str, step: str, folder: Path) -> None:
    (happens, lines), writer, number, outcomes = STEPS[step], WRITERS[name], 0, []
    while "done" not in outcomes:
        folder.mkdir(exist_ok=True, mode=0o700)
        path, names = prepared(writer, folder)
        said = outcome(partial(writer.write, path, NEW), partial(at_line, number, partial(happens, path)))
        if folder.exists():
            outcomes.append(said)
            check_intact(writer, path, names, said)
            check_next(writer, path, names)
        else:
            outcomes.append("gone")
            assert said == "done" or helps(said, path), (number, said)
        number += lines
    assert len(outcomes) > 2
