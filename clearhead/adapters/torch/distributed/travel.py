"""Rows of a sequence on their way to the ranks that need them, in ascending order, some ahead of their use.

Every rank walks the same parcels in the same order, each only those that it has or needs; so no two ranks wait for each
other. A parcel that has come is used before the next; its memory is free again when the next one comes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeAlias

import torch

from clearhead.adapters.torch.distributed.layout import Stretch
from clearhead.adapters.torch.distributed.peers import Peers, Work

Tensors: TypeAlias = list[torch.Tensor]
Pack: TypeAlias = Callable[["Parcel"], Tensors]


class Parcel(NamedTuple):
    """Rows that travel together, and the ranks that need them."""

    rows: Stretch
    readers: frozenset[int]
    name: str  # for errors


class Begun(NamedTuple):
    """A parcel on its way: its tensors, and the sends or receives of each with the rank at their other end."""

    parcel: Parcel
    tensors: Tensors
    works: list[tuple[int, Work]]


def travel(
    peers: Peers, parcels: Iterable[Parcel], own: Pack, empty: Pack, ahead: int
) -> Iterator[tuple[Parcel, Tensors]]:
    """Each parcel that this rank needs, with its tensors: by `own` where this rank has the rows, else received.

    `empty` gives tensors to receive into. The next `ahead` parcels are on their way while one is used.
    """
    begun: deque[Begun] = deque()
    for parcel in parcels:
        if peers.rank == parcel.rows.rank or peers.rank in parcel.readers:
            begun.append(begin(peers, parcel, own, empty))
        while len(begun) > ahead:
            yield from arrived(peers, begun.popleft())
    while begun:
        yield from arrived(peers, begun.popleft())


def begin(peers: Peers, parcel: Parcel, own: Pack, empty: Pack) -> Begun:
    """Start to send a parcel to its readers, or to receive it."""
    source = parcel.rows.rank
    if source != peers.rank:
        tensors = empty(parcel)
        return Begun(parcel, tensors, [(source, peers.receive(x, source, parcel.name)) for x in tensors])
    others = sorted(parcel.readers - {source})
    tensors = [x.contiguous() for x in own(parcel)]
    return Begun(parcel, tensors, [(rank, peers.send(x, rank, parcel.name)) for rank in others for x in tensors])


def arrived(peers: Peers, begun: Begun) -> Iterator[tuple[Parcel, Tensors]]:
    """A parcel to be used, when it is there; its sends have ended before the next one begins."""
    parcel, tensors, works = begun
    received = parcel.rows.rank != peers.rank
    if received:
        peers.wait_all(works, parcel.name)
    if peers.rank in parcel.readers:
        yield parcel, tensors
    if not received:
        peers.wait_all(works, parcel.name)
