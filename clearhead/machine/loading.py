"""LLVM, loaded when a kernel is first needed, and what is said where it cannot be.

llvmlite has no build for some systems: phones, a browser's Python, new processors. There, `engine.by_definition`
computes small calls of attention and weights with the same bits; whatever needs a kernel raises the error below.
"""

import functools
import warnings
from typing import Any

from clearhead.errors import MachineError, reason
from clearhead.machine.unbroken import late


class DefinitionWarning(UserWarning):
    """There is no machine code here, so the definition computes: the same bits, but slowly."""


@functools.cache
def fault() -> str:
    """Why LLVM cannot be loaded, as one line; empty if it can."""
    try:
        late("clearhead.machine.llvm")
    except Exception as error:  # missing, or made for another system: a loader may raise anything
        return reason(error)
    return ""


def llvm() -> Any:
    """llvmlite's binding; raises MachineError where it cannot be loaded."""
    if fault():
        raise MachineError(
            f"this needs machine code, but llvmlite cannot be loaded ({fault()}): pip install llvmlite, if it is built "
            "for this system. Without it, attention, its weights and the small model work on short inputs."
        )
    return late("clearhead.machine.llvm").binding


def llvm_version() -> str:
    """The versions of llvmlite and of its LLVM; raises MachineError where it cannot be loaded."""
    llvm()
    found: str = late("clearhead.machine.llvm").version()
    return found


@functools.cache
def notice() -> None:
    """Say once that calls are slow here, and why."""
    warnings.warn(
        f"llvmlite cannot be loaded ({fault()}), so clearhead computes by the definition: the same bits, a thousand "
        "times slower. pip install llvmlite, if it is built for this system.",
        DefinitionWarning,
        stacklevel=5,  # who called attention
    )
