"""A file that appears whole and at once, or not at all, whatever ends the process.

Where the system can make a file without a name (Linux: O_TMPFILE), it is filled without one, and a killed process
leaves nothing. Elsewhere, and for the moment in which it takes its place, it has a hidden name beside its target and is
locked as long as its writer lives: whoever writes next in that folder removes those that nobody locks.
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
OPENED = "/proc/self/fd"  # by which Linux names a file that has no name


@contextmanager
def appearing(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file to be filled, which takes the place of `path` when the block ends well; raises OSError.

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
    """A locked file without a name, where there is such a thing."""
    if not hasattr(os, "O_TMPFILE") or not os.path.exists(OPENED):
        return None
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR, mode)
    except OSError:  # this file system has none; another reason will be met again
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
        except BlockingIOError:  # someone takes it for a dead one
            os.close(descriptor)
            continue
        except OSError:  # a file system without locks: then nobody else locks it either
            pass
        if os.fstat(descriptor).st_nlink:
            return part, os.fdopen(descriptor, "w+b")
        os.close(descriptor)


def named(file: BinaryIO, folder: Path, mode: int) -> Path:
    """Give a nameless file a hidden name; where that is forbidden, what is in it."""
    part = folder / f"{PREFIX}{token_hex(8)}{SUFFIX}"
    try:
        os.link(f"{OPENED}/{file.fileno()}", part, src_dir_fd=0)  # without a descriptor, Python links the link itself
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
    """Lock a file for as long as it is open; raises OSError, BlockingIOError if another has."""
    if os.name != "nt":  # where nobody can remove a file that is open
        from fcntl import LOCK_EX, LOCK_NB, flock

        flock(descriptor, LOCK_EX | LOCK_NB)


def remove_dead(folder: Path) -> None:
    """Remove what killed writers left in a folder."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and entry.name.endswith(SUFFIX):
                with suppress(OSError):
                    remove_unlocked(entry.path)


def remove_unlocked(name: str) -> None:
    """Remove a file that nobody has locked; raises OSError for one that somebody has."""
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
