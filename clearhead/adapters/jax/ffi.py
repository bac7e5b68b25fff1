"""How a compiled JAX program calls Python: a handler of XLA's foreign functions, in place and without a compiler.

Decides how XLA's call frames are read (its C interface, xla/ffi/api/c_api.h, version 0.1), how errors go back, and that
a program ends only when its calls have. What is called, and with which arrays, is `host`'s; the way in is
`trampoline`'s.
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

from clearhead.adapters.jax.mesh import alike, varying
from clearhead.adapters.jax.trampoline import DONE, entry_for
from clearhead.arrays import Array
from clearhead.errors import InputError

TARGET = "clearhead"
VERSION = 0, 1  # of the interface, as it is written down here
METADATA, STRING = 1, 4  # types of an extension and of an attribute
INVALID, INTERNAL = 3, 13  # errors' codes
DTYPES = {
    1: np.dtype(np.bool_), 2: np.dtype(np.int8), 3: np.dtype(np.int16), 4: np.dtype(np.int32), 5: np.dtype(np.int64),
    6: np.dtype(np.uint8), 7: np.dtype(np.uint16), 8: np.dtype(np.uint32), 9: np.dtype(np.uint64),
    10: np.dtype(np.float16), 11: np.dtype(np.float32), 12: np.dtype(np.float64), 16: np.dtype(ml_dtypes.bfloat16),
}  # fmt: skip
START: list[Any] = [("struct_size", c_size_t), ("extension_start", c_void_p)]


class Extension(Structure):
    """What a frame may carry beside."""

    _fields_ = [("struct_size", c_size_t), ("type", c_int), ("next", c_void_p), ("metadata", c_void_p)]


class Version(Structure):
    """Of the interface."""

    _fields_ = [*START, ("major", c_int), ("minor", c_int)]


class Metadata(Structure):
    """What XLA asks when a handler is registered."""

    _fields_ = [("struct_size", c_size_t), ("version", Version), ("traits", c_uint32)]


class ErrorArguments(Structure):
    """What an error is made of."""

    _fields_ = [*START, ("message", c_char_p), ("code", c_int)]


class Api(Structure):
    """XLA's functions, as far as they are used."""

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


class Span(Structure):
    """Some bytes."""

    _fields_ = [("start", c_void_p), ("size", c_size_t)]


class Attributes(Structure):
    """What of a call is no array."""

    _fields_ = [
        *START,
        ("size", c_int64),
        ("types", POINTER(c_int)),
        ("names", POINTER(POINTER(Span))),
        ("values", POINTER(POINTER(Span))),
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


def called(function: Python) -> Python:
    """Let XLA call a function of (options, operands, results) by its name; it writes into the results' memory."""
    functions[function.__name__] = function
    return function


def call(function: Python, results: Sequence[jax.ShapeDtypeStruct], operands: Sequence[Any], **options: Any) -> Any:
    """The results of a function, in a compiled program; under vmap every operand has the new axis in front."""
    leave = jax.ffi.ffi_call(TARGET, results, vmap_method="broadcast_all")
    found = leave(*operands, function=function.__name__, options=json.dumps(options))
    return alike(found, varying(operands))


def handle(place: int) -> int:
    """DONE, or an error's address, for the frame at an address; called by XLA on any of its threads.

    What is no error but a signal's doing, such as KeyboardInterrupt, leaves it, for `trampoline` to bring to its
    thread.
    """
    frame = Frame.from_address(place)
    try:
        if not (frame.extension_start and asked_about(frame)):
            given = attributes(frame.attributes)
            functions[given["function"]](json.loads(given["options"]), arrays(frame.operands), arrays(frame.results))
    except Exception as error:
        code = INVALID if isinstance(error, InputError) else INTERNAL
        made: int = frame.api.contents.error_create(failure(f"{type(error).__name__}: {error}", code))
        return made
    return DONE


def failure(message: str, code: int = INTERNAL) -> ErrorArguments:
    """What an error is made of."""
    return ErrorArguments(ctypes.sizeof(ErrorArguments), None, message.encode(), code)


def asked_about(frame: Frame) -> bool:
    """Whether XLA asks what the handler is, not for a result; it may do so without its interface."""
    extension = Extension.from_address(frame.extension_start)
    if extension.type != METADATA:
        return False
    metadata = Metadata.from_address(extension.metadata)
    metadata.version.major, metadata.version.minor = VERSION
    metadata.traits = 0
    return True


def attributes(found: Attributes) -> dict[str, str]:
    """The call's strings by name."""
    return {
        text(found.names[n].contents): text(found.values[n].contents)
        for n in range(found.size)
        if found.types[n] == STRING
    }


def text(span: Span) -> str:
    """A string in XLA's memory."""
    return ctypes.string_at(span.start, span.size).decode()


def arrays(found: Buffers) -> list[Array]:
    """Buffers as arrays, in place."""
    return [array(found.buffers[n].contents) for n in range(found.size)]


def array(buffer: Buffer) -> Array:
    """A buffer's memory as an array."""
    shape, dtype = tuple(buffer.dims[: buffer.rank]), DTYPES[buffer.dtype]
    size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if not size:
        return np.empty(shape, dtype)
    memory = (ctypes.c_char * size).from_address(buffer.data)
    return np.frombuffer(memory, dtype).reshape(shape)


def finish() -> None:
    """Wait for what is still computed when the program ends: then no thread may enter Python any more."""
    for pending in jax.live_arrays():
        with suppress(Exception):  # what failed, or was deleted, is not waited for
            pending.block_until_ready()
    while entry.close():
        time.sleep(0.001)


entry = entry_for(
    handle,
    failure("an exception, as of a signal's handler, left the call; the main thread raises it."),
    failure("the program is ending: call attention before it does."),
    Frame.api.offset,
    Api.error_create.offset,
)
jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(ctypes.c_void_p(entry.address)), platform="cpu")
atexit.register(finish)
if hasattr(os, "register_at_fork"):  # a forked child has none of the threads that it would wait for
    os.register_at_fork(after_in_child=lambda: atexit.unregister(finish))
