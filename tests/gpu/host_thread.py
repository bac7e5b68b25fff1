"""A thread of the host: the same program as a GPU's, but its surroundings are arguments and its copies are calls."""

from typing import Any

import llvmlite.ir as ir

from clearhead.gpu.thread import Floats, Index, Thread
from clearhead.kernels.ir.values import Value, i32

NAMES = {
    "llvm.nvvm.barrier0": "host_barrier",
    "llvm.nvvm.barrier0.or": "host_vote",
    "llvm.nvvm.cp.async.cg.shared.global.16": "host_copy",
    "llvm.nvvm.cp.async.wait.all": "host_arrived",
}


class HostThread(Thread[Any]):
    """A kernel's thread for `tests.gpu.emulation`."""

    spaces = (0, 0)
    surroundings = (i32, i32, ir.PointerType())

    def place(self) -> tuple[Index, Index, Floats]:
        """The last three parameters."""
        thread, group, shared = self.ir.args[-3:]
        return Index(self.build, thread), Index(self.build, group), Floats(self.build, shared)

    def call_void(self, name: str, *arguments: Value) -> None:
        """The host's function in place of a GPU's; copies take the source first."""
        operands: Any = arguments[::-1]
        super().call_void(name, *operands)

    @staticmethod
    def name_of(name: str) -> str:
        """The host's function."""
        return NAMES[name]
