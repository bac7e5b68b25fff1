"""Files that appear whole or not at all: what is left when a writer is killed, and what the next one removes."""

import os
import subprocess
import sys
import time

import pytest

from clearhead.machine import appearing as module
from clearhead.machine.appearing import appearing
from clearhead.machine.sharing import lock

POSIX = pytest.mark.skipif(os.name != "posix", reason="needs signals and locks")


@pytest.fixture(params=["nameless", "hidden"])
def way(request, monkeypatch):
    """Both ways in which a file is made."""
    if request.param == "hidden":
        monkeypatch.setattr(module, "OPENED", "/nowhere")
    return request.param


def parts(folder):
    return [name for name in os.listdir(folder) if name.endswith(".part")]


def test_a_file_appears_at_the_end(tmp_path, way):
    path = tmp_path / "a"
    with appearing(path, 0o640) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["a"]
    assert os.name != "posix" or path.stat().st_mode & 0o777 == 0o640 & ~umask()


def umask():
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError, MemoryError])
def test_what_fails_leaves_what_was_there(tmp_path, way, failure):
    (tmp_path / "a").write_bytes(b"before")

    def fails(file):
        file.write(b"half")
        raise failure

    with pytest.raises(failure), appearing(tmp_path / "a") as file:
        fails(file)
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"before"


def test_a_system_that_forbids_to_name_a_file_is_no_loss(tmp_path, monkeypatch):
    def forbidden(*args, **kwargs):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", forbidden)
    with appearing(tmp_path / "a") as file:
        file.write(b"whole")
    assert (tmp_path / "a").read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["a"]


WRITER = """
import sys, time
from pathlib import Path
from clearhead.machine import appearing
if sys.argv[2] == "hidden":
    appearing.OPENED = "/nowhere"
with appearing.appearing(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("begun", flush=True)
    time.sleep(60)
"""


@POSIX
def test_a_killed_writer_leaves_nothing_for_ever(tmp_path, way):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WRITER, str(tmp_path / "a"), way]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as writer:
        assert writer.stdout.readline() == "begun\n"
        with appearing(tmp_path / "other") as file:
            file.write(b"meanwhile")
        assert len(parts(tmp_path)) == (way == "hidden"), "one that is being written stays"
        writer.kill()
    assert len(parts(tmp_path)) == (way == "hidden")
    with appearing(tmp_path / "b") as file:
        file.write(b"next")
    assert sorted(os.listdir(tmp_path)) == ["b", "other"]


@POSIX
def test_nothing_else_is_removed(tmp_path):
    os.mkfifo(tmp_path / ".clearhead-fifo.part")
    (tmp_path / ".clearhead-folder.part").mkdir()
    (tmp_path / "precious").write_bytes(b"")
    (tmp_path / ".clearhead-link.part").symlink_to(tmp_path / "precious")
    (tmp_path / "mine.part").write_bytes(b"")
    before = sorted(os.listdir(tmp_path))
    start = time.monotonic()
    with appearing(tmp_path / "a"):
        pass
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "a"])
    assert time.monotonic() - start < 5


@POSIX
def test_a_writer_whose_file_was_taken_for_a_dead_one_begins_another(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "OPENED", "/nowhere")
    taken = []

    def removed_before(descriptor):
        if len(taken) < 3:
            taken.append(os.listdir(tmp_path))
            os.unlink(tmp_path / taken[-1][0])
        lock(descriptor)

    monkeypatch.setattr(module, "lock", removed_before)
    with appearing(tmp_path / "a") as file:
        file.write(b"whole")
    assert len(taken) == 3
    assert os.listdir(tmp_path) == ["a"]
