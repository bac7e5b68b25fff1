"""The public functions: `attention`, `attend` and its result, `self_attention`, `merge`.

Data flows one way: arrays and rules → problem → launch → kernel → arrays. `engine.execute` runs a call, `definition`
defines its meaning.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array
from clearhead.cache.kept import Extent, without_weights
from clearhead.cache.key_value import KeyValueCache
from clearhead.cache.pages import Paged
from clearhead.displayed import Brief, Displayed
from clearhead.engine.execute import execute, execute_cache
from clearhead.engine.inputs import Operands, Rules, new
from clearhead.engine.launch_cache import launch_for
from clearhead.engine.narrowing import rounded
from clearhead.engine.problem import as_array, check_apart, check_out
from clearhead.errors import InputError, ShapeError
from clearhead.gradients.residuals import Residuals
from clearhead.kernels.abi.tiles import STORED
from clearhead.machine.unbroken import late
from clearhead.rules.current import current_rules
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.masks import CAUSAL
from clearhead.rules.scores import ScoreLike

if TYPE_CHECKING:
    from clearhead.attention_weights.matrix import Weights
    from clearhead.definition.gradient import Gradients
    from clearhead.definition.tangent import Direction, Second

UNSCALED = Rules(scale=1.0)


@dataclass(frozen=True, repr=False)
class Attended(Brief, Displayed):
    """The result of attention: `output` (..., queries, value_dim) and `lse` (..., queries).

    `lse` is the natural logarithm of each query's Σ exp(score), −∞ if it sees nothing. `merge` uses it to join parts
    computed over different keys.
    """

    output: Array
    lse: Array
    find_weights: "Callable[[], Weights] | None" = field(default=None, repr=False, compare=False)
    residuals: Residuals | None = field(default=None, repr=False, compare=False)

    @property
    def weights(self) -> "Weights":
        """The weights of this call, (..., queries, keys); a weight is computed from q and k when you index it.

        Holds on to a cache's pages. If an array changed after the call, a row that no longer sums to 1 raises
        InputError.

        >>> import numpy as np
        >>> attend(np.eye(2), np.eye(2), np.eye(2), scale=1.0).weights.row(1).round(3)
        array([0.269, 0.731])
        """
        if self.find_weights is None:
            raise InputError(
                "a merged result has no weights, since its parts have different keys: use the weights of each part."
            )
        return self.find_weights()

    @property
    def unrounded(self) -> Array:
        """The output before it was rounded to 16 bits, in float32, as gradients in pieces need it; else the output.

        >>> import numpy as np
        >>> x = np.ones((2, 1), np.float16)
        >>> attend(x, x, x).unrounded.dtype
        dtype('float32')
        """
        return self.output if self.residuals is None else self.residuals.output

    def backward(self, d_out: npt.ArrayLike, d_lse: npt.ArrayLike | None = None, *, rules: bool = True) -> "Gradients":
        """Gradients of q, k, v, the sink and the rules' arrays, from those of `output` and optionally of `lse`.

        Each has its operand's shape and dtype; `rules=False` omits the rules' arrays. Needs O(n) memory per batch, and
        gives the same bits with any number of threads. q, k, v, the rules' arrays and `output` (also an `out=` buffer)
        must not have changed. Raises InputError, ShapeError or DtypeError.
        Source: Dao et al. 2022, appendix B.2; definition: `clearhead.definition.gradient.gradients`.

        >>> import numpy as np
        >>> x = np.zeros((2, 1))
        >>> attend(x, x, x).backward(np.ones((2, 1))).v.tolist()
        [[1.5], [0.5]]
        """
        gradients: Gradients = late("clearhead.gradients.backward").backward(
            self.differentiable(), self.lse, d_out, d_lse, rules=rules
        )
        return gradients

    def jvp(self, along: "Direction") -> tuple[Array, Array]:
        """Directional derivatives of output and LSE, when q, k, v, the sink and the rules' arrays move `along`.

        Forward-mode differentiation, in O(n) memory; 16-bit operands give float32. Raises ShapeError or DtypeError.
        Definition: `clearhead.definition.tangent`.

        >>> import numpy as np
        >>> from clearhead import Direction
        >>> x = np.zeros((2, 1))
        >>> attend(x, x, x).jvp(Direction(v=np.array([[2.0], [4.0]])))[0].tolist()
        [[2.0], [3.0]]
        """
        tangents: tuple[Array, Array] = late("clearhead.gradients.tangents").jvp(self.differentiable(), self.lse, along)
        return tangents

    def second(self, d_out: npt.ArrayLike, d_lse: npt.ArrayLike | None, along: "Direction") -> "Second":
        """Directional derivatives of output, LSE and `backward(d_out, d_lse)` along `along`, in O(n) memory.

        They are also the gradients of Σ `along` ∘ `backward(d_out, d_lse)`: `.gradients` with respect to the operands,
        `.output` and `.lse` with respect to d_out and d_lse. 16-bit operands give float32. Raises ShapeError or
        DtypeError. Definition: `clearhead.definition.tangent.second`.

        >>> import numpy as np
        >>> from clearhead import Direction
        >>> x, d = np.zeros((2, 1)), np.ones((2, 1))
        >>> attend(x, x, x).second(d, None, Direction(q=d, k=d)).gradients.q.tolist()
        [[0.0], [0.0]]
        """
        derivatives: Second = late("clearhead.gradients.tangents").second(
            self.differentiable(), self.lse, d_out, d_lse, along
        )
        return derivatives

    def differentiable(self) -> Residuals:
        """The saved values of the call; raises InputError if it has no derivatives."""
        if self.residuals is None:
            raise late("clearhead.gradients.backward").no_gradients(
                "a merged result, or one over a cache or in native precision,"
            )
        return self.residuals


def self_attention(x: npt.ArrayLike, *, threads: int | None = None, out: Array | None = None) -> Array:
    """Let each item of x attend to itself and the items before it: the textbook's first approach, unscaled.

    x has shape (..., length, dim), float32 or float64, any strides; the result has the same shape and dtype. `threads`
    bounds the number of threads (default: CLEARHEAD_THREADS, else all cores), `out` receives the result. Raises
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
    key head (Ainslie et al. 2023). All have one dtype, float64, float32, float16 or bfloat16, and any strides. Pass a
    `KeyValueCache` instead of k and v to attend over it.

    `mask`: `causal()`, `full()`, `window()`, `dilated()`, `prefix()`, `documents()`, `blocks()`, `dense()`, `where()`,
    combined with &, | and ~. `score`: one rule or several in order, `softcap()`, `alibi()`, `bias()`, `relative()`,
    `scale()` or a function of (score, batch, head, query, key). `sink`: one number per head in the softmax's
    denominator (gpt-oss). `precision="native"` multiplies bfloat16 with the processor's bfloat16 instruction (error:
    docs/design.md, section 2). `scale` defaults to 1/√d (Vaswani et al. 2017), `threads` bounds the number of threads,
    `out` receives the result. Hidden keys and values are never read; a query that sees nothing gets 0. Raises
    ShapeError, DtypeError, TraceError or InputError.
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
    """`attention` that also gives each query's log-sum-exp of scores, the weights and derivatives.

    Weights and derivatives read q, k, v, the rules' arrays and the output without a copy, so do not change these.

    >>> import numpy as np
    >>> done = attend(np.zeros((2, 1)), np.zeros((2, 1)), np.array([[1.0], [3.0]]))
    >>> done.output.tolist(), done.lse.round(3).tolist()
    ([[1.0], [2.0]], [0.0, 0.693])
    """
    score = current_rules(score)  # traced once, for output and weights alike
    rules = new(Rules, (mask, score, sink if sink is None else as_array(sink, "sink"), scale, precision))
    if isinstance(k, KeyValueCache):
        check_no_values(v)
        query = as_array(q, "q")
        output, lse = execute_cache(query, k, rules, threads=threads, out=out, lse=True)
        if not k.alike:
            return Attended(output, lse, partial(no_weights, k.extents))
        return Attended(output, lse, partial(weights_of_call, query, k.paged(slice(None)), rules, lse, threads))
    operands = new(Operands, (as_array(q, "q"), as_array(k, "k"), as_array(v, "v"), None))
    if precision != "exact":
        output, lse = execute(operands, rules, threads=threads, out=out, lse=True)
        return Attended(
            output, lse, partial(weights_of_call, *operands[:2], rules._replace(precision="exact"), None, threads)
        )
    narrow = operands.q.dtype.name in STORED
    target = None if narrow else out
    launch = launch_for(operands, rules, target, unrounded=True)
    unrounded, lse = execute(operands, rules, threads=threads, out=target, lse=True, launch=launch)
    output = rounded_output(unrounded, operands, out, threads) if narrow else unrounded
    traced = Rules(mask, launch.score, rules.sink, scale)
    residuals = Residuals(operands, traced, threads, unrounded)
    return Attended(output, lse, partial(weights_of_call, *operands[:2], traced, lse, threads), residuals)


