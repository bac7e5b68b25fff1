"""Files that may be renamed and removed while they are open, and locks on them, on every system.

POSIX systems allow both. Windows does if a file is opened so, which `os.open` does not do.
"""

import os
import sys
from contextlib import suppress
from errno import EACCES, EDEADLK

BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
LOCKED_BYTE = (1 << 31) - 2  # the last that Windows' C library can lock: others could not read what is locked

# Windows' numbers, from its CreateFileW.
READ, WRITE = 0x80000000, 0x40000000
SHARE_READ_WRITE_DELETE = 7
CREATE_NEW, OPEN_EXISTING, OPEN_ALWAYS = 1, 3, 4
NORMAL = 0x80


def open_shared(path: str | os.PathLike[str], flags: int, mode: int = 0o666) -> int:
    """Open a file as `os.open` does, so that others may rename and remove it meanwhile; raises OSError."""
    if sys.platform != "win32":
        return os.open(path, flags, mode)
    import _winapi
    import msvcrt

    created = CREATE_NEW if flags & os.O_EXCL else OPEN_ALWAYS
    handle = _winapi.CreateFile(
        os.fspath(path),
        READ | (WRITE if flags & (os.O_RDWR | os.O_WRONLY) else 0),
        SHARE_READ_WRITE_DELETE,
        0,
        created if flags & os.O_CREAT else OPEN_EXISTING,
        NORMAL,
        0,
    )
    return msvcrt.open_osfhandle(handle, flags | BINARY)


def lock(descriptor: int) -> None:
    """Lock a file until it is closed; raises OSError, BlockingIOError if it is locked already."""
    if sys.platform != "win32":
        from fcntl import LOCK_EX, LOCK_NB, flock

        flock(descriptor, LOCK_EX | LOCK_NB)
        return
    import msvcrt

    place = os.lseek(descriptor, 0, os.SEEK_CUR)
    os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        if error.errno in (EACCES, EDEADLK):
            raise BlockingIOError(error.errno, "locked by another process") from error
        raise
    finally:
        os.lseek(descriptor, place, os.SEEK_SET)


def unlock(descriptor: int) -> None:
    """Unlock a file before it is closed, since a process that was forked meanwhile would go on holding the lock."""
    if sys.platform != "win32":  # which has no forks
        from fcntl import LOCK_UN, flock

        with suppress(OSError):
            flock(descriptor, LOCK_UN)
