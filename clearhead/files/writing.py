"""Write arrays to a file that appears complete or not at all.

Responsible for the layout of .npy, .npz and .safetensors files. Arrays too large for memory can be filled through a
memory map, in any order. Not responsible for their content.
"""

import io
import json
import math
import os
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import Any, BinaryIO
from zipfile import ZipFile, ZipInfo

import numpy as np

from clearhead.arrays import Array
from clearhead.errors import ClearheadError, FileError
from clearhead.files.reading import DTYPES, known_suffix
from clearhead.machine.appearing import appearing

ALIGNMENT = 64  # of each array in its file: a cache line
PADDING_FIELD = 0xD935  # zip extra field that pads the data to an aligned offset
WHOLE = {"I64": "<i8", "U8": "|u1"}  # further dtypes of .safetensors files
CHUNK_BYTES = 1 << 24  # bytes to process at a time in a pass over a file


@dataclass(frozen=True)
class Spec:
    """Shape and dtype of an array to be written."""

    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Layout:
    """The layout of a new file: headers by offset, the offset of each array, and the size."""

    records: Mapping[int, bytes]
    offsets: Mapping[str, int]
    size: int


@contextmanager
def new_file(
    path: str | os.PathLike[str], specs: Mapping[str, Spec], *, force: bool = False
) -> Iterator[dict[str, Array]]:
    """Fill a new .npy, .npz or .safetensors file through memory maps; it appears when the block ends without an error.

    Until then the arrays are in a hidden file whose full space is reserved first. An error, an interrupt, a full disk
    or a killed process leaves no new file and does not change an existing one, which only `force` replaces. Raises
    FileError if the file cannot be written. Keep no reference to the arrays after the block.

    >>> path = getfixture("tmp_path") / "y.npy"
    >>> with new_file(path, {"output": Spec((2,), np.dtype("float32"))}) as arrays:
    ...     arrays["output"][:] = [1, 2]
    >>> np.load(path)
    array([1., 2.], dtype=float32)
    """
    path = destination(path, force)
    layout = layout_of(path, specs)
    with ExitStack() as stack:
        with writing_to(path):
            file = stack.enter_context(appearing(path))
            reserve(file, layout.size)
            buffer = mapped(file, layout)
        arrays = arrays_in(buffer, layout, specs)
        yield arrays
        arrays.clear()
        with writing_to(path):
            complete(path, file, buffer, specs)
            destination(path, force)
            stack.close()


def write_whole(path: str | os.PathLike[str], content: bytes, *, force: bool = False) -> None:
    """Write bytes to a file atomically: it appears complete, or an existing one does not change.

    Raises FileError if the file cannot be written, or exists and `force` is not set.

    >>> path = getfixture("tmp_path") / "a.txt"
    >>> write_whole(path, b"all of it")
    >>> path.read_bytes()
    b'all of it'
    """
    path = destination(path, force)
    with writing_to(path), appearing(path) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def destination(path: str | os.PathLike[str], force: bool) -> Path:
    """Resolve a path, and check that a file may be written there."""
    path = Path(path)
    with writing_to(path):
        target = Path(os.path.realpath(path))
        try:
            mode = os.lstat(target).st_mode
        except FileNotFoundError:
            return target
    if S_ISDIR(mode):
        raise FileError(f"{path} is a directory: name a file in it.")
    if S_ISLNK(mode):
        raise FileError(f"{path} is a circle of links: name another file.")
    if not S_ISREG(mode):
        raise FileError(f"{path} is not a regular file, so it cannot be replaced: name another file.")
    if not force:
        raise FileError(f"{path} exists already: choose another name, or replace it with force=True.")
    return target


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    try:
        yield
    except ClearheadError:
        raise
    except (OSError, ValueError) as e:  # an invalid file name is a ValueError
        reason = getattr(e, "strerror", None) or e
        raise FileError(f"{path} cannot be written ({reason}): check its directory and free space.") from e


def reserve(file: BinaryIO, size: int) -> None:
    """Reserve all space now: a disk that fills up under a memory map would kill the process."""
    if sys.platform == "linux":
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        for start in range(0, size, CHUNK_BYTES):
            file.write(bytes(min(CHUNK_BYTES, size - start)))
        file.flush()


