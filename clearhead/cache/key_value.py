"""A paged key/value cache for decoding.

Responsible for the pages of a growing sequence. A page holds 128 keys (one block of the canonical definition), is
shared between sequences until one of them writes, and is evicted after a window has passed it. A page that a view
refers to is not overwritten while the view lives. `pages` lays out a page's memory, `kept` knows which keys are left
and where they stand, `engine.execute` computes attention.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from clearhead.arrays import Array, Integers
from clearhead.cache.file import Saved, empty_rows, read_cache_file
from clearhead.cache.kept import Extent, Kept, chosen_places, without_weights
from clearhead.cache.pages import Layout, Page, Paged, Pool, Rows
from clearhead.definition.canonical import BLOCK
from clearhead.errors import DtypeError, InputError, ShapeError
from clearhead.kernels.abi.tiles import ELEMENTS, STORED
from clearhead.rules.masks import is_integer

MOST_AT_ONCE = 64  # pages allocated together


class KeyValueCache:
    """Keys and values of one or several growing sequences, for `attention(q, cache)`.

    `append` adds new keys and values; with `window`, it first evicts pages that lie entirely before the last `window`
    keys, so that attention needs `mask=window(w - 1)` or a shorter one and refuses a mask that is known to reach
    further, the default `causal()` too. What others (of tables or functions) show depends on the pages that are still
    held. `keep` evicts all but chosen keys. Sequences (the leading axis of appended arrays, if there is one besides
    heads) can differ in length and be reordered and forked; pages are shared until written. Numbers keep their dtype
    (float64, float32, float16, bfloat16); `dtype="int8"` rounds them to 8 bits, with one scale per key and value. That
    takes about a quarter of float32's memory; `rounding` holds the largest errors. Attention over a cache has the same
    bits as over its `arrays()`.

    >>> from clearhead import attention
    >>> x = np.random.default_rng(0).standard_normal((2, 5, 8))
    >>> cache = KeyValueCache()
    >>> for i in range(5):
    ...     cache.append(x[:, i : i + 1], x[:, i : i + 1])
    ...     y = attention(x[:, i : i + 1], cache)
    >>> np.array_equal(y, attention(x, x, x)[:, 4:]), cache.lengths
    (True, (5,))
    """

    def __init__(self, *, window: int | None = None, dtype: Literal["int8"] | None = None) -> None:
        if window is not None and (not is_integer(window) or window < 1):
            raise InputError(f"window={window!r} must be a positive number of keys: use 1, 2, 3 … or None to keep all.")
        if dtype not in (None, "int8"):
            raise InputError(
                f"dtype={dtype!r} is not supported: use 'int8', or None to keep the dtype of what you append."
            )
        self.window = window
        self.int8 = dtype == "int8"
        self.rounding = (0.0, 0.0)  # largest rounding error so far, of keys and of values
        self.layout: Layout | None = None
        self.batched = False  # whether appended arrays have an axis of sequences
        self.sequences: list[list[Page | None]] = []
        self.counts: list[int] = []  # places of each sequence, in pages that it has or had
        self.kept: list[Kept] = []  # the positions of these places
        self.evicted: list[int] = []  # number of evicted pages of each sequence
        self.pool: Pool = deque()
        self.created = 0  # pages allocated into the pool
        self.addresses = np.zeros((2, 0, 0, 8), np.int64)  # of keys and values: (2, sequences, heads, blocks)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Number of keys appended to each sequence, including evicted ones: the position of the next key."""
        return tuple(extent.length for extent in self.extents)

    @property
    def extents(self) -> tuple[Extent, ...]:
        """Which keys each sequence holds."""
        return tuple(
            Extent(count + kept.dropped, gone * BLOCK, kept.dropped)
            for count, gone, kept in zip(self.counts, self.evicted, self.kept, strict=True)
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all pages, shared ones counted once."""
        pages = {id(page): page for pages in self.sequences for page in pages if page is not None}
        in_use = [(page.keys, page.values) for page in pages.values()]
        return sum(array.nbytes for memory in (*in_use, *self.pool) for array in memory)

    def __repr__(self) -> str:
        return f"KeyValueCache({self.layout}, lengths={self.lengths}, window={self.window})"

    def append(self, k: npt.ArrayLike, v: npt.ArrayLike, *, lengths: Sequence[int] | None = None) -> None:
        """Add keys (…, heads, n, d) and values (…, heads, n, dv) at the end of each sequence.

        With `lengths`, only the first lengths[i] are added to sequence i. Raises ShapeError or DtypeError, and then
        adds nothing.
        """
        keys, values = np.asarray(k), np.asarray(v)
        keys, values = self.checked_operands(keys, values)
        counts = [keys.shape[-2]] * len(keys) if lengths is None else list(lengths)
        if len(counts) != len(keys) or any(not 0 <= n <= keys.shape[-2] for n in counts):
            raise ShapeError(
                f"lengths {counts} do not fit keys of shape {np.shape(k)}: give {len(keys)} numbers up to "
                f"{keys.shape[-2]}."
            )
        assert self.layout is not None  # noqa: S101
        rows = self.layout.rows(keys), self.layout.rows(values)
        if self.int8:
            self.rounding = tuple(  # type: ignore[assignment]
                max(old, largest_difference(new.widened(), array))
                for old, new, array in zip(self.rounding, rows, (keys, values), strict=True)
            )
        for number, count in enumerate(counts):
            self.append_one(number, *(part[number, :, :count] for part in rows))

    def checked_operands(self, keys: Array, values: Array) -> tuple[Array, Array]:
        """Check keys and values and shape them (sequences, heads, n, d); the first ones set the layout."""
        shapes = f"k {keys.shape}, v {values.shape}"
        if keys.ndim not in (3, 4) or keys.shape[:-1] != values.shape[:-1] or 0 in (keys.shape[-1], values.shape[-1]):
            raise ShapeError(
                f"{shapes} cannot be appended: give (heads, n, d), or (sequences, heads, n, d), of equal n."
            )
        if keys.dtype.name not in {*ELEMENTS, *STORED} or keys.dtype != values.dtype or not keys.dtype.isnative:
            raise DtypeError(
                f"k is {keys.dtype} and v {values.dtype}: a cache takes float64, float32, float16 or bfloat16, "
                "both the same."
            )
        if self.int8 and keys.dtype == np.float64:
            raise DtypeError("int8 can store float32, float16 or bfloat16, not float64: convert k and v first.")
        batched = keys.ndim == 4
        if not batched:
            keys, values = keys[None], values[None]
        layout = Layout(keys.dtype, self.int8, keys.shape[1], keys.shape[-1], values.shape[-1])
        if self.layout is None:
            self.layout, self.batched = layout, batched
            self.clear(len(keys))
        if (layout, len(keys)) != (self.layout, len(self.sequences)):
            raise ShapeError(
                f"{shapes} of {keys.dtype} do not fit this cache (batch {len(self.sequences)}, {self.layout}): append "
                "matching arrays, or start another KeyValueCache()."
            )
        return keys, values

    def append_one(self, number: int, keys: Rows, values: Rows) -> None:
        """Add keys (heads, n, d) to one sequence."""
        self.evict_passed(number)
        self.write_rows(number, keys, values)

    def write_rows(self, number: int, keys: Rows, values: Rows) -> None:
        """Write keys (heads, n, d) at the end of one sequence, page by page."""
        done, length = 0, keys.numbers.shape[1]
        while done < length:
            inside = self.counts[number] % BLOCK
            page = self.writable(number, new=inside == 0)
            count = min(BLOCK - inside, length - done)
            page.write(inside, keys[:, done : done + count], values[:, done : done + count])
            self.counts[number] += count
            done += count

    def writable(self, number: int, *, new: bool) -> Page:
        """The last page of a sequence, to be written: a new one, or a copy if other sequences share it."""
        assert self.layout is not None  # noqa: S101
        pages = self.sequences[number]
        shared = None if new else pages[-1]
        if shared is not None and shared.owners == 1:
            return shared
        page = self.new_page()
        if shared is None:
            pages.append(page)
        else:
            page.keys[...], page.values[...] = shared.keys, shared.values
            shared.owners -= 1
            pages[-1] = page
        self.record_address(number, len(pages) - 1, page)
        return page

    def new_page(self) -> Page:
        """A free page. Allocates as many as exist if none is free, so growing stays cheap."""
        assert self.layout is not None  # noqa: S101
        while True:
            try:
                return Page(*self.pool.popleft(), self.pool)
            except IndexError:  # none left, or another thread took it first
                count = max(1, min(self.created, MOST_AT_ONCE))
                self.pool.extend(self.layout.pages(count))
                self.created += count

    def record_address(self, number: int, block: int, page: Page | None) -> None:
        """Record the address of a block's page for kernels, 0 if evicted. Tables that views read are not changed."""
        while block >= self.addresses.shape[-1]:
            self.addresses = np.concatenate([self.addresses, np.zeros_like(self.addresses)], -1)
        if self.addresses[0, number, :, block].any():
            self.addresses = self.addresses.copy()
        for table, name in enumerate(("keys", "values")):
            array = getattr(page, name, None)
            heads = np.arange(self.addresses.shape[2])
            addresses = 0 if array is None else array.ctypes.data + array.strides[0] * heads
            self.addresses[table, number, :, block] = addresses

    def evict_passed(self, number: int) -> None:
        """Evict the pages that the window has passed; pages without a view are reused for later keys.

        Called before an append, since the first new query must still see its full window.
        """
        if self.window is None:
            return
        pages = self.sequences[number]
        passed = self.kept[number].passed(self.counts[number], self.window) // BLOCK
        for block in range(self.evicted[number], passed):
            self.release(pages[block])
            pages[block] = None
            self.record_address(number, block, None)
        self.evicted[number] = max(self.evicted[number], passed)

    def release(self, page: Page | None) -> None:
        """Remove one owner of a page."""
        if page is not None:
            page.owners -= 1

    def clear(self, sequences: int, kept: Sequence[Kept] | None = None) -> None:
        """Begin `sequences` of no keys, with a pool of their own; views keep the former pages."""
        assert self.layout is not None  # noqa: S101
        heads = self.layout.heads
        self.sequences = [[] for _ in range(sequences)]
        self.counts, self.evicted = [0] * sequences, [0] * sequences
        self.kept = [Kept.all(heads)] * sequences if kept is None else list(kept)
        self.addresses = np.zeros((2, sequences, heads, 8), np.int64)
        self.pool, self.created = deque(), 0

    def keep(self, keys: npt.ArrayLike) -> None:
        """Evict all keys and values but the chosen ones, which stay at their positions.

        `keys` has integers (kept,), for each key head (heads, kept), or for each sequence too
        (sequences, heads, kept), in any order; or booleans (…, keys) that mark equally many keys in each head. Keys
        are numbered like the columns of `weights(q, cache)`: by position, and after an earlier `keep`, by place among
        the keys that it left. Masks and score rules go on to see every key at its position. Frees the memory of the
        others, unless a fork or view holds them. Raises InputError, and then evicts nothing.

        >>> cache = KeyValueCache()
        >>> cache.append(np.zeros((2, 6, 4)), np.zeros((2, 6, 4)))
        >>> cache.keep([[0, 4, 5], [1, 2, 5]])
        >>> cache.lengths, cache.positions().tolist()
        ((6,), [[0, 4, 5], [1, 2, 5]])
        """
        if self.layout is None:
            raise InputError("this cache is empty: append keys and values before you choose which to keep.")
        numbers = range(len(self.sequences))
        chosen = chosen_places(keys, self.layout.heads, self.counts, [self.first_key(number) for number in numbers])
        kept = [self.kept[n].choose(chosen[n], self.counts[n]) for n in numbers]
        rows = [[part.choose(chosen[n] - self.first_key(n)) for part in self.rows(n)] for n in numbers]
        for pages in self.sequences:
            for page in pages:
                self.release(page)
        self.clear(len(numbers), kept)
        for number, (some_keys, some_values) in enumerate(rows):
            self.write_rows(number, some_keys, some_values)

    def positions(self, number: int = 0) -> Integers:
        """The positions of one sequence's keys, (heads, n), in the order of its `arrays`."""
        if self.layout is None:
            raise InputError("this cache is empty: append keys and values first.")
        return self.kept[number].of(self.first_key(number), self.counts[number])

    def first_key(self, number: int) -> int:
        """The first place that a sequence still holds, always at the start of a page."""
        return self.evicted[number] * BLOCK

    @property
    def alike(self) -> bool:
        """Whether one call can process all sequences: equal lengths, first keys and numbers of dropped ones."""
        return len(set(self.extents)) == 1

    def paged(self, numbers: slice) -> Paged:
        """A snapshot of sequences of equal length for one call; later changes of the cache do not affect it."""
        layout, extents = self.layout, set(self.extents[numbers])
        if layout is None:
            raise InputError("this cache is empty: append keys and values first.")
        if len(extents) != 1:
            raise without_weights(self.extents)
        extent = extents.pop()
        addresses = self.addresses[:, numbers]
        lead = addresses.shape[1:3] if self.batched else addresses.shape[2:3]
        keys, size = extent.length - extent.dropped, layout.stored.itemsize

        def stand_in(table: Array, dim: int, row: int) -> Array:
            strides = (*table.strides[2 - len(lead) : 2], row * size, size)
            return as_strided(np.empty(1, layout.dtype), (*lead, keys, dim), strides)

        return Paged(
            tables=(addresses[0], addresses[1]),
            key=stand_in(addresses[0], layout.key_dim, 0),
            value=stand_in(addresses[1], layout.value_dim, layout.row),
            first_key=extent.first,
            int8=layout.int8,
            pages=tuple(tuple(pages) for pages in self.sequences[numbers]),
            kept=tuple(self.kept[numbers]) if extent.dropped else None,
        )

    def reorder(self, order: Sequence[int]) -> None:
        """Continue sequence i from sequence order[i], as in beam search; pages are shared, not copied.

        >>> cache = KeyValueCache()
        >>> cache.append(np.zeros((2, 1, 3, 4)), np.zeros((2, 1, 3, 4)), lengths=[3, 1])
        >>> cache.reorder([0, 0, 1])
        >>> cache.lengths
        (3, 3, 1)
        """
        if any(not is_integer(i) or not 0 <= i < len(self.sequences) for i in order):
            raise InputError(
                f"order {list(order)} must name sequences: use numbers from 0 to {len(self.sequences) - 1}."
            )
        if len(order) != 1 and not self.batched:
            raise InputError("this cache has no axis of sequences to reorder: fork it instead.")
        old, self.sequences = self.sequences, [self.shared(self.sequences[i]) for i in order]
        self.counts, self.evicted = [self.counts[i] for i in order], [self.evicted[i] for i in order]
        self.kept = [self.kept[i] for i in order]
        self.addresses = self.addresses[:, list(order)]
        for pages in old:
            for page in pages:
                self.release(page)

    def fork(self) -> KeyValueCache:
        """A cache that continues from this one; they share pages until one of them writes."""
        other = KeyValueCache(window=self.window, dtype="int8" if self.int8 else None)
        other.rounding = self.rounding
        other.layout, other.batched = self.layout, self.batched
        other.counts, other.evicted, other.kept = list(self.counts), list(self.evicted), list(self.kept)
        other.pool, other.sequences = self.pool, [self.shared(pages) for pages in self.sequences]
        other.addresses = self.addresses.copy()
        return other

    def shared(self, pages: list[Page | None]) -> list[Page | None]:
        """The same pages, with one more owner each."""
        for page in pages:
            if page is not None:
                page.owners += 1
        return list(pages)

    def arrays(self, number: int = 0) -> tuple[Array, Array]:
        """One sequence's keys (heads, n, d) and values (heads, n, dv) as plain arrays, without evicted ones."""
        keys, values = self.rows(number)
        return keys.widened(), values.widened()

    def rows(self, number: int) -> tuple[Rows, Rows]:
        """One sequence's keys and values in the stored dtype."""
        if self.layout is None:
            raise InputError("this cache is empty: append keys and values first.")
        count = self.counts[number] - self.first_key(number)
        pages = [page.rows() for page in self.sequences[number] if page is not None]
        if not pages:
            return empty_rows(self.layout)
        dims = (self.layout.key_dim, self.layout.value_dim)
        keys, values = (
            Rows(
                np.concatenate([part[which].numbers for part in pages], 1)[:, :count, :dim],
                np.concatenate([part[which].scales for part in pages], 1)[:, :count] if self.int8 else None,
            )
            for which, dim in enumerate(dims)
        )
        return keys, values

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save all sequences to a .safetensors file, which appears whole or not at all and replaces an older one.

        Raises FileError.
        """
        if self.layout is None:
            raise InputError("this cache is empty: append keys and values first.")
        rows = tuple(map(self.rows, range(len(self.sequences))))
        kept = tuple(self.kept)
        Saved(self.layout, self.batched, self.window, self.rounding, tuple(self.counts), kept, rows).write(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> KeyValueCache:
        """Load a file that `save` wrote; raises FileError for any other."""
        saved = read_cache_file(path)
        cache = cls(window=saved.window, dtype="int8" if saved.layout.int8 else None)
        cache.layout, cache.batched, cache.rounding = saved.layout, saved.batched, saved.rounding
        cache.clear(len(saved.counts), saved.kept)
        for number, (count, rows) in enumerate(zip(saved.counts, saved.rows, strict=True)):
            gone = count - rows[0].numbers.shape[1]
            cache.sequences[number], cache.counts[number] = [None] * (gone // BLOCK), gone
            cache.evicted[number] = gone // BLOCK
            cache.write_rows(number, *rows)
        return cache


def largest_difference(a: Array, b: Array) -> float:
    """The largest |a − b| of finite numbers."""
    with np.errstate(invalid="ignore"):
        difference = np.abs(a - b.astype(np.float32))
    return float(difference[np.isfinite(difference)].max(initial=0.0))
