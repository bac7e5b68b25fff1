"""Output and LSE of one rank's queries, with the bits of one process."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from clearhead.adapters.torch.distributed.call import Call
from clearhead.adapters.torch.distributed.keys import keys_in_order
from clearhead.adapters.torch.distributed.layout import Stretch
from clearhead.adapters.torch.distributed.peers import Peers
from clearhead.adapters.torch.host import array_view
from clearhead.engine.carried import finish_sums
from clearhead.pieces.partial import Partial, partial


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
    sums: dict[Stretch, Partial] = {}
    for keys in keys_in_order(call, peers, key, value):
        k, v = array_view(keys.key), array_view(keys.value)
        for rows, at in own_rows(call, peers.rank):
            if call.sees(rows, keys.rows):
                part = partial(
                    q[..., at, :],
                    k,
                    v,
                    first_key=keys.rows.start,
                    before=sums.pop(rows, None),
                    mask=call.mask_at(rows.start),
                    score=call.score,
                    scale=call.scale,
                    threads=torch.get_num_threads(),
                )
                if keys.rows.stop < call.seen_keys(rows)[1]:
                    sums[rows] = part
                else:
                    output[..., at, :], lse[..., at] = finish_sums(part.sums, sinks)
    return torch.from_numpy(output), torch.from_numpy(lse)


def own_rows(call: Call, rank: int) -> Iterator[tuple[Stretch, slice]]:
    """A rank's stretches, and where they lie in its tensors."""
    first = 0
    for rows in call.layout.stretches(rank):
        yield rows, slice(first, first + rows.rows)
        first += rows.rows
