"""Memory layout of a cache page, and rounding to int8.

A page holds one block of keys and values of all heads. Keys are stored in the order in which decoding reads them:
panels of a few keys, with one line per pair of dims. In int8, each row (a key or value of one head) has a separate
scale, so a later row does not change earlier ones. `key_value` decides which pages form a sequence.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from clearhead.arrays import Array, Integers, ceil_div
from clearhead.cache.kept import Kept
from clearhead.definition.canonical import BLOCK
from clearhead.kernels.abi.call import PANEL_LINE
from clearhead.kernels.abi.tiles import STORED, padded

Pool: TypeAlias = "deque[tuple[Array, Array]]"  # memory of free pages
INT8_MAX = 127  # int8 values run from -127 to 127


@dataclass(frozen=True)
class Rows:
    """Rows (..., dim) as stored in a page, and their scales (...,) in int8."""

    numbers: Array
    scales: Array | None = None

    def __getitem__(self, index: Any) -> Rows:
        return Rows(self.numbers[index], None if self.scales is None else self.scales[index])

    def choose(self, places: Integers) -> Rows:
        """The rows (heads, n, dim) at some places (heads, kept) of each head."""
        scales = None if self.scales is None else np.take_along_axis(self.scales, places, axis=1)
        return Rows(np.take_along_axis(self.numbers, places[..., None], axis=1), scales)

    def widened(self) -> Array:
        """The values: each number times the scale of its row, rounded once to float32."""
        if self.scales is None:
            return self.numbers
        return self.numbers.astype(np.float32) * self.scales[..., None]


def int8_rows(rows: Array) -> Rows:
    """Round rows to int8: n = round(x / scale), where scale = largest |x| of the row / 127.

    A row with a number that is not finite becomes all NaN.

    >>> int8_rows(np.array([[1.0, -0.5, 0.25]], np.float32)).numbers
    array([[127, -64,  32]], dtype=int8)
    """
    rows = rows.astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        scales = np.abs(rows).max(-1) / np.float32(INT8_MAX)
        scales = np.where(np.isfinite(scales), scales, np.float32(np.nan))
        safe = np.where(scales > 0, scales, np.float32(1))
        numbers = np.rint(np.clip(rows / safe[..., None], -INT8_MAX, INT8_MAX))
        numbers = np.where(scales[..., None] > 0, numbers, np.float32(0))
    return Rows(numbers.astype(np.int8), scales)


@dataclass(eq=False)
class Page:
    """BLOCK keys and values of all heads of one sequence, and the number of sequences that share it.

    When the last sequence, call or view drops the page, its memory returns to the pool.
    """

    keys: Array  # one record per head: numbers (panels, pairs of dims, keys in a panel, 2), and scales
    values: Array  # one record per head: numbers (BLOCK, padded value dims), and scales
    pool: Pool = field(repr=False)
    owners: int = 1

    def __del__(self) -> None:
        self.pool.append((self.keys, self.values))

    def write(self, inside: int, keys: Rows, values: Rows) -> None:
        """Write rows (heads, n, …) into the page, starting at row `inside`."""
        count, dim = keys.numbers.shape[1:]
        pairs, panel = self.keys["numbers"].shape[2:4]
        padded = keys.numbers if dim == 2 * pairs else np.pad(keys.numbers, ((0, 0), (0, 0), (0, 1)))
        rows_at = np.arange(inside, inside + count)
        # Two separated index arrays move their axis to the front: (n, heads, pairs, 2).
        paired = padded.reshape(len(padded), count, pairs, 2).swapaxes(0, 1)
        self.keys["numbers"][:, rows_at // panel, :, rows_at % panel, :] = paired
        self.values["numbers"][:, inside : inside + count, : values.numbers.shape[-1]] = values.numbers
        for records, rows in ((self.keys, keys), (self.values, values)):
            if rows.scales is not None:
                records["scales"][:, inside : inside + count] = rows.scales

    def rows(self) -> tuple[Rows, Rows]:
        """All keys and values (heads, BLOCK, padded dim)."""
        heads, pairs = len(self.keys), self.keys["numbers"].shape[2]
        keys = self.keys["numbers"].transpose(0, 1, 3, 2, 4).reshape(heads, BLOCK, 2 * pairs)
        both = ((keys, self.keys), (self.values["numbers"], self.values))
        first, second = (
            Rows(numbers, record["scales"] if "scales" in (record.dtype.names or ()) else None)
            for numbers, record in both
        )
        return first, second


@dataclass(frozen=True)
class Layout:
    """The common layout of all pages of a cache; `dtype` is that of the appended arrays."""

    dtype: np.dtype[Any]
    int8: bool
    heads: int
    key_dim: int
    value_dim: int

    def __str__(self) -> str:
        kind = "int8" if self.int8 else self.dtype.name
        return f"{self.heads} heads, keys of dim {self.key_dim}, values of dim {self.value_dim}, {kind}"

    @property
    def stored(self) -> np.dtype[Any]:
        """The dtype of numbers in pages."""
        return np.dtype(np.int8) if self.int8 else self.dtype

    @property
    def computed(self) -> np.dtype[Any]:
        """The dtype of the computation."""
        return np.dtype(np.float32) if self.dtype.name in STORED else self.dtype

    @property
    def panel(self) -> int:
        """Keys per panel: one pair of dims of each, in the computation's dtype, fills a line."""
        return PANEL_LINE // (2 * self.computed.itemsize)

    @property
    def row(self) -> int:
        """Padded number of value dims."""
        return padded(self.value_dim)

    def rows(self, array: Array) -> Rows:
        """Convert rows to the stored dtype."""
        return int8_rows(array) if self.int8 else Rows(array)

    def pages(self, count: int) -> list[tuple[Array, Array]]:
        """Allocate empty pages. Pages of one head are contiguous, since sequential reads are fastest."""
        pairs = ceil_div(self.key_dim, 2)
        keys = self.zeros(count, (BLOCK // self.panel, pairs, self.panel, 2))
        values = self.zeros(count, (BLOCK, self.row))
        return [(keys[:, n], values[:, n]) for n in range(count)]

    def zeros(self, count: int, shape: tuple[int, ...]) -> Array:
        """Records (heads, count) of zeros, aligned to a cache line: numbers, then one scale per row."""
        scales = [("scales", np.float32, (BLOCK,))] if self.int8 else []
        record = np.dtype([("numbers", self.stored, shape), *scales])
        raw = np.zeros(self.heads * count * record.itemsize + PANEL_LINE, np.uint8)
        start = -raw.ctypes.data % PANEL_LINE
        return raw[start : start + raw.size - PANEL_LINE].view(record).reshape(self.heads, count)


@dataclass(frozen=True, eq=False)
class Paged:
    """A snapshot of sequences of equal length in a cache: tables of page addresses, and the pages, kept alive.

    `key` and `value` stand in for the cached arrays: they have their shapes and the strides of the tables, but must not
    be read. `kept` has the positions of the keys of each sequence, and is None if all stand at their places.
    """

    tables: tuple[Array, Array]
    key: Array
    value: Array
    first_key: int
    int8: bool
    pages: tuple[tuple[Page | None, ...], ...]
    kept: tuple[Kept, ...] | None

    def keys(self) -> Array:
        """The keys as an array in the shape of `key`; evicted ones are 0."""
        return self.array(self.key.shape, 0)

    def values(self) -> Array:
        """The values as an array in the shape of `value`; evicted ones are 0."""
        return self.array(self.value.shape, 1)

    def array(self, shape: tuple[int, ...], which: int) -> Array:
        """The keys or values of all pages, in float64, which holds every number of theirs."""
        found = np.zeros(shape)
        for matrices, pages in zip(found.reshape(len(self.pages), -1, *shape[-2:]), self.pages, strict=True):
            for block, page in enumerate(pages):
                if page is not None:
                    part = matrices[:, block * BLOCK : (block + 1) * BLOCK]
                    part[...] = page.rows()[which].widened()[:, : part.shape[1], : part.shape[2]]
        return found
