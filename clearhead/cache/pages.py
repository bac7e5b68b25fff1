"""How a page of a cache lies in memory, and how its numbers are rounded to 8 bits where that is asked for.

A page holds one block of keys and values of every head. Keys lie as decoding reads them: panels of a few keys, in each
a line for every two dims. Of 8 bits, every row (one head's key, or value) has a scale of its own, so that a row which
arrives later changes no earlier one. Which pages make a sequence is left to `cache`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from clearhead.arrays import Array, ceil_div
from clearhead.definition.canonical import BLOCK
from clearhead.kernels.abi.call import PANEL_LINE
from clearhead.kernels.abi.tiles import STORED, padded

Pool: TypeAlias = "deque[tuple[Array, Array]]"  # the memory of pages that nobody holds
LARGEST = 127  # of a signed 8-bit number, on both sides of 0


@dataclass(frozen=True)
class Rows:
    """Rows (..., dim) as a page keeps them; their scales (...,), if they are of 8 bits."""

    numbers: Array
    scales: Array | None = None

    def __getitem__(self, where: Any) -> Rows:
        """Some of the rows."""
        return Rows(self.numbers[where], None if self.scales is None else self.scales[where])

    def widened(self) -> Array:
        """What they stand for: each number times its row's scale, rounded once to float32."""
        if self.scales is None:
            return self.numbers
        return self.numbers.astype(np.float32) * self.scales[..., None]


def rounded(rows: Array) -> Rows:
    """Rows in 8 bits: n = round(x / scale), with scale = largest |x| / 127 of the row.

    A row with a number that is not finite becomes not-a-number as a whole.

    >>> rounded(np.array([[1.0, -0.5, 0.25]], np.float32)).numbers
    array([[127, -64,  32]], dtype=int8)
    """
    rows = rows.astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        scales = np.abs(rows).max(-1) / np.float32(LARGEST)
        scales = np.where(np.isfinite(scales), scales, np.float32(np.nan))
        safe = np.where(scales > 0, scales, np.float32(1))
        numbers = np.rint(np.clip(rows / safe[..., None], -LARGEST, LARGEST))
        numbers = np.where(scales[..., None] > 0, numbers, np.float32(0))
    return Rows(numbers.astype(np.int8), scales)


@dataclass(eq=False)
class Page:
    """BLOCK keys and values of all heads of one sequence, and how many sequences hold it.

    Its memory goes back to the pool with the page's last holder, be that a sequence, a call or a view.
    """

    keys: Array  # records of (panels, pairs of dims, keys in a panel, 2) numbers, and scales, one for each head
    values: Array  # records of (BLOCK, value dims, padded)
    pool: Pool = field(repr=False)
    owners: int = 1

    def __del__(self) -> None:
        self.pool.append((self.keys, self.values))

    def write(self, inside: int, keys: Rows, values: Rows) -> None:
        """Put rows (heads, n, …) into the page from place `inside` on."""
        count, dim = keys.numbers.shape[1:]
        pairs, panel = self.keys["numbers"].shape[2:4]
        padded = keys.numbers if dim == 2 * pairs else np.pad(keys.numbers, ((0, 0), (0, 0), (0, 1)))
        place = np.arange(inside, inside + count)
        # Indices in two places put their axis first: (n, heads, pairs, 2).
        paired = padded.reshape(len(padded), count, pairs, 2).swapaxes(0, 1)
        self.keys["numbers"][:, place // panel, :, place % panel, :] = paired
        self.values["numbers"][:, inside : inside + count, : values.numbers.shape[-1]] = values.numbers
        for records, rows in ((self.keys, keys), (self.values, values)):
            if rows.scales is not None:
                records["scales"][:, inside : inside + count] = rows.scales

    def rows(self) -> tuple[Rows, Rows]:
        """All keys and values (heads, BLOCK, padded dim)."""
        heads, pairs = len(self.keys), self.keys["numbers"].shape[2]
        keys = self.keys["numbers"].transpose(0, 1, 3, 2, 4).reshape(heads, BLOCK, 2 * pairs)
        both = ((keys, self.keys), (self.values["numbers"], self.values))
        first, second = (Rows(own, of["scales"] if "scales" in (of.dtype.names or ()) else None) for own, of in both)
        return first, second


@dataclass(frozen=True)
class Layout:
    """What all pages of a cache have in common: `dtype` is what was appended."""

    dtype: np.dtype[Any]
    int8: bool
    heads: int
    key_dim: int
    value_dim: int

    @property
    def kept(self) -> np.dtype[Any]:
        """The dtype of numbers in pages."""
        return np.dtype(np.int8) if self.int8 else self.dtype

    @property
    def computed(self) -> np.dtype[Any]:
        """The dtype of the computation."""
        return np.dtype(np.float32) if self.dtype.name in STORED else self.dtype

    @property
    def panel(self) -> int:
        """Keys in a panel: a pair of dims of each fills a line once it is widened."""
        return PANEL_LINE // (2 * self.computed.itemsize)

    @property
    def row(self) -> int:
        """Value dims in memory."""
        return padded(self.value_dim)

    def rows(self, array: Array) -> Rows:
        """Rows as they are kept."""
        return rounded(array) if self.int8 else Rows(array)

    def pages(self, count: int) -> list[tuple[Array, Array]]:
        """Memory of empty pages; each head's lie one behind the other, as memory is read fastest."""
        pairs = ceil_div(self.key_dim, 2)
        keys = self.zeros(count, (BLOCK // self.panel, pairs, self.panel, 2))
        values = self.zeros(count, (BLOCK, self.row))
        return [(keys[:, n], values[:, n]) for n in range(count)]

    def zeros(self, count: int, shape: tuple[int, ...]) -> Array:
        """Records (heads, count) of zeros that begin at a cache line: numbers, then each row's scale."""
        scales = [("scales", np.float32, (BLOCK,))] if self.int8 else []
        record = np.dtype([("numbers", self.kept, shape), *scales])
        raw = np.zeros(self.heads * count * record.itemsize + PANEL_LINE, np.uint8)
        start = -raw.ctypes.data % PANEL_LINE
        return raw[start : start + raw.size - PANEL_LINE].view(record).reshape(self.heads, count)


@dataclass(frozen=True, eq=False)
class Paged:
    """Sequences of one length in a cache: tables of the addresses of their pages, and the pages, `kept` as they are.

    `key` and `value` are arrays of the shapes that the cache stands for, which nobody reads; their strides are the
    tables'.
    """

    tables: tuple[Array, Array]
    key: Array
    value: Array
    first_key: int
    int8: bool
    kept: tuple[tuple[Page | None, ...], ...]

    def keys(self) -> Array:
        """The keys as plain numbers, in the shape of `key`; those that have left the cache are 0."""
        whole = np.zeros(self.key.shape)
        for own, pages in zip(whole.reshape(len(self.kept), -1, *whole.shape[-2:]), self.kept, strict=True):
            for block, page in enumerate(pages):
                if page is not None:
                    part = own[:, block * BLOCK : (block + 1) * BLOCK]
                    part[...] = page.rows()[0].widened()[:, : part.shape[1], : part.shape[2]]
        return whole
