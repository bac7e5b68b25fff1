"""`dot_product_attention` with jax.nn's arguments and layout, for jit, vmap and grad on the CPU.

Decides how JAX's arguments become masks and rules, and what is kept for gradients: output and log-sum-exp. How a call
leaves a compiled graph is `call`'s.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from clearhead.adapters.jax.call import call, called
from clearhead.attention import attend
from clearhead.attention import attention as compute
from clearhead.errors import ShapeError
from clearhead.gradients import Kept
from clearhead.gradients import backward as differentiated
from clearhead.problem import Array
from clearhead.rules import scores
from clearhead.rules.masks import Mask, causal, dense, full, where, window


@dataclass(frozen=True)
class Options:
    """What of a call is no array; equal options share a compiled graph."""

    scale: float
    causal: bool
    window: tuple[int | None, int | None] | None

    @property
    def mask(self) -> Mask:
        """What is known without arrays; queries and keys begin together."""
        mask: Mask = causal(align="start") if self.causal else full()
        return mask if self.window is None else mask & window(*self.window, align="start")


def dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    bias: Any = None,
    mask: Any = None,
    *,
    scale: float | None = None,
    is_causal: bool = False,
    query_seq_lengths: Any = None,
    key_value_seq_lengths: Any = None,
    local_window_size: int | tuple[int, int] | None = None,
) -> Any:
    """Attention as `jax.nn.dot_product_attention` means it, its layout (..., length, heads, dim) included.

    Query heads may be a multiple of key heads. `bias` (added to scores, with a gradient) and `mask` (True is seen)
    broadcast to (batch, heads, T, S); lengths are (batch,): what lies behind them is not seen, and queries behind give
    0. A query that sees nothing gives 0. float32, bfloat16, float16, and float64 where JAX has it enabled.

    >>> x = jax.numpy.eye(2).reshape(1, 2, 1, 2)
    >>> np.asarray(dot_product_attention(x, x, x, scale=1.0, is_causal=True)[0, :, 0], np.float64).round(3)
    array([[1.   , 0.   ],
           [0.269, 0.731]])
    """
    if query.ndim < 3 or key.ndim < 3 or value.ndim < 3:
        raise ShapeError(f"q {query.shape}, k {key.shape}, v {value.shape}: give (..., length, heads, dim).")
    sides = (local_window_size,) * 2 if isinstance(local_window_size, int) else local_window_size
    options = Options(float(query.shape[-1] ** -0.5 if scale is None else scale), is_causal, sides)
    tables = (bias, mask, query_seq_lengths, key_value_seq_lengths)
    return attention(options, query, key, value, tables)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def attention(options: Options, query: Any, key: Any, value: Any, tables: tuple[Any, ...]) -> Any:
    """The output."""
    return call(attended, shapes(query, value)[:1], present(query, key, value, tables), **about(options, tables))[0]


def forward(options: Options, query: Any, key: Any, value: Any, tables: tuple[Any, ...]) -> tuple[Any, Any]:
    """The output, and what its gradient needs: the output before it was rounded, and the log-sum-exp."""
    results = shapes(query, value)
    output, lse, *wide = call(attended, results, present(query, key, value, tables), **about(options, tables))
    return output, (query, key, value, tables, wide[0] if wide else output, lse)


def backward(options: Options, kept: Any, d_output: Any) -> tuple[Any, ...]:
    """Gradients of query, key, value and bias."""
    query, key, value, tables, wide, lse = kept
    smooth = [x for x in (query, key, value, tables[0]) if x is not None]
    results = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in smooth]
    operands = [*present(query, key, value, tables), wide, lse, d_output]
    found = call(gradients, results, operands, **about(options, tables))
    nothing = [None if x is None else np.zeros(x.shape, jax.dtypes.float0) for x in tables[1:]]
    return *found[:3], (found[3] if len(found) > 3 else None, *nothing)


attention.defvjp(forward, backward)


def shapes(query: Any, value: Any) -> list[jax.ShapeDtypeStruct]:
    """Output, log-sum-exp (…, heads, T), and where numbers have 16 bits the output before it was rounded."""
    wide = query.dtype if query.dtype.itemsize > 2 else np.dtype(np.float32)
    *lead, length, heads, _ = query.shape
    output = (*query.shape[:-1], value.shape[-1])
    kinds = [(output, query.dtype), ((*lead, heads, length), wide)] + ([(output, wide)] if wide != query.dtype else [])
    return [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in kinds]


def present(query: Any, key: Any, value: Any, tables: tuple[Any, ...]) -> list[Any]:
    """The operands that there are."""
    return [jax.numpy.asarray(x) for x in (query, key, value, *tables) if x is not None]


def about(options: Options, tables: tuple[Any, ...]) -> dict[str, Any]:
    """What of a call is no array, which tables it has included."""
    return {**asdict(options), "tables": [x is not None for x in tables]}


@called
def attended(options: dict[str, Any], operands: list[Array], results: list[Array]) -> None:
    """Write output, and if they are asked for log-sum-exp and the output before it was rounded."""
    q, k, v, rules, _ = arranged(options, operands)
    output = turned(results[0])
    if len(results) == 1:
        compute(q, k, v, out=output, **rules)
        return
    done = attend(q, k, v, out=output, **rules)
    results[1].reshape(done.lse.shape)[...] = done.lse
    if len(results) > 2 and done.kept is not None:
        turned(results[2])[...] = done.kept.wide


@called
def gradients(options: dict[str, Any], operands: list[Array], results: list[Array]) -> None:
    """Write the gradients."""
    *first, wide, lse, d_output = operands
    q, k, v, rules, bias = arranged(options, first)
    kept = Kept(q, k, v, rules["mask"], rules["score"], None, rules["scale"], None, turned(wide))
    lse = lse.reshape(-1, *lse.shape[-2:])
    found = differentiated(kept, lse, turned(d_output), None, bias is not None)
    for gradient, result in zip((found.q, found.k, found.v), results, strict=False):
        turned(result)[...] = gradient
    if bias is not None:
        results[3][...] = of_bias(found.rules[0][0], bias, operands[0].shape[:-3])


def arranged(
    options: dict[str, Any], operands: list[Array]
) -> tuple[Array, Array, Array, dict[str, Any], Array | None]:
    """Operands in clearhead's layout with batches on one axis, the call's rules, and the bias."""
    query, key, value, *given = operands
    left = iter(given)
    bias, seen, query_lengths, key_lengths = (next(left) if there else None for there in options["tables"])
    batch = math.prod(query.shape[:-3])
    sides = options["window"]
    mask = Options(options["scale"], options["causal"], None if sides is None else tuple(sides)).mask
    if seen is not None:
        mask = mask & dense(table(seen, query, batch))
    for lengths, what in ((query_lengths, "row"), (key_lengths, "key")):
        if lengths is not None:
            mask = mask & within(np.broadcast_to(lengths, query.shape[:-3]).reshape(batch), what)
    score = () if bias is None else (scores.bias(table(bias, query, batch)),)
    rules = {"mask": mask, "score": score, "scale": options["scale"]}
    return turned(query), turned(key), turned(value), rules, bias


def turned(x: Array) -> Array:
    """(…, length, heads, dim) as (batch, heads, length, dim), in place."""
    return x.reshape(-1, *x.shape[-3:]).swapaxes(-2, -3)


def table(x: Array, query: Array, batch: int) -> Array:
    """A bias or mask (…, heads, T, S) with one batch axis; axes of 1 stay so where they can."""
    lead = query.shape[:-3]
    x = x.reshape((1,) * (len(lead) + 3 - x.ndim) + x.shape)
    if any(n != 1 for n in x.shape[:-3]):
        x = np.broadcast_to(x, (*lead, *x.shape[-3:]))
        return x.reshape(batch, *x.shape[-3:])
    return x.reshape(1, *x.shape[-3:])


def within(lengths: Array, what: str) -> Mask:
    """Only queries, or keys, before their sequence's length."""
    lengths = lengths.astype(np.int64)
    if what == "key":
        return where(lambda batch, head, query, key: key < lengths[batch])
    return where(lambda batch, head, query, key: query < lengths[batch])


def of_bias(spread: Array, bias: Array, lead: tuple[int, ...]) -> Array:
    """A gradient (batch or 1, heads or 1, T, S) in the bias's shape: what was broadcast is summed."""
    own = lead if spread.shape[0] != 1 else (1,) * len(lead)
    spread = spread.reshape(*own, *spread.shape[1:])
    if spread.ndim > bias.ndim:
        spread = spread.sum(tuple(range(spread.ndim - bias.ndim)))
    axes = tuple(n for n, size in enumerate(bias.shape) if size == 1 and spread.shape[n] != 1)
    result: Array = spread.sum(axes, keepdims=True)
    return result
