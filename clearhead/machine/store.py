"""Compiled kernels on disk: machine code, so nobody else may ever have written it.

Decides where entries lie and when one is trusted: a directory of the user's own that no one else can write, a checksum
over each entry, writes by atomic rename (so processes never see half an entry). Leaves keys and code to `compile`.
"""

import errno
import functools
import hashlib
import os
import stat
import warnings
from contextlib import suppress
from pathlib import Path

from clearhead import settings
from clearhead.machine.appearing import appearing
from clearhead.machine.unbroken import late

MAGIC = b"clearhead kernel 1\n"
LARGEST = 1 << 26  # bytes of an entry: a hundred times those there are


class CacheWarning(UserWarning):
    """The kernel cache could not be used, or an entry in it was not what was written."""


def directory() -> Path:
    """Where compiled kernels are kept: CLEARHEAD_CACHE_DIR or the user's cache directory; raises OSError if none."""
    named = settings.CACHE_DIR.read()
    try:
        place = Path(named).expanduser() if named else Path(late("platformdirs").user_cache_path("clearhead", False))
    except RuntimeError:  # of pathlib, which looks for a home
        place = Path("~")
    if str(place).startswith("~"):
        raise OSError(errno.ENOENT, "this user has no home directory")
    return place


def load(key: str) -> bytes | None:
    """The code kept under a key, or None; a damaged entry is reported, removed and None."""
    place = usable()
    if place is None:
        return None
    path = place / key
    try:
        entry = read(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        warn(place, f"the compiled kernel {path} cannot be read ({error.strerror}); it is compiled again.")
        return None
    head, digest, code = entry[: len(MAGIC)], entry[len(MAGIC) : len(MAGIC) + 32], entry[len(MAGIC) + 32 :]
    if head == MAGIC and digest == checksum(key, code):
        return code
    warn(place, f"the compiled kernel {path} is not what clearhead wrote there; it is compiled again.")
    with suppress(OSError):
        path.unlink()
    return None


def read(path: Path) -> bytes:
    """What an entry holds, nothing if it cannot be of clearhead's writing; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        ours = stat.S_ISREG(status.st_mode) and private(status) and status.st_size <= LARGEST
        return file.read(LARGEST) if ours else b""


def save(key: str, code: bytes) -> None:
    """Keep code under a key; where the disk refuses, say so once and go on without."""
    place = usable()
    if place is None:
        return
    try:
        with appearing(place / key, 0o600) as file:
            file.write(MAGIC + checksum(key, code) + code)
    except OSError as error:
        warn(
            place, f"compiled kernels cannot be kept in {place} ({error.strerror}): set CLEARHEAD_CACHE_DIR elsewhere."
        )


def usable() -> Path | None:
    """The cache directory, made if need be, if it is on and private."""
    if settings.CACHE.read() == "0":
        return None
    try:
        place = directory()
    except OSError as error:
        warn(None, f"compiled kernels are not kept ({error.strerror}): set CLEARHEAD_CACHE_DIR to a directory.")
        return None
    return prepared(place)


@functools.cache
def prepared(place: Path) -> Path | None:
    """A directory that exists and is ours alone, or None after a warning; asked once a process."""
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if private(place.stat()):
            return place
        warn(
            place,
            f"{place} belongs to others or can be written by them, so no kernel is kept there: "
            "chmod 700 it, or set CLEARHEAD_CACHE_DIR.",
        )
    except OSError as error:
        warn(
            place, f"compiled kernels cannot be kept in {place} ({error.strerror}): set CLEARHEAD_CACHE_DIR elsewhere."
        )
    return None


def private(status: os.stat_result) -> bool:
    """Whether only this user can have written it; Windows keeps its user directories private itself."""
    if not hasattr(os, "getuid"):
        return True
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def checksum(key: str, code: bytes) -> bytes:
    """What an entry must hash to: its code together with its key, so that entries cannot trade places."""
    return hashlib.sha256(key.encode() + code).digest()


told: set[Path | None] = set()  # places of which something has been said


def warn(place: Path | None, message: str) -> None:
    """Report without failing, once of each place: kernels are compiled, calls succeed."""
    if place not in told:
        told.add(place)
        warnings.warn(message, CacheWarning, stacklevel=2)
