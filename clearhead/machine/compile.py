"""Compile a kernel's IR to a callable function.

Responsible for emitting code, for its cache key and its lifetime: an entry keeps its library alive, since dropping the
library unmaps the code. `kernels` writes the IR; it is imported only to compile, never on a warm start.
"""

import atexit
import ctypes
import functools
import hashlib
import itertools
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clearhead import debug
from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import PLAIN_VARIANT, Variant
from clearhead.machine import fingerprint, store
from clearhead.machine.loading import llvm
from clearhead.machine.target import Target
from clearhead.machine.unbroken import collector_paused, compiling, late

if TYPE_CHECKING:
    from llvmlite.binding import ModuleRef, TargetMachine

Entry = Callable[[Any, int, int], int]
ENTRY_TYPE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
MOST_KERNELS = 512  # of a quarter of a MiB each

library_names = itertools.count()
compilations = 0  # number of kernels that this process has compiled, for tests and `doctor`


@dataclass(frozen=True)
class KernelSpec:
    """Everything that determines a kernel's code: what it computes, for which processor, with which tile."""

    kernel: str
    tile: Tile
    target: Target
    variant: Variant = PLAIN_VARIANT

    @property
    def key(self) -> str:
        """The cache key: a hash of this spec, the package's sources and its tools."""
        text = repr((self, fingerprint.fingerprint()))
        return (
            f"{self.kernel}-{self.tile.element.name}-{self.target.isa}-{hashlib.sha256(text.encode()).hexdigest()[:40]}"
        )


@dataclass(frozen=True)
class Kernel:
    """Compiled code, which stays mapped as long as something holds its entry."""

    spec: KernelSpec
    entry: Entry = field(repr=False)

    @property
    def plan(self) -> KernelSpec:
        """The former name of `spec`."""
        return self.spec

    @property
    def ir(self) -> str:
        """The kernel's LLVM IR."""
        return write_ir(self.spec)

    @property
    def asm(self) -> str:
        """The kernel in the processor's assembly language."""
        return assembly(self.spec)


class Code:
    """What keeps a kernel's machine code mapped."""

    def __init__(self, owners: tuple[object, ...]) -> None:
        self.owners = owners

    def keep(self) -> None:
        """Never let it go."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))


mapped: weakref.WeakSet[Code] = weakref.WeakSet()
ending = False  # whether the interpreter has begun to end


@atexit.register
def stay_mapped() -> None:
    """Leave all code where it is when the interpreter ends: threads may run it, and LLVM's own module may be gone."""
    global ending
    ending = True
    for code in list(mapped):
        code.keep()


class Kernels:
    """The newest kernels of this process: a spec is compiled or loaded by the first thread that needs it.

    Older ones live on in launches and running calls, which hold their entries. A process whose rules never repeat
    would otherwise grow for ever; what it needs again comes from the disk cache.
    """

    def __init__(self) -> None:
        self.known: dict[KernelSpec, Kernel] = {}

    def get(self, spec: KernelSpec) -> Kernel:
        """A spec's kernel: from memory, else from the disk cache, else compiled now."""
        kernel = self.known.get(spec)
        if kernel is None:
            with compiling:  # a signal handler may run in between and link it first
                kernel = self.known.get(spec) or self.known.setdefault(spec, link(spec, stored_object(spec)))
                for oldest in list(self.known)[:-MOST_KERNELS]:
                    self.known.pop(oldest, None)
        return kernel


kernels = Kernels()


def stored_object(spec: KernelSpec) -> bytes:
    """A spec's object code, from the disk cache or compiled and stored there."""
    return stored(spec.key, lambda: emit(spec))


def stored(key: str, compiled: Callable[[], bytes]) -> bytes:
    """The code of a key, from the disk cache or compiled and stored there.

    If the sources changed since they were imported, the cache is neither read nor written: its entries would not match
    the code that this process runs.
    """
    start, imported = time.perf_counter(), fingerprint.fingerprint()
    code = store.load_code(key) if imported else None
    if code is None:
        code = compiled()
        if imported and fingerprint.as_imported() == imported:
            store.save_code(key, code)
        debug.say(2, f"compiled {key} in {1e3 * (time.perf_counter() - start):.0f} ms")
    return code


def emit(spec: KernelSpec) -> bytes:
    """Compile a spec to object code. LLVM's loop passes stay off, since kernels write loops in their final form."""
    global compilations
    compilations += 1
    module = parse(spec)
    if debug.level() >= 4:
        debug.say(4, write_ir(spec))
    if debug.level() >= 5:
        debug.say(5, assembly(spec))
    code: bytes = machine_for(spec.target).emit_object(module)
    return code


def assembly(spec: KernelSpec) -> str:
    """A kernel in assembly language; works for other processors than this machine's, too."""
    text: str = machine_for(spec.target).emit_assembly(parse(spec))
    return text


def parse(spec: KernelSpec) -> "ModuleRef":
    """A kernel's IR, parsed and verified by LLVM."""
    initialise(spec.target.triple)
    module = llvm().parse_assembly(write_ir(spec))
    module.triple = spec.target.triple
    module.verify()
    return module


def write_ir(spec: KernelSpec) -> str:
    """Write a kernel's IR; the kernel is named after the function that writes it."""
    write = getattr(late(f"clearhead.kernels.{spec.kernel}"), spec.kernel)
    # None of the million small objects is garbage yet, but each collection would also walk those of other libraries.
    with collector_paused():
        return str(write(spec.tile, spec.variant))


def machine_for(target: Target) -> "TargetMachine":
    """LLVM's code generator for a target."""
    initialise(target.triple)
    return (
        llvm()
        .Target.from_triple(target.triple)
        .create_target_machine(cpu=target.cpu, features=target.features, opt=3, reloc="pic", codemodel="small")
    )


@functools.cache
def initialise(triple: str) -> None:
    """Initialise LLVM's code generator: only this machine's, unless the target is another."""
    if triple == llvm().get_process_triple():
        llvm().initialize_native_target()
        llvm().initialize_native_asmprinter()
    else:
        llvm().initialize_all_targets()
        llvm().initialize_all_asmprinters()


def link(spec: KernelSpec, code: bytes) -> Kernel:
    """Map object code into the process.

    Uses JITLink, which allocates all sections of an object together. The small code model needs constants within 2 GiB
    of the code; in a process with many large libraries, separate allocations do not guarantee that.
    """
    machine = machine_for(spec.target)
    compiler = llvm().create_lljit_compiler(machine, use_jit_link=True)
    builder = llvm().JITLibraryBuilder().add_object_img(code).add_current_process().export_symbol(spec.kernel)
    library = builder.link(compiler, f"{spec.kernel}{next(library_names)}")
    entry = ENTRY_TYPE(library[spec.kernel])
    entry.code = Code((machine, compiler, library))  # type: ignore[attr-defined]
    mapped.add(entry.code)  # type: ignore[attr-defined]
    if ending:
        entry.code.keep()  # type: ignore[attr-defined]
    return Kernel(spec, entry)
