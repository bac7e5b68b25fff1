"""Weights as users look at them: a matrix for each head that is never built, only computed where it is looked at.

Decides how indices become sweeps, and what is refused for its size; sweeps are `sweep`'s, the questions that a sweep
can answer are listed in `summary`, their meaning is `definition.weights`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from clearhead import settings
from clearhead.arrays import Array, Integers
from clearhead.attention_weights.lse import Source
from clearhead.attention_weights.summary import NEEDS, PER_KEY, Summary, carriers, checked_names
from clearhead.attention_weights.sweep import Sweep
from clearhead.cache.key_value import KeyValueCache, without_weights
from clearhead.cache.pages import Paged
from clearhead.definition.canonical import BLOCK
from clearhead.engine.execute import execute_cache
from clearhead.engine.inputs import Operands, Rules
from clearhead.engine.problem import as_array, broadcast_heads, over_pages, problem_of
from clearhead.errors import InputError, ShapeError
from clearhead.kernels.abi.tiles import CACHE_LINE
from clearhead.rules.masks import CAUSAL, Mask, at_end, checked_mask
from clearhead.rules.scores import ScoreLike

ALL = slice(None)
PART = 1 << 21  # bytes of the weights that are built at once where they are only passed through


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
    """Every attention weight of queries over keys, at any length, computed where it is looked at.

    Shapes, dtypes, rules and errors as for `attention`; the result has shape (..., queries, keys) and holds q and k, so
    change neither. In place of k, a `KeyValueCache`, whose pages are held as they are now. `lse` (..., queries) is what
    `attend` gave for the same call; without it, it is computed for the queries that are looked at. Definition:
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
        return weights_of(query, key, rules, lse=known, threads=threads, own=known is None)
    if known is not None:
        return weights_of(query, k.paged(ALL), rules, lse=known, threads=threads, own=False)
    known = execute_cache(query, k, rules, threads=threads, lse=True)[1]
    if not k.alike:
        raise without_weights(tuple(k.counts), tuple(k.gone))
    return weights_of(query, k.paged(ALL), rules, lse=known, threads=threads, own=True)


