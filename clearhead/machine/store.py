"""Compiled kernels on disk: machine code, so nobody else may ever have written it.

Decides where entries lie and when one is trusted: a directory of the user's own that no one else can write, a checksum
over each entry, writes by atomic rename (so processes never see half an entry). Leaves keys and code to `compile`.
"""

import functools
import hashlib
import os
import stat
import tempfile
import warnings
from pathlib import Path

from clearhead import settings

MAGIC = b"clearhead kernel 1\n"
# A pipe in an entry's place must not make a call wait for its other end.
AT_ONCE = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
refusing: set[Path] = set()  # directories that could not be written; each is spoken of once


class CacheWarning(UserWarning):
    """The kernel cache could not be used, or an entry in it was not what was written."""


def directory() -> Path:
    """Where compiled kernels are kept: CLEARHEAD_CACHE_DIR or the user's cache directory.

    It begins with ~ where nobody's home is known.
    """
    named = settings.CACHE_DIR.read()
    if named:
        place = Path(named)
    else:
        from platformdirs import user_cache_path

        place = user_cache_path("clearhead", appauthor=False)
    try:
        return place.expanduser()
    except RuntimeError:
        return place


def load(key: str) -> bytes | None:
    """The code kept under a key, or None; a damaged entry is reported, removed and None."""
    place = usable()
    if place is None:
        return None
    path = place / key
    try:
        descriptor = os.open(path, os.O_RDONLY | AT_ONCE)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            entry = file.read() if stat.S_ISREG(status.st_mode) else b""
    except FileNotFoundError:
        return None
    except OSError as error:
        warn(f"the compiled kernel {path} cannot be read ({error.strerror}); it is compiled again.")
        return None
    head, digest, code = entry[: len(MAGIC)], entry[len(MAGIC) : len(MAGIC) + 32], entry[len(MAGIC) + 32 :]
    if head == MAGIC and digest == checksum(key, code) and private(status):
        return code
    warn(f"the compiled kernel {path} is not what clearhead wrote there; it is compiled again.")
    try:
        path.unlink(missing_ok=True)
    except OSError:
        refusing.add(place)
    return None


def save(key: str, code: bytes) -> None:
    """Keep code under a key; where the disk refuses, say so once and go on without."""
    place = usable()
    if place is None or place in refusing:
        return
    try:
        descriptor, temporary = tempfile.mkstemp(dir=place, prefix=".writing-")  # created 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(MAGIC + checksum(key, code) + code)
            Path(temporary).replace(place / key)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        refusing.add(place)
        warn(f"compiled kernels cannot be kept in {place} ({error.strerror}): set CLEARHEAD_CACHE_DIR elsewhere.")


def usable() -> Path | None:
    """The cache directory, made if need be, if it is on and private."""
    return prepared(str(directory())) if settings.CACHE.read() != "0" else None


@functools.cache
def prepared(name: str) -> Path | None:
    """A directory that exists and is ours alone, or None after a warning; asked once a process."""
    place = Path(name)
    if name.startswith("~"):
        warn(f"compiled kernels cannot be kept in {place}, for there is no such home: set CLEARHEAD_CACHE_DIR.")
        return None
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if private(place.stat()):
            return place
        warn(
            f"{place} belongs to others or can be written by them, so no kernel is kept there: "
            "chmod 700 it, or set CLEARHEAD_CACHE_DIR."
        )
    except OSError as error:
        warn(f"compiled kernels cannot be kept in {place} ({error.strerror}): set CLEARHEAD_CACHE_DIR elsewhere.")
    return None


def private(status: os.stat_result) -> bool:
    """Whether only this user can have written it; Windows keeps its user directories private itself."""
    if not hasattr(os, "getuid"):
        return True
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def checksum(key: str, code: bytes) -> bytes:
    """What an entry must hash to: its code together with its key, so that entries cannot trade places."""
    return hashlib.sha256(key.encode() + code).digest()


def warn(message: str) -> None:
    """Report without failing: the kernel is compiled, the call succeeds."""
    warnings.warn(message, CacheWarning, stacklevel=2)
