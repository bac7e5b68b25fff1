"""A matrix per head that is computed where it is indexed: numpy's indices over all axes, and the limit of memory.

Responsible for turning indices into sweeps and for refusing results that are too large. `matrix` are the weights,
`scores` the scores below them; `sweep` computes the numbers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from clearhead import settings
from clearhead.arrays import Array, Integers, ceil_div
from clearhead.attention_weights.lse import Source
from clearhead.attention_weights.sweep import Sweep
from clearhead.definition.canonical import BLOCK
from clearhead.engine.problem import check_apart, check_out
from clearhead.errors import InputError
from clearhead.kernels.abi.tiles import CACHE_LINE

ALL_ITEMS = slice(None)
PART_BYTES = 1 << 21  # bytes of numbers computed at a time where only some of them are kept
INSTEAD = {  # of all numbers, where they would take too much memory
    "weights": "read parts with w.row(i), w.column(j) or w.block(rows, columns), draw w.map(), or ask w.summary()",
    "scores": "read parts with w.scores.row(i), w.scores.column(j) or w.scores.block(rows, columns)",
}


@dataclass(frozen=True, eq=False)
class LazyMatrix:
    """Numbers of pairs, (..., queries, keys), each computed when it is indexed."""

    source: Source
    heads: Integers  # numbers of the heads, in the shape of the leading axes

    name: ClassVar[str]  # "weights" or "scores"
    consumer: ClassVar[str]  # what the sweep kernel writes
    hidden: ClassVar[float]  # what stands where a pair is not seen

    def of_heads(self, heads: Integers) -> "LazyMatrix":
        """The same numbers of some heads."""
        raise NotImplementedError

    def check_rows(self, rows: Array, heads: Integers, queries: Integers) -> None:
        """Check complete rows that have been computed, (heads, queries, keys)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(..., queries, keys)."""
        return (*self.heads.shape, self.source.problem.queries, self.source.problem.keys - self.source.first_key)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64: 16-bit operands are computed as float32."""
        return np.dtype(self.source.problem.computed)

    @property
    def nbytes(self) -> int:
        """Bytes that the full matrix would take."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError(f"{self.name} are computed on each conversion: call numpy.asarray without copy=False.")
        *_, queries, keys = self.shape
        matrix = self.numbers(self.heads, np.arange(queries), np.arange(keys))
        return matrix if dtype is None else matrix.astype(dtype, copy=False)

    def __getitem__(self, index: Any) -> Any:
        entries = self.expanded(index)
        axes = [
            n for n, entry in enumerate(entries) if entry is not None and entry is not Ellipsis
        ]  # entries that index an axis
        row, column = axes[-2:]
        if all(isinstance(entries[n], slice) and entries[n] == ALL_ITEMS for n in (row, column)):
            if any(entry is None for entry in entries[row:]):
                raise IndexError(f"index {index!r}: {self.name} only take new axes before queries and keys.")
            for n, (at, size) in enumerate(zip(axes[:-2], self.heads.shape, strict=True)):
                if isinstance(entries[at], int | np.integer):
                    check_in_range(entries[at], size, "head" if n == self.ndim - 3 else "batch")
            return self.of_heads(np.asarray(self.heads[tuple(entries[:row])]))
        if any(selects_nothing(entries[n]) for n in axes):  # numpy decides the shape of an empty result, and errors
            return np.broadcast_to(np.zeros((), self.dtype), self.shape)[tuple(entries)]
        names = (*(["batch"] * (len(axes) - 3)), "head", "query", "key")[-len(axes) :]
        axes_named = zip(axes, self.shape, names, strict=True)
        used = {n: axis_indices(entries[n], size, what) for n, size, what in axes_named}
        *lead, rows, columns = [used[n][0] for n in axes]
        part = self.numbers(self.heads[np.ix_(*lead)] if lead else self.heads, rows, columns)
        return part[tuple(used[n][1] if n in used else entry for n, entry in enumerate(entries))]

    def expanded(self, index: Any) -> list[Any]:
        """Expand an index to one entry per axis, and None per new axis; an Ellipsis stays if it stands for no axis."""
        entries = list(index) if isinstance(index, tuple) else [index]
        dots = [n for n, entry in enumerate(entries) if entry is Ellipsis]
        missing = self.ndim - sum(entry is not None and entry is not Ellipsis for entry in entries)
        if len(dots) > 1 or missing < 0:
            raise IndexError(f"{len(entries)} indices {index!r} are too many for {self.name} of shape {self.shape}.")
        at = dots[0] if dots else len(entries)
        entries[at : at + 1] = [ALL_ITEMS] * missing if missing else [Ellipsis] * len(dots)
        return entries

    def row(self, i: int) -> Array:
        """The numbers of query i over all keys: (..., keys).

        >>> from clearhead import weights
        >>> weights([[0.0], [0.0]], [[0.0], [0.0]]).row(1)
        array([0.5, 0.5])
        """
        return self[..., i, :]  # type: ignore[no-any-return]

    def column(self, j: int) -> Array:
        """The numbers of key j from each query: (..., queries)."""
        return self[..., j]  # type: ignore[no-any-return]

    def block(self, rows: slice = ALL_ITEMS, columns: slice = ALL_ITEMS, *, out: Array | None = None) -> Array:
        """A rectangle as an array, (..., rows, columns), even if it covers the matrix.

        `out`, contiguous and of the result's shape and dtype, receives it, whatever CLEARHEAD_MEMORY says. Raises
        ShapeError or InputError.

        >>> import numpy as np
        >>> from clearhead import weights
        >>> matrix = np.empty((2, 2))
        >>> weights([[0.0], [0.0]], [[0.0], [0.0]]).block(out=matrix) is matrix
        True
        """
        *_, queries, keys = self.shape
        (row_numbers, at), (column_numbers, to) = axis_indices(rows, queries), axis_indices(columns, keys, "key")
        numbers = self.numbers(self.heads, row_numbers, column_numbers, out)
        return numbers[..., at, :][..., to] if out is None else out

    def numbers(self, heads: Integers, rows: Integers, columns: Integers, out: Array | None = None) -> Array:
        """The numbers of all combinations of heads, rows and columns; without `out` refused above CLEARHEAD_MEMORY."""
        shape = (*heads.shape, len(rows), len(columns))
        flat = np.ascontiguousarray(heads.reshape(-1))
        together = len(columns) > 0 and bool((np.diff(columns) == 1).all())
        if out is None:
            check_memory(shape, self.dtype, self.name)
            out = aligned(shape, self.hidden, self.dtype) if together else np.empty(shape, self.dtype)
        else:
            self.check_target(out, shape)
            out.fill(self.hidden)
        self.write(out.reshape(len(flat), *shape[-2:]), flat, rows, columns, together=together)
        return out

    def check_target(self, out: Array, shape: tuple[int, ...]) -> None:
        """Raise ShapeError or InputError unless `out` can receive numbers of this shape."""
        check_out(out, shape, self.dtype)
        if not out.flags.c_contiguous:
            raise InputError(f"out of shape {out.shape} has strides {out.strides}: pass a contiguous array.")
        check_apart(out, {"q": self.source.query, "k": self.source.key})

    def write(self, out: Array, flat: Integers, rows: Integers, columns: Integers, *, together: bool) -> None:
        """Write numbers into `out` (heads, rows, columns), which holds those of hidden pairs."""
        if together:
            self.sweep(flat, rows, int(columns[0]), int(columns[-1]) + 1).array(out, self.consumer)
            if len(columns) == self.shape[-1]:
                self.check_rows(out, flat, rows)
            return
        wanted, positions = np.unique(columns, return_inverse=True)
        for near in (
            np.split(np.arange(len(wanted)), np.flatnonzero(np.diff(wanted) > BLOCK) + 1) if len(wanted) else ()
        ):
            keys = wanted[near]
            in_run = np.isin(positions, near)
            for head, start, part in self.parts(flat, rows, int(keys[0]), int(keys[-1]) + 1):
                out[head, start : start + len(part), in_run] = part[:, wanted[positions[in_run]] - keys[0]].T

    def parts(self, heads: Integers, rows: Integers, begin: int, end: int) -> Iterator[tuple[int, int, Array]]:
        """Numbers in successive parts of limited size: (index of head, index of first row, numbers)."""
        step = max(1, PART_BYTES // max(1, (end - begin) * self.dtype.itemsize))
        for n in range(len(heads)):
            for start in range(0, len(rows), step):
                part = rows[start : start + step]
                out = np.full((1, len(part), end - begin), self.hidden, self.dtype)
                self.sweep(heads[n : n + 1], part, begin, end).array(out, self.consumer)
                yield n, start, out[0]

    def sweep(self, heads: Integers, rows: Integers, begin: int, end: int) -> Sweep:
        """A sweep over some of the pairs."""
        first = self.source.first_key
        return Sweep(self.source, heads, np.ascontiguousarray(rows, np.int64), begin + first, end + first)


def selects_nothing(entry: Any) -> bool:
    """Whether an index of one axis is an empty list or an all-False mask."""
    if isinstance(entry, slice | int | np.integer):
        return False
    array = np.asarray(entry)
    return not (array.any() if array.dtype == np.bool_ else array.size)


def check_in_range(number: Any, size: int, what: str) -> None:
    """Raise IndexError, as numpy does, unless an axis of this size has an entry of this number."""
    if not -size <= number < size:
        choice = f"choose from 0 to {size - 1}, or from {-size} to -1 to count from the end" if size else "it is empty"
        raise IndexError(f"{what} {number} is out of range, for there are {size}: {choice}.")


def axis_indices(entry: Any, size: int, what: str = "query") -> tuple[Integers, Any]:
    """The numbers that an index of one axis selects, sorted if it is a list, and the index into them."""
    numbers = np.arange(size)
    if isinstance(entry, slice):
        return numbers[entry], ALL_ITEMS
    if isinstance(entry, int | np.integer) and not isinstance(entry, bool):
        check_in_range(entry, size, what)
        return numbers[[int(entry)]], 0
    array = np.asarray(entry)
    if not array.size:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu" and not (array.dtype == np.bool_ and array.ndim == 1):
        raise IndexError(
            f"index {entry!r} does not work on weights: use integers, slices, lists of integers or of booleans."
        )
    if array.dtype != np.bool_:
        for number in array[(array < -size) | (array >= size)][:1]:
            check_in_range(number, size, what)
    elif len(array) != size:
        raise IndexError(f"{what} has {len(array)} booleans, but there are {size}: give one for each.")
    wanted, inverse = np.unique(numbers[array], return_inverse=True)
    return wanted, inverse.reshape(numbers[array].shape)


def aligned(shape: tuple[int, ...], number: float, dtype: np.dtype[Any]) -> Array:
    """An array of one number, aligned to a cache line, which is faster to write to."""
    size, line = int(np.prod(shape)), CACHE_LINE // dtype.itemsize
    buffer = np.zeros(size + line, dtype) if number == 0 else np.full(size + line, number, dtype)
    first = -buffer.ctypes.data % CACHE_LINE // dtype.itemsize
    return buffer[first : first + size].reshape(shape)


def check_memory(shape: tuple[int, ...], dtype: np.dtype[Any], what: str = "weights") -> None:
    """Raise InputError for arrays larger than CLEARHEAD_MEMORY."""
    text = settings.MEMORY.read()
    if not text.isdecimal():
        raise InputError(f"CLEARHEAD_MEMORY={text} is not a number of MiB: set it to 1024, for instance.")
    needed = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if needed > int(text) << 20:
        raise InputError(
            f"{what} of shape {shape} would take {ceil_div(needed, 1 << 20):,} MiB, more than CLEARHEAD_MEMORY={text}: "
            f"{INSTEAD[what]}."
        )
