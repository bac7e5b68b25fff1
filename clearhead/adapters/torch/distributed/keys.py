"""Keys and values as they reach a rank, in ascending order: segment by segment, or all that it needs at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress
from typing import NamedTuple

import torch

from clearhead.adapters.torch.distributed.call import Call
from clearhead.adapters.torch.distributed.layout import Layout, Stretch, joined
from clearhead.adapters.torch.distributed.peers import Peers
from clearhead.adapters.torch.distributed.travel import Parcel, Tensors, travel


class Keys(NamedTuple):
    """Neighbouring keys of one document, with their values."""

    rows: Stretch
    key: torch.Tensor
    value: torch.Tensor


@dataclass(frozen=True)
class Own:
    """Tensors (..., rows, dims) of this rank's rows."""

    layout: Layout
    rank: int
    tensors: Tensors

    def rows(self, wanted: Stretch) -> Tensors:
        """Views of some of the rows."""
        first = 0
        for stretch in self.layout.stretches(self.rank):
            if stretch.start <= wanted.start < stretch.stop:
                return [x.narrow(-2, first + wanted.start - stretch.start, wanted.rows) for x in self.tensors]
            first += stretch.rows
        raise KeyError(wanted)  # never: units lie in stretches


def keys_in_order(call: Call, peers: Peers, key: torch.Tensor, value: torch.Tensor) -> Iterator[Keys]:
    """All keys that this rank's queries see, ascending: in segments, or in runs of neighbouring ones."""
    own = Own(call.layout, peers.rank, [key, value])

    used: list[Tensors] = []  # memory of received segments, for later ones

    def empty(parcel: Parcel) -> Tensors:
        if used and used[-1][0].shape[-2] == parcel.rows.rows:
            return used.pop()
        return [x.new_empty((*x.shape[:-2], parcel.rows.rows, x.shape[-1])) for x in (key, value)]

    segments = travel(peers, call.key_parcels, lambda parcel: own.rows(parcel.rows), empty, call.ahead)
    seen = compress(call.layout.segments, call.key_readers[peers.rank])
    runs = deque(joined(seen)) if call.way == "gather" else deque()
    run: Keys | None = None
    for parcel, tensors in segments:
        if call.way == "stream":
            yield Keys(parcel.rows, *tensors)
        else:
            run = run or room(runs.popleft(), key, value)
            first = parcel.rows.start - run.rows.start
            for whole, part in zip((run.key, run.value), tensors, strict=True):
                whole.narrow(-2, first, parcel.rows.rows).copy_(part)
            if parcel.rows.stop == run.rows.stop:
                yield run
                run = None
        if parcel.rows.rank != peers.rank:
            used.append(tensors)


def room(rows: Stretch, key: torch.Tensor, value: torch.Tensor) -> Keys:
    """Memory for a run of keys and values."""
    return Keys(rows, *(x.new_empty((*x.shape[:-2], rows.rows, x.shape[-1])) for x in (key, value)))
