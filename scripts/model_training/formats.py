"""Two binary formats that the packages keep their texts in, read as far as is needed."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

STRING_VECTOR, NO_STRING = 16, -1


def r_string_vectors(path: Path) -> Iterator[list[str]]:
    """The vectors of strings in R's lazy-load file: records of a length and a zlib stream, each a serialised value."""
    held, at = path.read_bytes(), 0
    while at < len(held):
        stream = zlib.decompressobj()
        value = stream.decompress(held[at + 4 :])
        at = len(held) - len(stream.unused_data)
        strings = _r_strings(value)
        if strings is not None:
            yield strings


def _r_strings(value: bytes) -> list[str] | None:
    """A value in R's XDR serialisation, if it is a vector of strings."""
    (version,) = struct.unpack_from(">I", value, 2)
    at = 14 if version == 2 else 18 + struct.unpack_from(">I", value, 14)[0]  # version 3 names an encoding
    kind, count = struct.unpack_from(">II", value, at)
    if kind & 255 != STRING_VECTOR:
        return None
    at, strings = at + 8, []
    for _ in range(count):
        _, length = struct.unpack_from(">Ii", value, at)
        at += 8
        strings.append(value[at : at + max(length, 0)].decode("utf-8"))
        at += max(length, 0)
    return strings


def sword_books(folder: Path, testament: str) -> list[str]:
    """The blocks of a SWORD module, a book or a part of one each, as OSIS markup."""
    index, blocks = ((folder / f"{testament}.{kind}").read_bytes() for kind in ("bzs", "bzz"))
    return [
        zlib.decompress(blocks[at : at + size]).decode("utf-8") for at, size, _ in struct.iter_unpack("<III", index)
    ]
