"""Attention on NVIDIA GPUs with the CPU's bits: the kernel, its driver, and `attend` for a card's arrays."""

from clearhead.gpu.attention import attend

__all__ = ["attend"]
