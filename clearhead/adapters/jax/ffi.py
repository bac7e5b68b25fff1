"""Call Python from a compiled JAX program: a handler for XLA's foreign functions, without copies or a C compiler.

Responsible for reading XLA's call frames (its C interface, xla/ffi/api/c_api.h, version 0.1), for returning errors, and
for letting a program end only after its calls. `host` has the functions; `trampoline` is the entry point.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from ctypes import POINTER, Structure, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_void_p
from typing import Any

import jax
import ml_dtypes
import numpy as np

from clearhead.adapters.jax.mesh import make_alike, varying
from clearhead.adapters.jax.trampoline import DONE, entry_for
from clearhead.arrays import Array
from clearhead.errors import InputError

TARGET = "clearhead"
VERSION = 0, 1  # of the interface that this file implements
METADATA, STRING = 1, 4  # type codes of an extension and of an attribute
INVALID, INTERNAL = 3, 13  # error codes
XLA_DTYPES = {
    1: np.dtype(np.bool_), 2: np.dtype(np.int8), 3: np.dtype(np.int16), 4: np.dtype(np.int32), 5: np.dtype(np.int64),
    6: np.dtype(np.uint8), 7: np.dtype(np.uint16), 8: np.dtype(np.uint32), 9: np.dtype(np.uint64),
    10: np.dtype(np.float16), 11: np.dtype(np.float32), 12: np.dtype(np.float64), 16: np.dtype(ml_dtypes.bfloat16),
}  # fmt: skip
START: list[Any] = [("struct_size", c_size_t), ("extension_start", c_void_p)]


class Extension(Structure):
    """An optional extension of a frame."""

    _fields_ = [("struct_size", c_size_t), ("type", c_int), ("next", c_void_p), ("metadata", c_void_p)]


class Version(Structure):
    """The version of the interface."""

    _fields_ = [*START, ("major", c_int), ("minor", c_int)]


class Metadata(Structure):
    """What XLA queries when a handler is registered."""

    _fields_ = [("struct_size", c_size_t), ("version", Version), ("traits", c_uint32)]


class ErrorArguments(Structure):
    """Arguments of XLA's function that creates an error."""

    _fields_ = [*START, ("message", c_char_p), ("code", c_int)]


class Api(Structure):
    """The XLA functions that are used here."""

    _fields_ = [
        *START,
        ("version", Version),
        ("internal", c_void_p),
        ("error_create", ctypes.CFUNCTYPE(c_void_p, POINTER(ErrorArguments))),
    ]


class Buffer(Structure):
    """An array's memory."""

    _fields_ = [*START, ("dtype", c_int), ("data", c_void_p), ("rank", c_int64), ("dims", POINTER(c_int64))]


class Buffers(Structure):
    """Operands, or results."""

    _fields_ = [*START, ("size", c_int64), ("types", POINTER(c_int)), ("buffers", POINTER(POINTER(Buffer)))]


class ByteRange(Structure):
    """A range of bytes."""

    _fields_ = [("start", c_void_p), ("size", c_size_t)]


class Attributes(Structure):
    """The attributes of a call."""

    _fields_ = [
        *START,
        ("size", c_int64),
        ("types", POINTER(c_int)),
        ("names", POINTER(POINTER(ByteRange))),
        ("values", POINTER(POINTER(ByteRange))),
    ]


class Frame(Structure):
    """One call."""

    _fields_ = [
        *START,
        ("api", POINTER(Api)),
        ("context", c_void_p),
        ("stage", c_int),
        ("operands", Buffers),
        ("results", Buffers),
        ("attributes", Attributes),
    ]


Python = Callable[[dict[str, Any], list[Array], list[Array]], None]
functions: dict[str, Python] = {}


def ffi_function(name: str) -> Callable[[Python], Python]:
    """Register a function of (options, operands, results) for XLA; it writes into the results' memory.

    Exported programs keep the name: it must stay what it is.
    """

    def register(function: Python) -> Python:
        functions[name] = function
        return function

    return register


def call(name: str, results: Sequence[jax.ShapeDtypeStruct], operands: Sequence[Any], **options: Any) -> Any:
    """Call a registered function in a compiled program; under vmap, every operand gets a leading axis."""
    foreign = jax.ffi.ffi_call(TARGET, results, vmap_method="broadcast_all")
    outputs = foreign(*operands, function=name, options=json.dumps(options))
    return make_alike(outputs, varying(operands))


def handle(frame_address: int) -> int:
    """Execute the frame at an address; returns DONE or an error's address. XLA calls it on any of its threads.

    Exceptions from signal handlers, such as KeyboardInterrupt, propagate; `trampoline` raises them in the main thread.
    """
    frame = Frame.from_address(frame_address)
    try:
        if not (frame.extension_start and asked_about(frame)):
            strings = attributes(frame.attributes)
            functions[strings["function"]](
                json.loads(strings["options"]), arrays(frame.operands), arrays(frame.results)
            )
    except Exception as error:
        code = INVALID if isinstance(error, InputError) else INTERNAL
        created: int = frame.api.contents.error_create(failure(f"{type(error).__name__}: {error}", code))
        return created
    return DONE


def failure(message: str, code: int = INTERNAL) -> ErrorArguments:
    """Arguments that create an error with a message."""
    return ErrorArguments(ctypes.sizeof(ErrorArguments), None, message.encode(), code)


def asked_about(frame: Frame) -> bool:
    """Whether XLA only queries metadata, which it may do without its interface; answers the query."""
    extension = Extension.from_address(frame.extension_start)
    if extension.type != METADATA:
        return False
    metadata = Metadata.from_address(extension.metadata)
    metadata.version.major, metadata.version.minor = VERSION
    metadata.traits = 0
    return True


def attributes(frame_attributes: Attributes) -> dict[str, str]:
    """The call's strings by name."""
    return {
        text(frame_attributes.names[n].contents): text(frame_attributes.values[n].contents)
        for n in range(frame_attributes.size)
        if frame_attributes.types[n] == STRING
    }


def text(span: ByteRange) -> str:
    """A string in XLA's memory."""
    return ctypes.string_at(span.start, span.size).decode()


def arrays(buffers: Buffers) -> list[Array]:
    """Buffers as arrays, without copies."""
    return [array(buffers.buffers[n].contents) for n in range(buffers.size)]


def array(buffer: Buffer) -> Array:
    """A buffer's memory as an array."""
    shape, dtype = tuple(buffer.dims[: buffer.rank]), XLA_DTYPES[buffer.dtype]
    size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if not size:
        return np.empty(shape, dtype)
    memory = (ctypes.c_char * size).from_address(buffer.data)
    return np.frombuffer(memory, dtype).reshape(shape)


def finish() -> None:
    """At program exit, wait for running computations, since no thread may enter Python afterwards."""
    for pending in jax.live_arrays():
        with suppress(Exception):  # failed or deleted arrays
            pending.block_until_ready()
    while entry.close():
        time.sleep(0.001)


entry = entry_for(
    handle,
    failure("an exception, for instance from a signal handler, ended the call; the main thread raises it."),
    failure("the program is exiting: call attention earlier."),
    Frame.api.offset,
    Api.error_create.offset,
)
jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(ctypes.c_void_p(entry.address)), platform="cpu")
atexit.register(finish)
if hasattr(os, "register_at_fork"):  # a forked child has none of the threads to wait for
    os.register_at_fork(after_in_child=lambda: atexit.unregister(finish))
