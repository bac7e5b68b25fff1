"""`dot_product_attention` with jax.nn's arguments and layout, for jit, vmap and grad on the CPU.

Decides what is kept for gradients: output and log-sum-exp. What may be given is `arguments`' to decide, how a call
leaves a compiled graph `ffi`'s, and what is computed there `host`'s.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any, Literal

import jax
import numpy as np

from clearhead.adapters.jax.arguments import (
    Options,
    Tables,
    array_of,
    check_implementation,
    operands_of,
    scaled,
    sides,
    tables_of,
    truth,
)
from clearhead.adapters.jax.ffi import call
from clearhead.adapters.jax.host import attended, gradients
from clearhead.adapters.jax.mesh import alike, varying


def dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    bias: Any = None,
    mask: Any = None,
    *,
    scale: Any = None,
    is_causal: bool = False,
    query_seq_lengths: Any = None,
    key_value_seq_lengths: Any = None,
    local_window_size: int | tuple[int, int] | None = None,
    implementation: Literal["xla"] | None = None,
    return_residual: bool = False,
) -> Any:
    """Attention as `jax.nn.dot_product_attention` means it, its layout (batch, length, heads, dim) included.

    The batch may be left out; query heads may be a multiple of key heads. `bias` (added to scores, with a gradient) and
    `mask` (True is seen) broadcast to (batch, heads, T, S); lengths are (batch,): what lies behind them is not seen,
    and queries behind give 0. A query that sees nothing gives 0. `return_residual` adds each query's log-sum-exp,
    (batch, T, heads), −∞ where nothing is seen. `scale` may be traced. float32, bfloat16, float16, and float64 where
    JAX has it enabled. Raises ShapeError, DtypeError or InputError while it is traced.

    >>> x = jax.numpy.eye(2).reshape(1, 2, 1, 2)
    >>> np.asarray(dot_product_attention(x, x, x, scale=1.0, is_causal=True)[0, :, 0], np.float64).round(3)
    array([[1.   , 0.   ],
           [0.269, 0.731]])
    """
    check_implementation(implementation)
    query = array_of(query, "query")
    q, k, v = operands_of(query, key, value)
    tables = tables_of(q, k, bias, mask, query_seq_lengths, key_value_seq_lengths)
    q, factor = scaled(q, scale)
    options = Options(
        factor, truth(is_causal, "is_causal"), sides(local_window_size), truth(return_residual, "return_residual")
    )
    arrays, tree = jax.tree.flatten((q, k, v, tables))
    output, *residual = attention(options, *jax.tree.unflatten(tree, alike(arrays, varying(arrays))))
    shape = query.shape[:-1]
    output = output.reshape(*shape, output.shape[-1])
    return (output, residual[0].swapaxes(1, 2).reshape(shape).astype(q.dtype)) if options.residual else output


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def attention(options: Options, query: Any, key: Any, value: Any, tables: Tables) -> Any:
    """The output, and the log-sum-exp if it is asked for."""
    results = shapes(query, value)[: 1 + options.residual]
    return call(attended, results, present(query, key, value, tables), **about(options, tables))


def forward(options: Options, query: Any, key: Any, value: Any, tables: Tables) -> tuple[Any, Any]:
    """The same, and what its gradient needs: the output before it was rounded, and the log-sum-exp."""
    results = shapes(query, value)
    output, lse, *unrounded = call(attended, results, present(query, key, value, tables), **about(options, tables))
    asked = [output, lse] if options.residual else [output]
    return asked, (query, key, value, tables, unrounded[0] if unrounded else output, lse)


def backward(options: Options, kept: Any, d_asked: Any) -> tuple[Any, ...]:
    """Gradients of query, key, value and bias, from those of what was asked for."""
    query, key, value, tables, unrounded, lse = kept
    smooth = present(query, key, value, tables[:1])
    results = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in smooth]
    operands = [*present(query, key, value, tables), unrounded, lse, *d_asked]
    found = call(gradients, results, operands, **about(options, tables))
    return *found[:3], (found[3] if len(found) > 3 else None, None, None, None)


attention.defvjp(forward, backward)


def shapes(query: Any, value: Any) -> list[jax.ShapeDtypeStruct]:
    """Output, log-sum-exp (batch, heads, T), and where numbers have 16 bits the output before it was rounded."""
    computed = query.dtype if query.dtype.itemsize > 2 else np.dtype(np.float32)
    batch, length, heads, _ = query.shape
    output = (*query.shape[:-1], value.shape[-1])
    kinds = [(output, query.dtype), ((batch, heads, length), computed)] + (
        [(output, computed)] if computed != query.dtype else []
    )
    return [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in kinds]


def present(query: Any, key: Any, value: Any, tables: tuple[Any, ...]) -> list[Any]:
    """The operands that there are."""
    return [x for x in (query, key, value, *tables) if x is not None]


def about(options: Options, tables: Tables) -> dict[str, Any]:
    """What of a call is no array, which tables it has included."""
    return {**asdict(options), "tables": [x is not None for x in tables]}
