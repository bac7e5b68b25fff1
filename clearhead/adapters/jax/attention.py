"""`dot_product_attention` with jax.nn's arguments and layout, for jit, vmap and grad on the CPU.

Saves output and log-sum-exp for gradients. `arguments` validates arguments, `ffi` calls out of a compiled graph, and
`host` computes.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any, Literal

import jax
import numpy as np

from clearhead.adapters.jax import host  # noqa: F401  # registers what `call` names
from clearhead.adapters.jax.arguments import (
    Options,
    Tables,
    array_of,
    check_implementation,
    flag,
    operands_of,
    scaled,
    tables_of,
    window_sides,
)
from clearhead.adapters.jax.ffi import call
from clearhead.adapters.jax.mesh import make_alike, varying


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
    query_offset: Any = 0,
    local_window_size: int | tuple[int, int] | None = None,
    implementation: Literal["xla"] | None = None,
    return_residual: bool = False,
) -> Any:
    """Attention with the semantics of `jax.nn.dot_product_attention` and its layout (batch, length, heads, dim).

    The batch may be omitted; query heads may be a multiple of key heads. `bias` (added to scores, with a gradient) and
    `mask` (True is visible) broadcast to (batch, heads, T, S). Lengths are (batch,): keys past them are hidden, queries
    past them give 0. A query that sees nothing gives 0. `return_residual` adds each query's log-sum-exp,
    (batch, T, heads), −∞ where nothing is visible. `scale` may be traced. float32, bfloat16, float16, and float64 where
    JAX has it enabled. Raises ShapeError, DtypeError or InputError at trace time.

    `query_offset`, an integer or (batch,) integers, may be traced: the first query's position among the keys, for
    queries that are a piece of a sequence. `is_causal`, `local_window_size` and `query_seq_lengths` count from there,
    so that a piece has the bits that it has in the whole; the rows of `bias` and `mask` are those of the piece. Any
    integer is a position: with `is_causal`, a query before the first key sees nothing, one after the last sees all.

    >>> x = jax.numpy.eye(2).reshape(1, 2, 1, 2)
    >>> np.asarray(dot_product_attention(x, x, x, scale=1.0, is_causal=True)[0, :, 0], np.float64).round(3)
    array([[1.   , 0.   ],
           [0.269, 0.731]])
    >>> np.asarray(dot_product_attention(x[:, 1:], x, x, scale=1.0, is_causal=True, query_offset=1)[0, :, 0]).round(3)
    array([[0.269, 0.731]], dtype=float32)
    """
    check_implementation(implementation)
    query = array_of(query, "query")
    q, k, v = operands_of(query, key, value)
    tables = tables_of(q, k, bias, mask, query_seq_lengths, key_value_seq_lengths, query_offset)
    q, factor = scaled(q, scale)
    options = Options(
        factor, flag(is_causal, "is_causal"), window_sides(local_window_size), flag(return_residual, "return_residual")
    )
    arrays, tree = jax.tree.flatten((q, k, v, tables))
    output, *residual = attention(options, *jax.tree.unflatten(tree, make_alike(arrays, varying(arrays))))
    shape = query.shape[:-1]
    output = output.reshape(*shape, output.shape[-1])
    return (output, residual[0].swapaxes(1, 2).reshape(shape).astype(q.dtype)) if options.residual else output


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def attention(options: Options, query: Any, key: Any, value: Any, tables: Tables) -> Any:
    """The output, and the log-sum-exp if requested."""
    results = result_shapes(query, value)[: 1 + options.residual]
    return call("attended", results, present(query, key, value, tables), **static_arguments(options, tables))


def saved_forward(options: Options, query: Any, key: Any, value: Any, tables: Tables) -> tuple[Any, Any]:
    """The results, and the saved values for the gradient: the unrounded output and the log-sum-exp."""
    results = result_shapes(query, value)
    output, lse, *unrounded = call(
        "attended", results, present(query, key, value, tables), **static_arguments(options, tables)
    )
    outputs = [output, lse] if options.residual else [output]
    return outputs, (query, key, value, tables, unrounded[0] if unrounded else output, lse)


def saved_backward(options: Options, saved: Any, d_outputs: Any) -> tuple[Any, ...]:
    """Gradients of query, key, value and bias, from those of the results."""
    query, key, value, tables, unrounded, lse = saved
    smooth = present(query, key, value, tables[:1])
    results = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in smooth]
    operands = [*present(query, key, value, tables), unrounded, lse, *d_outputs]
    computed = call("gradients", results, operands, **static_arguments(options, tables))
    return *computed[:3], (computed[3] if len(computed) > 3 else None, None, None, None, None)


attention.defvjp(saved_forward, saved_backward)


def result_shapes(query: Any, value: Any) -> list[jax.ShapeDtypeStruct]:
    """Output, log-sum-exp (batch, heads, T), and for 16-bit dtypes the unrounded output."""
    computed = query.dtype if query.dtype.itemsize > 2 else np.dtype(np.float32)
    batch, length, heads, _ = query.shape
    output = (*query.shape[:-1], value.shape[-1])
    kinds = [(output, query.dtype), ((batch, heads, length), computed)] + (
        [(output, computed)] if computed != query.dtype else []
    )
    return [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in kinds]


def present(query: Any, key: Any, value: Any, tables: tuple[Any, ...]) -> list[Any]:
    """The operands that are not None."""
    return [x for x in (query, key, value, *tables) if x is not None]


def static_arguments(options: Options, tables: Tables) -> dict[str, Any]:
    """The static arguments of a call, including which tables it has."""
    return {**asdict(options), "tables": [x is not None for x in tables]}