def weights_of(
    query: Array, k: Array | Paged, rules: Rules, *, lse: Array | None, threads: int | None, own: bool
) -> "Weights":
    """The same of values; `own` if the LSE, where it is given, is that of these very queries, keys and rules."""
    pages, key = (k, k.key) if isinstance(k, Paged) else (None, k)
    if pages is not None:
        rules = rules._replace(mask=at_end(checked_mask(rules.mask)))
    problem = problem_of(Operands(query, key, key), rules)
    shape = (*problem.lead, problem.queries)
    if lse is not None and lse.shape != shape:
        raise ShapeError(f"lse of shape {lse.shape} does not belong to q {query.shape}: attend(...).lse has {shape}.")
    source = Source(problem, query, key, lse, rules.sink, threads, own=own)
    if pages is not None:
        problem = over_pages(problem, rules.mask, first_key=pages.first_key, int8=pages.int8)
        source = replace(source, problem=problem, key=pages.tables[0], pages=pages)
    return Weights(source, np.arange(problem.heads).reshape(problem.lead))


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights of attention, (..., queries, keys), as `weights(q, k)` or `attend(q, k, v).weights` gives them.

    Each is α = exp(score − LSE): rows sum to 1 (less a sink's share), what a query does not see is exactly 0. Indices
    are numpy's. One that takes whole heads gives `Weights` again, any other the numbers:

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
        """How many axes."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64: operands of 16 bits are computed as float32."""
        return np.dtype(self.source.problem.computed)

    @property
    def nbytes(self) -> int:
        """How many bytes the whole matrix would take."""
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
        """What a notebook shows: the heads' figures and, where matplotlib is installed, their picture."""
        from clearhead.attention_weights.notebook import page

        return page(self)

    def _repr_png_(self) -> bytes | None:
        """The picture alone, where matplotlib is installed and weights are not too many to look at unproblem."""
        from clearhead.attention_weights.notebook import picture

        return picture(self)

    # Numbers

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("weights are computed anew: numpy.asarray(w) without copy=False.")
        *_, queries, keys = self.shape
        whole = self.numbers(self.heads, np.arange(queries), np.arange(keys))
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __getitem__(self, index: Any) -> Any:
        entries = self.expanded(index)
        own = [n for n, entry in enumerate(entries) if entry is not None and entry is not Ellipsis]  # one for each axis
        row, column = own[-2:]
        if all(isinstance(entries[n], slice) and entries[n] == ALL for n in (row, column)):
            if any(entry is None for entry in entries[row:]):
                raise IndexError(f"index {index!r}: weights get new axes before queries and keys only.")
            return Weights(self.source, np.asarray(self.heads[tuple(entries[:row])]))
        if any(chooses_nothing(entries[n]) for n in own):  # then numpy alone says the shape, and what is an error
            return np.broadcast_to(np.zeros((), self.dtype), self.shape)[tuple(entries)]
        used = {n: chosen(entries[n], size) for n, size in zip(own, self.shape, strict=True)}
        *lead, rows, columns = [used[n][0] for n in own]
        part = self.numbers(self.heads[np.ix_(*lead)] if lead else self.heads, rows, columns)
        return part[tuple(used[n][1] if n in used else entry for n, entry in enumerate(entries))]

    def expanded(self, index: Any) -> list[Any]:
        """An index with one entry for each axis, and None for each new one; dots stay where they stand for no axis."""
        entries = list(index) if isinstance(index, tuple) else [index]
        dots = [n for n, entry in enumerate(entries) if entry is Ellipsis]
        missing = self.ndim - sum(entry is not None and entry is not Ellipsis for entry in entries)
        if len(dots) > 1 or missing < 0:
            raise IndexError(f"{len(entries)} indices {index!r} are too many for weights of shape {self.shape}.")
        at = dots[0] if dots else len(entries)
        entries[at : at + 1] = [ALL] * missing if missing else [Ellipsis] * len(dots)
        return entries

    def row(self, i: int) -> Array:
        """What query i gives each key: (..., keys).

        >>> weights([[0.0], [0.0]], [[0.0], [0.0]]).row(1)
        array([0.5, 0.5])
        """
        return self[..., i, :]  # type: ignore[no-any-return]

    def column(self, j: int) -> Array:
        """What each query gives key j: (..., queries)."""
        return self[..., j]  # type: ignore[no-any-return]

    def block(self, rows: slice, columns: slice) -> Array:
        """A rectangle of weights, (..., rows, columns), even if it is all of them."""
        *_, queries, keys = self.shape
        (own_rows, at), (own_columns, to) = chosen(rows, queries), chosen(columns, keys)
        return self.numbers(self.heads, own_rows, own_columns)[..., at, :][..., to]

    def numbers(self, heads: Integers, rows: Integers, columns: Integers) -> Array:
        """The weights of some heads, rows and columns, each with each; refused above CLEARHEAD_MEMORY."""
        shape = (*heads.shape, len(rows), len(columns))
        check_memory(shape, self.dtype)
        flat = np.ascontiguousarray(heads.reshape(-1))
        if len(columns) and (np.diff(columns) == 1).all():
            out = zeros_in_lines((len(flat), *shape[-2:]), self.dtype)
            self.sweep(flat, rows, int(columns[0]), int(columns[-1]) + 1).block(out)
            if len(columns) == self.shape[-1]:
                self.source.check(out, flat, rows)
            return out.reshape(shape)
        out = np.empty((len(flat), *shape[-2:]), self.dtype)
        wanted, places = np.unique(columns, return_inverse=True)
        for near in (
            np.split(np.arange(len(wanted)), np.flatnonzero(np.diff(wanted) > BLOCK) + 1) if len(wanted) else ()
        ):
            run_of = wanted[near]
            mine = np.isin(places, near)
            for head, start, part in self.parts(flat, rows, int(run_of[0]), int(run_of[-1]) + 1):
                out[head, start : start + len(part), mine] = part[:, wanted[places[mine]] - run_of[0]].T
        return out.reshape(shape)

    def slices(self) -> Iterator[slice]:
        """Slices of the queries, one after the other, whose weights of one head take little memory."""
        *_, queries, keys = self.shape
        step = max(1, PART // max(1, keys * self.dtype.itemsize))
        for start in range(0, queries, step):
            yield slice(start, min(start + step, queries))

    def parts(self, heads: Integers, rows: Integers, begin: int, end: int) -> Iterator[tuple[int, int, Array]]:
        """Weights in parts of limited size, one after the other: (place of head, place of first row, weights)."""
        step = max(1, PART // max(1, (end - begin) * self.dtype.itemsize))
        for n in range(len(heads)):
            for start in range(0, len(rows), step):
                some = rows[start : start + step]
                out = np.zeros((1, len(some), end - begin), self.dtype)
                self.sweep(heads[n : n + 1], some, begin, end).block(out)
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
        queries: slice | npt.ArrayLike = ALL,
        v: npt.ArrayLike | None = None,
    ) -> Summary:
        """Answer questions about all weights in one pass, in memory that grows with the length, not with its square.

        Names, all but `carriers` if none is given. For each query: `entropy` (nats), `effective` (e^entropy), mean
        `distance`, weight of the `first` key, share `within` fewer than `window` items, largest weight `off_first`,
        `top` (as `top_keys` and `top_weights`, the `top` largest, key −1 where there are fewer), `carriers` (fewest
        keys that carry each of `shares`; sorts each row). For each key: `received_sum`, `received_max`,
        `received_mean`. Only `queries` are asked and counted; with values `v`, what keys receive and `top` lists is
        α·‖v_j‖. Raises InputError. Definitions: `clearhead.definition.weights`.

        >>> x = [[0.0], [0.0], [0.0], [0.0]]
        >>> s = weights(x, x).summary("effective", "received_sum")
        >>> s.effective.round(3), s.received_sum.round(3)
        (array([1., 2., 3., 4.]), array([2.083, 1.083, 0.583, 0.25 ]))
        """
        names = checked_names(names)
        for name, number in (("top", top), ("window", window)):
            if not isinstance(number, int | np.integer) or number < 1:
                raise InputError(f"summary's {name}={number!r} is no number of keys: use 1, 2, 3 …")
        (rows, at), flat = chosen(queries, self.shape[-2]), np.ascontiguousarray(self.heads.reshape(-1))
        wanted = {NEEDS[name] for name in names}
        sizes = None if v is None else self.value_norms(as_array(v, "v"))
        factors = None if sizes is None else np.ascontiguousarray(sizes.reshape(-1, self.shape[-1]))
        if "top" in wanted:
            check_memory((*self.heads.shape, len(rows), int(top)), self.dtype)
        near, most = (min(int(n), sum(self.shape[-2:])) for n in (window, top))
        sweep = replace(self.sweep(flat, rows, 0, self.shape[-1]), near=near, top=max(1, most), factors=factors)
        found = sweep.reductions(tuple(wanted)) if wanted - {"carriers"} else {}
        answers: dict[str, Array] = {}
        for name in names:
            match name:
                case "effective":
                    answers[name] = np.exp(found["entropy"])
                case "received_mean":
                    answers[name] = found["received_sum"] / self.dtype.type(max(1, len(rows)))
                case "top":
                    more = [(0, 0), (0, 0), (0, int(top) - found["top_keys"].shape[-1])]
                    lists = (("top_weights", 0), ("top_keys", -1))
                    answers |= {own: np.pad(found[own], more, constant_values=none) for own, none in lists}
                case "carriers":
                    answers[name] = self.carriers(flat, rows, shares)
                case _:
                    answers[name] = found[name]
        lead = self.heads.shape
        answers = {name: x if name in PER_KEY else x[:, at] for name, x in answers.items()}
        answers = {name: x.reshape(*lead, *x.shape[1:]) for name, x in answers.items()}
        if sizes is not None:
            for name in PER_KEY:
                if name in answers:  # a value that nobody sees is not touched
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
            raise ShapeError(
                f"v of shape {v.shape} does not belong to {problem.keys} keys: give (..., {problem.keys}, dim)."
            )
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
        rows: slice = ALL,
        columns: slice = ALL,
        *,
        size: int | tuple[int, int] = 512,
        reduce: Literal["max", "mean", "sum"] = "max",
    ) -> Array:
        """A picture of any rectangle of the matrix, (..., size, size) or less: each pixel is exact, nothing is sampled.

        Pixel (r, c) is the largest weight, their sum or their mean over its rows ⌊r·rows/size⌋ … and columns, likewise;
        pairs that are not seen count as 0. Raises InputError.

        >>> x = [[0.0], [0.0], [0.0], [0.0]]
        >>> weights(x, x).map(size=2, reduce="sum").round(3)
        array([[2.   , 0.   ],
               [1.167, 0.833]])
        """
        if reduce not in ("max", "mean", "sum"):
            raise InputError(f"map's reduce={reduce!r} is unknown: use 'max', 'mean' or 'sum'.")
        (begin, end), (first, last) = (
            plain(part, length, name)
            for part, length, name in zip((rows, columns), self.shape[-2:], ("rows", "columns"), strict=True)
        )
        sizes = (size, size) if isinstance(size, int | np.integer) else tuple(size)
        if len(sizes) != 2 or any(not isinstance(n, int | np.integer) or n < 1 for n in sizes):
            raise InputError(f"map's size={size!r} is no number of pixels: use 512, or (height, width).")
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


def chooses_nothing(entry: Any) -> bool:
    """Whether an index of one axis is a list without a number, or of falsehoods alone."""
    if isinstance(entry, slice | int | np.integer):
        return False
    places = np.asarray(entry)
    return not (places.any() if places.dtype == np.bool_ else places.size)


def chosen(entry: Any, size: int) -> tuple[Integers, Any]:
    """The numbers that an index of one axis names, ascending where it is a list, and the index into them."""
    numbers = np.arange(size)
    if isinstance(entry, slice):
        return numbers[entry], ALL
    if isinstance(entry, int | np.integer) and not isinstance(entry, bool):
        return numbers[[int(entry)]], 0
    places = np.asarray(entry)
    if not places.size:
        places = places.astype(np.int64)
    if places.dtype.kind not in "iu" and not (places.dtype == np.bool_ and places.ndim == 1):
        raise IndexError(
            f"index {entry!r} is not known to weights: use numbers, slices, lists of numbers or of truths."
        )
    wanted, own = np.unique(numbers[places], return_inverse=True)
    return wanted, own.reshape(numbers[places].shape)


def plain(part: slice, length: int, name: str) -> tuple[int, int]:
    """Begin and end of a slice without steps."""
    if not isinstance(part, slice) or part.step not in (None, 1):
        raise InputError(f"map's {name}={part!r} is no rectangle: use slice(first, stop).")
    begin, end, _ = part.indices(length)
    return begin, max(begin, end)


def zeros_in_lines(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Zeros that begin at a cache line, which makes writing them faster."""
    size, line = int(np.prod(shape)), CACHE_LINE // dtype.itemsize
    room = np.zeros(size + line, dtype)
    first = -room.ctypes.data % CACHE_LINE // dtype.itemsize
    return room[first : first + size].reshape(shape)


def check_memory(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse arrays larger than CLEARHEAD_MEMORY says."""
    text = settings.MEMORY.read()
    if not text.isdecimal():
        raise InputError(f"CLEARHEAD_MEMORY={text} is not a number of MiB: use 1024, or another.")
    needed = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if needed > int(text) << 20:
        raise InputError(
            f"weights of shape {shape} would take {needed / 2**20:,.0f} MiB, more than CLEARHEAD_MEMORY={text}: look "
            "at parts by w.row(i), w.column(j) or w.block(rows, columns), at a picture by w.map(), or ask w.summary()."
        )
