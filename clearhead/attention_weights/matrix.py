"""Attention weights as a lazy matrix per head: only the parts that you index are computed.

Responsible for turning indices into sweeps and for refusing results that are too large. `sweep` runs sweeps, `summary`
lists the questions a sweep can answer, `definition.weights` defines their meaning.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from clearhead import settings
from clearhead.arrays import Array, Integers
from clearhead.attention_weights.lse import Source
from clearhead.attention_weights.summary import NEEDS, PER_KEY, Summary, carriers, checked_questions
from clearhead.attention_weights.sweep import Sweep
from clearhead.cache.kept import without_weights
from clearhead.cache.key_value import KeyValueCache
from clearhead.cache.pages import Paged
from clearhead.definition.canonical import BLOCK
from clearhead.engine.execute import execute_cache
from clearhead.engine.inputs import Operands, Rules
from clearhead.engine.kept import rules_over
from clearhead.engine.problem import as_array, broadcast_heads, over_pages, problem_of
from clearhead.errors import InputError, ShapeError
from clearhead.kernels.abi.tiles import CACHE_LINE
from clearhead.rules.masks import CAUSAL, Mask
from clearhead.rules.scores import ScoreLike

ALL_ITEMS = slice(None)
PART_BYTES = 1 << 21  # bytes of weights built at a time where only sums are needed


def weights(
    q: npt.ArrayLike,
    k: npt.ArrayLike | KeyValueCache | Paged,
    *,
    mask: Mask = CAUSAL,
    score: ScoreLike = (),
    scale: float | None = None,
    sink: npt.ArrayLike | None = None,
    lse: npt.ArrayLike | None = None,
    threads: int | None = None,
) -> "Weights":
    """All attention weights of queries over keys, at any length; a weight is computed when you index it.

    Shapes, dtypes, rules and errors are those of `attention`. The result has shape (..., queries, keys) and keeps q and
    k, so do not change them. k may be a `KeyValueCache`, which is read as it is now. `lse` (..., queries) is the result
    of `attend` for the same call; without it, it is computed for the queries you index. Definition:
    `clearhead.definition.weights.weights`.

    >>> import numpy as np
    >>> w = weights(np.eye(3), np.eye(3), scale=1.0)
    >>> w.shape, w[2].round(3)
    ((3, 3), array([0.212, 0.212, 0.576]))
    """
    query, known = as_array(q, "q"), None if lse is None else as_array(lse, "lse")
    rules = Rules(mask, score, None if sink is None else as_array(sink, "sink"), scale)
    if not isinstance(k, KeyValueCache):
        key = k if isinstance(k, Paged) else as_array(k, "k")
        return weights_of(query, key, rules, lse=known, threads=threads, matching=known is None)
    if known is not None:
        return weights_of(query, k.paged(ALL_ITEMS), rules, lse=known, threads=threads, matching=False)
    known = execute_cache(query, k, rules, threads=threads, lse=True)[1]
    if not k.alike:
        raise without_weights(k.extents)
    return weights_of(query, k.paged(ALL_ITEMS), rules, lse=known, threads=threads, matching=True)


def weights_of(
    query: Array, k: Array | Paged, rules: Rules, *, lse: Array | None, threads: int | None, matching: bool
) -> "Weights":
    """`weights` from operands and rules; `matching` says that `lse` is of exactly these queries, keys and rules."""
    pages, key = (k, k.key) if isinstance(k, Paged) else (None, k)
    if pages is not None:
        rules = rules_over(pages, rules, query.shape)
    problem = problem_of(Operands(query, key, key), rules)
    shape = (*problem.lead, problem.queries)
    if lse is not None and lse.shape != shape:
        raise ShapeError(f"lse of shape {lse.shape} does not fit q {query.shape}: attend(...).lse has {shape}.")
    source = Source(problem, query, key, lse, rules.sink, threads, matching=matching)
    if pages is not None:
        problem = over_pages(problem, rules.mask, first_key=pages.first_key, int8=pages.int8)
        source = replace(source, problem=problem, key=pages.tables[0], pages=pages)
    return Weights(source, np.arange(problem.heads).reshape(problem.lead))


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights of attention, (..., queries, keys), as `weights(q, k)` or `attend(q, k, v).weights` gives them.

    Each weight is α = exp(score − LSE). Rows sum to 1 (minus a sink's share); hidden pairs are exactly 0. Index as in
    numpy: an index of complete heads gives `Weights` again, any other gives an array:

    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal((2, 8, 4))
    >>> w = weights(x, x)
    >>> w[1].shape, w[1, -1].shape, w[:, 2:4, :3].shape, type(w[1]).__name__
    ((8, 8), (8,), (2, 2, 3), 'Weights')
    """

    source: Source
    heads: Integers  # numbers of the heads, in the shape of the leading axes

    @property
    def shape(self) -> tuple[int, ...]:
        """(..., queries, keys)."""
        return (*self.heads.shape, self.source.problem.queries, self.source.problem.keys)

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

    @property
    def lse(self) -> Array:
        """Each query's log-sum-exp of scores, (..., queries)."""
        return self.source.lse(np.arange(self.source.problem.queries))[self.heads]

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Weights(shape={self.shape}, dtype={self.dtype.name})"

    def _repr_html_(self) -> str:
        """Notebook output: a table of heads and, with matplotlib installed, a picture."""
        from clearhead.attention_weights.notebook import weights_html

        return weights_html(self)

    def _repr_png_(self) -> bytes | None:
        """The picture alone, if matplotlib is installed and the weights are small enough to draw automatically."""
        from clearhead.attention_weights.notebook import picture

        return picture(self)

    # Numbers

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("weights are computed on each conversion: call numpy.asarray(w) without copy=False.")
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
                raise IndexError(f"index {index!r}: weights only take new axes before queries and keys.")
            return Weights(self.source, np.asarray(self.heads[tuple(entries[:row])]))
        if any(selects_nothing(entries[n]) for n in axes):  # numpy decides the shape of an empty result, and errors
            return np.broadcast_to(np.zeros((), self.dtype), self.shape)[tuple(entries)]
        used = {n: axis_indices(entries[n], size) for n, size in zip(axes, self.shape, strict=True)}
        *lead, rows, columns = [used[n][0] for n in axes]
        part = self.numbers(self.heads[np.ix_(*lead)] if lead else self.heads, rows, columns)
        return part[tuple(used[n][1] if n in used else entry for n, entry in enumerate(entries))]

    def expanded(self, index: Any) -> list[Any]:
        """Expand an index to one entry per axis, and None per new axis; an Ellipsis stays if it stands for no axis."""
        entries = list(index) if isinstance(index, tuple) else [index]
        dots = [n for n, entry in enumerate(entries) if entry is Ellipsis]
        missing = self.ndim - sum(entry is not None and entry is not Ellipsis for entry in entries)
        if len(dots) > 1 or missing < 0:
            raise IndexError(f"{len(entries)} indices {index!r} are too many for weights of shape {self.shape}.")
        at = dots[0] if dots else len(entries)
        entries[at : at + 1] = [ALL_ITEMS] * missing if missing else [Ellipsis] * len(dots)
        return entries

    def row(self, i: int) -> Array:
        """The weights of query i over all keys: (..., keys).

        >>> weights([[0.0], [0.0]], [[0.0], [0.0]]).row(1)
        array([0.5, 0.5])
        """
        return self[..., i, :]  # type: ignore[no-any-return]

    def column(self, j: int) -> Array:
        """The weights that key j gets from each query: (..., queries)."""
        return self[..., j]  # type: ignore[no-any-return]

    def block(self, rows: slice, columns: slice) -> Array:
        """A rectangle of weights as an array, (..., rows, columns), even if it covers the matrix."""
        *_, queries, keys = self.shape
        (row_numbers, at), (column_numbers, to) = axis_indices(rows, queries), axis_indices(columns, keys)
        return self.numbers(self.heads, row_numbers, column_numbers)[..., at, :][..., to]

    def numbers(self, heads: Integers, rows: Integers, columns: Integers) -> Array:
        """The weights of all combinations of heads, rows and columns; refused above CLEARHEAD_MEMORY."""
        shape = (*heads.shape, len(rows), len(columns))
        check_memory(shape, self.dtype)
        flat = np.ascontiguousarray(heads.reshape(-1))
        if len(columns) and (np.diff(columns) == 1).all():
            out = aligned_zeros((len(flat), *shape[-2:]), self.dtype)
            self.sweep(flat, rows, int(columns[0]), int(columns[-1]) + 1).block(out)
            if len(columns) == self.shape[-1]:
                self.source.check(out, flat, rows)
            return out.reshape(shape)
        out = np.empty((len(flat), *shape[-2:]), self.dtype)
        wanted, positions = np.unique(columns, return_inverse=True)
        for near in (
            np.split(np.arange(len(wanted)), np.flatnonzero(np.diff(wanted) > BLOCK) + 1) if len(wanted) else ()
        ):
            keys = wanted[near]
            in_run = np.isin(positions, near)
            for head, start, part in self.parts(flat, rows, int(keys[0]), int(keys[-1]) + 1):
                out[head, start : start + len(part), in_run] = part[:, wanted[positions[in_run]] - keys[0]].T
        return out.reshape(shape)

    def slices(self) -> Iterator[slice]:
        """Successive slices of queries, each with little memory for the weights of one head."""
        *_, queries, keys = self.shape
        step = max(1, PART_BYTES // max(1, keys * self.dtype.itemsize))
        for start in range(0, queries, step):
            yield slice(start, min(start + step, queries))

    def parts(self, heads: Integers, rows: Integers, begin: int, end: int) -> Iterator[tuple[int, int, Array]]:
        """Weights in successive parts of limited size: (index of head, index of first row, weights)."""
        step = max(1, PART_BYTES // max(1, (end - begin) * self.dtype.itemsize))
        for n in range(len(heads)):
            for start in range(0, len(rows), step):
                part = rows[start : start + step]
                out = np.zeros((1, len(part), end - begin), self.dtype)
                self.sweep(heads[n : n + 1], part, begin, end).block(out)
                yield n, start, out[0]

    def sweep(self, heads: Integers, rows: Integers, begin: int, end: int) -> Sweep:
        """A sweep over some of the weights."""
        return Sweep(self.source, heads, np.ascontiguousarray(rows, np.int64), begin, end)

    # Questions

    def summary(
        self,
        *names: str,
        top: int = 8,
        window: int = 128,
        shares: Sequence[float] = (0.5, 0.9, 0.99),
        queries: slice | npt.ArrayLike = ALL_ITEMS,
        v: npt.ArrayLike | None = None,
    ) -> Summary:
        """Answer questions about all weights in one pass, with memory linear in the length.

        Without `names`, all but `carriers`. Per query: `entropy` (nats), `effective` (e^entropy), mean `distance`,
        weight of the `first` key, share `within` fewer than `window` items, largest weight `off_first`, `top` (as
        `top_keys` and `top_weights`, the `top` largest; key −1 if there are fewer), `carriers` (fewest keys that carry
        each of `shares`; sorts each row). Per key: `received_sum`, `received_max`, `received_mean`. Restrict rows with
        `queries`. With values `v`, the `received_…` answers and `top` weigh α·‖v_j‖. Raises InputError. Definitions:
        `clearhead.definition.weights`.

        >>> x = [[0.0], [0.0], [0.0], [0.0]]
        >>> s = weights(x, x).summary("effective", "received_sum")
        >>> s.effective.round(3), s.received_sum.round(3)
        (array([1., 2., 3., 4.]), array([2.083, 1.083, 0.583, 0.25 ]))
        """
        pages = self.source.pages
        names = checked_questions(names, placed=pages is None or pages.kept is None)
        for name, number in (("top", top), ("window", window)):
            if not isinstance(number, int | np.integer) or number < 1:
                raise InputError(f"summary's {name}={number!r} must be a positive integer: use 1, 2, 3 …")
        (rows, at), flat = axis_indices(queries, self.shape[-2]), np.ascontiguousarray(self.heads.reshape(-1))
        wanted = {NEEDS[name] for name in names}
        sizes = None if v is None else self.value_norms(as_array(v, "v"))
        factors = None if sizes is None else np.ascontiguousarray(sizes.reshape(-1, self.shape[-1]))
        if "top" in wanted:
            check_memory((*self.heads.shape, len(rows), int(top)), self.dtype)
        near, most = (min(int(n), sum(self.shape[-2:])) for n in (window, top))
        sweep = replace(self.sweep(flat, rows, 0, self.shape[-1]), near=near, top=max(1, most), factors=factors)
        sums = sweep.reductions(tuple(wanted)) if wanted - {"carriers"} else {}
        answers: dict[str, Array] = {}
        for name in names:
            match name:
                case "effective":
                    answers[name] = np.exp(sums["entropy"])
                case "received_mean":
                    answers[name] = sums["received_sum"] / self.dtype.type(max(1, len(rows)))
                case "top":
                    padding = [(0, 0), (0, 0), (0, int(top) - sums["top_keys"].shape[-1])]
                    lists = (("top_weights", 0), ("top_keys", -1))
                    answers |= {key: np.pad(sums[key], padding, constant_values=none) for key, none in lists}
                case "carriers":
                    answers[name] = self.carriers(flat, rows, shares)
                case _:
                    answers[name] = sums[name]
        lead = self.heads.shape
        answers = {name: x if name in PER_KEY else x[:, at] for name, x in answers.items()}
        answers = {name: x.reshape(*lead, *x.shape[1:]) for name, x in answers.items()}
        if sizes is not None:
            for name in PER_KEY:
                if name in answers:  # unseen values count as 0, even if infinite
                    x = answers[name]
                    answers[name] = np.multiply(x, sizes, where=x != 0, out=np.zeros_like(x))
        return Summary(answers)

    def carriers(self, heads: Integers, rows: Integers, shares: Sequence[float]) -> Array:
        """The fewest keys that carry each share of each row."""
        out = np.empty((len(heads), len(rows), len(shares)), np.int64)
        for head, start, part in self.parts(heads, rows, 0, self.shape[-1]):
            out[head, start : start + len(part)] = carriers(part, shares)
        return out

    def value_norms(self, v: Array) -> Array:
        """‖v_j‖ for each head, (..., keys)."""
        problem = self.source.problem
        if v.ndim < 2 or v.shape[-2] != problem.keys:
            raise ShapeError(f"v of shape {v.shape} does not fit {problem.keys} keys: give (..., {problem.keys}, dim).")
        lead = broadcast_heads((*problem.lead,), v.shape[:-2], v.shape[:-2])
        if lead != problem.lead:
            raise ShapeError(
                f"v of shape {v.shape} does not fit weights of {problem.lead} heads: give one that broadcasts to "
                f"{(*problem.lead, problem.keys)} and its dim."
            )
        with np.errstate(over="ignore", invalid="ignore"):
            sizes = np.linalg.norm(v.astype(self.dtype), axis=-1)
        if sizes.ndim > 1 and 1 < sizes.shape[-2] < lead[-1]:
            sizes = np.repeat(sizes, lead[-1] // sizes.shape[-2], axis=-2)
        return np.broadcast_to(sizes, (*lead, problem.keys)).reshape(-1, problem.keys)[self.heads]

    def map(
        self,
        rows: slice = ALL_ITEMS,
        columns: slice = ALL_ITEMS,
        *,
        size: int | tuple[int, int] = 512,
        reduce: Literal["max", "mean", "sum"] = "max",
    ) -> Array:
        """Pool a rectangle of the matrix to a picture of at most (..., size, size); exact, nothing is sampled.

        Pixel (r, c) is the maximum, sum or mean of the weights in rows ⌊r·rows/size⌋ to ⌊(r + 1)·rows/size⌋ and the
        columns likewise. Hidden pairs count as 0. Raises InputError.

        >>> x = [[0.0], [0.0], [0.0], [0.0]]
        >>> weights(x, x).map(size=2, reduce="sum").round(3)
        array([[2.   , 0.   ],
               [1.167, 0.833]])
        """
        if reduce not in ("max", "mean", "sum"):
            raise InputError(f"map's reduce={reduce!r} is unknown: use 'max', 'mean' or 'sum'.")
        (begin, end), (first, last) = (
            slice_bounds(part, length, name)
            for part, length, name in zip((rows, columns), self.shape[-2:], ("rows", "columns"), strict=True)
        )
        sizes = (size, size) if isinstance(size, int | np.integer) else tuple(size)
        if len(sizes) != 2 or any(not isinstance(n, int | np.integer) or n < 1 for n in sizes):
            raise InputError(f"map's size={size!r} must be a positive number of pixels: use 512, or (height, width).")
        height, width = min(int(sizes[0]), end - begin), min(int(sizes[1]), last - first)
        flat = np.ascontiguousarray(self.heads.reshape(-1))
        check_memory((len(flat), height, width), self.dtype)
        picture = np.zeros((len(flat), height, width), self.dtype)
        borders = np.arange(height + 1) * (end - begin) // max(1, height)
        how = "pool_max" if reduce == "max" else "pool_sum"
        self.sweep(flat, np.arange(begin, end), first, last).picture(picture, how, borders)
        if reduce == "mean":
            widths = np.diff(np.arange(width + 1) * (last - first) // max(1, width))
            picture /= (np.diff(borders)[:, None] * widths).astype(self.dtype)
        return picture.reshape(*self.heads.shape, height, width)


def selects_nothing(entry: Any) -> bool:
    """Whether an index of one axis is an empty list or an all-False mask."""
    if isinstance(entry, slice | int | np.integer):
        return False
    array = np.asarray(entry)
    return not (array.any() if array.dtype == np.bool_ else array.size)


def axis_indices(entry: Any, size: int) -> tuple[Integers, Any]:
    """The numbers that an index of one axis selects, sorted if it is a list, and the index into them."""
    numbers = np.arange(size)
    if isinstance(entry, slice):
        return numbers[entry], ALL_ITEMS
    if isinstance(entry, int | np.integer) and not isinstance(entry, bool):
        return numbers[[int(entry)]], 0
    array = np.asarray(entry)
    if not array.size:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu" and not (array.dtype == np.bool_ and array.ndim == 1):
        raise IndexError(
            f"index {entry!r} does not work on weights: use integers, slices, lists of integers or of booleans."
        )
    wanted, inverse = np.unique(numbers[array], return_inverse=True)
    return wanted, inverse.reshape(numbers[array].shape)


def slice_bounds(part: slice, length: int, name: str) -> tuple[int, int]:
    """Begin and end of a slice without a step."""
    if not isinstance(part, slice) or part.step not in (None, 1):
        raise InputError(f"map's {name}={part!r} must be a slice without a step: use slice(first, stop).")
    begin, end, _ = part.indices(length)
    return begin, max(begin, end)


def aligned_zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Zeros aligned to a cache line, which are faster to write."""
    size, line = int(np.prod(shape)), CACHE_LINE // dtype.itemsize
    buffer = np.zeros(size + line, dtype)
    first = -buffer.ctypes.data % CACHE_LINE // dtype.itemsize
    return buffer[first : first + size].reshape(shape)


def check_memory(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise InputError for arrays larger than CLEARHEAD_MEMORY."""
    text = settings.MEMORY.read()
    if not text.isdecimal():
        raise InputError(f"CLEARHEAD_MEMORY={text} is not a number of MiB: set it to 1024, for instance.")
    needed = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if needed > int(text) << 20:
        raise InputError(
            f"weights of shape {shape} would take {needed / 2**20:,.0f} MiB, more than CLEARHEAD_MEMORY={text}: read "
            "parts with w.row(i), w.column(j) or w.block(rows, columns), draw w.map(), or ask w.summary()."
        )