def check_no_values(v: object) -> None:
    """Check that no values were passed along with a cache."""
    if v is not None:
        raise InputError("a cache holds the values too: call attention(q, cache) without v.")


def rounded_output(unrounded: Array, operands: Operands, out: Array | None, threads: int | None) -> Array:
    """Round the output to the operands' dtype. Backward uses the unrounded one, since δ = rowsum(dO ∘ O) needs it."""
    dtype = operands.q.dtype
    if out is not None:
        check_out(out, unrounded.shape, dtype)
        check_apart(out, dict(zip("qkv", operands[:3], strict=True)))
    output = rounded(unrounded, dtype, threads)
    if out is None:
        return output
    out[...] = output
    return out


def weights_of_call(q: Array, k: Array | Paged, rules: Rules, lse: Array | None, threads: int | None) -> "Weights":
    """The weights of a call, on first use."""
    from clearhead.attention_weights.matrix import weights_of

    return weights_of(q, k, rules, lse=lse, threads=threads, matching=True)


def no_weights(extents: tuple[Extent, ...]) -> "Weights":
    """Raise the error for weights of sequences of unequal length."""
    raise without_weights(extents)


def merge(a: Attended, b: Attended) -> Attended:
    """Join attention of the same queries over two disjoint sets of keys into attention over both.

    Shapes and dtypes of a and b must be equal, else ShapeError. A part that saw nothing changes nothing.
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
            "fit together: merge results of equal shape and dtype."
        )
    top = np.maximum(a.lse, b.lse)
    finite_top = np.where(np.isneginf(top), a.lse.dtype.type(0), top)
    shares = [np.exp(part.lse - finite_top) for part in (a, b)]
    total = shares[0] + shares[1]
    share = np.divide(1, total, where=total != 0, out=np.zeros_like(total))
    # A part that saw nothing has weight 0 and output 0, so 0 × ∞ cannot occur.
    output = (a.output * shares[0][..., None] + b.output * shares[1][..., None]) * share[..., None]
    with np.errstate(divide="ignore"):
        return Attended(output, finite_top + np.log(total))
