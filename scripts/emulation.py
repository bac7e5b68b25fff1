"""Another system in place of this machine's: kernels are cross-compiled and run by an emulator on the same call.

Inside `with emulated(AARCH64_LINUX):` the library works as ever, but each kernel is compiled for AArch64, linked with
scripts/emulation_harness.c, and run under qemu; with WINDOWS_X64 it is compiled for Windows and run under Wine. All
memory that a call can reach is copied into the emulator, addresses in the call's table and in tables that it leads to
are moved along, and what the kernel wrote is copied back.
"""

import ctypes
import os
import struct
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from clearhead.arrays import Array
from clearhead.engine.launch_cache import launches
from clearhead.gradients.backward import launches as gradient_launches
from clearhead.kernels.abi.gradient_call import FIELDS
from clearhead.machine.compile import Kernel, KernelSpec, emit
from clearhead.machine.target import AARCH64, WINDOWS, Target, native_isas

HERE = Path(__file__).parent


class System(NamedTuple):
    """A system to emulate: the target of its code, a C compiler for it, and what runs its programs here."""

    name: str
    target: Target
    compiler: tuple[str, ...]
    emulator: str


AARCH64_LINUX = System(
    "AArch64 Linux",
    AARCH64,
    ("aarch64-linux-gnu-gcc", "-O1", "-static", "-lm"),
    "qemu-aarch64",
)
WINDOWS_X64 = System(
    "Windows x86-64",
    WINDOWS[native_isas()[0]] if native_isas()[0] in WINDOWS else WINDOWS["generic"],
    ("x86_64-w64-mingw32-gcc", "-O1", "-static"),
    "wine",
)
SYSTEMS = {"arm": AARCH64_LINUX, "windows": WINDOWS_X64}


