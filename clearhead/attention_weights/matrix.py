"""Attention weights as a lazy matrix per head: only the parts that you index are computed.

Responsible for what users ask of weights. `lazy` turns indices into sweeps, `answers` questions; `definition.weights`
defines their meaning.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array, Integers
from clearhead.attention_weights.answers import Given, answer
from clearhead.attention_weights.lazy import ALL_ITEMS, PART_BYTES, LazyMatrix, check_memory
from clearhead.attention_weights.lse import Source
from clearhead.attention_weights.scores import Scores
from clearhead.attention_weights.summary import Summary
from clearhead.cache.kept import without_weights
from clearhead.cache.key_value import KeyValueCache
from clearhead.cache.pages import Paged
from clearhead.displayed import Displayed
from clearhead.engine.execute import check_cache, execute_cache
from clearhead.engine.inputs import Operands, Rules
from clearhead.engine.kept import rules_over
from clearhead.engine.problem import as_array, over_pages, problem_of
from clearhead.errors import InputError, ShapeError
from clearhead.rules.masks import CAUSAL, FARTHEST, Mask, is_integer, placed_at
from clearhead.rules.scores import ScoreLike


def weights(
    q: npt.ArrayLike,
    k: npt.ArrayLike | KeyValueCache | Paged,
    *,
    mask: Mask = CAUSAL,
    score: ScoreLike = (),
    scale: float | None = None,
    sink: npt.ArrayLike | None = None,
    lse: npt.ArrayLike | None = None,
    first_key: int = 0,
    threads: int | None = None,
) -> "Weights":
    """All attention weights of queries over keys, at any length; a weight is computed when you index it.

    Shapes, dtypes, rules and errors are those of `attention`. The result has shape (..., queries, keys) and keeps q and
    k, so do not change them. k may be a `KeyValueCache`, which is read as it is now. `lse` (..., queries) is the result
    of `attend` for the same call; without it, it is computed for the queries you index. Definition:
    `clearhead.definition.weights.weights`.

    With `first_key`, the keys are a stretch of all keys that begins there, and `lse` is that over all of them, as from
    `partial(...).finish()`; columns count from the stretch's first key, lists of keys (`top_keys`) from the first of
    all. The mask says by `at=` where the queries stand.

    >>> import numpy as np
    >>> w = weights(np.eye(3), np.eye(3), scale=1.0)
    >>> w.shape, w[2].round(3)
    ((3, 3), array([0.212, 0.212, 0.576]))
    """
    query, known = as_array(q, "q"), None if lse is None else as_array(lse, "lse")
    check_stretch(k, mask, known, first_key)
    rules = Rules(mask, score, None if sink is None else as_array(sink, "sink"), scale)
    if not isinstance(k, KeyValueCache):
        key = k if isinstance(k, Paged) else as_array(k, "k")
        return weights_of(
            query, key, rules, lse=known, threads=threads, matching=known is None, first_key=int(first_key)
        )
    if known is not None:
        check_cache(query, k, rules)
        return weights_of(query, k.paged(ALL_ITEMS), rules, lse=known, threads=threads, matching=False)
    known = execute_cache(query, k, rules, threads=threads, lse=True)[1]
    if not k.alike:
        raise without_weights(k.extents)
    return weights_of(query, k.paged(ALL_ITEMS), rules, lse=known, threads=threads, matching=True)


def weights_of(
    query: Array,
    k: Array | Paged,
    rules: Rules,
    *,
    lse: Array | None,
    threads: int | None,
    matching: bool,
    first_key: int = 0,
) -> "Weights":
    """`weights` from operands and rules; `matching` says that `lse` is of exactly these queries, keys and rules."""
    pages, key = (k, k.key) if isinstance(k, Paged) else (None, k)
    if pages is not None:
        rules = rules_over(pages, rules, query.shape)
    problem = problem_of(Operands(query, key, key), rules, first_key=first_key)
    shape = (*problem.lead, problem.queries)
    if lse is not None and lse.shape != shape:
        raise ShapeError(f"lse of shape {lse.shape} does not fit q {query.shape}: attend(...).lse has {shape}.")
    source = Source(problem, query, key, lse, rules.sink, threads, matching=matching)
    if pages is not None:
        problem = over_pages(problem, rules.mask, first_key=pages.first_key, int8=pages.int8)
        source = replace(source, problem=problem, key=pages.tables[0], pages=pages)
    return Weights(source, np.arange(problem.heads).reshape(problem.lead))


def check_stretch(k: object, mask: Mask, lse: Array | None, first_key: object) -> None:
    """Raise InputError unless a stretch of keys says where it and its queries stand, and comes with their LSE."""
    if not is_integer(first_key) or not 0 <= first_key < FARTHEST:  # type: ignore[operator]
        raise InputError(f"first_key={first_key!r} is not the number of a key: use 0, 1, 2 …, below 2⁴⁰.")
    if not first_key:
        return
    if isinstance(k, KeyValueCache | Paged):
        raise InputError(f"first_key={first_key} is for arrays of keys, not for a cache: give cache.arrays()[0].")
    if lse is None or placed_at(mask) is None:
        raise InputError(
            f"weights of keys from {first_key} on need the log-sum-exp over all keys and the queries' place: give "
            "lse=partial(…).finish().lse and a mask with at=…."
        )


class Rows(NamedTuple):
    """Queries and the weights that they give a key, both (..., top)."""

    queries: Integers
    weights: Array


@dataclass(frozen=True, eq=False)
class Weights(LazyMatrix, Displayed):
    """The weights of attention, (..., queries, keys), as `weights(q, k)` or `attend(q, k, v).weights` gives them.

    Each weight is α = exp(score − LSE). Rows sum to 1 (minus a sink's share); hidden pairs are exactly 0. Index as in
    numpy: an index of complete heads gives `Weights` again, any other gives an array:

    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal((2, 8, 4))
    >>> w = weights(x, x)
    >>> w[1].shape, w[1, -1].shape, w[:, 2:4, :3].shape, type(w[1]).__name__
    ((8, 8), (8,), (2, 2, 3), 'Weights')
    """

    name, consumer, hidden = "weights", "block", 0.0

    def of_heads(self, heads: Integers) -> "Weights":
        """The weights of some heads."""
        return Weights(self.source, heads)

    def check_rows(self, rows: Array, heads: Integers, queries: Integers) -> None:
        """Check that rows sum to 1; raises InputError."""
        self.source.check(rows, heads, queries)

    @property
    def scores(self) -> "Scores":
        """The scores that the weights come from, of the same shape: after scale and score rules, −∞ where hidden.

        >>> weights([[0.0], [1.0]], [[3.0], [4.0]]).scores.row(1)
        array([3., 4.])
        """
        return Scores(self.source, self.heads)

    @property
    def lse(self) -> Array:
        """Each query's log-sum-exp of scores, (..., queries)."""
        return self.source.lse(np.arange(self.source.problem.queries), self.heads.reshape(-1))[self.heads]

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

    def slices(self) -> Iterator[slice]:
        """Successive slices of queries, each with little memory for the weights of one head."""
        *_, queries, keys = self.shape
        step = max(1, PART_BYTES // max(1, keys * self.dtype.itemsize))
        for start in range(0, queries, step):
            yield slice(start, min(start + step, queries))

    # Questions

    def summary(
        self,
        *names: str,
        top: int = 8,
        window: int = 128,
        shares: Sequence[float] = (0.5, 0.9, 0.99),
        queries: slice | npt.ArrayLike = ALL_ITEMS,
        v: npt.ArrayLike | None = None,
        factors: npt.ArrayLike | None = None,
        groups: Mapping[str, Any] | None = None,
        matches: Mapping[str, Any] | None = None,
    ) -> Summary:
        """Answer questions about all weights in one pass, with memory linear in the length.

        Without `names`, all but `carriers`, `distances`, `groups` and `matches`. Per query: `entropy` (nats),
        `effective` (e^entropy), mean `distance`, weight of the `first` key, share `within` fewer than `window` items,
        largest weight `off_first`, the sink's `sink_share`, `top` (as `top_keys` and `top_weights`, the `top` largest;
        key −1 if there are fewer), `carriers` (fewest keys that carry each of `shares`; sorts each row).

        Per query, with one more axis: `distances`, its share on keys 0, 1, 2–3, 4–7 … items away (`distance_edges` are
        the edges); `groups`, its share on each named group of keys, a slice, list of keys or mask (`group_names`);
        `matches`, its share on keys that have the query's own label, for named pairs of labels (`match_names`), as from
        `clearhead.token_matches(ids)`. Groups and matches may overlap and differ by head.

        Per key: `received_sum`, `received_max`, `received_mean`. With values `v`, these and `top` weigh α·‖v_j‖, with
        `factors` (..., keys) α times the key's own. Restrict rows with `queries`. Raises InputError. Definitions:
        `clearhead.definition.weights`.

        >>> x = [[0.0], [0.0], [0.0], [0.0]]
        >>> s = weights(x, x).summary("effective", "received_sum")
        >>> s.effective.round(3), s.received_sum.round(3)
        (array([1., 2., 3., 4.]), array([2.083, 1.083, 0.583, 0.25 ]))
        >>> s = weights(x, x).summary("groups", "distances", groups={"start": [0], "rest": slice(1, None)})
        >>> s.groups[3].tolist(), s.distances[3].tolist(), s.distance_edges
        ([0.25, 0.75], [0.25, 0.25, 0.5], (0, 1, 2, 4))
        """
        return answer(self, names, Given(top, window, shares, queries, v, factors, groups, matches))

    def rows_of(self, key: int, top: int = 8) -> "Rows":
        """The queries that give a key most, and their weights: both (..., top), falling, of equals the earlier first.

        Where fewer queries give it any, the rest are −1 and 0. Raises InputError. Definition:
        `clearhead.definition.weights.rows_of`.

        >>> weights([[0.0], [0.0], [0.0]], [[0.0], [0.0], [0.0]]).rows_of(1, top=2)
        Rows(queries=array([1, 2]), weights=array([0.5       , 0.33333333]))
        """
        if not isinstance(top, int | np.integer) or top < 1:
            raise InputError(f"rows_of's top={top!r} must be a positive integer: use 1, 2, 3 …")
        keys = self.shape[-1]
        if not isinstance(key, int | np.integer) or not -keys <= key < keys:
            raise InputError(f"rows_of's key={key!r} is not one of {keys} keys: use 0 to {keys - 1}.")
        check_memory((*self.shape[:-2], int(top)), self.dtype)
        column = self.column(int(key))
        queries = np.argsort(-column, axis=-1, kind="stable")[..., :top]
        given = np.take_along_axis(column, queries, -1)
        missing = [(0, 0)] * (column.ndim - 1) + [(0, int(top) - queries.shape[-1])]
        queries = np.where(given == 0, -1, queries)
        return Rows(np.pad(queries, missing, constant_values=-1), np.pad(given, missing))

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
            for part, length, name in zip(
                (rows, columns), self.shape[-2:], ("map's rows", "map's columns"), strict=True
            )
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


def slice_bounds(part: slice, length: int, name: str) -> tuple[int, int]:
    """Begin and end of a slice without a step."""
    if not isinstance(part, slice) or part.step not in (None, 1):
        raise InputError(f"{name}={part!r} must be a slice without a step: use slice(first, stop).")
    begin, end, _ = part.indices(length)
    return begin, max(begin, end)
