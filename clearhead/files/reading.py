"""Open arrays in files without loading them.

Responsible for opening .npy, .npz and .safetensors files and for refusing invalid ones, not for the meaning of arrays.
numpy, zipfile and safetensors parse the headers. Nothing is ever unpickled.
"""

import io
import json
import math
import os
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EINVAL
from functools import partial
from mmap import ACCESS_READ, mmap
from pathlib import Path
from stat import S_ISREG
from typing import Any, BinaryIO, Literal
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np

from clearhead.arrays import Array
from clearhead.errors import ClearheadError, DtypeError, FileError, reason
from clearhead.machine.sharing import open_shared

SUFFIXES = (".npy", ".npz", ".safetensors")
DTYPES = {"F32": "<f4", "F64": "<f8"}  # names in .safetensors and in numpy
HEADER = 1 << 14  # maximum length of a .npy header that numpy accepts
INFLATED_BYTES = 1 << 20  # bytes to inflate at a time
RATIO = {ZIP_STORED: 1, ZIP_DEFLATED: 1032}  # maximum ratio of inflated to compressed size
STREAM = "free some, or save uncompressed with numpy.savez, which is read in pieces"
ENCRYPTED = 0x1  # bit of a zip member's flags


@dataclass(frozen=True)
class ArrayFile:
    """A file's arrays by name, read-only; each is mapped or decompressed on access."""

    path: Path
    members: Mapping[str, Callable[[], Array]]
    compressed: frozenset[str] = frozenset()

    def __getitem__(self, name: str) -> Array:
        with reading_from(self.path):
            return self.members[name]()


def open_arrays(path: str | os.PathLike[str]) -> ArrayFile:
    """Open a .npy (its array is called "x"), .npz or .safetensors file without loading it.

    Arrays are float32 or float64, little-endian, in either memory order. They are views of the mapped file, which must
    not shrink while they are in use; only compressed .npz members are copied into memory. Raises FileError for a file
    that is missing, truncated or of another format, DtypeError for other dtypes.

    >>> path = getfixture("tmp_path") / "x.npy"
    >>> np.save(path, np.eye(2))
    >>> open_arrays(path)["x"]
    array([[1., 0.],
           [0., 1.]])
    """
    path = Path(path)
    read = {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors}[known_suffix(path)]
    with reading_from(path):
        with regular(path) as file:
            if not os.fstat(file.fileno()).st_size:
                raise EOFError("it is empty")
            buffer = mmap(file.fileno(), 0, access=ACCESS_READ)
        return read(path, buffer)


def tensors(path: str | os.PathLike[str], what: str, step: str) -> tuple[dict[str, str], dict[str, Array]]:
    """Load the metadata and all arrays of a .safetensors file, of any dtype that numpy has.

    Raises FileError, which says that the file is not a `what`, and gives `step` as the next step.
    """
    from safetensors import safe_open

    path = Path(path)
    with reading_from(path, what, step):
        with regular(path) as file:
            check_room(path, os.fstat(file.fileno()).st_size)
        with safe_open(path, "numpy") as opened:
            return opened.metadata() or {}, {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; raises OSError for any other."""
    descriptor = open_shared(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    file = os.fdopen(descriptor, "rb")  # raises for directories
    if not S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise OSError(EINVAL, "it is not a regular file")
    return file


def check_room(path: Path, size: int) -> None:
    """Refuse to load more than the free memory, where the system reports it, instead of being killed."""
    with suppress(OSError, StopIteration, ValueError):
        with open("/proc/meminfo", encoding="ascii") as lines:
            free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
        if size > free:
            raise FileError(f"{path} needs {size:,} bytes of memory, but {free:,} are free: {STREAM}.")


def release(*arrays: Array) -> None:
    """Let the system reclaim the memory of mapped arrays; their content stays in the files."""
    if sys.platform == "linux":
        from mmap import MADV_DONTNEED

        buffers: set[Any] = {a.base for a in arrays if isinstance(a.base, mmap)}
        for buffer in buffers:
            buffer.madvise(MADV_DONTNEED)


def known_suffix(path: Path) -> str:
    """The suffix that names the file's format, in lower case."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise FileError(f"{path} has no suffix that names a format of arrays: use .npy, .npz or .safetensors.")
    return suffix


@contextmanager
def reading_from(path: Path, what: str = "", step: str = "save or copy it again") -> Iterator[None]:
    try:
        yield
    except ClearheadError:
        raise
    except OSError as e:
        raise FileError(
            f"{path} cannot be read ({e.strerror or reason(e)}): check the path and its permissions."
        ) from e
    except Exception as e:  # parsers of arbitrary bytes raise any error
        raise FileError(f"{path} is not a {what or f'complete {path.suffix} file'} ({reason(e)}): {step}.") from e


def _npy(path: Path, buffer: mmap) -> ArrayFile:
    return ArrayFile(path, {"x": partial(_npy_array, path, "x", buffer, 0, len(buffer))})


def _npz(path: Path, buffer: mmap) -> ArrayFile:
    with ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if info.filename.endswith(".npy")]
    members: dict[str, Callable[[], Array]] = {}
    compressed = set()
    for info in infos:
        name = info.filename.removesuffix(".npy")
        if info.compress_type == ZIP_STORED and not info.flag_bits & ENCRYPTED:
            members[name] = partial(_stored, path, name, buffer, info)
            compressed.discard(name)  # of two members with one name, the later counts
        else:
            members[name] = partial(_decompressed, path, name, info)
            compressed.add(name)
    return ArrayFile(path, members, frozenset(compressed))


