"""An array that grows pass by pass, whose parts may still be on their way from another device."""

from typing import Protocol

import numpy as np

from clearhead.arrays import Array, Integers


class Arriving(Protocol):
    """An array that is being copied from a device."""

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""

    def arrived(self) -> Array:
        """The array, after waiting for the copy."""


class Growing:
    """Parts (sequences, heads, items, dim), joined along items; the number of sequences may change between parts."""

    def __init__(self) -> None:
        self.parts: list[Array | Arriving] = []

    def append(self, part: Array | Arriving) -> None:
        """Add a part."""
        self.parts.append(part)

    @property
    def length(self) -> int:
        """Number of items."""
        return sum(part.shape[2] for part in self.parts)

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts)

    def cut(self, length: int) -> None:
        """Keep only the first items."""
        kept, at = [], 0
        for part in self.parts:
            size = min(part.shape[2], length - at)
            at += part.shape[2]
            if size == part.shape[2]:
                kept.append(part)
            elif size > 0:
                whole = part if isinstance(part, np.ndarray) else part.arrived()
                kept.append(whole[:, :, :size].copy())
        self.parts = kept

    def join(self) -> list[Array]:
        """The parts as arrays; neighbours with the same number of sequences become one."""
        joined: list[list[Array]] = []
        for part in self.parts:
            array = part if isinstance(part, np.ndarray) else part.arrived()
            if joined and joined[-1][0].shape[0] == array.shape[0]:
                joined[-1].append(array)
            else:
                joined.append([array])
        arrays = [group[0] if len(group) == 1 else np.concatenate(group, axis=2) for group in joined]
        self.parts = list(arrays)
        return arrays

    def take(self, rows: Integers, items: Integers) -> Array:
        """Chosen items, ascending, each from the sequence `rows` names: (heads, chosen, dim). A view where possible."""
        taken, start = [], 0
        arrays = self.join()
        for array in arrays:
            stop = start + array.shape[2]
            first, last = np.searchsorted(items, [start, stop])
            own, at = rows[first:last], items[first:last] - start
            if len(own) and (own == own[0]).all():
                one = array[own[0]]
                contiguous = at[-1] - at[0] == len(at) - 1
                taken.append(one[:, at[0] : at[-1] + 1] if contiguous else one[:, at])
            elif len(own):
                taken.append(array[own, :, at].swapaxes(0, 1))
            start = stop
        if not taken:
            shape = arrays[0].shape
            return np.zeros((shape[1], 0, shape[3]), arrays[0].dtype)
        return taken[0] if len(taken) == 1 else np.concatenate(taken, axis=1)
