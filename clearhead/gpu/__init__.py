"""Attention on NVIDIA GPUs with the CPU's bits: the kernel, its driver, and `attend` for a card's arrays."""

from clearhead.machine.loading import llvm

llvm()  # writes a GPU's code too: where it cannot be loaded, importing this raises MachineError

from clearhead.gpu.attention import attend  # noqa: E402

__all__ = ["attend"]
