"""Gradients of a call in pieces: dQ where the queries are, dK and dV where the keys are, the others in stretches.

Each piece is added to the sums of those before, in the order in which `attend(...).backward(...)` adds, so that the
bits are the same: dQ over blocks of keys, ascending; dK and dV over tiles of queries, ascending, one query head after
the other where several share a key head. Sums say what they are of: whatever breaks this order is an error.
Definition: `clearhead.definition.gradient_pieces`.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array
from clearhead.cache.key_value import KeyValueCache
from clearhead.definition.canonical import SEGMENT
from clearhead.definition.gradient import reduced
from clearhead.engine.inputs import Operands
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
from clearhead.gradients.launch import BackwardLaunch, GradientSums
from clearhead.kernels.abi.gradient_call import GRADIENT_BLOCK
from clearhead.kernels.abi.tiles import ELEMENTS, STORED, tile_for
from clearhead.kernels.abi.variant import Wanted
from clearhead.machine.target import target
from clearhead.machine.threads import allowed
from clearhead.pieces.origin import Origin, check_same
from clearhead.pieces.stretch import Call, check_first_key
from clearhead.rules.masks import Mask, Span, is_integer, placed_at
from clearhead.rules.scores import ScoreLike

EVERYWHERE = 6144  # a cut of queries that serves every processor: the least common multiple of the tiles times 32
GIVE_OPERANDS = "give the keys and values of the stretch"
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
    origin: Origin
    isa: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "sums", np.ascontiguousarray(self.sums))

    @property
    def q(self) -> Array:
        """dQ, if these were all keys."""
        return gradient_of(self.sums, self.shape, self.dtype)


@dataclass(frozen=True)
class KeyGradients:
    """The gradients of some keys and values over queries before `stop`; `k` and `v` round them to shape and dtype.

    Pass it as `before=` with the queries from `stop` on, or with those of each group's next head. It pickles.
    """

    key_sums: Array  # (..., m, padded d), not rounded
    value_sums: Array
    head: tuple[int, int]  # which query head of each group was added last, and how many share a key head
    first: int  # where the queries of each head begin
    stop: int
    end: int | None  # where those of the first head ended, once another one began
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    dtype: np.dtype[Any]
    first_key: int
    first_query: int
    rules: str  # their digest
    isa: str

    def __post_init__(self) -> None:
        for name in ("key_sums", "value_sums"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name)))

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
    mask: Mask,
    first_key: int = 0,
    before: QueryGradient | None = None,
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
    >>> from clearhead import attend, causal
    >>> x, d = np.linspace(-1, 1, 600).reshape(300, 2), np.ones((150, 2))
    >>> done = attend(x[150:], x, x, mask=causal(at=150))
    >>> rest = {"mask": causal(at=150), "threads": 1}
    >>> part = query_gradient(x[150:], x[:128], x[:128], done.output, done.lse, d, **rest)
    >>> part = query_gradient(x[150:], x[128:], x[128:], done.output, done.lse, d, first_key=128, before=part, **rest)
    >>> np.array_equal(part.q, done.backward(d).q)
    True
    """
    call = Call.of(q, mask, score, scale, threads)
    piece = piece_of(call, (k, v), (out, lse, d_out, d_lse), first_key, "queries")
    check_sums_so_far(before, QueryGradient)
    if before is not None and before.stop != first_key:
        raise InputError(
            f"the gradient ends at key {before.stop}, these keys begin at {first_key}: keys go in ascending order, "
            f"without a gap; give first_key={before.stop} and the keys from there on."
        )
    sums, isa = piece.launch.zeros(), piece.launch.spec.target.isa
    if before is not None:
        before.origin.check(call.origin, "before")
        check_before("queries", (before.sums,), (sums.query,), (before.dtype, call.q.dtype), (before.isa, isa))
        sums = sums._replace(query=before.sums.copy())
    piece.add_to(sums)
    return QueryGradient(sums.query, piece.launch.problem.keys, call.q.shape, call.q.dtype, call.origin, isa)


