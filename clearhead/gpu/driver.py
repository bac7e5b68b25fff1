"""NVIDIA's driver by ctypes: cards, their memory, kernels from PTX and launches. No toolkit and no compiler is needed.

Works beside torch and others: a card's primary context is the one that they use, and a call leaves the current context
as it was. Addresses and streams are plain numbers.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_void_p
from typing import Any

import numpy as np

from clearhead.arrays import Array
from clearhead.errors import MachineError

CAPABILITY_MAJOR, CAPABILITY_MINOR, PROCESSORS = 75, 76, 16  # numbers of cuda.h
SHARED_OF_GROUP, SHARED_OF_PROCESSOR = 97, 81
FUNCTION_SHARED, FUNCTION_REGISTERS, FUNCTION_LOCAL = 8, 4, 3
ORDINAL_OF_POINTER = 9
ERROR_LOG, ERROR_LOG_SIZE = 5, 6
WITHOUT_TIMES = 2  # of an event
LEGACY_STREAM = 1  # what stream 0 is
MOST_SAID = 8192  # bytes of the compiler's message
USE_THE_CPU = "move the tensors to the CPU, which gives the same bits"
FORKED = 3  # status of every call in a child of a process that has used the driver
CAPTURE = range(900, 909)  # statuses of calls that would break a CUDA graph that is being recorded
BEFORE_CAPTURE = "call once with this dim and these rules before the CUDA graph is captured"
NO_SELF_TEST = f"which allows no self-test: {BEFORE_CAPTURE}"


def library() -> Any:
    """The driver's library."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise MachineError(
            f"no NVIDIA driver is installed here: {name} cannot be loaded ({error}). Install one (525 or newer), or "
            f"{USE_THE_CPU}."
        ) from None


class Driver:
    """The library, initialised."""

    def __init__(self) -> None:
        self.library = library()
        self.cards: dict[int, Card] = {}
        self.lock = threading.RLock()
        self.call("cuInit", c_uint(0))

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the library; raises MachineError with the driver's words if it refuses."""
        status = getattr(self.library, name)(*arguments)
        if status:
            text = c_char_p()
            unknown = self.library.cuGetErrorString(c_int(status), byref(text)) or not text.value
            words = "unknown error" if unknown else (text.value or b"").decode()
            raise MachineError(
                f"NVIDIA's driver refuses {name} with error {status}: {words}. {next_step(status)}, or {USE_THE_CPU}."
            )

    def number(self, name: str, *arguments: Any) -> int:
        """The number that a function gives."""
        value = c_int()
        self.call(name, byref(value), *arguments)
        return value.value

    @property
    def version(self) -> str:
        """The CUDA version that the driver supports."""
        version = self.number("cuDriverGetVersion")
        return f"{version // 1000}.{version % 1000 // 10}"

    def count(self) -> int:
        """How many cards there are."""
        return self.number("cuDeviceGetCount")

    def card(self, index: int) -> Card:
        """A card by its number."""
        if index not in self.cards:
            with self.lock:
                if index not in self.cards:  # opened by another thread meanwhile
                    self.cards[index] = self.opened(index)
        return self.cards[index]

    def opened(self, index: int) -> Card:
        """A card, from now on in use."""
        if not 0 <= index < self.count():
            raise MachineError(
                f"card {index} is not there, the driver sees {self.count()}: choose another, or {USE_THE_CPU}."
            )
        return Card(self, index)

    def card_of(self, address: int) -> Card:
        """The card in whose memory an address is."""
        return self.card(self.number("cuPointerGetAttribute", c_int(ORDINAL_OF_POINTER), c_void_p(address)))


def next_step(status: int) -> str:
    """What to do about the driver's refusal."""
    if status == FORKED:
        return "If this process was forked from one that had used the card, start it by multiprocessing's 'spawn'"
    if status in CAPTURE:
        return f"Within a CUDA graph, {BEFORE_CAPTURE}"
    return "Try again"


class Opened:
    """This process's driver, opened once."""

    def __init__(self) -> None:
        self.driver: Driver | None = None
        self.lock = threading.RLock()

    def forget(self) -> None:
        """Begin anew, as a forked child must: neither the parent's locks nor its cards are its own."""
        self.__init__()  # type: ignore[misc]


opened = Opened()


def driver() -> Driver:
    """The driver of this machine; raises MachineError without one."""
    if opened.driver is None:
        with opened.lock:
            if opened.driver is None:  # opened by another thread meanwhile
                opened.driver = Driver()
    return opened.driver


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=opened.forget)


