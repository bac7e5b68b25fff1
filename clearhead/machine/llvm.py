"""LLVM as llvmlite binds it. Only `loading` imports this module, when a kernel is first needed."""

import llvmlite
import llvmlite.binding as binding

from clearhead.machine.unbroken import locks

locks.append(binding.ffi.lib._lock)  # held by the thread that runs LLVM


def version() -> str:
    """The versions of llvmlite and of its LLVM."""
    return f"llvmlite {llvmlite.__version__} LLVM {'.'.join(map(str, binding.llvm_version_info))}"
