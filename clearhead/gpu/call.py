"""What a launch hands to each of a GPU's kernels, in this order. Addresses and strides are multiples of 16 bytes where
rows of operands and of the output are read or written.
"""

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
    """Of the forward kernel. Behind all this, a kernel with rules gets their constants and arrays."""

    query: Floats
    key: Floats
    value: Floats
    output: Floats
    lse: Floats  # (heads, queries)
    sink: Floats | None  # (heads), or null
    number: Index | None  # of the launch's first head, for rules
    siblings: Index | None  # heads of a batch
    row: Index | None  # of the first query
    shift: Index | None  # a query's position is its row plus this
    queries: Index
    keys: Index
    high: Index  # query i sees the keys below i + high
    low: Index | None  # and, with a window, those from i + low on
    heads: Index  # query heads of all batches
    key_heads: Index  # of a batch
    members: Index  # query heads that share a key head
    scale: Vector
    query_strides: Strides
    key_strides: Strides
    value_strides: Strides
    output_strides: Strides


class SweepCall(NamedTuple):
    """Of a sweep over the weights of neighbouring queries, which count from the first of them.

    Results are (heads, queries, …); `place` is where the first of these queries stands among all that are wanted.
    """

    query: Floats
    key: Floats
    lse: Floats
    target: Floats
    top_weights: Floats | None
    top_keys: Floats | None  # numbers of 8 bytes
    number: Index | None  # as in `Call`
    siblings: Index | None
    row: Index | None
    shift: Index | None
    queries: Index
    keys: Index
    high: Index
    low: Index
    heads: Index
    key_heads: Index
    members: Index
    scale: Vector
    query_strides: Strides
    key_strides: Strides
    lse_head: Int  # numbers from one head's LSE to the next
    target_head: Int  # and of the target
    begin: Index  # the wanted keys
    end: Index
    place: Index
    # Weights or scores
    target_row: Int | None
    weighed: Index | None
    # Numbers of each query
    target_kind: Int | None  # numbers from one kind to the next
    offset: Index | None  # a query's position among the keys is its number plus this
    near: Vector | None
    top: Index | None
    # A picture
    rows: Index | None  # all wanted queries
    height: Index | None
    width: Index | None
    # Sums over queries
    lanes: Index | None  # how the CPU's tiles have their queries: in so many lanes of
    vectors: Index | None  # so many vectors