class Buffer(NamedTuple):
    """Some memory of this process."""

    address: int
    size: int

    def holds(self, array: Array) -> bool:
        """Whether an array lies in it."""
        return self.address <= array.ctypes.data < self.address + self.size

    def words(self) -> Array:
        """Its 64-bit numbers."""
        return np.frombuffer(ctypes.string_at(self.address, self.size // 8 * 8), np.uint64)


class Emulator:
    """Runs kernels on another system, each in a program of its own, kept for further calls."""

    def __init__(self, system: System, folder: Path) -> None:
        self.system = system
        self.folder = folder
        self.runs = 0
        self.programs: dict[str, Path] = {}

    def kernel(self, spec: KernelSpec) -> Kernel:
        """A stand-in for the compiled kernel."""
        return Kernel(spec, spec)  # type: ignore[arg-type]  # only `run` below takes its entry

    def program(self, spec: KernelSpec) -> Path:
        """The other system's code with the harness, ready to run."""
        if spec.key not in self.programs:
            code, program = (self.folder / f"{spec.key}.{suffix}" for suffix in ("o", "exe"))
            code.write_bytes(emit(spec))
            sources = HERE / "emulation_harness.c", code
            compiler, *options = self.system.compiler
            subprocess.run([compiler, f"-DKERNEL={spec.kernel}", *sources, *options, "-o", program], check=True)  # noqa: S603
            self.programs[spec.key] = program
        return self.programs[spec.key]

    def run(self, spec: KernelSpec, table: Any, scratch_size: int, _: int, __: str, arrays: object) -> None:
        """What `machine.threads.run_kernel` does, by the emulator and on one thread."""
        numbers = list(table)
        found: dict[int, Array] = {}
        gather(arrays, found, set())
        buffers = [Buffer(*span) for span in joined({bounds(array) for array in found.values()})]
        places = [(-1, place, *where) for place, n in enumerate(numbers) if (where := located(n, buffers))]
        for number, buffer in enumerate(buffers):
            if any(buffer.holds(array) for array in found.values() if array.dtype == np.int64):
                words = buffer.words()
                held = np.flatnonzero(inside(words, buffers)).tolist()
                places += [(number, place, *(located(int(words[place]), buffers) or (0, 0))) for place in held]
        give_way = FIELDS.index("give_way") if spec.kernel == "backward" else -1
        parts = [words_of(len(numbers), *numbers, len(buffers))]
        for buffer in buffers:
            parts += [words_of(buffer.size), ctypes.string_at(buffer.address, buffer.size)]
        parts.append(words_of(len(places), *(n for place in places for n in place)))
        budget = 1000 if self.runs % 2 else 1 << 62  # in slices, or all at once
        parts.append(words_of(give_way, scratch_size, budget))
        source, target = self.folder / "problem", self.folder / "results"
        source.write_bytes(b"".join(parts))
        command = [self.system.emulator, *map(str, (self.program(spec), source, target))]
        subprocess.run(command, check=True, env={**os.environ, "WINEDEBUG": "-all"})  # noqa: S603
        data, at = target.read_bytes(), 0
        for address, size in buffers:
            ctypes.memmove(address, data[at : at + size], size)
            at += size
        self.runs += 1


def words_of(*numbers: int) -> bytes:
    """64-bit numbers, one after the other."""
    return struct.pack(f"{len(numbers)}q", *numbers)


def gather(x: object, found: dict[int, Array], seen: set[int]) -> None:
    """All arrays that an object leads to."""
    if id(x) in seen or isinstance(x, str | bytes | int | float | type | None | KernelSpec):
        return
    seen.add(id(x))
    if isinstance(x, np.ndarray):
        # A view is within its base; a cache's stand-ins claim more memory than theirs has, which nobody reads.
        base = getattr(x.base, "base", x.base) if type(x.base).__name__ == "DummyArray" else x.base
        if isinstance(base, np.ndarray):
            gather(base, found, seen)
        elif x.nbytes and x.dtype != object:
            found[id(x)] = x
    for part in parts_of(x):
        gather(part, found, seen)


def parts_of(x: object) -> Iterable[object]:
    """What a container or an object of the library holds."""
    if isinstance(x, Mapping):
        return x.values()
    if isinstance(x, tuple | list | set | frozenset):
        return x
    if type(x).__module__.startswith("clearhead"):
        names = [n for kind in type(x).__mro__ for n in getattr(kind, "__slots__", ())]
        return [*(getattr(x, n, None) for n in names), *getattr(x, "__dict__", {}).values()]
    return ()


def bounds(array: Array) -> tuple[int, int]:
    """The first byte of an array and the one after its last."""
    low, high = np.lib.array_utils.byte_bounds(array)
    return low, high


def joined(spans: set[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Spans of memory that overlap or touch as one: address and size."""
    start = stop = -1
    for low, high in sorted(spans):
        if low > stop:
            if stop > start:
                yield start, stop - start
            start, stop = low, high
        stop = max(stop, high)
    if stop > start:
        yield start, stop - start


def inside(words: Array, buffers: list[Buffer]) -> Array:
    """Which words are addresses in some buffer."""
    result = np.zeros(len(words), np.bool_)
    for buffer in buffers:
        result |= (words >= buffer.address) & (words < buffer.address + buffer.size)
    return result


def located(address: int, buffers: list[Buffer]) -> tuple[int, int] | None:
    """Which buffer an address lies in, and where."""
    for number, buffer in enumerate(buffers):
        if buffer.address <= address < buffer.address + buffer.size:
            return number, address - buffer.address
    return None


@contextmanager
def emulated(system: System) -> Iterator[Emulator]:
    """Run the calls of a `with` block on another system."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        emulator = Emulator(system, Path(folder))
        for module in (
            "engine.execute", "engine.carried", "engine.narrowing", "gradients.launch", "attention_weights.lse",
        ):  # fmt: skip
            stack.enter_context(mock.patch(f"clearhead.{module}.run_kernel", emulator.run))
        stack.enter_context(mock.patch("clearhead.machine.compile.kernels.get", emulator.kernel))
        for module in (
            "engine.launch", "engine.carried", "engine.narrowing", "gradients.backward", "pieces.gradients",
        ):  # fmt: skip
            stack.enter_context(mock.patch(f"clearhead.{module}.target", return_value=system.target))
        caches = (launches, gradient_launches)
        for cache in caches:
            cache.clear()
        try:
            yield emulator
        finally:
            for cache in caches:
                cache.clear()
