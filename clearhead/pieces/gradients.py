"""Gradients of a call in pieces: dQ where the queries are, dK and dV where the keys are, the others in stretches.

Each piece is added to the sums of those before, in the order in which `attend(...).backward(...)` adds, so that the
bits are the same: dQ over blocks of keys, ascending; dK and dV over tiles of queries, ascending, one query head after
the other where several share a key head. Whatever breaks this order is an error.
Definition: `clearhead.definition.gradient_pieces`.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array
from clearhead.engine.execute import check_threads
from clearhead.engine.inputs import Operands, Rules
from clearhead.engine.problem import as_array, problem_of
from clearhead.errors import DtypeError, InputError, ShapeError
from clearhead.gradients.backward import (
    GIVE_D_OUT,
    check_d_out,
    checked_d_lse,
    gradient_of,
    keys_lead,
    share,
    walked_strides,
)
from clearhead.gradients.launch import BackwardLaunch, Sums
from clearhead.kernels.abi.gradient_call import GRADIENT_BLOCK
from clearhead.kernels.abi.tiles import ELEMENTS, STORED, tile_for
from clearhead.kernels.abi.variant import Wanted
from clearhead.machine.target import target
from clearhead.machine.threads import allowed
from clearhead.rules.current import current_rules
from clearhead.rules.masks import CAUSAL, Mask, Span, placed_at
from clearhead.rules.scores import ScoreLike, as_rules

EVERYWHERE = 6144  # a cut of queries that serves every processor: the least common multiple of the tiles times 32
SEGMENT = 2048  # a cut of keys that serves the forward pass too
GIVE = "give what attend(q, k, v) or a finished Partial has"


@dataclass(frozen=True)
class QueryGradient:
    """The gradient of some queries over the keys before `stop`; `q` rounds it to their shape and dtype.

    Pass it as `before=` with the keys from `stop` on. It pickles.
    """

    sums: Array  # (..., n, d), not rounded: float32 for 16-bit operands
    stop: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def q(self) -> Array:
        """dQ, if these were all keys."""
        return gradient_of(self.sums, self.shape, self.dtype)


@dataclass(frozen=True)
class KeyGradients:
    """The gradients of some keys and values over queries before `stop`; `k` and `v` round them to shape and dtype.

    Pass it as `before=` with the queries from `stop` on, or with those of the next head of each group, from `first` on.
    It pickles.
    """

    key_sums: Array  # (..., m, padded d), not rounded
    value_sums: Array
    first: int  # where the queries of each head begin
    stop: int
    end: int | None  # where those of the first head ended; None while it is the only one
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    dtype: np.dtype[Any]

    @property
    def k(self) -> Array:
        """dK, if these were all queries of all heads."""
        return gradient_of(self.key_sums, self.shapes[0], self.dtype)

    @property
    def v(self) -> Array:
        """dV, if these were all queries of all heads."""
        return gradient_of(self.value_sums, self.shapes[1], self.dtype)


def query_gradient(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    out: npt.ArrayLike,
    lse: npt.ArrayLike,
    d_out: npt.ArrayLike,
    d_lse: npt.ArrayLike | None = None,
    *,
    first_key: int = 0,
    before: QueryGradient | None = None,
    mask: Mask = CAUSAL,
    score: ScoreLike = (),
    scale: float | None = None,
    threads: int | None = None,
) -> QueryGradient:
    """Add what a stretch of keys gives to the gradient of some queries; `.q` is dQ once all keys were added.

    q (..., n, d) are queries from position `at` on, as the mask says (`causal(at=4096)`); k, v (..., m, d) the keys
    from `first_key` on, and rules as for `attend`. `out`, `lse`, `d_out` and `d_lse` belong to the queries, over all
    keys: for 16-bit operands, `out` in float32, before it was rounded. `before` is the result over the keys before.
    Over any stretches in ascending order, cut at multiples of 64, the bits of `attend(...).backward(...).q`. Raises
    InputError, ShapeError or DtypeError.

    >>> import numpy as np
    >>> from clearhead import attend, causal, full
    >>> x, d = np.linspace(-1, 1, 600).reshape(300, 2), np.ones((150, 2))
    >>> done = attend(x[150:], x, x, mask=causal(at=150))
    >>> rest = {"mask": causal(at=150), "threads": 1}
    >>> part = query_gradient(x[150:], x[:128], x[:128], done.output, done.lse, d, **rest)
    >>> part = query_gradient(x[150:], x[128:], x[128:], done.output, done.lse, d, first_key=128, before=part, **rest)
    >>> np.array_equal(part.q, done.backward(d).q)
    True
    """
    operands = Operands(as_array(q, "q"), as_array(k, "k"), as_array(v, "v"))
    stretch = stretch_of(operands, (out, lse, d_out, d_lse), Rules(mask, score, None, scale), first_key, "queries")
    if before is not None and before.stop != first_key:
        raise InputError(
            f"the gradient ends at key {before.stop}, these keys begin at {first_key}: keys go in ascending order, "
            f"without a gap; give first_key={before.stop} and the keys from there on."
        )
    sums = stretch.launch.zeros()
    if before is not None:
        check_begun("queries", before.sums, sums.query)
        sums = sums._replace(query=before.sums.copy())
    stretch.add_to(sums, threads)
    return QueryGradient(sums.query, first_key + operands.k.shape[-2], operands.q.shape, operands.q.dtype)


def key_gradients(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    out: npt.ArrayLike,
    lse: npt.ArrayLike,
    d_out: npt.ArrayLike,
    d_lse: npt.ArrayLike | None = None,
    *,
    first_key: int = 0,
    before: KeyGradients | None = None,
    mask: Mask = CAUSAL,
    score: ScoreLike = (),
    scale: float | None = None,
    threads: int | None = None,
) -> KeyGradients:
    """Add what a stretch of queries gives to the gradients of some keys; `.k`, `.v` once all queries were added.

    Arguments as for `query_gradient`; `before` is the result over the queries before. Stretches begin at multiples of
    the kernel's tile of queries (`query_cut`; 6144 serves every processor) and go in ascending order. Where query heads
    share a key head, the sums go head after head: give one head of each group a call, `q[..., i::group, :, :]`, all
    stretches of i = 0, then all of i = 1, and so on; a call with several heads of a group must have all queries. Then
    the bits are those of `attend(...).backward(...)`. Raises InputError, ShapeError or DtypeError.

    >>> import numpy as np
    >>> from clearhead import attend, causal
    >>> q, k, d = (np.random.default_rng(n).standard_normal((300, 2)) for n in range(3))
    >>> done, grads = attend(q, k, k), None
    >>> for rows in slice(0, 192), slice(192, 300):
    ...     of_rows = q[rows], k, k, done.output[rows], done.lse[rows], d[rows]
    ...     grads = key_gradients(*of_rows, before=grads, mask=causal(at=rows.start))
    >>> np.array_equal(grads.k, done.backward(d).k)
    True
    """
    operands = Operands(as_array(q, "q"), as_array(k, "k"), as_array(v, "v"))
    stretch = stretch_of(operands, (out, lse, d_out, d_lse), Rules(mask, score, None, scale), first_key, "keys")
    launch, at = stretch.launch, placed_at(mask)
    if at is not None:
        check_query_cut(launch, at)
    first, stop, end = heads_so_far(before, at or 0, operands.q.shape[-2], launch.group)
    sums = launch.zeros()
    key_sums, value_sums = (x.reshape(*keys_lead(launch), *x.shape[-2:]) for x in (sums.key, sums.value))
    if before is not None:
        for zeros, own in ((key_sums, before.key_sums), (value_sums, before.value_sums)):
            check_begun("keys", own, zeros)
        key_sums, value_sums = before.key_sums.copy(), before.value_sums.copy()
    stretch.add_to(Sums(sums.query, key_sums, value_sums), threads)
    shapes = operands.k.shape, operands.v.shape
    return KeyGradients(key_sums, value_sums, first, stop, end, shapes, operands.k.dtype)


def query_cut(dtype: npt.DTypeLike) -> int:
    """At multiples of what the queries of `key_gradients` are cut: a tile of this processor's kernel."""
    name = np.dtype(dtype).name
    place = target()
    return tile_for(ELEMENTS["float32" if name in STORED else name], place.vector_bits, place.registers).queries


