"""Partial sums of attention: keys in stretches, in ascending order, with the bits of one call over all of them.

Responsible for what users ask and in which order; `stretch` checks keys, `engine.carried` runs the kernels, and
`definition.pieces` defines the meaning.
"""

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array
from clearhead.cache.key_value import KeyValueCache
from clearhead.definition.canonical import SEGMENT
from clearhead.engine.carried import Sums, finish_sums, join_sums, no_sums, segment_sums, segments_between
from clearhead.engine.narrowing import rounded
from clearhead.engine.problem import as_array, check_sink
from clearhead.errors import DtypeError, InputError, ShapeError
from clearhead.functional import Attended
from clearhead.kernels.abi.tiles import STORED
from clearhead.machine.unbroken import late
from clearhead.pieces.origin import Origin
from clearhead.pieces.stretch import Call, Stretch, check_threads, stretch_of
from clearhead.rules.document_masks import Documents
from clearhead.rules.mask_kinds import Mask, conjunction
from clearhead.rules.scores import ScoreLike

if TYPE_CHECKING:
    from clearhead.attention_weights.matrix import Weights
    from clearhead.gradients.residuals import Residuals


@dataclass(frozen=True, eq=False)
class Partial:
    """What queries know of the keys from `first_key` to `stop`: sums that `then` carries on and `finish` divides.

    `m` and `l` (..., n) are each query's largest score and Σ exp(score − m), `o` (..., n, dv) is Σ exp(score − m) · v,
    not divided by l: float32 for operands of 16 bits, else of their dtype. Pickles, and `save` writes it to a file,
    without its queries and rules. `partial` makes one; definition: `clearhead.definition.pieces`.
    """

    m: Array
    l: Array
    o: Array
    first_key: int
    stop: int
    segments: int  # of 2048 keys, counted from a document's first key: how many were merged
    dtype: "np.dtype[Any]"  # of the operands; outputs are rounded to it
    origin: Origin
    call: Call | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Make the sums dense, which kernels read; raises ShapeError or DtypeError if they do not fit together."""
        m, l, o = map(np.ascontiguousarray, self.sums)
        if not m.shape == l.shape == o.shape[:-1] or o.ndim < 2 or not o.shape[-1]:
            raise ShapeError(
                f"m, l and o of shapes {m.shape}, {l.shape} and {o.shape}: give (..., n) and (..., n, dv)."
            )
        computed = np.dtype(np.float32) if self.dtype.name in STORED else self.dtype
        if {m.dtype, l.dtype, o.dtype} != {computed}:
            raise DtypeError(f"m, l and o are {m.dtype}, {l.dtype} and {o.dtype}: sums of {self.dtype} are {computed}.")
        for name, x in zip("mlo", (m, l, o), strict=True):
            object.__setattr__(self, name, x)

    def __repr__(self) -> str:
        return f"Partial(o {self.o.shape}, keys {self.first_key} to {self.stop}, {self.dtype.name})"

    def __getstate__(self) -> dict[str, Any]:
        """All but queries and rules: sums travel, operands stay."""
        return self.__dict__ | {"call": None}

    @property
    def sums(self) -> Sums:
        """m, l and o."""
        return Sums(self.m, self.l, self.o)

    def then(self, k: npt.ArrayLike | KeyValueCache, v: npt.ArrayLike | None = None) -> "Partial":
        """Carry on over the next keys, of which the first is `stop`; this partial sum stays as it is.

        The queries that `partial` was given are read again, not a copy of them: leave them as they were until the last
        stretch.

        Raises InputError if `stop` lies within a segment of 2048 keys, or if the sum was joined, loaded or pickled.

        >>> from clearhead import attend, causal
        >>> q, k = np.ones((2, 4)), np.ones((2050, 4))
        >>> done = partial(q, k[:2048], k[:2048], mask=causal(at=2048)).then(k[2048:], k[2048:]).finish()
        >>> (done.output == attend(q, k, k, mask=causal(align="end")).output).all()
        np.True_
        """
        if self.call is None:
            raise InputError(
                f"{self!r} was joined, loaded or pickled, and has no queries and rules: carry on with partial(q, k, v, "
                f"first_key={self.stop}, before=this, mask=…)."
            )
        return carried_on(stretch_of(self.call, k, v, self.stop), self)

    def finish(self, sink: npt.ArrayLike | None = None, *, threads: int | None = None) -> Attended:
        """Divide: output (..., n, dv) and log-sum-exp (..., n), with the bits of `attend` over the same keys.

        `sink` as for `attention`; `threads` are those of `partial` unless given. The result holds no keys, so that
        `weights` and `backward` are errors that name what to call instead. Raises ShapeError or DtypeError.

        >>> from clearhead import full
        >>> partial(np.zeros((1, 1)), np.zeros((2, 1)), np.array([[1.0], [3.0]]), mask=full()).finish().output
        array([[2.]])
        """
        numbers = None if sink is None else as_array(sink, "sink")
        if numbers is not None:
            check_sink(numbers, self.m.shape[:-1])
        check_threads(threads)
        threads = threads or (self.call.threads if self.call else None)
        output, lse = finish_sums(self.sums, numbers, threads)
        return Finished(rounded(output, self.dtype, threads), lse, divided=output)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the sums to a .safetensors file, which appears whole or not at all and replaces an older one.

        Raises FileError.

        >>> from clearhead import full
        >>> path = getfixture("tmp_path") / "part.safetensors"
        >>> partial(np.ones((2, 4)), np.ones((9, 4)), np.ones((9, 4)), mask=full()).save(path)
        >>> Partial.load(path)
        Partial(o (2, 4), keys 0 to 9, float64)
        """
        numbers = self.first_key, self.stop, self.segments
        late("clearhead.pieces.file").write_partial(path, self.sums, numbers, self.dtype, self.origin)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Partial":
        """Read a file that `save` wrote; raises FileError for one whose arrays and numbers do not fit together."""
        return cls(*late("clearhead.pieces.file").read_partial(path))