class Card:
    """One GPU, with its primary context."""

    def __init__(self, driver: Driver, index: int) -> None:
        self.driver, self.index = driver, index
        self.kernels: dict[Any, Kernel | str] = {}  # by kind, dim and rules, confirmed, or why they are refused
        self.locks: dict[Any, threading.RLock] = {}
        self.handle, self.context = c_int(), c_void_p()
        driver.call("cuDeviceGet", byref(self.handle), c_int(index))
        driver.call("cuDevicePrimaryCtxRetain", byref(self.context), self.handle)
        text = ctypes.create_string_buffer(100)
        driver.call("cuDeviceGetName", text, c_int(len(text)), self.handle)
        self.name = text.value.decode(errors="replace")
        self.capability = self.attribute(CAPABILITY_MAJOR), self.attribute(CAPABILITY_MINOR)
        self.group_bytes, self.processor_bytes = self.attribute(SHARED_OF_GROUP), self.attribute(SHARED_OF_PROCESSOR)

    def __str__(self) -> str:
        major, minor = self.capability
        return f"{self.name}, compute capability {major}.{minor}, driver for CUDA {self.driver.version}"

    def attribute(self, which: int) -> int:
        """One of the card's numbers."""
        return self.driver.number("cuDeviceGetAttribute", c_int(which), self.handle)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the card's context this thread's own for a while."""
        self.driver.call("cuCtxPushCurrent_v2", self.context)
        try:
            yield
        finally:
            self.driver.call("cuCtxPopCurrent_v2", byref(c_void_p()))

    def wait(self, stream: int, others: set[int]) -> None:
        """Let a stream wait for what others have to do until now."""
        own = stream or LEGACY_STREAM
        for other in sorted(others - {own}):
            event = c_void_p()
            with self.current():
                self.driver.call("cuEventCreate", byref(event), c_uint(WITHOUT_TIMES))
                try:
                    self.driver.call("cuEventRecord", event, c_void_p(other))
                    self.driver.call("cuStreamWaitEvent", c_void_p(own), event, c_uint(0))
                finally:
                    self.driver.call("cuEventDestroy_v2", event)

    def finish(self, stream: int) -> None:
        """Wait until a stream has done all."""
        with self.current():
            self.driver.call("cuStreamSynchronize", c_void_p(stream))

    def check_capture(self, stream: int, why: str = NO_SELF_TEST) -> None:
        """Raise MachineError if a stream's launches are being recorded for a CUDA graph, which forbids something."""
        recording = c_int()
        with self.current():
            self.driver.call("cuStreamIsCapturing", c_void_p(stream), byref(recording))
        if recording.value:
            raise MachineError(f"a CUDA graph is being captured, {why}.")


class Kernel:
    """A function of a PTX text, compiled by the driver for a card; `arguments` are the C types of its parameters."""

    def __init__(self, card: Card, ptx: bytes, name: str, shared_bytes: int, arguments: Sequence[Any]) -> None:
        self.card, self.name, self.shared_bytes, self.arguments = card, name, shared_bytes, arguments
        self.module, self.function = c_void_p(), c_void_p()
        log = ctypes.create_string_buffer(MOST_SAID)
        options = (c_int * 2)(ERROR_LOG, ERROR_LOG_SIZE)
        values = (c_void_p * 2)(ctypes.addressof(log), len(log))
        call = card.driver.call
        with card.current():
            try:
                call("cuModuleLoadDataEx", byref(self.module), c_char_p(ptx), c_uint(2), options, values)
            except MachineError as error:
                said = log.value.decode(errors="replace").strip() or "nothing more"
                raise MachineError(f"{error} Its compiler says: {said}.") from None
            try:
                call("cuModuleGetFunction", byref(self.function), self.module, c_char_p(name.encode()))
                call("cuFuncSetAttribute", self.function, c_int(FUNCTION_SHARED), c_int(shared_bytes))
            except MachineError:
                self.unload()
                raise

    def unload(self) -> None:
        """Give its memory on the card back."""
        with suppress(MachineError), self.card.current():  # a card that has failed refuses this, too
            self.card.driver.call("cuModuleUnload", self.module)

    def attribute(self, which: int) -> int:
        """One of the function's numbers."""
        return self.card.driver.number("cuFuncGetAttribute", c_int(which), self.function)

    def groups_together(self, threads: int) -> int:
        """How many groups run on a multiprocessor at a time."""
        with self.card.current():
            return self.card.driver.number(
                "cuOccupancyMaxActiveBlocksPerMultiprocessor",
                self.function,
                c_int(threads),
                c_size_t(self.shared_bytes),
            )

    def launch(self, groups: int, threads: int, values: Sequence[Any], stream: int) -> None:
        """Run in a stream, without waiting; the values are for `arguments`, the C types of its parameters."""
        numbers = [kind(value) for kind, value in zip(self.arguments, values, strict=True)]
        places = (c_void_p * len(numbers))(*map(ctypes.addressof, numbers))
        sizes = [c_uint(n) for n in (groups, 1, 1, threads, 1, 1, self.shared_bytes)]
        with self.card.current():
            self.card.driver.call("cuLaunchKernel", self.function, *sizes, c_void_p(stream), places, c_void_p())


class Memory:
    """Memory on a card, freed with this object."""

    def __init__(self, card: Card, size: int) -> None:
        self.card, self.size, self.address = card, size, c_void_p()
        with card.current():
            card.driver.call("cuMemAlloc_v2", byref(self.address), c_size_t(max(size, 1)))

    @classmethod
    def of(cls, card: Card, array: Array) -> Memory:
        """A copy of an array."""
        source = np.ascontiguousarray(array)
        memory = cls(card, source.nbytes)
        if source.nbytes:
            with card.current():
                size = c_size_t(source.nbytes)
                card.driver.call("cuMemcpyHtoD_v2", memory.address, c_void_p(source.ctypes.data), size)
        return memory

    def read(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """What is in it, when all that was launched before in the default stream is done."""
        array = np.empty(shape, dtype)
        size = c_size_t(array.nbytes)
        if array.nbytes:
            with self.card.current():
                self.card.driver.call("cuMemcpyDtoH_v2", c_void_p(array.ctypes.data), self.address, size)
        return array

    def __del__(self) -> None:
        if self.address.value:
            with suppress(MachineError), self.card.current():
                self.card.driver.call("cuMemFree_v2", self.address)