def _safetensors(path: Path, buffer: mmap) -> ArrayFile:
    from safetensors import safe_open

    with safe_open(path, framework="np"):
        pass  # opening checks the header, and that the arrays cover the file exactly
    (length,) = struct.unpack_from("<Q", buffer)
    start = 8 + length
    entries = json.loads(buffer[8:start])
    entries.pop("__metadata__", None)
    members = {name: partial(_safetensors_array, path, name, buffer, start, e) for name, e in entries.items()}
    return ArrayFile(path, members)


def _stored(path: Path, name: str, buffer: mmap, info: ZipInfo) -> Array:
    mark, name_length, extra_length = struct.unpack_from("<4s22xHH", buffer, info.header_offset)
    if mark != b"PK\x03\x04":
        raise ValueError(f"no member begins at byte {info.header_offset}")
    start = info.header_offset + 30 + name_length + extra_length
    return _npy_array(path, name, buffer, start, min(start + info.file_size, len(buffer)))


def _decompressed(path: Path, name: str, info: ZipInfo) -> Array:
    """Decompress a member, after checking its size."""
    if info.compress_type not in RATIO:
        raise ValueError(f"{name} is compressed in a way that numpy.savez_compressed never uses")
    if info.file_size > RATIO[info.compress_type] * info.compress_size:
        raise ValueError(f"{name} claims to hold {info.file_size} bytes in {info.compress_size}")
    with ZipFile(path) as archive, archive.open(info) as member:
        head = member.read(HEADER)
        shape, order, dtype, start = _header(path, name, head)
        size = math.prod(shape) * dtype.itemsize
        if start + size > info.file_size:
            raise EOFError(f"{name} {shape} needs {size} bytes and has {info.file_size - start}")
        check_room(path, size)
        try:
            content = np.empty(size, np.uint8)
        except MemoryError:
            raise FileError(f"{path} needs {size:,} bytes of memory for {name}: {STREAM}.") from None
        filled = min(len(head) - start, size)
        content[:filled] = np.frombuffer(head, np.uint8, filled, start)
        while filled < size:
            piece = member.read(min(INFLATED_BYTES, size - filled))
            if not piece:
                raise EOFError(f"{name} {shape} needs {size} bytes and has {filled}")
            content[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
            filled += len(piece)
        if member.read(1):
            raise ValueError(f"{name} {shape} goes on after its {size} bytes")
    content.flags.writeable = False
    return np.ndarray(shape, dtype, content, order=order)


def _npy_array(path: Path, name: str, buffer: mmap, start: int, end: int) -> Array:
    shape, order, dtype, length = _header(path, name, buffer[start : min(end, start + HEADER)])
    start += length
    size = math.prod(shape) * dtype.itemsize
    if start + size > end:
        raise EOFError(f"{name} {shape} needs {size} bytes and has {max(end - start, 0)}")
    return np.ndarray(shape, dtype, buffer, start, order=order)


def _header(path: Path, name: str, content: bytes) -> tuple[tuple[int, ...], Literal["C", "F"], "np.dtype[Any]", int]:
    """Parse a .npy header: shape, order, dtype, and its length."""
    head = io.BytesIO(content)
    version = np.lib.format.read_magic(head)
    parse = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = parse(head)
    _check_dtype(path, name, dtype)
    return shape, "F" if fortran else "C", dtype, head.tell()


def _safetensors_array(path: Path, name: str, buffer: mmap, start: int, entry: dict[str, Any]) -> Array:
    if entry["dtype"] not in DTYPES:
        raise DtypeError(f"{name} in {path} is of dtype {entry['dtype']}: convert it to float32 or float64 first.")
    return np.ndarray(entry["shape"], DTYPES[entry["dtype"]], buffer, start + entry["data_offsets"][0])


def _check_dtype(path: Path, name: str, dtype: "np.dtype[Any]") -> None:
    little = dtype.newbyteorder("<").str
    if dtype.str in DTYPES.values():
        return
    if dtype.hasobject:
        step = "pickled objects are never loaded, so save numbers as float32 or float64"
    elif little in DTYPES.values():
        step = f"it is big-endian, so save {name}.astype({little!r})"
    elif dtype.kind == "c":
        step = "attention is not defined for complex numbers, so save real ones as float32 or float64"
    else:
        step = "convert it to float32 or float64 first"
    raise DtypeError(f"{name} in {path} is of dtype {dtype}: {step}.")