@dataclass(frozen=True, kw_only=True, repr=False)
class Finished(Attended):
    """A divided partial sum: output and log-sum-exp, without the keys that they came from."""

    divided: Array = field(repr=False, compare=False)

    @property
    def unrounded(self) -> Array:
        """The output before it was rounded to the operands' dtype."""
        return self.divided

    @property
    def weights(self) -> "Weights":
        """Raise the error that names what gives them."""
        raise InputError(
            "a finished partial sum holds no keys: call weights(q, k, mask=…, first_key=…, lse=this.lse) for each "
            "stretch of keys."
        )

    def differentiable(self) -> "Residuals":
        """Raise the error that names what gives derivatives."""
        raise InputError(
            "a finished partial sum holds no keys: call query_gradient(q, k, v, this.unrounded, this.lse, "
            "d_out, …) and key_gradients(…) for each stretch of keys."
        )


def partial(
    q: npt.ArrayLike,
    k: npt.ArrayLike | KeyValueCache,
    v: npt.ArrayLike | None = None,
    *,
    mask: Mask,
    first_key: int = 0,
    before: Partial | None = None,
    score: ScoreLike = (),
    scale: float | None = None,
    threads: int | None = None,
) -> Partial:
    """Attend to a stretch of a longer sequence's keys, of which the first is `first_key`, and keep undivided sums.

    `q` may be a piece of the queries: the mask says where its first one stands among all keys, as in `causal(at=p)`.
    Folding all keys in ascending stretches that begin at multiples of 2048 (of their document), then `finish`, has the
    bits of `attend` over all of them, for every mask, rule, dtype, processor and number of threads. `before` is the sum
    of the keys before; without it, earlier keys count as hidden. Shapes, dtypes and rules are those of `attention`;
    `dense` and `bias` tables are those of the whole call. k may be a `KeyValueCache` that holds the stretch.

    Raises InputError for stretches out of order, which name both keys, for masks that leave open where queries stand,
    and for a `before` of queries elsewhere or under other rules; ShapeError or DtypeError for one of other shapes.
    Definition: `clearhead.definition.pieces`.

    >>> from clearhead import attend, causal
    >>> x = np.random.default_rng(0).standard_normal((5000, 16))
    >>> total = partial(x, x[:2048], x[:2048], mask=causal(at=0)).then(x[2048:], x[2048:])
    >>> (total.finish().output == attend(x, x, x).output).all()
    np.True_
    """
    call = Call.of(q, mask, score, scale, threads)
    if before is not None:
        check_partial("before", before)
        if before.stop != first_key:
            raise out_of_order(before.stop, first_key)
        before.origin.check(call.origin, "before")
    return carried_on(stretch_of(call, k, v, first_key), before)


def carried_on(stretch: Stretch, before: Partial | None) -> Partial:
    """The sums before a stretch and its own."""
    dtype = stretch.call.q.dtype
    if before is not None:
        if before.o.shape != stretch.shape:
            raise ShapeError(
                f"the sum before has o of shape {before.o.shape}, this stretch {stretch.shape}: carry on with the same "
                "queries, heads and value dim."
            )
        if before.dtype != dtype:
            raise DtypeError(
                f"the sum before is of {before.dtype.name}, this stretch of {dtype.name}: convert the arrays to one."
            )
    sums = stretch.after(None if before is None else before.sums)
    first_key, merged = (stretch.first_key, 0) if before is None else (before.first_key, before.segments)
    return Partial(*sums, first_key, stretch.stop, merged + stretch.segments, dtype, stretch.call.origin, stretch.call)