def mapped(file: BinaryIO, layout: Layout) -> mmap:
    """Map a file that has all its space, and write what does not depend on the data."""
    buffer = mmap(file.fileno(), layout.size)
    for start, record in layout.records.items():
        buffer[start : start + len(record)] = record
    return buffer


def arrays_in(buffer: mmap, layout: Layout, specs: Mapping[str, Spec]) -> dict[str, Array]:
    """The arrays of a new file, mapped."""
    return {name: np.ndarray(spec.shape, spec.dtype, buffer, layout.offsets[name]) for name, spec in specs.items()}


def complete(path: Path, file: BinaryIO, buffer: mmap, specs: Mapping[str, Spec]) -> None:
    """Add what follows from the data, and wait until all of it is on the disk."""
    buffer.flush()
    with suppress(BufferError):  # the caller kept an array
        buffer.close()
    if known_suffix(path) == ".npz":
        seal_npz(file, specs)
    file.flush()
    os.fsync(file.fileno())


def layout_of(path: Path, specs: Mapping[str, Spec]) -> Layout:
    """How a file of this name lays out its arrays."""
    return {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors}[known_suffix(path)](path, specs)


def _npy(path: Path, specs: Mapping[str, Spec]) -> Layout:
    if len(specs) > 1:
        raise FileError(f"{path} can hold one array, not {', '.join(specs)}: name a .npz or .safetensors file instead.")
    ((name, spec),) = specs.items()
    header = _npy_header(spec)
    return Layout({0: header}, {name: len(header)}, len(header) + spec.nbytes)


def _npz(path: Path, specs: Mapping[str, Spec]) -> Layout:
    records, offsets, size = {}, {}, 0
    for (name, spec), info in zip(specs.items(), _zip_infos(specs), strict=True):
        record = info.FileHeader() + _npy_header(spec)
        records[info.header_offset] = record
        offsets[name] = info.header_offset + len(record)
        size = offsets[name] + spec.nbytes
    return Layout(records, offsets, size)


def _safetensors(path: Path, specs: Mapping[str, Spec]) -> Layout:
    names = {np.dtype(text): name for name, text in (DTYPES | WHOLE).items()}
    entries, offsets, end = {}, {}, 0
    for name, spec in specs.items():
        offsets[name], end = end, end + spec.nbytes
        extent = [offsets[name], end]
        entries[name] = {"dtype": names[spec.dtype], "shape": spec.shape, "data_offsets": extent}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-(8 + len(header)) % ALIGNMENT)
    start = 8 + len(header)
    offsets = {name: start + offset for name, offset in offsets.items()}
    return Layout({0: struct.pack("<Q", len(header)) + header}, offsets, start + end)


def _npy_header(spec: Spec) -> bytes:
    head = io.BytesIO()
    entries = {"shape": spec.shape, "fortran_order": False, "descr": spec.dtype.str}
    np.lib.format.write_array_header_1_0(head, entries)
    return head.getvalue()


def _zip_infos(specs: Mapping[str, Spec]) -> Iterator[ZipInfo]:
    """The members of the archive in order, each with its data at an aligned offset."""
    start = 0
    for name, spec in specs.items():
        info = ZipInfo(f"{name}.npy")
        info.header_offset, info.CRC = start, 0
        info.external_attr = 0o644 << 16
        info.file_size = info.compress_size = len(_npy_header(spec)) + spec.nbytes
        padding = -(start + len(info.FileHeader()) + 4) % ALIGNMENT
        info.extra = struct.pack("<HH", PADDING_FIELD, padding) + bytes(padding)
        start += len(info.FileHeader()) + info.file_size
        yield info


def seal_npz(file: BinaryIO, specs: Mapping[str, Spec]) -> None:
    """Fill in the checksums, now that the data is complete, and append the archive's directory."""
    infos = list(_zip_infos(specs))
    for info in infos:
        file.seek(info.header_offset + len(info.FileHeader()))
        for done in range(0, info.file_size, CHUNK_BYTES):
            info.CRC = zlib.crc32(file.read(min(CHUNK_BYTES, info.file_size - done)), info.CRC)
        file.seek(info.header_offset)
        file.write(info.FileHeader())
    file.seek(0, os.SEEK_END)
    with ZipFile(file, "w") as archive:
        archive.infolist().extend(infos)
