"""What is done otherwise on Windows and macOS, run here with stand-ins for their standard library."""

import ctypes
import errno
import os
import sys
from contextlib import suppress
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import numpy as np
import pytest
from platformdirs.macos import MacOS

from clearhead import attention
from clearhead.cli.command import main
from clearhead.files.reading import open_arrays
from clearhead.files.resuming import resumable_file
from clearhead.files.writing import Spec, reserve
from clearhead.machine import appearing, sharing, store, threads
from clearhead.rules.named import rule_from_file


class Windows:
    """Windows' way to open files and to lock them, as far as clearhead asks, over this system's."""

    LK_NBLCK = 2

    def __init__(self):
        self.opened, self.locked = [], {}

    def CreateFile(self, name, access, share, security, disposition, attributes, template):  # noqa: N802
        assert share == 7, "others could not rename or remove it"
        assert security == template == 0
        flags = {1: os.O_CREAT | os.O_EXCL, 3: 0, 4: os.O_CREAT}[disposition]
        flags |= os.O_RDWR if access & sharing.WRITE else os.O_RDONLY
        self.opened.append(name)
        return os.open(name, flags, 0o666)

    def open_osfhandle(self, handle, flags):
        return handle

    def locking(self, descriptor, how, count):
        assert (how, count) == (self.LK_NBLCK, 1)
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == sharing.LOCKED_BYTE
        status = os.fstat(descriptor)
        owner = self.locked.setdefault((status.st_dev, status.st_ino), descriptor)
        try:
            os.fstat(owner)
        except OSError:
            owner = self.locked[status.st_dev, status.st_ino] = descriptor
        if owner != descriptor:
            raise OSError(errno.EACCES, "Permission denied")


@pytest.fixture
def windows(monkeypatch):
    """This process, as if on Windows wherever files are opened and locked."""
    system = Windows()
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "_winapi", system)
    monkeypatch.setitem(sys.modules, "msvcrt", system)
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    return system


def test_a_file_appears_whole_on_windows(tmp_path, windows):
    (tmp_path / "dead").write_bytes(b"")
    (tmp_path / f"{appearing.PREFIX}0{appearing.SUFFIX}").write_bytes(b"left by a killed process")
    with appearing.appearing(tmp_path / "a") as file:
        file.write(b"whole")
        assert len(list(tmp_path.glob("*.part"))) == 1, "the dead one is gone, this one is there"
    assert sorted(os.listdir(tmp_path)) == ["a", "dead"]
    assert (tmp_path / "a").read_bytes() == b"whole"


def test_a_file_that_is_locked_is_left_alone_on_windows(tmp_path, windows):
    with appearing.appearing(tmp_path / "a") as first:
        first.write(b"first")
        with appearing.appearing(tmp_path / "b") as second:
            second.write(b"second")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_locks_leave_the_place_in_the_file(tmp_path, windows):
    (tmp_path / "a").write_bytes(b"0123456789")
    descriptor = sharing.open_shared(tmp_path / "a", os.O_RDWR)
    os.lseek(descriptor, 3, os.SEEK_SET)
    sharing.lock(descriptor)
    assert os.read(descriptor, 2) == b"34"
    other = sharing.open_shared(tmp_path / "a", os.O_RDWR)
    with pytest.raises(BlockingIOError, match="another process"):
        sharing.lock(other)
    for each in (descriptor, other):
        os.close(each)


def test_a_run_is_resumed_on_windows(tmp_path, windows):
    path, specs, undertaking = tmp_path / "y.npy", {"output": Spec((4,), np.dtype(np.float32))}, {"mask": "full()"}
    with suppress(KeyboardInterrupt), resumable_file(path, specs, undertaking) as filling:
        filling.arrays["output"][:2] = 1
        filling.save(2)
        raise KeyboardInterrupt
    with resumable_file(path, specs, undertaking) as filling:
        assert filling.done == 2
        filling.arrays["output"][2:] = 2
    assert np.load(path).tolist() == [1, 1, 2, 2]
    assert os.listdir(tmp_path) == ["y.npy"]
    assert len(windows.opened) >= 4
    (found,) = (opened[name] for opened in [open_arrays(path)] for name in opened.members)
    assert found.tolist() == [1, 1, 2, 2]


def test_kernels_are_kept_on_windows(tmp_path, windows, monkeypatch):
    monkeypatch.delattr(os, "getuid")
    monkeypatch.setenv("CLEARHEAD_CACHE_DIR", str(tmp_path / "kernels"))
    store.save_code("forward-f32-test", b"code")
    assert store.load_code("forward-f32-test") == b"code"
    assert any("forward-f32-test" in str(name) for name in windows.opened), "another process may replace it meanwhile"


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_space_is_claimed_where_the_system_does_not_reserve_it(tmp_path, monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    with open(tmp_path / "a", "w+b") as file:
        reserve(file, 3_000_001)
        assert os.fstat(file.fileno()).st_size == 3_000_001


def test_all_cores_count_where_the_system_does_not_say_which_may_be_used(monkeypatch):
    monkeypatch.setenv("CLEARHEAD_THREADS", "0")
    monkeypatch.delattr(os, "sched_getaffinity")
    assert threads.allowed() == os.cpu_count()


def test_a_rule_is_found_behind_a_drive_letter(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("C:").mkdir()
    name = str(PureWindowsPath("C:/rule.py")).replace("\\", "/")
    Path(name).write_text("def nearer(score, batch, head, query, key):\n    return score - abs(query - key)\n")
    x = np.eye(4)
    assert not np.array_equal(attention(x, x, x, score=rule_from_file(f"{name}:nearer")), attention(x, x, x))


def test_kernels_are_kept_where_macos_keeps_caches():
    assert MacOS("clearhead", False).user_cache_dir.endswith("/Library/Caches/clearhead")


def test_a_console_without_unicode_shows_what_it_can(capfdbinary, monkeypatch):
    class Console(type(sys.stdout)):
        def isatty(self):
            return True

    console = Console(open(os.dup(1), "wb", closefd=True), encoding="cp437", errors="strict")  # noqa: SIM115
    monkeypatch.setattr(sys, "stdout", console)
    assert main(["explain", "the cat sat"]) == 0
    console.close()
    shown = capfdbinary.readouterr().out.decode("cp437")
    assert "weight" in shown
    assert "█" in shown, "code page 437 has blocks"
    assert "?" in shown, "and no subscripts"


def test_backward_threads_give_way_by_windows_own_function(monkeypatch):
    from clearhead.gradients import launch

    given = []
    kernel32 = SimpleNamespace(SwitchToThread=ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 0))
    monkeypatch.setattr(os, "name", "nt")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: given.append(name) or kernel32)
    assert launch.yield_address.__wrapped__() != 0
    assert given == ["kernel32"]
