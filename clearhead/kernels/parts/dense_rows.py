"""Rows of keys or values as a block reads them: dense floats, in place where they are so, else copied."""

from typing import NamedTuple

from clearhead.kernels.ir.values import Int, Pointer


class Rows(NamedTuple):
    """Dense rows of keys or values in memory."""

    base: Pointer
    stride: Int
    size: Int  # of a row, in bytes

    def at(self, row: Int) -> Pointer:
        """Where a row begins."""
        return self.base + row * self.stride
