"""Keys and values of what has been seen so far, kept as decoding wants to read them.

Decides which pages make a growing sequence: of 128 keys each (one block of the scalar program), shared between
sequences until one of them writes, and let go when a window has passed them. What a view has seen is never written
again while the view lives. Leaves a page's memory to `pages`, attention to `engine.execute`.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from clearhead.arrays import Array
from clearhead.cache.file import Saved, empty_rows, read
from clearhead.cache.pages import Layout, Page, Paged, Pool, Rows
from clearhead.definition.canonical import BLOCK
from clearhead.errors import DtypeError, InputError, ShapeError
from clearhead.kernels.abi.tiles import ELEMENTS, STORED
from clearhead.rules.masks import is_integer

MOST_AT_ONCE = 64  # pages that are made together


class KeyValueCache:
    """Keys and values of one or several growing sequences, for `attention(q, cache)`.

    `append` adds what is new; with `window`, it first lets pages go that lie wholly before the last `window` keys.
    Sequences (the leading axis of what is appended, if it has one besides heads) may differ in length, be reordered and
    forked; pages are shared until written. Numbers are kept as they come (float64, float32, float16, bfloat16), or with
    `dtype="int8"` rounded to 8 bits, each key and value with a scale of its own: about a quarter of float32's memory,
    and `rounding` tells what was lost. Attention over a cache gives the bits of attention over its `arrays()`.

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
            raise InputError(f"window={window!r} is no number of keys: use 1, 2, 3 … or None to keep all.")
        if dtype not in (None, "int8"):
            raise InputError(f"dtype={dtype!r} is not kept: use 'int8', or None to keep numbers as they come.")
        self.window = window
        self.int8 = dtype == "int8"
        self.rounding = (0.0, 0.0)  # the largest difference that 8 bits made so far, of a key's and a value's numbers
        self.layout: Layout | None = None
        self.batched = False  # whether what is appended has an axis of sequences
        self.sequences: list[list[Page | None]] = []
        self.counts: list[int] = []
        self.gone: list[int] = []  # how many pages of each a window has passed
        self.pool: Pool = deque()
        self.made = 0  # pages, ever
        self.addresses = np.zeros((2, 0, 0, 8), np.int64)  # of keys and values: (2, sequences, heads, blocks)

    @property
    def lengths(self) -> tuple[int, ...]:
        """How many keys each sequence has been given, those let go included."""
        return tuple(self.counts)

    @property
    def nbytes(self) -> int:
        """Bytes of all pages, shared ones counted once."""
        pages = {id(page): page for pages in self.sequences for page in pages if page is not None}
        used = [(page.keys, page.values) for page in pages.values()]
        return sum(array.nbytes for memory in (*used, *self.pool) for array in memory)

    def __repr__(self) -> str:
        return f"KeyValueCache({self.layout}, lengths={self.lengths}, window={self.window})"

    def append(self, k: npt.ArrayLike, v: npt.ArrayLike, *, lengths: Sequence[int] | None = None) -> None:
        """Add keys (…, heads, n, d) and values (…, heads, n, dv) at the end of each sequence.

        With `lengths`, sequence i is given only its first lengths[i] of them. Raises ShapeError or DtypeError, and then
        nothing has been added.
        """
        keys, values = np.asarray(k), np.asarray(v)
        keys, values = self.checked(keys, values)
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

    def checked(self, keys: Array, values: Array) -> tuple[Array, Array]:
        """Keys and values as (sequences, heads, n, d); the first ones decide the layout."""
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
            raise DtypeError("8 bits stand for float32, float16 or bfloat16, not for float64: convert k and v first.")
        batched = keys.ndim == 4
        if not batched:
            keys, values = keys[None], values[None]
        layout = Layout(keys.dtype, self.int8, keys.shape[1], keys.shape[-1], values.shape[-1])
        if self.layout is None:
            self.layout, self.batched = layout, batched
            self.sequences = [[] for _ in keys]
            self.counts, self.gone = [0] * len(keys), [0] * len(keys)
            self.addresses = np.zeros((2, len(keys), layout.heads, 8), np.int64)
        if (layout, len(keys)) != (self.layout, len(self.sequences)):
            raise ShapeError(
                f"{shapes} do not belong to this cache of {len(self.sequences)} sequences of {self.layout}: append "
                "what fits, or start another KeyValueCache()."
            )
        return keys, values

    def append_one(self, number: int, keys: Rows, values: Rows) -> None:
        """Add keys (heads, n, d) to one sequence, page by page."""
        self.let_go(number)
        done, length = 0, keys.numbers.shape[1]
        while done < length:
            inside = self.counts[number] % BLOCK
            page = self.writable(number, new=inside == 0)
            count = min(BLOCK - inside, length - done)
            page.write(inside, keys[:, done : done + count], values[:, done : done + count])
            self.counts[number] += count
            done += count

    def writable(self, number: int, *, new: bool) -> Page:
        """The last page of a sequence for its own use: a new one, or a copy if others share it."""
        assert self.layout is not None  # noqa: S101
        pages = self.sequences[number]
        shared = None if new else pages[-1]
        if shared is not None and shared.owners == 1:
            return shared
        page = self.page()
        if shared is None:
            pages.append(page)
        else:
            page.keys[...], page.values[...] = shared.keys, shared.values
            shared.owners -= 1
            pages[-1] = page
        self.note(number, len(pages) - 1, page)
        return page

    def page(self) -> Page:
        """A page that nobody holds; where there is none, as many are made as there are: growing costs little."""
        assert self.layout is not None  # noqa: S101
        while True:
            try:
                return Page(*self.pool.popleft(), self.pool)
            except IndexError:  # also where a fork in another thread was faster
                count = max(1, min(self.made, MOST_AT_ONCE))
                self.pool.extend(self.layout.pages(count))
                self.made += count

    def note(self, number: int, block: int, page: Page | None) -> None:
        """Write down where a block's page lies, for the kernels; 0 if it is gone. What views read stays as it is."""
        while block >= self.addresses.shape[-1]:
            self.addresses = np.concatenate([self.addresses, np.zeros_like(self.addresses)], -1)
        if self.addresses[0, number, :, block].any():
            self.addresses = self.addresses.copy()
        for table, name in enumerate(("keys", "values")):
            array = getattr(page, name, None)
            heads = np.arange(self.addresses.shape[2])
            place = 0 if array is None else array.ctypes.data + array.strides[0] * heads
            self.addresses[table, number, :, block] = place

    def let_go(self, number: int) -> None:
        """Let go of the pages that a window has passed: what no view holds is written again for later keys.

        Done before an append, so that its first query still finds its whole window.
        """
        if self.window is None:
            return
        pages = self.sequences[number]
        passed = max(0, self.counts[number] - self.window + 1) // BLOCK
        for block in range(self.gone[number], passed):
            self.drop(pages[block])
            pages[block] = None
            self.note(number, block, None)
        self.gone[number] = max(self.gone[number], passed)

    def drop(self, page: Page | None) -> None:
        """One owner less."""
        if page is not None:
            page.owners -= 1

    def first_key(self, number: int) -> int:
        """The first key that a sequence still has: the start of a page."""
        return self.gone[number] * BLOCK

    @property
    def alike(self) -> bool:
        """Whether one call can walk all sequences: they have the same keys, from the same first one on."""
        return len(set(zip(self.counts, self.gone, strict=True))) == 1

    def paged(self, numbers: slice) -> Paged:
        """Some sequences that are alike as a call walks them, as they are now, whatever becomes of them."""
        layout, counts, gone = self.layout, set(self.counts[numbers]), set(self.gone[numbers])
        if layout is None:
            raise InputError("this cache is empty: append keys and values first.")
        if len(counts) != 1 or len(gone) != 1:
            raise without_weights(self.counts, self.gone)
        addresses = self.addresses[:, numbers]
        lead = addresses.shape[1:3] if self.batched else addresses.shape[2:3]
        keys, size = counts.pop(), layout.kept.itemsize

        def stand_in(table: Array, dim: int, row: int) -> Array:
            strides = (*table.strides[2 - len(lead) : 2], row * size, size)
            return as_strided(np.empty(1, layout.dtype), (*lead, keys, dim), strides)

        return Paged(
            tables=(addresses[0], addresses[1]),
            key=stand_in(addresses[0], layout.key_dim, 0),
            value=stand_in(addresses[1], layout.value_dim, layout.row),
            first_key=gone.pop() * BLOCK,
            int8=layout.int8,
            kept=tuple(tuple(pages) for pages in self.sequences[numbers]),
        )

    def reorder(self, order: Sequence[int]) -> None:
        """Let sequence i go on from what sequence order[i] was, as beam search does; pages are shared, not copied.

        >>> cache = KeyValueCache()
        >>> cache.append(np.zeros((2, 1, 3, 4)), np.zeros((2, 1, 3, 4)), lengths=[3, 1])
        >>> cache.reorder([0, 0, 1])
        >>> cache.lengths
        (3, 3, 1)
        """
        if any(not is_integer(i) or not 0 <= i < len(self.sequences) for i in order):
            raise InputError(
                f"order {list(order)} names no sequences: use numbers from 0 to {len(self.sequences) - 1}."
            )
        if len(order) != 1 and not self.batched:
            raise InputError("this cache holds one sequence without an axis of sequences: fork it instead.")
        old, self.sequences = self.sequences, [self.shared(self.sequences[i]) for i in order]
        self.counts, self.gone = [self.counts[i] for i in order], [self.gone[i] for i in order]
        self.addresses = self.addresses[:, list(order)]
        for pages in old:
            for page in pages:
                self.drop(page)

    def fork(self) -> KeyValueCache:
        """Another cache that goes on from here; pages are shared until one of the two writes."""
        other = KeyValueCache(window=self.window, dtype="int8" if self.int8 else None)
        other.rounding = self.rounding
        other.layout, other.batched = self.layout, self.batched
        other.counts, other.gone = list(self.counts), list(self.gone)
        other.pool, other.sequences = self.pool, [self.shared(pages) for pages in self.sequences]
        other.addresses = self.addresses.copy()
        return other

    def shared(self, pages: list[Page | None]) -> list[Page | None]:
        """The same pages, with one owner more each."""
        for page in pages:
            if page is not None:
                page.owners += 1
        return list(pages)

    def arrays(self, number: int = 0) -> tuple[Array, Array]:
        """One sequence's keys (heads, n, d) and values (heads, n, dv) as plain arrays, from its first kept key on."""
        keys, values = self.rows(number)
        return keys.widened(), values.widened()

    def rows(self, number: int) -> tuple[Rows, Rows]:
        """One sequence's keys and values as they are kept."""
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
        """Write all sequences to a .safetensors file; raises FileError, and then no file is left."""
        if self.layout is None:
            raise InputError("this cache is empty: append keys and values first.")
        rows = tuple(map(self.rows, range(len(self.sequences))))
        Saved(self.layout, self.batched, self.window, self.rounding, self.lengths, rows).write(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> KeyValueCache:
        """Read what `save` wrote; raises FileError for anything else."""
        saved = read(path)
        cache = cls(dtype="int8" if saved.layout.int8 else None)  # nothing is let go while it is filled
        cache.layout, cache.batched, cache.rounding = saved.layout, saved.batched, saved.rounding
        cache.sequences = [[] for _ in saved.counts]
        cache.counts, cache.gone = [0] * len(saved.counts), [0] * len(saved.counts)
        cache.addresses = np.zeros((2, len(saved.counts), saved.layout.heads, 8), np.int64)
        for number, (count, rows) in enumerate(zip(saved.counts, saved.rows, strict=True)):
            gone = count - rows[0].numbers.shape[1]
            cache.sequences[number], cache.counts[number] = [None] * (gone // BLOCK), gone
            cache.gone[number] = gone // BLOCK
            cache.append_one(number, *rows)
        cache.window = saved.window
        return cache


def without_weights(counts: Sequence[int], gone: Sequence[int]) -> InputError:
    """Why sequences that are not alike cannot be looked at together."""
    lengths, firsts = sorted(set(counts)), sorted({n * BLOCK for n in gone})
    what = f"of lengths {lengths}" if len(lengths) != 1 else f"whose first keys are {firsts}"
    return InputError(
        f"sequences {what} have no common weights: look at one of them, by "
        "one = cache.fork(), one.reorder([i]) and attend(q[i : i + 1], one)."
    )


def largest_difference(a: Array, b: Array) -> float:
    """The largest |a − b| of finite numbers."""
    with np.errstate(invalid="ignore"):
        difference = np.abs(a - b.astype(np.float32))
    return float(difference[np.isfinite(difference)].max(initial=0.0))
