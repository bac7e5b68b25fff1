"""Gradients of a call in pieces: dQ where the queries are, dK and dV where the keys are, the others in stretches.

Each piece is added to the sums of those before, in the order in which `attend(...).backward(...)` adds, so that the
bits are the same: dQ over blocks of keys, ascending; dK and dV over tiles of queries, ascending, one query head after
the other where several share a key head. Sums say what they are of: whatever breaks this order is an error.
Definition: `clearhead.definition.gradient_pieces`.
"""

import numpy as np
import numpy.typing as npt

from clearhead.definition.gradient import reduced
from clearhead.errors import InputError
from clearhead.gradients.backward import keys_lead
from clearhead.gradients.launch import GradientSums
from clearhead.kernels.abi.tiles import ELEMENTS, STORED, tile_for
from clearhead.machine.target import target
from clearhead.pieces.order import (
    check_before,
    check_first_query,
    check_query_cut,
    check_sums_so_far,
    checked_head,
    heads_so_far,
)
from clearhead.pieces.origin import Origin, check_same
from clearhead.pieces.piece import piece_of
from clearhead.pieces.stretch import Call
from clearhead.pieces.sums import KeyGradients, QueryGradient
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.placement import placed_at
from clearhead.rules.scores import ScoreLike


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
