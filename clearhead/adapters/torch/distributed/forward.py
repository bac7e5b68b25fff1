"""Output and LSE of one rank's queries, with the bits of one process."""

from __future__ import annotations

import math
from collections.abc import Iterator
from mmap import mmap
from typing import Any

import numpy as np
import torch

from clearhead.adapters.torch.distributed.call import Call
from clearhead.adapters.torch.distributed.keys import Keys, keys_in_order
from clearhead.adapters.torch.distributed.layout import Stretch
from clearhead.adapters.torch.distributed.peers import Peers
from clearhead.adapters.torch.host import array_view
from clearhead.arrays import Array
from clearhead.engine.carried import Sums, finish_sums, no_sums
from clearhead.pieces.stretch import Call as Asked
from clearhead.pieces.stretch import stretch_of


def forward(
    call: Call, peers: Peers, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sink: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output (not rounded to 16 bits) and LSE of this rank's rows.

    Each stretch of queries carries its sums from one stretch of keys to the next, in ascending order.
    """
    computed = np.float64 if query.dtype is torch.float64 else np.float32
    output = np.empty((*query.shape[:-1], call.value_dim), computed)
    lse = np.empty(query.shape[:-1], computed)
    q, sinks = array_view(query), None if sink is None else array_view(sink)
    carried: dict[Stretch, Carried] = {}
    for keys in keys_in_order(call, peers, key, value):
        for rows, at in own_rows(call, peers.rank):
            if call.sees(rows, keys.rows):
                if rows not in carried:
                    carried[rows] = Carried(call, rows, q[..., at, :], output[..., at, :])
                carried[rows].add(keys)
                if keys.rows.stop >= call.seen_keys(rows)[1]:
                    output[..., at, :], lse[..., at] = carried.pop(rows).finish(sinks)
    assert not carried  # noqa: S101  a query's own position is within its band, so each stretch has met its last key
    return torch.from_numpy(output), torch.from_numpy(lse)


class Carried:
    """A stretch of queries, and its sums over the keys so far, changed in place."""

    def __init__(self, call: Call, rows: Stretch, q: Array, output: Array) -> None:
        self.asked = Asked.of(q, call.mask_at(rows.start), call.score, call.scale, torch.get_num_threads())
        m, l, _ = no_sums((*output.shape[:-1], 0), output.dtype)
        self.sums = Sums(m, l, zeros(output.shape, output.dtype))

    def add(self, keys: Keys) -> None:
        """Add the next keys."""
        stretch = stretch_of(self.asked, array_view(keys.key), array_view(keys.value), keys.rows.start)
        self.sums = stretch.after(self.sums, into=self.sums)

    def finish(self, sink: Array | None) -> tuple[Array, Array]:
        """Output and LSE."""
        return finish_sums(self.sums, sink, self.asked.threads, into=self.sums.o)


def zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Zeros in pages of their own: freed, they go back to the system, as the rows of the output take their place."""
    count = math.prod(shape)
    return np.frombuffer(mmap(-1, max(1, count * dtype.itemsize)), dtype, count).reshape(shape)


def own_rows(call: Call, rank: int) -> Iterator[tuple[Stretch, slice]]:
    """A rank's stretches, and where they lie in its tensors."""
    first = 0
    for rows in call.layout.stretches(rank):
        yield rows, slice(first, first + rows.rows)
        first += rows.rows
