"""The problem of one attention call: shapes, strides, dtype and rules, checked and frozen.

All errors in the input are raised here, before anything is allocated or computed. A problem contains no addresses, so
equal problems share one launch.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array
from clearhead.engine.inputs import Operands, Rules
from clearhead.errors import DtypeError, InputError, ShapeError
from clearhead.kernels.abi.call import AXIS
from clearhead.kernels.abi.tiles import ELEMENTS, STORED
from clearhead.once import cached_property
from clearhead.rules.fused import Fused, fuse, with_faults
from clearhead.rules.mask_kinds import Causal, Full, Mask, checked_mask
from clearhead.rules.placement import check_fits, check_placed
from clearhead.rules.scores import Alibi, Bias, Relative, Score, ScoreLike, as_rules


@dataclass(frozen=True)
class Operand:
    """Byte strides of one array: of each leading axis, of rows, and of elements in a row."""

    lead: tuple[int, ...]
    row: int
    element: int


@dataclass(frozen=True)
class Problem:
    """Attention of `queries` over `keys` for each of the leading axes.

    `lead` are the user's leading axes: the result has shape lead + (queries, value_dim). `axes` are the axes that the
    kernel walks, in the same order, with grouped query heads as a separate axis.
    """

    dtype: str
    lead: tuple[int, ...]
    axes: tuple[int, ...]
    queries: int
    keys: int
    query_dim: int
    value_dim: int
    scale: float
    query: Operand
    key: Operand
    value: Operand
    output: Operand
    rules: Fused
    sink: bool
    paged: bool = False  # keys and values are in a cache's pages; their strides are those of the page tables
    first_key: int = 0  # earlier keys are not there: their pages were evicted, or they belong to an earlier stretch
    carried: bool = False  # sums are carried from stretch to stretch of the keys, undivided
    int8: bool = False  # the pages store int8 with one scale per row
    native: bool = False  # multiply bfloat16 with the processor's bfloat16 instruction
    unrounded: bool = False  # return the computation's dtype instead of the operands'

    @property
    def computed(self) -> str:
        """The dtype of the computation, and of the log-sum-exp: 16-bit operands are widened to float32."""
        return "float32" if self.dtype in STORED else self.dtype

    @property
    def storage(self) -> str:
        """The operands' dtype, if narrower than the computation's, else an empty string."""
        return self.dtype if self.dtype in STORED else ""

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The result's shape."""
        return (*self.lead, self.queries, self.value_dim)

    @property
    def heads(self) -> int:
        """How many independent sequences there are."""
        return math.prod(self.axes)

    @cached_property
    def pairs(self) -> int:
        """Number of visible (query, key) pairs over all heads, judging by the band and the documents alone."""
        return self.heads * self.rules.pairs(self.first_key)


def over_pages(problem: Problem, mask: Mask, *, first_key: int, int8: bool) -> Problem:
    """The same problem over a cache's pages. Packed documents are refused: they start anywhere, pages do not."""
    if problem.rules.packed:
        raise packed_documents(mask)
    return replace(problem, paged=True, first_key=problem.first_key + first_key, int8=int8)


def packed_documents(mask: Mask) -> InputError:
    """The error for packed documents over a cache."""
    return InputError(
        f"{mask!r} packs documents, but a cache keeps each sequence apart: append every document as a "
        "separate sequence, or use documents(...) on plain arrays, as on cache.arrays()."
    )


def problem(
    query: Array,
    key: Array,
    value: Array,
    *,
    mask: Mask,
    score: ScoreLike = (),
    sink: Array | None = None,
    scale: float | None = None,
    precision: str = "exact",
    out: Array | None = None,
) -> Problem:
    """Check the arguments of one call and describe it as a Problem; raises ShapeError, DtypeError or InputError.

    >>> import numpy as np
    >>> from clearhead import causal
    >>> problem(np.zeros((3, 2)), np.zeros((3, 2)), np.zeros((3, 4)), mask=causal()).output_shape
    (3, 4)
    """
    return problem_of(Operands(query, key, value), Rules(mask, score, sink, scale, precision), out=out)