@dataclass(frozen=True)
class Stretch:
    """One call: some queries over some keys, and what belongs to the queries."""

    launch: BackwardLaunch
    operands: tuple[Array, ...]
    lse: Array
    d_output: Array
    d_lse: Array | None

    def add_to(self, sums: Sums, threads: int | None) -> None:
        """Add its gradients to the sums."""
        check_threads(threads)
        self.launch.run(self.operands, self.lse, self.d_output, self.d_lse, threads or allowed(), sums)


def stretch_of(
    operands: Operands, of_queries: tuple[Any, ...], rules: Rules, first_key: int, wanted: Wanted
) -> Stretch:
    """Check a call and prepare it."""
    if not isinstance(first_key, int | np.integer) or first_key < 0:
        raise InputError(f"first_key={first_key!r} is not the position of a key: use 0, 1, 2 …")
    q, k, v, _ = operands
    rules = rules._replace(score=as_rules(current_rules(rules.score)))
    problem = problem_of(operands, rules, unrounded=True, first_key=int(first_key))
    check_key_cut(problem.rules.spans, problem.first_key)
    out, lse = (as_array(x, name, GIVE) for x, name in zip(of_queries[:2], ("out", "lse"), strict=True))
    check_of_queries("out", out, problem.output_shape, problem.computed)
    check_of_queries("lse", lse, problem.output_shape[:-1], problem.computed)
    d_output = as_array(of_queries[2], "d_out", GIVE_D_OUT)
    check_d_out(d_output, problem.output_shape, q.dtype)
    d_lse = None if of_queries[3] is None else checked_d_lse(as_array(of_queries[3], "d_lse"), lse)
    problem = replace(problem, output=walked_strides(problem, out), rules=problem.rules.trusted)
    launch = BackwardLaunch(problem, walked_strides(problem, d_output), (), share(problem, k, v), wanted)
    return Stretch(launch, (q, k, v, out), np.ascontiguousarray(lse), d_output, d_lse)


