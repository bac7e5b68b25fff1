"""On-disk kernel cache. Entries are executable, so only files that this user wrote are trusted.

Responsible for the directory, for its size, and for trusting an entry: nobody else can write the directory, each entry
has a checksum, and writes are atomic, so no process reads a partial entry. `compile` supplies keys and code.
"""

import errno
import functools
import hashlib
import os
import re
import stat
import warnings
from contextlib import suppress
from pathlib import Path

from clearhead import settings
from clearhead.machine.appearing import appearing
from clearhead.machine.sharing import open_shared
from clearhead.machine.unbroken import late

MAGIC = b"clearhead kernel 1\n"
MAX_ENTRY_BYTES = 1 << 26  # maximum bytes of an entry; real ones are a hundred times smaller
NAME = re.compile(r"\w+-(f32|f64)-\w+-[0-9a-f]{40}|\w+-ptx-[0-9a-f]{40}")  # of an entry, among others' files
MOST_ENTRIES = 4096  # most are of 60 KiB, so a quarter of a GiB


class CacheWarning(UserWarning):
    """The kernel cache cannot be used, or an entry in it is damaged."""


def directory() -> Path:
    """The directory of compiled kernels: CLEARHEAD_CACHE_DIR or the user's cache; raises OSError without one."""
    named = settings.CACHE_DIR.read()
    try:
        folder = Path(named).expanduser() if named else Path(late("platformdirs").user_cache_path("clearhead", False))
    except RuntimeError:  # raised by pathlib without a home directory
        folder = Path("~")
    if str(folder).startswith("~"):
        raise OSError(errno.ENOENT, "this user has no home directory")
    return folder


def load_code(key: str) -> bytes | None:
    """The code stored under a key, or None. Warns about a damaged entry and removes it."""
    folder = usable()
    if folder is None:
        return None
    path = folder / key
    try:
        entry = read_entry(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        warn(folder, f"the compiled kernel {path} cannot be read ({error.strerror}); clearhead compiles it again.")
        return None
    head, digest, code = entry[: len(MAGIC)], entry[len(MAGIC) : len(MAGIC) + 32], entry[len(MAGIC) + 32 :]
    if head == MAGIC and digest == checksum(key, code):
        with suppress(OSError):
            os.utime(path)  # used now: `remove_oldest` keeps it
        return code
    warn(folder, f"the compiled kernel {path} is not what clearhead wrote there; clearhead compiles it again.")
    with suppress(OSError):
        path.unlink()
    return None


def read_entry(path: Path) -> bytes:
    """Read an entry; returns nothing for a file that clearhead cannot have written; raises OSError."""
    descriptor = open_shared(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        valid = stat.S_ISREG(status.st_mode) and private(status) and status.st_size <= MAX_ENTRY_BYTES
        return file.read(MAX_ENTRY_BYTES) if valid else b""


def save_code(key: str, code: bytes) -> None:
    """Store code under a key; if the disk refuses, warn once and continue."""
    folder = usable()
    if folder is None:
        return
    try:
        with appearing(folder / key, 0o600) as file:
            file.write(MAGIC + checksum(key, code) + code)
    except OSError as error:
        warn(
            folder,
            f"compiled kernels cannot be stored in {folder} ({error.strerror}): set CLEARHEAD_CACHE_DIR elsewhere.",
        )
    else:
        with suppress(OSError):
            remove_oldest(folder)


def remove_oldest(folder: Path) -> None:
    """Once a folder has too many entries, remove the quarter of them that was used longest ago; raises OSError.

    Rules that never repeat, and versions that were replaced, would otherwise fill the disk.
    """
    with os.scandir(folder) as entries:
        paths = [entry.path for entry in entries if NAME.fullmatch(entry.name)]
    if len(paths) <= MOST_ENTRIES:
        return
    used = []
    for path in paths:
        with suppress(OSError):  # another process has removed it
            used.append((os.stat(path).st_mtime_ns, path))
    for _, path in sorted(used, reverse=True)[3 * MOST_ENTRIES // 4 :]:
        with suppress(OSError):
            if read_entry(Path(path)).startswith(MAGIC):  # others may give their files such names
                os.unlink(path)


def usable() -> Path | None:
    """The cache directory, created if needed; None if the cache is off or not private."""
    if settings.CACHE.read() == "0":
        return None
    try:
        folder = directory()
    except OSError as error:
        warn(None, f"compiled kernels are not stored ({error.strerror}): set CLEARHEAD_CACHE_DIR to a directory.")
        return None
    return private_directory(folder)


@functools.cache
def private_directory(folder: Path) -> Path | None:
    """Create a directory and check that it is private; None after a warning. Runs once per process."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if private(folder.stat()):
            return folder
        warn(
            folder,
            f"{folder} belongs to another user or others can write it, so kernels are not stored there: "
            "chmod 700 it, or set CLEARHEAD_CACHE_DIR.",
        )
    except OSError as error:
        warn(
            folder,
            f"compiled kernels cannot be stored in {folder} ({error.strerror}): set CLEARHEAD_CACHE_DIR elsewhere.",
        )
    return None


def private(status: os.stat_result) -> bool:
    """Whether only this user can have written a file; Windows protects user directories itself."""
    if not hasattr(os, "geteuid"):
        return True
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def checksum(key: str, code: bytes) -> bytes:
    """The hash of an entry. It includes the key, so an entry is not valid under another name."""
    return hashlib.sha256(key.encode() + code).digest()


warned: set[Path | None] = set()  # directories with a warning already


def warn(folder: Path | None, message: str) -> None:
    """Warn once per directory. Calls still succeed, since kernels are compiled anew."""
    if folder not in warned:
        warned.add(folder)
        warnings.warn(message, CacheWarning, stacklevel=2)