def problem_of(
    operands: Operands,
    rules: Rules,
    *,
    out: Array | None = None,
    unrounded: bool = False,
    first_key: int = 0,
    rows: tuple[int, int] | None = None,
) -> Problem:
    """Like `problem`, from operands and rules. An `unrounded` output has the dtype of the computation.

    With `first_key`, the keys are a stretch of all keys that begins there. With `rows`, a problem of the queries from
    the first to before the second alone, each at its position in the call; `out` is theirs.
    """
    query, key, value, _ = operands
    mask, score, sink, scale, precision = rules
    dtype = common_dtype(query, key, value)
    check_shapes(query, key, value)
    lead = broadcast_heads(query.shape[:-2], key.shape[:-2], value.shape[:-2])
    (queries, dim), (keys, value_dim) = query.shape[-2:], value.shape[-2:]
    keys += first_key
    scores = as_rules(score)
    check_rules(checked_mask(mask), scores, lead, queries, keys)
    if sink is not None:
        check_sink(sink, lead)
    native = is_native(precision, query, key, value, mask)
    fused = with_faults(fuse(mask, scores, queries, keys), lead, queries, keys)
    if rows is not None:
        fused, queries = fused.of_rows(*rows), rows[1] - rows[0]
    shape, unrounded = (*lead, queries, value_dim), unrounded and dtype.name in STORED
    result = np.dtype(np.float32) if unrounded else dtype
    if out is not None:
        check_out(out, shape, result)
    axes, group = walked_axes(lead, key, value)

    def operand(shape: tuple[int, ...], strides: tuple[int, ...], *, grouped: bool) -> Operand:
        """Strides of an operand: 0 along broadcast axes and, for keys and values, along the heads of a group."""
        sizes = shape[:-2]
        steps = [0 if size == 1 else step for size, step in zip(sizes, strides[:-2], strict=True)]
        steps = [0] * (len(lead) - len(sizes)) + steps
        if group > 1:
            *outer, step = steps
            steps = [*outer, step, 0] if grouped else [*outer, step * group, step]
        return Operand(tuple(steps), strides[-2], strides[-1])

    return Problem(
        dtype=dtype.name,
        lead=lead,
        axes=axes,
        queries=queries,
        keys=keys,
        query_dim=dim,
        value_dim=value_dim,
        scale=check_scale(dim**-0.5 if scale is None else scale),
        query=operand(query.shape, query.strides, grouped=False),
        key=operand(key.shape, key.strides, grouped=True),
        value=operand(value.shape, value.strides, grouped=True),
        output=operand(shape, dense_strides(shape, result) if out is None else out.strides, grouped=False),
        rules=fused,
        sink=sink is not None,
        native=native,
        unrounded=unrounded,
        first_key=first_key,
    )


def walked_axes(lead: tuple[int, ...], key: Array, value: Array) -> tuple[tuple[int, ...], int]:
    """The axes that a kernel walks, and how many query heads share a key head; a group becomes a separate axis."""
    key_heads = max(key.shape[-3] if key.ndim > 2 else 1, value.shape[-3] if value.ndim > 2 else 1)
    if lead and 1 < key_heads < lead[-1]:
        group = lead[-1] // key_heads
        return (*lead[:-1], key_heads, group), group
    return lead, 1


GIVE_OPERANDS = "call attention(q, k, v), or attention(q, cache)"


def as_array(x: npt.ArrayLike | None, name: str, cure: str = GIVE_OPERANDS) -> Array:
    """Convert an argument to a plain numpy array. Masked arrays are refused, since their masks would be ignored."""
    if type(x) is np.ndarray:
        return x
    if x is None:
        raise InputError(f"{name} is missing: {cure}.")
    if isinstance(x, np.ma.MaskedArray):
        raise InputError(
            f"{name} is a masked array, whose mask would be ignored: pass x.filled(...) and a clearhead mask."
        )
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise ShapeError(f"{name} is not a rectangular array of numbers: {error}.") from None
    if array.dtype.kind in "iu" and not hasattr(x, "dtype"):
        raise DtypeError(f"{name} is a list of whole numbers, but attention is for floats: write 1.0 in place of 1.")
    return array