def key_gradients(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    out: npt.ArrayLike,
    lse: npt.ArrayLike,
    d_out: npt.ArrayLike,
    d_lse: npt.ArrayLike | None = None,
    *,
    mask: Mask,
    first_key: int = 0,
    first_query: int = 0,
    head: tuple[int, int] | None = None,
    before: KeyGradients | None = None,
    score: ScoreLike = (),
    scale: float | None = None,
    threads: int | None = None,
) -> KeyGradients:
    """Add what a stretch of queries gives to the gradients of some keys; `.k`, `.v` once all queries were added.

    Arguments as for `query_gradient`; `before` is the result over the queries before. `first_query` is the position of
    the whole call's first query: counted from there, stretches begin at multiples of the kernel's tile of queries
    (`query_cut`; 6144 serves every processor) and go in ascending order, all on one instruction set. Where `group`
    query heads share a key head, the sums go head after head: give one head of each group a call, all stretches of the
    first ones, `q[..., 0::group, :, :]` with `head=(0, group)`, then `head=(1, group)`, and so on. Without `head`, q
    has all heads, and all queries if they share. Then the bits are those of `attend(...).backward(...)`. Raises
    InputError, ShapeError or DtypeError.

    >>> from clearhead import attend, causal
    >>> q, k, d = (np.random.default_rng(n).standard_normal((300, 2)) for n in range(3))
    >>> done, grads = attend(q, k, k), None
    >>> for rows in slice(0, 192), slice(192, 300):
    ...     of_rows = q[rows], k, k, done.output[rows], done.lse[rows], d[rows]
    ...     grads = key_gradients(*of_rows, before=grads, mask=causal(at=rows.start))
    >>> np.array_equal(grads.k, done.backward(d).k)
    True
    """
    call = Call.of(q, mask, score, scale, threads)
    at, head = placed_at(mask), checked_head(head)
    if at is None:
        raise InputError(
            f"{mask!r} does not say where these queries stand among all: give full(at=0), or & full(at=0)."
        )
    piece = piece_of(call, (k, v), (out, lse, d_out, d_lse), first_key, "keys", head)
    check_sums_so_far(before, KeyGradients)
    launch, stop = piece.launch, at + call.q.shape[-2]
    first_query = check_first_query(first_query, at)
    check_query_cut(launch, at, first_query)
    first, end = heads_so_far(before, head, at, stop, launch.group)
    sums = launch.zeros()
    key_sums, value_sums = (x.reshape(*keys_lead(launch), *x.shape[-2:]) for x in (sums.key, sums.value))
    shapes = piece.operands[1].shape, piece.operands[2].shape
    of, isa = (launch.problem.first_key, first_query, call.origin.rules), launch.spec.target.isa
    if before is not None:
        check_same("keys that begin at", before.first_key, launch.problem.first_key, "before")
        check_same("keys and values of shapes", before.shapes, shapes, "before")
        check_same("a call whose queries begin at position", before.first_query, first_query, "before")
        Origin(at, before.rules).check(Origin(at, call.origin.rules), "before")
        own = before.key_sums, before.value_sums
        check_before("keys", own, (key_sums, value_sums), (before.dtype, call.q.dtype), (before.isa, isa))
        key_sums, value_sums = before.key_sums.copy(), before.value_sums.copy()
    piece.add_to(GradientSums(sums.query, key_sums, value_sums))
    last = head or (launch.group - 1, launch.group)
    return KeyGradients(key_sums, value_sums, last, first, stop, end, shapes, call.q.dtype, *of, isa)


def piece_gradients(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    out: npt.ArrayLike,
    lse: npt.ArrayLike,
    d_out: npt.ArrayLike,
    d_lse: npt.ArrayLike | None = None,
    *,
    mask: Mask,
    first_key: int = 0,
    score: ScoreLike = (),
    scale: float | None = None,
    threads: int | None = None,
) -> GradientSums:
    """What some queries and a stretch of keys give of dQ, dK and dV, in one pass, to be added up in any order.

    A third less work than `query_gradient` and `key_gradients`, but the bits then are those of the order in which they
    are added. Not rounded: float32 for 16-bit operands. Arguments and errors as for `query_gradient`.

    >>> import numpy as np
    >>> from clearhead import attend, causal
    >>> x, d = np.linspace(-1, 1, 600).reshape(300, 2), np.ones((300, 2))
    >>> done, at = attend(x, x, x), {"mask": causal(at=0)}
    >>> first, last = (piece_gradients(x, k, k, done.output, done.lse, d, first_key=n, **at)
    ...                for n, k in ((0, x[:64]), (64, x[64:])))
    >>> np.allclose(first.query + last.query, done.backward(d).q)
    True
    """
    call = Call.of(q, mask, score, scale, threads)
    piece = piece_of(call, (k, v), (out, lse, d_out, d_lse), first_key, "all")
    sums = piece.launch.zeros()
    piece.add_to(sums)
    lead, (_, keys, values, _) = keys_lead(piece.launch), piece.operands
    key_sums, value_sums = (x.reshape(*lead, *x.shape[-2:]) for x in sums[1:])
    shapes = (sums.query, call.q.shape), (key_sums, keys.shape), (value_sums, values.shape)
    return GradientSums(*(reduced(x[..., : shape[-1]], shape) for x, shape in shapes))


