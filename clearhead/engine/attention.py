"""Attention as users call it: arrays + rules → Problem → plan → kernel → arrays.

Decides what is done in every call; what depends on shapes alone is looked up in `recall`. Checks are left to
`problem`, code to `machine` and `kernels`, meaning to `definition`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from clearhead.cache.key_value import KeyValueCache, without_weights
from clearhead.cache.pages import Paged
from clearhead.engine.launch import Prepared
from clearhead.engine.launch_cache import recall
from clearhead.engine.problem import Array, Problem, as_array, check_apart, check_out
from clearhead.errors import InputError, ShapeError
from clearhead.kernels.abi.call import FIELDS
from clearhead.kernels.abi.tiles import STORED
from clearhead.machine.address import address
from clearhead.machine.threads import allowed, run_kernel
from clearhead.machine.unbroken import late
from clearhead.rules.current import current
from clearhead.rules.masks import Mask, at_end, causal, checked
from clearhead.rules.scores import Rules

if TYPE_CHECKING:
    from clearhead.attention_weights.matrix import Weights
    from clearhead.definition.tangent import Direction, Second
    from clearhead.gradients.backward import Gradients, Kept

CAUSAL = causal()
QUERY, KEY, VALUE, OUTPUT, LSE, SINK, WORKSPACE, COUNTERS = (
    FIELDS.index(name) for name in ("query", "key", "value", "output", "lse", "sink", "workspace", "counters")
)
UNWANTED = np.empty(0)


@dataclass(frozen=True)
class Attended:
    """What attention gives: `output` (..., queries, value_dim) and `lse` (..., queries).

    `lse` is the natural logarithm of each query's Σ exp(score), −∞ where it sees nothing; with it, parts computed over
    different keys can be joined by `merge`.
    """

    output: Array
    lse: Array
    find_weights: "Callable[[], Weights] | None" = field(default=None, repr=False, compare=False)
    kept: "Kept | None" = field(default=None, repr=False, compare=False)

    @property
    def weights(self) -> "Weights":
        """The weights that made the output, (..., queries, keys): computed only where looked at, from q and k as held.

        A cache's pages are kept for it. Where a whole row no longer sums to 1, because an array was changed since,
        looking at it raises InputError.

        >>> import numpy as np
        >>> attend(np.eye(2), np.eye(2), np.eye(2), scale=1.0).weights.row(1).round(3)
        array([0.269, 0.731])
        """
        if self.find_weights is None:
            raise InputError("merged parts have keys of their own: look at the weights of each part.")
        return self.find_weights()

    def backward(self, d_out: npt.ArrayLike, d_lse: npt.ArrayLike | None = None, *, rules: bool = True) -> "Gradients":
        """Gradients of q, k, v, the sink and the rules' arrays, given those of `output` and perhaps of `lse`.

        Each has its operand's shape and dtype; `rules=False` leaves the rules' arrays out. O(n) memory for each batch
        of the result, the same bits for any number of threads. q, k, v, the rules' arrays and `output` (an `out=`
        buffer too) must be as they were. Raises InputError, ShapeError or DtypeError.
        Source: Dao et al. 2022, appendix B.2; definition: `clearhead.definition.gradient.gradients`.

        >>> import numpy as np
        >>> x = np.zeros((2, 1))
        >>> attend(x, x, x).backward(np.ones((2, 1))).v.tolist()
        [[1.5], [0.5]]
        """
        found: Gradients = late("clearhead.gradients.backward").backward(
            self.differentiable(), self.lse, d_out, d_lse, rules
        )
        return found

    def jvp(self, along: "Direction") -> tuple[Array, Array]:
        """How output and LSE change, to first order, when q, k, v, the sink and the rules' arrays move `along`.

        Forward-mode differentiation, in O(n) memory; 16-bit operands give float32. Raises ShapeError or DtypeError.
        Definition: `clearhead.definition.tangent`.

        >>> import numpy as np
        >>> from clearhead import Direction
        >>> x = np.zeros((2, 1))
        >>> attend(x, x, x).jvp(Direction(v=np.array([[2.0], [4.0]])))[0].tolist()
        [[2.0], [3.0]]
        """
        found: tuple[Array, Array] = late("clearhead.gradients.tangents").jvp(self.differentiable(), self.lse, along)
        return found

    def second(self, d_out: npt.ArrayLike, d_lse: npt.ArrayLike | None, along: "Direction") -> "Second":
        """How output, LSE and `backward(d_out, d_lse)` change when everything moves `along`, in O(n) memory.

        Also the gradients of Σ `along` ∘ `backward(d_out, d_lse)`: `.gradients` by what moves, `.output` and `.lse` by
        d_out and d_lse; 16-bit operands give float32. Raises ShapeError or DtypeError. Definition:
        `clearhead.definition.tangent.second`.

        >>> import numpy as np
        >>> from clearhead import Direction
        >>> x, d = np.zeros((2, 1)), np.ones((2, 1))
        >>> attend(x, x, x).second(d, None, Direction(q=d, k=d)).gradients.q.tolist()
        [[0.0], [0.0]]
        """
        found: Second = late("clearhead.gradients.tangents").second(
            self.differentiable(), self.lse, d_out, d_lse, along
        )
        return found

    def differentiable(self) -> "Kept":
        """What derivatives need of the call."""
        if self.kept is None:
            raise late("clearhead.gradients.backward").unknown(
                "a merged result, or one over a cache or in native precision,"
            )
        return self.kept


def self_attention(x: npt.ArrayLike, *, threads: int | None = None, out: Array | None = None) -> Array:
    """Let each item of x look at itself and the items before it: the textbook's first approach, unscaled.

    x has shape (..., length, dim), float32 or float64, any strides; the result has its shape and dtype. `threads`
    bounds how many threads work (default: CLEARHEAD_THREADS, else every core), `out` receives the result. Raises
    ShapeError, DtypeError or InputError. Definition: `clearhead.definition.textbook.self_attention`.

    >>> import numpy as np
    >>> self_attention(np.array([[0.0], [1.0]])).round(3)
    array([[0.   ],
           [0.731]])
    """
    array = as_array(x, "x")
    return run(array, array, array, CAUSAL, (), None, 1.0, "exact", threads, out, False)[0]


def attention(
    q: npt.ArrayLike,
    k: npt.ArrayLike | KeyValueCache,
    v: npt.ArrayLike | None = None,
    *,
    mask: Mask = CAUSAL,
    score: Rules = (),
    sink: npt.ArrayLike | None = None,
    scale: float | None = None,
    precision: Literal["exact", "native"] = "exact",
    threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """Let each query gather the values whose keys it may see, weighted by softmax of scale · q·k.

    Shapes: q (..., n, d), k (..., m, d), v (..., m, dv); the result is (..., n, dv). Leading axes broadcast as in
    numpy, except that q may have a multiple of the heads (axis −3) of k and v: then consecutive query heads share one
    key head (Ainslie et al. 2023). All of one dtype, float64, float32, float16 or bfloat16, any strides. In place of k
    and v, a `KeyValueCache`.

    `mask`: `causal()`, `full()`, `window()`, `prefix()`, `documents()`, `blocks()`, `dense()`, `where()`, joined by
    &, | and ~. `score`: a rule or several in order, `softcap()`, `alibi()`, `bias()`, `relative()`, `scale()` or a
    function of (score, batch, head, query, key). `sink`: a number for each head in the softmax's denominator (gpt-oss).
    `precision="native"` multiplies bfloat16 as it is, where the processor can (error: docs/design.md, section 2).
    `scale` defaults to 1/√d (Vaswani et al. 2017), `threads` bounds the threads, `out` receives the result. Hidden keys
    and values are never touched; a query that sees nothing gets 0. Raises ShapeError, DtypeError, TraceError or
    InputError. Definition: `clearhead.definition.textbook.attention`.

    >>> import numpy as np
    >>> x = np.eye(2)
    >>> attention(x, x, x, scale=1.0).round(3)
    array([[1.   , 0.   ],
           [0.269, 0.731]])
    """
    if isinstance(k, KeyValueCache):
        return over_cache(as_array(q, "q"), k, v, mask, score, sink, scale, precision, threads, out, False)[0]
    arrays = as_array(q, "q"), as_array(k, "k"), as_array(v, "v")
    return run(*arrays, mask, score, sink, scale, precision, threads, out, False)[0]


def attend(
    q: npt.ArrayLike,
    k: npt.ArrayLike | KeyValueCache,
    v: npt.ArrayLike | None = None,
    *,
    mask: Mask = CAUSAL,
    score: Rules = (),
    sink: npt.ArrayLike | None = None,
    scale: float | None = None,
    precision: Literal["exact", "native"] = "exact",
    threads: int | None = None,
    out: Array | None = None,
) -> Attended:
    """`attention`, and with the output each query's log-sum-exp of scores, weights and derivatives.

    These read q, k, v, the rules' arrays and the output where they lie: change none of them before.

    >>> import numpy as np
    >>> done = attend(np.zeros((2, 1)), np.zeros((2, 1)), np.array([[1.0], [3.0]]))
    >>> done.output.tolist(), done.lse.round(3).tolist()
    ([[1.0], [2.0]], [0.0, 0.693])
    """
    score = current(score)  # once, so that the weights are those of this call
    rules: dict[str, Any] = {"mask": mask, "score": score, "scale": scale, "sink": sink, "threads": threads}
    if isinstance(k, KeyValueCache):
        operands = as_array(q, "q"), k
        output, lse = over_cache(*operands, v, mask, score, sink, scale, precision, threads, out, True)
        if not k.alike:
            return Attended(output, lse, partial(no_weights, tuple(k.counts), tuple(k.gone)))
        return Attended(output, lse, partial(weights_of, operands[0], k.paged(slice(None)), lse=lse, **rules))
    arrays = as_array(q, "q"), as_array(k, "k"), as_array(v, "v")
    if precision != "exact":
        output, lse = run(*arrays, mask, score, sink, scale, precision, threads, out, True)
        return Attended(output, lse, partial(weights_of, *arrays[:2], lse=None, **rules))
    sinks, narrow = None if sink is None else as_array(sink, "sink"), arrays[0].dtype.name in STORED
    target = None if narrow else out
    ready, traced = recall(*arrays, mask, score, sinks, scale, precision, target, wide=True)
    wide, lse = call(ready, arrays, sinks, threads, target, True)
    output = rounded(wide, arrays, out) if narrow else wide
    kept = keep(*arrays, mask, traced, sinks, scale, threads, wide)
    return Attended(output, lse, partial(weights_of, *arrays[:2], lse=lse, **rules | {"score": traced}), kept)


def rounded(wide: Array, operands: tuple[Array, Array, Array], out: Array | None) -> Array:
    """The output as it is stored; gradients are found from what it was before, or they would lose digits."""
    dtype = operands[0].dtype
    if out is not None:
        check_out(out, wide.shape, dtype)
        check_apart(out, dict(zip("qkv", operands, strict=True)))
    with np.errstate(over="ignore", invalid="ignore"):
        if out is None:
            return wide.astype(dtype)
        out[...] = wide
    return out


def keep(*call: Any) -> "Kept":
    """What the gradients of a call need."""
    kept: Kept = late("clearhead.gradients.backward").Kept(*call)
    return kept


def weights_of(*operands: Any, **rules: Any) -> "Weights":
    """The weights of a call, when they are asked for."""
    from clearhead.attention_weights.matrix import Weights, weights

    found = weights(*operands, **rules)
    return Weights(replace(found.source, own=True), found.heads)


def no_weights(counts: tuple[int, ...], gone: tuple[int, ...]) -> "Weights":
    """What is said when weights of sequences that are not alike are asked for."""
    raise without_weights(counts, gone)


def merge(a: Attended, b: Attended) -> Attended:
    """Join attention of the same queries over two disjoint sets of keys, as if over both at once.

    Shapes and dtypes of a and b must be equal, else ShapeError; parts that saw nothing change nothing.
    Source: Milakov & Gimelshein 2018, section 3.1.

    >>> import numpy as np
    >>> from clearhead import full
    >>> q, k, v = np.ones((1, 2)), np.arange(8.0).reshape(4, 2), np.arange(4.0)[:, None]
    >>> halves = [attend(q, k[s], v[s], mask=full()) for s in (slice(0, 2), slice(2, 4))]
    >>> np.allclose(merge(*halves).output, attention(q, k, v, mask=full()))
    True
    """
    if a.output.shape != b.output.shape or a.output.dtype != b.output.dtype or a.lse.shape != b.lse.shape:
        raise ShapeError(
            f"parts of shapes {a.output.shape} ({a.output.dtype}) and {b.output.shape} ({b.output.dtype}) do not "
            "belong to the same queries: merge results of equal shape and dtype."
        )
    top = np.maximum(a.lse, b.lse)
    finite_top = np.where(np.isneginf(top), a.lse.dtype.type(0), top)
    shares = [np.exp(part.lse - finite_top) for part in (a, b)]
    total = shares[0] + shares[1]
    share = np.divide(1, total, where=total != 0, out=np.zeros_like(total))
    # A part that saw nothing has weight 0, and its output is 0 by definition: no 0 × ∞ can arise from it.
    output = (a.output * shares[0][..., None] + b.output * shares[1][..., None]) * share[..., None]
    with np.errstate(divide="ignore"):
        return Attended(output, finite_top + np.log(total))


def run(
    q: Array,
    k: Array,
    v: Array,
    mask: Mask,
    score: Rules,
    sink: npt.ArrayLike | None,
    scale: float | None,
    precision: str,
    threads: int | None,
    out: Array | None,
    wants_lse: bool,
    wide: bool = False,
) -> tuple[Array, Array]:
    """One call; the second array is empty unless wanted. What is known of its shapes is looked up, not worked out.

    A `wide` output is not rounded to operands of 16 bits.
    """
    sinks = None if sink is None else as_array(sink, "sink")
    ready, _ = recall(q, k, v, mask, score, sinks, scale, precision, out, wide=wide)
    return call(ready, (q, k, v), sinks, threads, out, wants_lse)


def call(
    ready: Prepared,
    operands: tuple[Array, Array, Array],
    sinks: Array | None,
    threads: int | None,
    out: Array | None,
    wants_lse: bool,
    pages: Paged | None = None,
) -> tuple[Array, Array]:
    """Give a preparation its addresses and run it."""
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise InputError(f"threads={threads!r} is not a number of threads: use 1, 2, 3 … or None for the default.")
    q, k, v = operands
    output = np.empty(ready.output_shape, ready.output_dtype) if out is None else out
    lse = np.empty(ready.output_shape[:-1], ready.lse_dtype) if wants_lse else UNWANTED
    if ready.tasks == 0:
        return output, lse
    table = ready.table_type.from_buffer_copy(ready.template)
    table[QUERY], table[KEY], table[VALUE], table[OUTPUT] = address(q), address(k), address(v), address(output)
    if wants_lse:
        table[LSE] = address(lse)
    if sinks is not None:
        sinks = np.ascontiguousarray(np.broadcast_to(sinks, ready.output_shape[:-2]), ready.lse_dtype)
        table[SINK] = address(sinks)
    workspace, counters = UNWANTED, UNWANTED
    if ready.counters:
        workspace, counters = np.empty(ready.workspace, np.uint8), np.zeros(ready.counters, np.int64)
        table[WORKSPACE], table[COUNTERS] = address(workspace), address(counters)
    count = 1 if ready.most_threads == 1 else min(ready.most_threads, threads or allowed())
    arrays = (q, k, v, output, lse, sinks, workspace, counters, ready.kept, pages)
    run_kernel(ready.entry, table, ready.scratch_size, count, ready.isa, arrays)
    if ready.doubtful is not None:
        check_rows(ready.doubtful, output, q, k if pages is None else pages)
    return output, lse


def check_rows(asked: Problem, output: Array, query: Array, key: Array | Paged) -> None:
    """Raise TraceError if a row is not a number because a rule reads outside of its arrays, or the like."""
    lost = np.isnan(output[..., 0])
    if lost.any():
        late("clearhead.engine.diagnosis").check(asked, lost, query, key)


def over_cache(
    q: Array,
    cache: KeyValueCache,
    v: object,
    mask: Mask,
    score: Rules,
    sink: npt.ArrayLike | None,
    scale: float | None,
    precision: str,
    threads: int | None,
    out: Array | None,
    wants_lse: bool,
) -> tuple[Array, Array]:
    """Attention over a cache: the queries are the last items, unless a mask says otherwise.

    Sequences that are alike go together; others one by one.
    """
    if precision != "exact":
        raise InputError(f"precision={precision!r} is not for a cache: use 'exact'.")
    if v is not None:
        raise InputError("a cache holds the values too: call attention(q, cache) without v.")
    if cache.layout is None:
        raise InputError("this cache is empty: append keys and values first.")
    rows = q.ndim - 3 if cache.batched else 0
    if q.ndim < 3 or (cache.batched and q.shape[:-3] != (len(cache.counts),)):
        wanted = f"({len(cache.counts)}, heads, n, {cache.layout.key_dim})" if cache.batched else "(heads, n, dim)"
        raise ShapeError(f"q of shape {q.shape} does not fit {cache!r}: give {wanted}.")
    sinks = None if sink is None else as_array(sink, "sink")
    common = (at_end(checked(mask)), score, sinks, scale, threads)
    if not rows or cache.alike:
        return over_sequences(q, cache, slice(None), *common, out, wants_lse)
    if sinks is not None and sinks.ndim > 1:
        raise ShapeError(f"sink of shape {sinks.shape} and sequences of different lengths: give one number a head.")
    output = np.empty((*q.shape[:-1], cache.layout.value_dim), q.dtype) if out is None else out
    lse = np.empty(q.shape[:-1], cache.layout.computed) if wants_lse else UNWANTED
    for n in range(len(cache.counts)):
        _, part = over_sequences(q[n : n + 1], cache, slice(n, n + 1), *common, output[n : n + 1], wants_lse)
        if wants_lse:
            lse[n] = part[0]
    return output, lse


def over_sequences(
    q: Array,
    cache: KeyValueCache,
    numbers: slice,
    mask: Mask,
    score: Rules,
    sinks: Array | None,
    scale: float | None,
    threads: int | None,
    out: Array | None,
    wants_lse: bool,
) -> tuple[Array, Array]:
    """Some sequences of one length."""
    pages = cache.paged(numbers)
    about = pages.first_key, pages.int8
    ready, _ = recall(q, pages.key, pages.value, mask, score, sinks, scale, "exact", out, *about)
    return call(ready, (q, *pages.tables), sinks, threads, out, wants_lse, pages)
