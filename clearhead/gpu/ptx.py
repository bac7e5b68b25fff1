"""A kernel as PTX, the text that NVIDIA's driver compiles for its card; kept like the CPU's code.

One text serves every card from compute capability 8.0 on. LLVM gets no fast-math flag, so each operation is rounded
once, to nearest: PTX's `.rn`, which its compiler must not contract.
"""

import functools
import hashlib

import llvmlite.binding as llvm

from clearhead.gpu.programs import Program
from clearhead.machine import fingerprint
from clearhead.machine.compile import initialise, stored
from clearhead.machine.unbroken import collector_paused, compiling

TRIPLE = "nvptx64-nvidia-cuda"
KEPT = 64  # texts in memory: rules may never repeat, and what is needed again is on disk
OLDEST = (8, 0)  # compute capability: from here on, cards copy to shared memory in the background


@functools.lru_cache(KEPT)
def ptx(program: Program) -> bytes:
    """The PTX of a kernel."""
    digest = hashlib.sha256(repr((program, OLDEST, fingerprint.fingerprint())).encode()).hexdigest()[:40]
    with compiling:
        return stored(f"{program.name}-ptx-{digest}", lambda: compiled(write_ir(program)).encode())


def write_ir(program: Program) -> str:
    """The kernel's LLVM IR."""
    with collector_paused():
        return program.write()


def compiled(ir: str) -> str:
    """The PTX of a module."""
    initialise(TRIPLE)
    module = llvm.parse_assembly(ir)
    module.triple = TRIPLE
    module.verify()
    cpu = "sm_{}{}".format(*OLDEST)
    text: str = llvm.Target.from_triple(TRIPLE).create_target_machine(cpu=cpu, opt=3).emit_assembly(module)
    return text
