"""Gradients of one rank's rows.

`same_gradients` sums in the order of one process: dQ where the queries are, while keys come in ascending order; dK and
dV where the keys are, while queries come in ascending order, one head of each group after the other. `summed_gradients`
computes all three where the queries are, and adds up each rank's share of dK and dV at the keys' owner.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from clearhead.adapters.torch.distributed.call import Call
from clearhead.adapters.torch.distributed.forward import own_rows
from clearhead.adapters.torch.distributed.keys import Keys, Own, keys_in_order
from clearhead.adapters.torch.distributed.layout import Stretch
from clearhead.adapters.torch.distributed.peers import SHARES, Peers, Work
from clearhead.adapters.torch.distributed.sharding import collected
from clearhead.adapters.torch.distributed.travel import Parcel, Tensors, travel
from clearhead.adapters.torch.host import array_view, dense
from clearhead.arrays import Array
from clearhead.gradients.backward import sink_shares, summed_shares
from clearhead.pieces.gradients import (
    key_gradients,
    piece_gradients,
    query_cut,
    query_gradient,
)
from clearhead.pieces.sums import KeyGradients, QueryGradient


class Saved(NamedTuple):
    """Tensors of a rank's rows: operands, results of the forward pass, and the output's gradient."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    sink: torch.Tensor | None
    output: torch.Tensor  # not rounded to 16 bits
    lse: torch.Tensor
    d_output: torch.Tensor

    @property
    def of_queries(self) -> Tensors:
        """What belongs to the queries, (..., heads, rows, dims); the LSE with one dim."""
        return [self.query, self.output, self.lse[..., None], self.d_output]


def backward(call: Call, peers: Peers, *saved: torch.Tensor) -> list[torch.Tensor | None]:
    """The gradients of query, key, value and sink."""
    own = Saved(*saved)
    compute = same_gradients if call.gradients == "same" else summed_gradients
    operands = own.query, own.key, own.value
    gradients = [dense(d, x) for d, x in zip(compute(call, peers, own), operands, strict=True)]
    return [*gradients, sink_of_all(call, peers, own)]


def same_gradients(call: Call, peers: Peers, own: Saved) -> tuple[Array, Array, Array]:
    """dQ, dK and dV with the bits of one process."""
    return gradient_of_queries(call, peers, own), *gradients_of_keys(call, peers, own)


def gradient_of_queries(call: Call, peers: Peers, own: Saved) -> Array:
    """dQ of this rank's rows."""
    sums: dict[Stretch, QueryGradient] = {}
    q, out, lse, d_out = map(array_view, own.of_queries)
    for keys in keys_in_order(call, peers, own.key, own.value):
        k, v = array_view(keys.key), array_view(keys.value)
        for rows, at in own_rows(call, peers.rank):
            if call.sees(rows, keys.rows):
                sums[rows] = query_gradient(
                    q[..., at, :],
                    k,
                    v,
                    out[..., at, :],
                    lse[..., at, 0],
                    d_out[..., at, :],
                    first_key=keys.rows.start,
                    before=sums.get(rows),
                    mask=call.mask_at(rows.start),
                    score=call.score,
                    scale=call.scale,
                    threads=torch.get_num_threads(),
                )
    total = np.zeros(q.shape, q.dtype)
    for rows, at in own_rows(call, peers.rank):
        total[..., at, :] = sums[rows].q
    return total


def gradients_of_keys(call: Call, peers: Peers, own: Saved) -> tuple[Array, Array]:
    """dK and dV of this rank's rows."""
    k, v = array_view(own.key), array_view(own.value)
    sums: dict[Stretch, KeyGradients] = {}
    for head in range(call.group):
        for queries, tensors in queries_in_order(call, peers, own, head):
            q, out, lse, d_out = map(array_view, tensors)
            for rows, at in own_rows(call, peers.rank):
                if call.sees(queries, rows):
                    sums[rows] = key_gradients(
                        q,
                        k[..., at, :],
                        v[..., at, :],
                        out,
                        lse[..., 0],
                        d_out,
                        first_key=rows.start,
                        before=sums.get(rows),
                        head=(head, call.group),
                        mask=call.mask_at(queries.start),
                        score=call.score,
                        scale=call.scale,
                        threads=torch.get_num_threads(),
                    )
    d_key, d_value = np.zeros(k.shape, k.dtype), np.zeros(v.shape, v.dtype)
    for rows, at in own_rows(call, peers.rank):
        d_key[..., at, :], d_value[..., at, :] = sums[rows].k, sums[rows].v
    return d_key, d_value