def common_dtype(query: Array, key: Array, value: Array) -> np.dtype[Any]:
    """The float dtype that all three arrays share; raises DtypeError if they differ."""
    for name, array in (("x" if query is key is value else "q", query), ("k", key), ("v", value)):
        dtype = array.dtype
        if (dtype.name not in ELEMENTS and dtype.name not in STORED) or not dtype.isnative:
            called = dtype.name if dtype.isnative else dtype.str
            cure = f"{name}.real" if dtype.kind == "c" else f"{name}.astype(numpy.float32)"
            raise DtypeError(
                f"{name} has dtype {called}, but attention is for float64, float32, float16 and bfloat16: convert it, "
                f"as by {cure}."
            )
    if not query.dtype == key.dtype == value.dtype:
        raise DtypeError(
            f"q, k and v have dtypes {query.dtype}, {key.dtype} and {value.dtype}: convert them to one, for instance "
            f"with .astype(numpy.{'float64' if 'float64' in (query.dtype, key.dtype, value.dtype) else 'float32'})."
        )
    return query.dtype


def check_shapes(query: Array, key: Array, value: Array) -> None:
    """Check that ranks, dims and lengths fit; every message names the shapes."""
    shapes = f"q {query.shape}, k {key.shape}, v {value.shape}"
    for name, array in (("q", query), ("k", key), ("v", value)):
        if array.ndim < 2:
            what, cure = (
                (f"has shape {array.shape}", f"{name}[:, None]")
                if array.ndim
                else ("is a single number", f"[[{name}]]")
            )
            raise ShapeError(
                f"{name} {what}, but attention needs (..., length, dim): add what is missing, for instance as {cure}."
            )
        if array.shape[-1] == 0:
            raise ShapeError(f"{name} has shape {array.shape}, whose last axis, the dim, is empty: give it at least 1.")
    if query.shape[-1] != key.shape[-1]:
        raise ShapeError(
            f"queries of dim {query.shape[-1]} cannot be compared with keys of dim {key.shape[-1]} ({shapes}): "
            "the last axes of q and k must be equal."
        )
    if key.shape[-2] != value.shape[-2]:
        raise ShapeError(
            f"{key.shape[-2]} keys do not match {value.shape[-2]} values ({shapes}): the second-last axes of k and v "
            "must be equal."
        )


def broadcast_heads(query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...]) -> tuple[int, ...]:
    """The leading axes of the result: numpy's broadcasting, but query heads may be a multiple of key heads.

    >>> broadcast_heads((2, 8), (2, 2), (2, 2)), broadcast_heads((5, 1), (3,), ())
    ((2, 8), (5, 3))
    """
    shapes = f"q {query}, k {key}, v {value} before (length, dim)"
    heads, key_heads, value_heads = (lead[-1] if lead else 1 for lead in (query, key, value))
    if 1 not in (key_heads, value_heads) and key_heads != value_heads:
        raise ShapeError(
            f"{key_heads} key heads do not match {value_heads} value heads ({shapes}): give k and v equally many."
        )
    shared = max(key_heads, value_heads) if 0 not in (key_heads, value_heads) else 0
    if 1 < shared < heads:
        if heads % shared:
            raise ShapeError(
                f"{heads} query heads cannot share {shared} key heads evenly ({shapes}): use a multiple of {shared}."
            )
        key = (*key[:-1], heads) if key_heads > 1 else key
        value = (*value[:-1], heads) if value_heads > 1 else value
    try:
        return np.broadcast_shapes(query, key, value)
    except ValueError:
        raise ShapeError(f"the leading axes do not broadcast ({shapes}): make them equal or 1.") from None


def check_rules(mask: Mask, rules: tuple[Score, ...], lead: tuple[int, ...], queries: int, keys: int) -> None:
    """Check that the arrays in rules fit the heads and lengths."""
    at = check_fits(mask, lead, queries, keys)
    for rule in rules:
        check_placed(rule, mask, at)
        if isinstance(rule, Bias):
            fits, wanted = at.holds(rule.array.shape), at.wanted
        elif isinstance(rule, Alibi | Relative):
            array = rule.slopes if isinstance(rule, Alibi) else rule.table
            fits, wanted = len(array) == at.heads, f"one row for each of {at.heads} heads"
        else:
            continue
        if not fits:
            raise ShapeError(f"{rule!r} does not fit this attention: it needs {wanted}.")


