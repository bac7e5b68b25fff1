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


class CacheWarning(UserWarning):
    """The kernel cache could not be used, or an entry in it was not what was written."""


def directory() -> Path:
    """Where compiled kernels are kept: CLEARHEAD_CACHE_DIR or the user's cache directory."""
    named = settings.CACHE_DIR.read()
    if named:
        return Path(named).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("clearhead", appauthor=False)


def load(key: str) -> bytes | None:
    """The code kept under a key, or None; a damaged entry is reported, removed and None."""
    place = usable()
    if place is None:
        return None
    path = place / key
    try:
        with path.open("rb") as file:
            owner_and_mode = os.fstat(file.fileno())
            entry = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        warn(f"the compiled kernel {path} cannot be read ({error.strerror}); it is compiled again.")
        return None
    head, digest, code = entry[: len(MAGIC)], entry[len(MAGIC) : len(MAGIC) + 32], entry[len(MAGIC) + 32 :]
    if head == MAGIC and digest == checksum(key, code) and private(owner_and_mode):
        return code
    warn(f"the compiled kernel {path} is not what clearhead wrote there; it is compiled again.")
    path.unlink(missing_ok=True)
    return None


def save(key: str, code: bytes) -> None:
    """Keep code under a key; where the disk refuses, say so once and go on without."""
    place = usable()
    if place is None:
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
        warn(f"compiled kernels cannot be kept in {place} ({error.strerror}): set CLEARHEAD_CACHE_DIR elsewhere.")


def usable() -> Path | None:
    """The cache directory, made if need be, if it is on and private."""
    return prepared(str(directory())) if settings.CACHE.read() != "0" else None


@functools.cache
def prepared(name: str) -> Path | None:
    """A directory that exists and is ours alone, or None after a warning; asked once a process."""
    place = Path(name)
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
