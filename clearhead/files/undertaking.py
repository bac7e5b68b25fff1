"""What makes two runs the same one: input, options and code, in the user's words.

Responsible for what is compared and for the error that names the first difference. A file is known by its size, its
time and a sample of its content: the beginning, the end, and pieces between them.
"""

import hashlib
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex

from clearhead.errors import FileError
from clearhead.machine.fingerprint import fingerprint

Undertaking = Mapping[str, str]
EDGE, PIECE, PIECES = 1 << 20, 1 << 12, 256  # bytes at both ends, bytes of a piece, and pieces between

SIZE, TIME, CONTENT, CODE = "the input's bytes", "the input's time", "the input's content", "the code"
RULES = "what the rules compute"
CURES = {
    SIZE: "give the file that it began with",
    TIME: "give the file that it began with (if this is a copy, touch -d {before} sets its time)",
    CONTENT: "give the file that it began with",
    RULES: "give --rule the file as it was",
    CODE: "use the clearhead, Python and numpy that it began with",
}


def of_input(path: Path) -> dict[str, str]:
    """Size, time and sampled content of a file."""
    with open(path, "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        size, digest = status.st_size, hashlib.sha256()
        starts = [0, *(n * size // PIECES for n in range(1, PIECES)), max(0, size - EDGE)]
        for n, start in enumerate(starts):
            file.seek(start)
            digest.update(file.read(PIECE if 0 < n < PIECES else EDGE))
    return {SIZE: f"{size:,}", TIME: time_of(status), CONTENT: digest.hexdigest()[:32]}


def of_code() -> dict[str, str]:
    """The sources and tools that decide bits; a value of its own where the sources have changed since the import."""
    sources, _, tools = (fingerprint() or f"{token_hex(8)} changed while it ran").partition(" ")
    return {CODE: f"{sources[:16]} {tools}"}


def time_of(status: os.stat_result) -> str:
    """When a file was last written, to the nanosecond, as `touch -d` takes it."""
    seconds, rest = divmod(status.st_mtime_ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09}Z"


def check_same(what: str, begun: Undertaking, asked: Undertaking, otherwise: str) -> None:
    """Raise FileError for the first difference, and say how to go on, or what to do `otherwise`."""
    differs = difference(begun, asked)
    if differs is not None:
        name, before, now = differs
        cure = CURES.get(name, f"give {name} as it was").format(before=before)
        raise FileError(f"{what} is another one: {name} was {before} and is {now}: {cure}, or {otherwise}.")


def difference(a: Undertaking, b: Undertaking, but: tuple[str, ...] = ()) -> tuple[str, str, str] | None:
    """The name and both values of the first difference."""
    for name in dict.fromkeys((*a, *b)):
        values = a.get(name, "not given"), b.get(name, "not given")
        if values[0] != values[1] and name not in but:
            return name, *values
    return None