def queries_in_order(call: Call, peers: Peers, own: Saved, head: int) -> Iterator[tuple[Stretch, Tensors]]:
    """What belongs to the queries that see this rank's keys, ascending, in chunks; of one head of each group."""
    of_head = [x[..., head :: call.group, :, :] for x in own.of_queries]
    mine = Own(call.layout, peers.rank, of_head)

    def empty(parcel: Parcel) -> Tensors:
        return [x.new_empty((*x.shape[:-2], parcel.rows.rows, x.shape[-1])) for x in of_head]

    chunks = call.query_chunks(query_cut(array_view(own.lse).dtype))
    parcels = (parcel for chunk in chunks for parcel in call.query_parcels(chunk))
    ends = {chunk.stop: chunk for chunk in chunks}
    parts: list[Tensors] = []
    for parcel, tensors in travel(peers, parcels, lambda parcel: mine.rows(parcel.rows), empty, call.ahead):
        parts.append(tensors)
        if parcel.rows.stop in ends:
            yield (
                ends[parcel.rows.stop],
                tensors if len(parts) == 1 else list(map(rows_joined, zip(*parts, strict=True))),
            )
            parts = []


def rows_joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Tensors of neighbouring rows as one."""
    return torch.cat(tuple(tensors), -2)


def summed_gradients(call: Call, peers: Peers, own: Saved) -> tuple[Array, Array, Array]:
    """dQ, and dK and dV as sums of what each rank's queries give, in the order of the ranks."""
    dtype = array_view(own.lse).dtype
    d_query = np.zeros(own.query.shape, dtype)
    totals = [torch.zeros(x.shape, dtype=own.lse.dtype) for x in (own.key, own.value)]
    mine = Own(call.layout, peers.rank, totals)
    segments = deque(parcel for parcel in call.key_parcels if peers.rank in parcel.readers)
    pieces = keys_in_order(call, peers, own.key, own.value)
    for keys in pieces if call.way == "stream" else list(pieces):  # no rank computes while others wait for its keys
        shares = shares_of_keys(call, peers.rank, own, keys, d_query)
        sent: list[tuple[int, Work]] = []
        while segments and segments[0].rows.stop <= keys.rows.stop:
            parcel = segments.popleft()
            part = [x.narrow(-2, parcel.rows.start - keys.rows.start, parcel.rows.rows).contiguous() for x in shares]
            if parcel.rows.rank == peers.rank:
                add_shares(peers, parcel, part, mine.rows(parcel.rows))
            else:
                to = parcel.rows.rank
                sent += [(to, peers.send(x, to, parcel.name, SHARES)) for x in part]
        peers.wait_all(sent, "the sum of gradients")
    d_key, d_value = map(array_view, totals)
    return d_query, d_key, d_value


def shares_of_keys(call: Call, rank: int, own: Saved, keys: Keys, d_query: Array) -> Tensors:
    """What this rank's queries give to the gradients of some keys and values; dQ's share is added to `d_query`."""
    q, out, lse, d_out = map(array_view, own.of_queries)
    k, v = array_view(keys.key), array_view(keys.value)
    totals = [np.zeros(x.shape, lse.dtype) for x in (k, v)]
    for rows, at in own_rows(call, rank):
        if call.sees(rows, keys.rows):
            sums = piece_gradients(
                q[..., at, :],
                k,
                v,
                out[..., at, :],
                lse[..., at, 0],
                d_out[..., at, :],
                first_key=keys.rows.start,
                mask=call.mask_at(rows.start),
                score=call.score,
                scale=call.scale,
                threads=torch.get_num_threads(),
            )
            d_query[..., at, :] += sums.query
            for total, part in zip(totals, (sums.key, sums.value), strict=True):
                total += part
    return list(map(torch.from_numpy, totals))


def add_shares(peers: Peers, parcel: Parcel, own: Tensors, to: Tensors) -> None:
    """Add all ranks' shares of a segment's gradients, in the order of the ranks."""
    for rank in sorted(parcel.readers):
        shares = own
        if rank != peers.rank:
            shares = [torch.empty_like(x) for x in own]
            works = [(rank, peers.receive(x, rank, parcel.name, SHARES)) for x in shares]
            peers.wait_all(works, parcel.name)
        for total, share in zip(to, shares, strict=True):
            total += share


def sink_of_all(call: Call, peers: Peers, own: Saved) -> torch.Tensor | None:
    """The sink's gradient over all rows of the sequence, summed as in one process."""
    if own.sink is None:
        return None
    sink = array_view(own.sink)
    output, lse, d_output = map(array_view, (own.output, own.lse, own.d_output))
    shares = torch.from_numpy(sink_shares(sink, output, lse, d_output, None))
    whole = collected(peers, shares, call.layout, -1, shares.new_empty((*shares.shape[:-1], call.layout.length)))
    return dense(summed_shares(array_view(whole), sink), own.sink)