def query_cut(dtype: npt.DTypeLike) -> int:
    """At multiples of what the queries of `key_gradients` are cut: a tile of this processor's kernel."""
    name = np.dtype(dtype).name
    place = target()
    return tile_for(ELEMENTS["float32" if name in STORED else name], place.vector_bits, place.registers).queries


@dataclass(frozen=True)
class Piece:
    """One call: some queries over some keys, and what belongs to the queries."""

    launch: BackwardLaunch
    operands: tuple[Array, ...]
    lse: Array
    d_output: Array
    d_lse: Array | None
    threads: int | None

    def add_to(self, sums: GradientSums) -> None:
        """Add its gradients to the sums."""
        self.launch.run(self.operands, self.lse, self.d_output, self.d_lse, self.threads or allowed(), sums)


def piece_of(
    call: Call,
    of_keys: tuple[Any, ...],
    of_queries: tuple[Any, ...],
    first_key: int,
    wanted: Wanted,
    head: tuple[int, int] | None = None,
) -> Piece:
    """Check a call and prepare it. With `head`, one head of each group is here, the problem is that of all heads."""
    first_key = check_first_key(first_key)
    q, rules, threads, _ = call
    if isinstance(of_keys[0], KeyValueCache):
        raise InputError(f"{of_keys[0]!r} is a cache, which has no gradients: {GIVE_OPERANDS} as arrays.")
    k, v = (as_array(x, name, GIVE_OPERANDS) for x, name in zip(of_keys, "kv", strict=True))
    operands = Operands(q, k, v)
    every = operands if head is None else operands._replace(q=with_all_heads(operands, head[1]))
    problem = problem_of(every, rules, unrounded=True, first_key=first_key)
    check_key_cut(problem.rules.spans, problem.first_key)
    *lead, heads = problem.lead or (1,)
    lead = [*lead, heads // head[1]] if head else list(problem.lead)
    out, lse = (as_array(x, name, GIVE) for x, name in zip(of_queries[:2], ("out", "lse"), strict=True))
    check_of_queries("out", out, (*lead, problem.queries, problem.value_dim), problem.computed)
    check_of_queries("lse", lse, (*lead, problem.queries), problem.computed)
    d_output = as_array(of_queries[2], "d_out", GIVE_D_OUT)
    check_d_out(d_output, out.shape, q.dtype)
    d_lse = None if of_queries[3] is None else checked_d_lse(as_array(of_queries[3], "d_lse"), lse)
    output, d_output_steps = (walked_strides(problem, x, one_of_group=head is not None) for x in (out, d_output))
    query = walked_strides(problem, q, one_of_group=True) if head else problem.query
    problem = replace(problem, query=query, output=output, rules=problem.rules.trusted, carried=True)
    launch = BackwardLaunch(
        problem, d_output_steps, (), share(problem, k, v), wanted, head=None if head is None else head[0]
    )
    if head is not None:
        lse, d_lse = among_all_heads(lse, head), None if d_lse is None else among_all_heads(d_lse, head)
    return Piece(launch, (q, k, v, out), np.ascontiguousarray(lse), d_output, d_lse, threads)


def with_all_heads(operands: Operands, group: int) -> Array:
    """An array of the shape and dtype that all query heads have, without their numbers."""
    q, k, v, _ = operands
    key_heads = max(x.shape[-3] if x.ndim > 2 else 1 for x in (k, v))
    if q.ndim < 3 or q.shape[-3] != key_heads:
        raise ShapeError(
            f"head=(…, {group}) says that q has one of the {group} heads that share each of {key_heads} key heads, but "
            f"q has shape {q.shape}: give q[..., i::{group}, :, :]."
        )
    return np.broadcast_to(np.zeros((), q.dtype), (*q.shape[:-3], key_heads * group, *q.shape[-2:]))


def among_all_heads(x: Array, head: tuple[int, int]) -> Array:
    """One number for each query of one head of each group, where it stands among those of all heads."""
    number, group = head
    every = np.zeros((*x.shape[:-1], group, x.shape[-1]), x.dtype)
    every[..., number, :] = x
    return every


def checked_head(head: Any) -> tuple[int, int] | None:
    """Which head of each group is given, and how many there are; None if all or the only one."""
    if head is None:
        return None
    if not (isinstance(head, tuple) and len(head) == 2 and all(map(is_integer, head)) and 0 <= head[0] < head[1]):
        raise InputError(f"head={head!r} is not a query head of a group: use (0, 4) for the first of four, to (3, 4).")
    return None if head[1] == 1 else head


def check_of_queries(name: str, array: Array, shape: tuple[int, ...], dtype: str) -> None:
    """Check what the forward pass gave for the queries."""
    if array.shape != shape:
        raise ShapeError(f"{name} has shape {array.shape}, these queries' is {shape}: {GIVE} for them.")
    if array.dtype != dtype:
        raise DtypeError(
            f"{name} has dtype {array.dtype}, but {dtype} is needed: {GIVE}, and of 16-bit operands the output before "
            "it was rounded."
        )


def check_sums_so_far(before: object, kind: type) -> None:
    """Check that `before` is a result, which knows where it ended, and not its arrays."""
    if before is not None and not isinstance(before, kind):
        raise InputError(f"before is a {type(before).__name__}: pass the whole {kind.__name__} of the stretch before.")


def check_before(
    whose: str,
    sums: tuple[Array, ...],
    zeros: tuple[Array, ...],
    dtypes: tuple["np.dtype[Any]", "np.dtype[Any]"],
    isas: tuple[str, str],
) -> None:
    """Check that sums so far are those of the same operands, from the same instruction set: so far, and now."""
    check_same("operands of dtype", *dtypes, "before")
    check_same("instruction set", *isas, "before")
    for own, wanted in zip(sums, zeros, strict=True):
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


def check_first_query(first_query: Any, at: int) -> int:
    """The position of the whole call's first query; raises InputError for anything else."""
    if not is_integer(first_query) or not 0 <= first_query <= at:
        raise InputError(
            f"first_query={first_query!r} is not the position of the whole call's first query: use 0 to {at}, where "
            "these begin."
        )
    return int(first_query)


def check_query_cut(launch: BackwardLaunch, at: int, first_query: int) -> None:
    """Check that no tile of queries is cut: tiles are counted from the call's first query, or a document's."""
    tile, place = launch.spec.tile.queries, launch.spec.target
    for span in launch.problem.rules.spans:
        inside = at - max(span.first_key, first_query)
        if inside > 0 and inside % tile:
            whose = "document" if span.first_key > first_query else "call"
            start = f" from the {whose}'s first on, which is at {at - inside}," if at != inside else ""
            raise InputError(
                f"queries are cut at multiples of {tile}{start} on {place.isa} ({EVERYWHERE} serves every processor): "
                f"got {at}. If the whole call's queries do not begin at {first_query}, give first_query=."
            )


def heads_so_far(
    before: KeyGradients | None, head: tuple[int, int] | None, at: int, stop: int, group: int
) -> tuple[int, int | None]:
    """Where the queries of each head begin, and where those of a finished head ended.

    Sums go head after head: each goes on at the query where it stopped; the next one begins and ends where the first
    one did. A call without `head` has all queries of `group` heads.
    """
    number, heads = head or (0, group)
    together = head is None and group > 1
    if before is None:
        if number:
            raise InputError(f"head={head}: sums go head after head, so those of head 0 come first.")
        return at, None
    if before.head[1] != heads:
        raise InputError(
            f"{before.head[1]} heads share a key head in what was added so far, {heads} here: give the same heads."
        )
    if together:
        raise InputError(
            f"the gradients hold all queries of {heads} heads of each group, from {before.first} to {before.stop}, "
            f"these begin at {at}: sums go head after head; give q[..., i::{heads}, :, :] with head=(i, {heads}), all "
            "queries of i = 0 before those of i = 1."
        )
    last, ended = before.head[0], before.stop == (before.end or before.stop)
    wanted = before.stop if number == last else before.first
    if number not in (last, last + 1) or at != wanted or (number > last and not ended):
        raise InputError(
            f"the gradients end at query {before.stop} of head {last} in each group, these begin at query {at} of head "
            f"{number}: queries go in ascending order without a gap, and head after head, each from {before.first} to "
            f"{'its last' if before.end is None else before.end}."
        )
    end = before.end if number == last else before.stop
    if end is not None and stop > end:
        raise InputError(f"head 0 of each group ended at query {end}, head {number} at {stop}: give the same queries.")
    return before.first, end
