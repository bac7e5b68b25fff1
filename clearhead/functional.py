"""Attention as users call it: `attention`, `attend` and what can be asked of its result, `self_attention`, `merge`.

Data flows one way: arrays and rules → problem → launch → kernel → arrays. What happens in a call is `engine.execute`'s,
meaning `definition`'s.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array
from clearhead.cache.key_value import KeyValueCache, without_weights
from clearhead.cache.pages import Paged
from clearhead.engine.execute import execute, execute_cache
from clearhead.engine.inputs import Operands, Rules, new
from clearhead.engine.launch_cache import launch_for
from clearhead.engine.problem import as_array, check_apart, check_out
from clearhead.errors import InputError, ShapeError
from clearhead.gradients.residuals import Residuals
from clearhead.kernels.abi.tiles import STORED
from clearhead.machine.unbroken import late
from clearhead.rules.current import current
from clearhead.rules.masks import CAUSAL, Mask
from clearhead.rules.scores import ScoreLike

if TYPE_CHECKING:
    from clearhead.attention_weights.matrix import Weights
    from clearhead.definition.gradient import Gradients
    from clearhead.definition.tangent import Direction, Second

UNSCALED = Rules(scale=1.0)


@dataclass(frozen=True)
class Attended:
    """What attention gives: `output` (..., queries, value_dim) and `lse` (..., queries).

    `lse` is the natural logarithm of each query's Σ exp(score), −∞ where it sees nothing; with it, parts computed over
    different keys can be joined by `merge`.
    """

    output: Array
    lse: Array
    find_weights: "Callable[[], Weights] | None" = field(default=None, repr=False, compare=False)
    residuals: Residuals | None = field(default=None, repr=False, compare=False)

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
            self.differentiable(), self.lse, d_out, d_lse, rules=rules
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

    def differentiable(self) -> Residuals:
        """What derivatives need of the call."""
        if self.residuals is None:
            raise late("clearhead.gradients.backward").unknown(
                "a merged result, or one over a cache or in native precision,"
            )
        return self.residuals


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
    return execute(Operands(array, array, array), UNSCALED, threads=threads, out=out)[0]


def attention(
    q: npt.ArrayLike,
    k: npt.ArrayLike | KeyValueCache,
    v: npt.ArrayLike | None = None,
    *,
    mask: Mask = CAUSAL,
    score: ScoreLike = (),
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

    `mask`: `causal()`, `full()`, `window()`, `dilated()`, `prefix()`, `documents()`, `blocks()`, `dense()`, `where()`,
    joined by &, | and ~. `score`: a rule or several in order, `softcap()`, `alibi()`, `bias()`, `relative()`, `scale()`
    or a function of (score, batch, head, query, key). `sink`: a number for each head in the softmax's denominator
    (gpt-oss). `precision="native"` multiplies bfloat16 as it is, where the processor can (error: docs/design.md,
    section 2). `scale` defaults to 1/√d (Vaswani et al. 2017), `threads` bounds the threads, `out` receives the result.
    Hidden keys and values are never touched; a query that sees nothing gets 0. Raises ShapeError, DtypeError,
    TraceError or InputError.
    Definition: `clearhead.definition.textbook.attention`.

    >>> import numpy as np
    >>> x = np.eye(2)
    >>> attention(x, x, x, scale=1.0).round(3)
    array([[1.   , 0.   ],
           [0.269, 0.731]])
    """
    rules = new(Rules, (mask, score, sink if sink is None else as_array(sink, "sink"), scale, precision))
    if isinstance(k, KeyValueCache):
        check_no_values(v)
        return execute_cache(as_array(q, "q"), k, rules, threads=threads, out=out)[0]
    operands = new(Operands, (as_array(q, "q"), as_array(k, "k"), as_array(v, "v"), None))
    return execute(operands, rules, threads=threads, out=out)[0]


def attend(
    q: npt.ArrayLike,
    k: npt.ArrayLike | KeyValueCache,
    v: npt.ArrayLike | None = None,
    *,
    mask: Mask = CAUSAL,
    score: ScoreLike = (),
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
    rules = new(Rules, (mask, score, sink if sink is None else as_array(sink, "sink"), scale, precision))
    if isinstance(k, KeyValueCache):
        check_no_values(v)
        query = as_array(q, "q")
        output, lse = execute_cache(query, k, rules, threads=threads, out=out, lse=True)
        if not k.alike:
            return Attended(output, lse, partial(no_weights, tuple(k.counts), tuple(k.gone)))
        return Attended(output, lse, partial(weights_seen, query, k.paged(slice(None)), rules, lse, threads))
    operands = new(Operands, (as_array(q, "q"), as_array(k, "k"), as_array(v, "v"), None))
    if precision != "exact":
        output, lse = execute(operands, rules, threads=threads, out=out, lse=True)
        return Attended(
            output, lse, partial(weights_seen, *operands[:2], rules._replace(precision="exact"), None, threads)
        )
    narrow = operands.q.dtype.name in STORED
    target = None if narrow else out
    launch = launch_for(operands, rules, target, unrounded=True)
    unrounded, lse = execute(operands, rules, threads=threads, out=target, lse=True, launch=launch)
    output = rounded(unrounded, operands, out) if narrow else unrounded
    traced = Rules(mask, launch.score, rules.sink, scale)
    residuals = Residuals(operands, traced, threads, unrounded)
    return Attended(output, lse, partial(weights_seen, *operands[:2], traced, lse, threads), residuals)


def check_no_values(v: object) -> None:
    """A cache needs no values beside it."""
    if v is not None:
        raise InputError("a cache holds the values too: call attention(q, cache) without v.")


def rounded(unrounded: Array, operands: Operands, out: Array | None) -> Array:
    """The output in its operands' dtype. Gradients come from the unrounded one: δ = rowsum(dO ∘ O) needs its digits."""
    dtype = operands.q.dtype
    if out is not None:
        check_out(out, unrounded.shape, dtype)
        check_apart(out, dict(zip("qkv", operands[:3], strict=True)))
    with np.errstate(over="ignore", invalid="ignore"):
        if out is None:
            return unrounded.astype(dtype)
        out[...] = unrounded
    return out


def weights_seen(q: Array, k: Array | Paged, rules: Rules, lse: Array | None, threads: int | None) -> "Weights":
    """The weights of a call, when someone asks."""
    from clearhead.attention_weights.matrix import weights_of

    return weights_of(q, k, rules, lse=lse, threads=threads, own=True)


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
