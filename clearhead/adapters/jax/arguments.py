"""Validate the arguments of jax.nn at trace time: arrays become 4-D, static values go into `Options`.

Responsible for which arguments are valid, and for errors on the caller's line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import index
from typing import Any

import jax
from jax import numpy as jnp

from clearhead.engine.problem import check_scale, common_dtype
from clearhead.errors import DtypeError, InputError, ShapeError
from clearhead.kernels.abi.tiles import ELEMENTS, STORED

Tables = tuple[Any, Any, Any, Any, Any]  # bias, mask, lengths of queries and of keys, offset; each may be None
LAYOUT = "give query (batch, T, N, dim), key (batch, S, K, dim) and value (batch, S, K, any dim), N a multiple of K"


@dataclass(frozen=True)
class Options:
    """The static arguments of a call; equal options share a compiled graph."""

    scale: float
    causal: bool
    window: tuple[int, int] | None
    residual: bool


def operands_of(query: Any, key: Any, value: Any) -> tuple[Any, Any, Any]:
    """Queries, keys and values that fit each other, as (batch, length, heads, dim)."""
    q, k, v = (batched(x, name) for x, name in ((query, "query"), (key, "key"), (value, "value")))
    common_dtype(q, k, v)
    faults = {
        "batches differ": len({q.shape[0], k.shape[0], v.shape[0]}) > 1,
        f"{k.shape[1]} keys do not match {v.shape[1]} values": k.shape[1] != v.shape[1],
        f"{k.shape[2]} key heads do not match {v.shape[2]} value heads": k.shape[2] != v.shape[2],
        f"queries of dim {q.shape[3]} cannot be compared with keys of dim {k.shape[3]}": q.shape[3] != k.shape[3],
        f"{q.shape[2]} query heads cannot share {k.shape[2]} key heads evenly": not shares(q.shape[2], k.shape[2]),
        "a dim is 0": 0 in (q.shape[3], v.shape[3]),
    }
    for fault in (text for text, present in faults.items() if present):
        raise ShapeError(f"{fault} (query {q.shape}, key {k.shape}, value {v.shape}): {LAYOUT}.")
    return q, k, v


def array_of(x: Any, name: str) -> Any:
    """Convert to a JAX array; raises InputError if impossible."""
    try:
        return jnp.asarray(x)
    except (TypeError, ValueError):
        raise InputError(f"{name} is {type(x).__name__}: give an array of numbers, as by jax.numpy.asarray.") from None


def flag(x: Any, name: str) -> bool:
    """Convert to a bool; raises InputError if impossible."""
    try:
        return bool(x)
    except (TypeError, ValueError):
        raise InputError(f"{name} is {type(x).__name__}: give True or False.") from None


def batched(x: Any, name: str) -> Any:
    """Add a batch axis if it is missing."""
    x = array_of(x, name)
    if x.ndim not in (3, 4):
        raise ShapeError(f"{name} has shape {x.shape}: give (batch, length, heads, dim) or (length, heads, dim).")
    return x if x.ndim == 4 else x[None]


def shares(heads: int, key_heads: int) -> bool:
    """Whether query heads divide evenly among key heads."""
    return heads % key_heads == 0 if key_heads else heads == 0


def tables_of(query: Any, key: Any, bias: Any, mask: Any, query_lengths: Any, key_lengths: Any, offset: Any) -> Tables:
    """Bias and mask as (batch, heads, T, S), where axes of 1 broadcast; lengths as (batch,), offset so or as (1,)."""
    sizes = query.shape[0], query.shape[2], query.shape[1], key.shape[1]
    bias, mask = broadcastable_table(bias, "bias", sizes), broadcastable_table(mask, "mask", sizes)
    if mask is not None and mask.dtype != bool:
        raise DtypeError(
            f"mask has dtype {mask.dtype}: give booleans, True where a key is visible, or use bias to add to scores."
        )
    if bias is not None and bias.dtype.kind in "iu":
        bias = bias.astype(jnp.float32)
    if bias is not None and bias.dtype.name not in (*ELEMENTS, *STORED):
        raise DtypeError(f"bias has dtype {bias.dtype}: give floats, or pass booleans as mask.")
    lengths = ((query_lengths, "query_seq_lengths"), (key_lengths, "key_value_seq_lengths"))
    own, other = (sequence_lengths(x, name, sizes[0]) for x, name in lengths)
    return bias, mask, own, other, first_positions(offset, sizes[0])


def broadcastable_table(x: Any, name: str, sizes: tuple[int, ...]) -> Any:
    """Check that a table broadcasts to the scores, and give it four axes."""
    if x is None:
        return None
    x = array_of(x, name)
    shape = (1,) * (4 - x.ndim) + x.shape
    if len(shape) > 4 or any(n not in (1, size) for n, size in zip(shape, sizes, strict=True)):
        raise ShapeError(
            f"{name} of shape {x.shape} does not broadcast to (batch, heads, T, S) = {sizes}: make each axis that "
            "size or 1."
        )
    return x.reshape(shape)


def sequence_lengths(lengths: Any, name: str, batch: int) -> Any:
    """Check lengths, one per sequence."""
    if lengths is None:
        return None
    lengths = array_of(lengths, name)
    if lengths.dtype.kind not in "iu":
        raise DtypeError(f"{name} has dtype {lengths.dtype}: give integers.")
    if lengths.shape != (batch,):
        raise ShapeError(f"{name} has shape {lengths.shape}: give one length for each sequence, {(batch,)}.")
    return lengths


def first_positions(offset: Any, batch: int) -> Any:
    """Check the positions of the first queries: one for all, or one per sequence. None if all are 0."""
    if type(offset) is int and offset == 0:
        return None
    try:
        offset = array_of(offset, "query_offset")
    except OverflowError:
        raise InputError(f"query_offset={offset} does not fit into 32 bits: give a position among the keys.") from None
    if offset.dtype.kind not in "iu":
        raise DtypeError(f"query_offset has dtype {offset.dtype}: give integers.")
    if offset.shape not in ((), (batch,)):
        raise ShapeError(
            f"query_offset has shape {offset.shape}: give one position, or one for each sequence, {(batch,)}."
        )
    return offset.reshape(-1)


def scaled(query: Any, scale: Any) -> tuple[Any, float]:
    """Queries and the kernel's scale. A traced scale is multiplied into the queries instead."""
    if not isinstance(scale, jax.core.Tracer):
        return query, check_scale(1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if scale.ndim:
        raise ShapeError(f"scale has shape {scale.shape}: give one number.")
    return (query * scale).astype(query.dtype), 1.0


def window_sides(size: Any) -> tuple[int, int] | None:
    """Number of visible items before and after each."""
    if size is None:
        return None
    try:
        left, right = map(index, size if isinstance(size, tuple | list) else (size, size))
    except (TypeError, ValueError):
        left = right = -1
    if min(left, right) < 0:
        raise InputError(f"local_window_size={size!r} must be a window: give one number from 0 on, or (left, right).")
    return left, right


def check_implementation(name: Any) -> None:
    """Check that the implementation is one that clearhead can replace."""
    if name not in (None, "xla"):
        raise InputError(
            f"implementation={name!r} is not available in clearhead: leave it out, or use jax.nn.dot_product_attention."
        )
