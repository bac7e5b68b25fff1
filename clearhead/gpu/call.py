"""What a launch hands to a GPU's kernel, in this order."""

from __future__ import annotations

from typing import NamedTuple

from clearhead.gpu.thread import Floats, Index
from clearhead.kernels.ir.values import Int, Vector


class Strides(NamedTuple):
    """Numbers from one batch, key head, query head that shares it, and row to the next."""

    batch: Int
    head: Int
    member: Int
    row: Int


class Call(NamedTuple):
    """What a launch hands to the kernel. Addresses and strides are multiples of 16 bytes, but for the LSE's."""

    query: Floats
    key: Floats
    value: Floats
    output: Floats
    lse: Floats  # (heads, queries)
    queries: Index
    keys: Index
    high: Index  # query i sees the keys below i + high
    heads: Index  # query heads of all batches
    key_heads: Index  # of a batch
    members: Index  # query heads that share a key head
    scale: Vector
    query_strides: Strides
    key_strides: Strides
    value_strides: Strides
    output_strides: Strides