def segments(
    q: npt.ArrayLike,
    k: npt.ArrayLike | KeyValueCache,
    v: npt.ArrayLike | None = None,
    *,
    mask: Mask,
    first_key: int = 0,
    score: ScoreLike = (),
    scale: float | None = None,
    threads: int | None = None,
) -> list[Partial]:
    """The sums of each segment of a stretch of keys by itself, ascending, so that they can be joined elsewhere.

    Where keys and values stay and queries travel, as in decoding over a cache that is spread over machines, these come
    back: dv + 2 numbers for each query and segment. Arguments and errors as for `partial`, and InputError for
    `documents`, whose segments are their own: ask for one document at a time.

    >>> from clearhead import attend, causal
    >>> x = np.random.default_rng(0).standard_normal((5000, 16))
    >>> first, *others = segments(x[-1:], x, x, mask=causal(at=4999))
    >>> for part in others:
    ...     first = join(first, part)
    >>> (first.finish().output == attend(x, x, x).output[-1:]).all()
    np.True_
    """
    whole = stretch_of(Call.of(q, mask, score, scale, threads), k, v, first_key)
    if any(isinstance(x, Documents) for x in conjunction(mask)):
        raise InputError(
            f"{mask!r} packs documents, each with segments of its own: ask for one document at a time, without "
            "documents(...)."
        )
    dtype, computed = whole.call.q.dtype, whole.launch.lse_dtype
    decode, parts = whole.launch.decode, []
    found = segment_sums(whole.launch, whole.operands, first_key, threads) if decode else []
    for n, (start, stop) in enumerate(segments_between(first_key, whole.stop)):
        if decode is None:
            sums = whole.part(start, stop).after(None)
        else:
            at = n + first_key // SEGMENT - decode.first_segment
            sums = found[at] if 0 <= at < len(found) else no_sums(whole.shape, computed)  # that no query sees
            whole.check_rules(sums)
        parts.append(Partial(*sums, start, stop, 1, dtype, whole.call.origin))
    return parts


def join(total: Partial, part: Partial, *, threads: int | None = None) -> Partial:
    """Merge one segment's sums behind those of all keys before it, with the bits of a fold over both.

    `part` is one of `segments`, or a `partial` of one segment, of the same queries under the same rules. Raises
    InputError for segments out of order, which names both keys, for a part of several segments, or for other queries or
    rules; ShapeError or DtypeError for other shapes.

    >>> from clearhead import full
    >>> q, x = np.ones((1, 4)), np.ones((2049, 4))
    >>> one = partial(q, x[:2048], x[:2048], mask=full())
    >>> join(one, partial(q, x[2048:], x[2048:], first_key=2048, mask=full()))
    Partial(o (1, 4), keys 0 to 2049, float64)
    """
    check_partial("total", total)
    check_partial("part", part)
    if part.first_key != total.stop:
        raise out_of_order(total.stop, part.first_key)
    if part.segments > 1:
        raise InputError(
            f"the part holds keys {part.first_key} to {part.stop}, {part.segments} segments: join them one by one, as "
            "clearhead.pieces.segments gives them."
        )
    if part.o.shape != total.o.shape:
        raise ShapeError(f"o of shape {part.o.shape} does not fit o of shape {total.o.shape}: join the same queries.")
    if part.dtype != total.dtype:
        raise DtypeError(f"the part is of {part.dtype.name}, the total of {total.dtype.name}: compute both in one.")
    total.origin.check(part.origin, "the total")
    check_threads(threads)
    sums = total.sums.copy()
    join_sums(sums, part.sums, threads)
    return Partial(*sums, total.first_key, part.stop, total.segments + part.segments, total.dtype, total.origin)


def check_partial(name: str, x: object) -> None:
    """Raise InputError for anything but a Partial."""
    if not isinstance(x, Partial):
        raise InputError(f"{name} is a {type(x).__name__}, which holds no partial sums: give what partial(…) returned.")


def out_of_order(stop: int, first_key: int) -> InputError:
    """The error for keys that do not follow those before."""
    return InputError(
        f"the sum ends before key {stop}, but these keys begin at {first_key}: add them in ascending order, without a "
        "gap, or the bits are not those of one call."
    )
