"""clearhead in JAX: `dot_product_attention` with jax.nn's arguments and layout, for jit, vmap and grad on the CPU.

Decides how JAX's arguments become masks and rules, and how a call leaves a compiled graph: by `jax.pure_callback`,
which needs no compiler. Gradients come from the backward kernel, which computes the forward pass again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from clearhead.attention import Attended, attend
from clearhead.errors import ShapeError
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
    """The output, by a callback."""
    shape = jax.ShapeDtypeStruct((*query.shape[:-1], value.shape[-1]), query.dtype)
    return jax.pure_callback(partial(output, options), shape, query, key, value, tables, vmap_method="broadcast_all")


def forward(options: Options, query: Any, key: Any, value: Any, tables: tuple[Any, ...]) -> tuple[Any, Any]:
    """The output, and what its gradient needs."""
    return attention(options, query, key, value, tables), (query, key, value, tables)


def backward(options: Options, kept: Any, d_output: Any) -> tuple[Any, ...]:
    """Gradients of query, key, value and bias, by a callback."""
    query, key, value, (bias, *others) = kept
    operands = [query, key, value] if bias is None else [query, key, value, bias]
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in operands]
    call, tables = partial(gradients, options), (bias, *others)
    found = list(jax.pure_callback(call, shapes, query, key, value, tables, d_output, vmap_method="broadcast_all"))
    nothing = [None if x is None else np.zeros(x.shape, jax.dtypes.float0) for x in others]
    return *found[:3], (found[3] if len(found) > 3 else None, *nothing)


attention.defvjp(forward, backward)


def called(options: Options, query: Array, key: Array, value: Array, tables: tuple[Any, ...]) -> Attended:
    """The call in clearhead's layout, batches on one axis."""
    bias, mask, query_lengths, key_lengths = tables
    batch = math.prod(query.shape[:-3])
    q, k, v = (merged(x).swapaxes(-2, -3) for x in (query, key, value))
    rule = options.mask
    if mask is not None:
        rule = rule & dense(table(mask, query, key, batch))
    for lengths, what in ((query_lengths, "row"), (key_lengths, "key")):
        if lengths is not None:
            rule = rule & within(np.broadcast_to(lengths, query.shape[:-3]).reshape(batch), what)
    score = () if bias is None else (scores.bias(table(bias, query, key, batch)),)
    return attend(q, k, v, mask=rule, score=score, scale=options.scale)


def merged(x: Array) -> Array:
    """(..., length, heads, dim) with one axis before."""
    return np.asarray(x).reshape(-1, *x.shape[-3:])


def table(x: Array, query: Array, key: Array, batch: int) -> Array:
    """A bias or mask (…, heads, T, S) with one batch axis; axes of 1 stay so where they can."""
    x = np.asarray(x)
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


def output(options: Options, query: Array, key: Array, value: Array, tables: tuple[Any, ...]) -> Array:
    """The callback of the forward pass."""
    q, k, v = arrays(query, key, value)
    y = called(options, q, k, v, tables).output.swapaxes(-2, -3)
    return np.ascontiguousarray(y).reshape(*query.shape[:-1], value.shape[-1])


def gradients(
    options: Options, query: Array, key: Array, value: Array, tables: tuple[Any, ...], d_output: Array
) -> list[Array]:
    """The callback of the backward pass."""
    q, k, v = arrays(query, key, value)
    d = merged(np.asarray(d_output)).swapaxes(-2, -3)
    found = called(options, q, k, v, tables).backward(d, rules=tables[0] is not None)
    own = [g.swapaxes(-2, -3).reshape(x.shape) for g, x in zip((found.q, found.k, found.v), (q, k, v), strict=True)]
    if tables[0] is None:
        return own
    bias = np.asarray(tables[0])
    spread = found.rules[0][0]  # (batch or 1, heads or 1, T, S)
    lead = bias.shape[: bias.ndim - 3] if bias.ndim > 3 else ()
    full_lead = query.shape[:-3] if spread.shape[0] != 1 else (1,) * len(query.shape[:-3])
    spread = spread.reshape(*full_lead, *spread.shape[-3:])
    extra = spread.ndim - bias.ndim
    spread = spread.sum(tuple(range(extra))) if extra > 0 else spread
    axes = tuple(n for n, size in enumerate(lead) if size == 1 and spread.shape[n] != 1)
    return [*own, spread.sum(axes, keepdims=True).reshape(bias.shape).astype(bias.dtype)]


def arrays(*operands: Any) -> list[Array]:
    """JAX's arrays as numpy's, in place."""
    return [np.asarray(x) for x in operands]
