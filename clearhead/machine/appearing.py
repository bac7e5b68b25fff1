"""Atomic file creation: a file appears complete or not at all, even if the process is killed.

Where the system supports unnamed files (Linux: O_TMPFILE), the file is filled without a name, so a killed process
leaves nothing. Elsewhere, and while it is renamed, it has a hidden name next to its target and is locked as long as its
writer lives. The next writer in that folder removes hidden files that nobody has locked.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from stat import S_ISREG
from typing import BinaryIO

PREFIX, SUFFIX = ".clearhead-", ".part"
OPENED = "/proc/self/fd"  # path of an unnamed file in Linux


@contextmanager
def appearing(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file to fill, renamed to `path` when the block ends without an error; raises OSError.

    >>> path = getfixture("tmp_path") / "a"
    >>> with appearing(path) as file:
    ...     _ = file.write(b"all of it")
    >>> path.read_bytes()
    b'all of it'
    """
    remove_dead(path.parent)
    part, file = None, nameless(path.parent, mode)
    if file is None:
        part, file = hidden(path.parent, mode)
    try:
        with file:
            yield file
            file.flush()
            part = part or named(file, path.parent, mode)
            if os.name == "nt":
                file.close()
            part.replace(path)
            part = None
    finally:
        if part is not None:
            with suppress(OSError):
                part.unlink()


def nameless(folder: Path, mode: int) -> BinaryIO | None:
    """A locked file without a name, or None where the system has none."""
    if not hasattr(os, "O_TMPFILE") or not os.path.exists(OPENED):
        return None
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR, mode)
    except OSError:  # not on this file system; `hidden` meets any other cause again
        return None
    with suppress(OSError):
        lock(descriptor)
    return os.fdopen(descriptor, "w+b")


def hidden(folder: Path, mode: int) -> tuple[Path, BinaryIO]:
    """A locked file with a hidden name."""
    while True:
        part = folder / f"{PREFIX}{token_hex(8)}{SUFFIX}"
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
        try:
            lock(descriptor)
        except BlockingIOError:  # another writer is about to remove it
            os.close(descriptor)
            continue
        except OSError:  # the file system has no locks, so no other writer locks it
            pass
        if os.fstat(descriptor).st_nlink:
            return part, os.fdopen(descriptor, "w+b")
        os.close(descriptor)


def named(file: BinaryIO, folder: Path, mode: int) -> Path:
    """Give an unnamed file a hidden name; if that is forbidden, copy it to a file that has one."""
    part = folder / f"{PREFIX}{token_hex(8)}{SUFFIX}"
    try:
        os.link(f"{OPENED}/{file.fileno()}", part, src_dir_fd=0)  # without src_dir_fd, Python links the symbolic link
    except OSError:
        part, copy = hidden(folder, mode)
        try:
            with copy:
                file.seek(0)
                shutil.copyfileobj(file, copy)
        except BaseException:
            part.unlink()
            raise
    return part


def lock(descriptor: int) -> None:
    """Lock a file until it is closed; raises OSError, BlockingIOError if it is locked already."""
    if os.name != "nt":  # Windows does not remove open files
        from fcntl import LOCK_EX, LOCK_NB, flock

        flock(descriptor, LOCK_EX | LOCK_NB)


def unlock(descriptor: int) -> None:
    """Unlock a file before it is closed, since a process that was forked meanwhile would go on holding the lock."""
    if os.name != "nt":
        from fcntl import LOCK_UN, flock

        with suppress(OSError):
            flock(descriptor, LOCK_UN)


def remove_dead(folder: Path) -> None:
    """Remove files that killed writers left in a folder."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and entry.name.endswith(SUFFIX):
                with suppress(OSError):
                    remove_unlocked(entry.path)


def remove_unlocked(name: str) -> None:
    """Remove a file that nobody has locked; raises OSError if it is locked."""
    flags = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(name, os.O_RDONLY | flags)
    try:
        if not S_ISREG(os.fstat(descriptor).st_mode):
            return
        lock(descriptor)
        if os.name != "nt":
            os.unlink(name)
    finally:
        os.close(descriptor)
    if os.name == "nt":
        os.unlink(name)
