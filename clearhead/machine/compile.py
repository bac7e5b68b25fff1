"""From a kernel's IR to a function that can be called.

Decides how code is emitted, what its cache key holds and who owns it: a Kernel keeps its library alive, for dropping
the library unmaps the code. Writing the IR is left to the `kernels` room, which is imported only when something must be
compiled, never on a warm start.
"""

import ctypes
import functools
import hashlib
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import llvmlite.binding as llvm

from clearhead import debug
from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import PLAIN_VARIANT, Variant
from clearhead.machine import fingerprint, store
from clearhead.machine.target import Target
from clearhead.machine.unbroken import collector_paused, compiling, late

Entry = Callable[[Any, int, int], int]
ENTRY_TYPE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)

library_names = itertools.count()
compilations = 0  # how many kernels this process has compiled, for tests and `doctor`


@dataclass(frozen=True)
class KernelSpec:
    """All that decides a kernel's code: what it computes, for which processor, with which tile."""

    kernel: str
    tile: Tile
    target: Target
    variant: Variant = PLAIN_VARIANT

    @property
    def key(self) -> str:
        """The cache key: this spec, the package's sources and its tools."""
        text = repr((self, fingerprint.fingerprint()))
        return (
            f"{self.kernel}-{self.tile.element.name}-{self.target.isa}-{hashlib.sha256(text.encode()).hexdigest()[:40]}"
        )


@dataclass(frozen=True)
class Kernel:
    """Compiled code with everything that must outlive its calls."""

    spec: KernelSpec
    entry: Entry = field(repr=False)
    owners: tuple[object, ...] = field(repr=False)

    @property
    def plan(self) -> KernelSpec:
        """What `spec` was called before."""
        return self.spec

    @property
    def ir(self) -> str:
        """The LLVM IR the kernel was written as."""
        return write_ir(self.spec)

    @property
    def asm(self) -> str:
        """The kernel in the processor's assembly language."""
        return assembly(self.spec)


class Kernels:
    """The kernels of this process: each spec compiled or loaded once, whichever thread asks first.

    Once known, a kernel stays: a thread may still be in its code when the interpreter ends.
    """

    def __init__(self) -> None:
        self.known: dict[KernelSpec, Kernel] = {}

    def get(self, spec: KernelSpec) -> Kernel:
        """A spec's kernel: from memory, else from the disk cache, else compiled now."""
        kernel = self.known.get(spec)
        if kernel is None:
            with compiling:  # a signal handler of this thread may come in between, and be the first to have it
                kernel = self.known.get(spec) or self.known.setdefault(spec, link(spec, stored_object(spec)))
        return kernel


kernels = Kernels()


def stored_object(spec: KernelSpec) -> bytes:
    """A spec's object code from the disk cache, or compiled and kept there.

    Sources that changed since they were imported have no part in this: their entries are not for this process, and its
    own code is not for theirs.
    """
    start, ours = time.perf_counter(), fingerprint.fingerprint()
    code = store.load(spec.key) if ours else None
    if code is None:
        code = emit(spec)
        if ours and fingerprint.as_imported() == ours:
            store.save(spec.key, code)
        debug.say(2, f"compiled {spec.key} in {1e3 * (time.perf_counter() - start):.0f} ms")
    return code


def emit(spec: KernelSpec) -> bytes:
    """Compile a spec to object code. LLVM's own loop passes stay off: loops are written as they shall run."""
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
    """A kernel in assembly language, also for processors that this machine cannot run."""
    text: str = machine_for(spec.target).emit_assembly(parse(spec))
    return text


def parse(spec: KernelSpec) -> llvm.ModuleRef:
    """A kernel's IR, checked by LLVM."""
    initialise(spec.target.triple)
    module = llvm.parse_assembly(write_ir(spec))
    module.triple = spec.target.triple
    module.verify()
    return module


def write_ir(spec: KernelSpec) -> str:
    """Write a kernel's IR, by the function that it is named after."""
    write = getattr(late(f"clearhead.kernels.{spec.kernel}"), spec.kernel)
    with (
        collector_paused()
    ):  # of a million small objects none is garbage yet, and each collection walks the frameworks'
        return str(write(spec.tile, spec.variant))


def machine_for(target: Target) -> llvm.TargetMachine:
    """LLVM's code generator for a target."""
    initialise(target.triple)
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=3, reloc="pic", codemodel="small"
    )


@functools.cache
def initialise(triple: str) -> None:
    """Wake the code generator: this machine's alone, unless another machine's is asked for."""
    if triple == llvm.get_process_triple():
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
    else:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()


def link(spec: KernelSpec, code: bytes) -> Kernel:
    """Map object code into the process.

    By JITLink, which puts all sections of an object into one block: code reaches its constants over 2 GiB at most, and
    in a process full of large libraries, blocks of their own would now and then lie further apart.
    """
    machine = machine_for(spec.target)
    compiler = llvm.create_lljit_compiler(machine, use_jit_link=True)
    builder = llvm.JITLibraryBuilder().add_object_img(code).add_current_process().export_symbol(spec.kernel)
    library = builder.link(compiler, f"{spec.kernel}{next(library_names)}")
    return Kernel(spec, ENTRY_TYPE(library[spec.kernel]), (library, compiler, machine))