def is_native(precision: str, query: Array, key: Array, value: Array, mask: Mask) -> bool:
    """Whether to multiply bfloat16 natively. Raises if that is impossible, rather than falling back."""
    if precision == "exact":
        return False
    if precision != "native":
        raise InputError(f"precision={precision!r} is unknown: use 'exact' or 'native'.")
    shapes = f"q {query.shape}, k {key.shape}, v {value.shape} of {query.dtype}"
    dense = all(x.strides[-1] == x.itemsize and x.shape[-1] % 16 == 0 for x in (query, key, value))
    if query.dtype.name != "bfloat16" or not dense:
        raise InputError(
            f"precision='native' is for bfloat16 with dense dims that are multiples of 16, not for {shapes}: "
            "use precision='exact'."
        )
    if not isinstance(mask, Causal | Full):
        raise InputError(f"precision='native' knows only the masks causal() and full(), not {mask!r}: use 'exact'.")
    return True


def check_sink(sink: Array, lead: tuple[int, ...]) -> None:
    """Check that a sink has one number per head."""
    if sink.dtype.kind != "f" and sink.dtype.name not in STORED:
        raise DtypeError(f"sink has dtype {sink.dtype}: give floats, one for each head.")
    try:
        fits = np.broadcast_shapes(sink.shape, lead) == lead
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(f"sink of shape {sink.shape} does not broadcast to the heads {lead}: give one number a head.")


def check_scale(scale: float) -> float:
    """A scale as a float; raises InputError unless it is one finite number."""
    try:
        number = float(scale)
    except (TypeError, ValueError):
        raise InputError(f"scale={scale!r} is not a number: give one, or None for 1/√dim.") from None
    except OverflowError:  # an integer with hundreds of digits
        number = math.inf
    if not math.isfinite(number):
        raise InputError(f"scale={number} is not finite: give a finite number, or None for 1/√dim.")
    return number


def check_out(out: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Check that `out` is a writable array of the result's shape and dtype whose elements do not overlap."""
    if not isinstance(out, np.ndarray):
        raise InputError(f"out is a {type(out).__name__}: pass a numpy array of shape {shape} and dtype {dtype}.")
    if out.shape != shape or out.dtype != dtype:
        raise ShapeError(
            f"out has shape {out.shape} and dtype {out.dtype}, the result {shape} and {dtype}: pass one that fits."
        )
    if not out.flags.writeable:
        raise InputError(f"out of shape {out.shape} is read-only: pass a writable array.")
    if out.size and overlaps_itself(out):
        raise ShapeError(
            f"out of shape {out.shape} and strides {out.strides} overlaps itself: pass one whose elements lie apart."
        )


def check_apart(out: Array, inputs: dict[str, Array]) -> None:
    """Check that `out` shares no memory with an input, which would change while the kernel reads it."""
    for name, array in inputs.items():
        if np.may_share_memory(out, array) and shares_memory(out, array):
            raise ShapeError(f"out {out.shape} overlaps {name} {array.shape} in memory: pass a separate array.")


def overlaps_itself(array: Array) -> bool:
    """Whether two elements can share an address. If not, each axis steps over all axes of smaller stride.

    >>> overlaps_itself(np.ones((2, 3)).T), overlaps_itself(np.broadcast_to(1.0, (2, 2)))
    (False, True)
    """
    reach = array.itemsize
    for step, size in sorted(
        (abs(step), size) for step, size in zip(array.strides, array.shape, strict=True) if size > 1
    ):
        if step < reach:
            return True
        reach += step * (size - 1)
    return False


def shares_memory(a: Array, b: Array) -> bool:
    """Whether two arrays share a byte; if numpy cannot tell quickly, assume they do."""
    try:
        return bool(np.shares_memory(a, b, max_work=10_000))  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def dense_strides(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, ...]:
    """The byte strides of a fresh C-ordered array.

    >>> dense_strides((2, 3, 4), np.dtype(np.float32))
    (48, 16, 4)
    """
    strides, step = [], dtype.itemsize
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


assert AXIS[1:] == ("query", "key", "value", "output")  # noqa: S101