def check_of_queries(name: str, array: Array, shape: tuple[int, ...], dtype: str) -> None:
    """Check what the forward pass gave for the queries."""
    if array.shape != shape:
        raise ShapeError(f"{name} has shape {array.shape}, these queries' is {shape}: {GIVE} for them.")
    if array.dtype != dtype:
        raise DtypeError(
            f"{name} has dtype {array.dtype}, but {dtype} is needed: {GIVE}, and of 16-bit operands the output before "
            "it was rounded."
        )


def check_begun(whose: str, own: Array, wanted: Array) -> None:
    """Check that sums so far are those of the same operands."""
    if own.shape != wanted.shape or own.dtype != wanted.dtype:
        raise ShapeError(
            f"before holds the gradient of {whose} of shape {own.shape} ({own.dtype}), these need {wanted.shape} "
            f"({wanted.dtype}): give the result for the same {whose}."
        )


def check_key_cut(spans: tuple[Span, ...], first_key: int) -> None:
    """Check that no block of keys is cut: blocks are counted from the first key of all, or of a document."""
    for span in spans:
        inside = first_key - span.first_key
        if 0 < inside < span.keys and inside % GRADIENT_BLOCK:
            start = f" from the document's first on, which is at {span.first_key}" if span.first_key else ""
            raise InputError(
                f"keys are cut at multiples of {GRADIENT_BLOCK}{start} ({SEGMENT} serves the forward pass too): got "
                f"first_key={first_key}."
            )


def check_query_cut(launch: BackwardLaunch, at: int) -> None:
    """Check that no tile of queries is cut: tiles are counted from the first query of all, or of a document."""
    tile, place = launch.spec.tile.queries, launch.spec.target
    for span in launch.problem.rules.spans:
        inside = at - span.first_key
        if inside > 0 and inside % tile:
            start = f" from the document's first on, which is at {span.first_key}," if span.first_key else ""
            raise InputError(
                f"queries are cut at multiples of {tile}{start} on {place.isa} ({EVERYWHERE} serves every processor): "
                f"got {at}."
            )


def heads_so_far(before: KeyGradients | None, at: int, queries: int, group: int) -> tuple[int, int, int | None]:
    """Where the queries of each head begin, where these end, and where those of a finished head ended.

    Sums go head after head: a head goes on at the query where it stopped; the next one begins and ends where the first
    one did. A call with several heads of a group holds them whole.
    """
    stop = at + queries
    if before is None:
        return at, stop, stop if group > 1 and queries else None
    end = before.end
    goes_on = at == before.stop
    if goes_on and (group > 1 or end == at) and queries:
        together = f"these are {group} heads of each group at once" if group > 1 else f"the first heads ended at {end}"
        raise InputError(
            f"the gradients end at query {before.stop}, these queries begin at {at}, but {together}: sums go head "
            f"after head; give one head of each group a call, as q[..., i::{max(2, group)}, :, :], and all queries of "
            "i = 0 before those of i = 1."
        )
    if not goes_on:
        if at != before.first or before.stop != (end or before.stop):
            raise InputError(
                f"the gradients end at query {before.stop}, these queries begin at {at}: queries go in ascending order "
                f"without a gap, and one head of a group after the other, each from {before.first} to "
                f"{'its last' if end is None else end}."
            )
        end = before.stop
    if end is not None and (stop > end or (group > 1 and stop < end)):
        raise InputError(
            f"the queries of the first head of each group end at {end}, these at {stop}: give the same ones of each."
        )
    return before.first, stop, end
