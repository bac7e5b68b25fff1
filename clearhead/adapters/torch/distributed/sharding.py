"""A rank's rows of a tensor, and the whole tensor from all ranks' rows."""

from __future__ import annotations

from typing import Any

import torch

from clearhead.adapters.torch.arguments import check_tensors
from clearhead.adapters.torch.distributed.agreement import FUNCTION, agree, own_code
from clearhead.adapters.torch.distributed.layout import Layout
from clearhead.adapters.torch.distributed.peers import Peers
from clearhead.errors import InputError, ShapeError


def shard(
    x: torch.Tensor, layout: Layout, dim: int = -2, *, group: Any = None, rank: int | None = None
) -> torch.Tensor:
    """The rows of a whole tensor that this rank has, ascending along `dim`, as a copy with a gradient.

    `rank` is this process's in `group` (default: all processes) unless given. Raises ShapeError or InputError.

    >>> shard(torch.arange(3), Layout(3, 2), dim=0, rank=0).tolist()
    [0, 1, 2]
    """
    check_tensors(x=x)
    check_length(x, layout.length, dim)
    if rank is None:
        rank = Peers(group, timeout=1.0).rank
    parts = [x.narrow(dim, stretch.start, stretch.rows) for stretch in layout.stretches(rank)]
    return torch.cat(parts, dim) if parts else x.narrow(dim, 0, 0).clone()


@torch.compiler.disable  # type: ignore[untyped-decorator]
def unshard(
    mine: torch.Tensor, layout: Layout, dim: int = -2, *, group: Any = None, timeout: float = 60.0
) -> torch.Tensor:
    """The whole tensor, on every rank, from each rank's rows; all ranks must call it.

    It has no gradient: give `mine.detach()` where one is recorded. Raises ShapeError, InputError or PeerError.
    """
    peers = Peers(group, timeout)
    facts, fault = {FUNCTION: "unshard"}, None
    with peers.alone():
        try:
            check_tensors(mine=mine)
            check_ranks(layout, peers)
            check_length(mine, layout.count(peers.rank), dim)
            if mine.requires_grad and torch.is_grad_enabled():
                raise InputError(
                    "unshard has no gradient: give it x.detach(), or compute the loss of each rank's own rows."
                )
            shape = list(mine.shape)
            shape[dim] = layout.length
            facts |= {"the axis": str(dim), "the layout": repr(layout), "the dtype": str(mine.dtype)}
            facts |= {"the shape": str(tuple(shape))} | own_code()
        except Exception as error:  # whatever it is, the others are to know
            fault = error
        agree(peers, facts, fault)
        with peers.together():
            return collected(peers, mine.detach(), layout, dim, mine.new_empty(shape, requires_grad=False))


def collected(peers: Peers, mine: torch.Tensor, layout: Layout, dim: int, whole: torch.Tensor) -> torch.Tensor:
    """Fill a whole tensor with all ranks' rows."""
    own = mine.contiguous()
    what = "the joining of a tensor"
    sends = {rank: peers.send(own, rank, what) for rank in peers.others}
    for rank in range(peers.size):
        rows = own
        if rank != peers.rank:
            rows = own.new_empty(
                [layout.count(rank) if n == dim % own.dim() else size for n, size in enumerate(own.shape)]
            )
            peers.wait(peers.receive(rows, rank, what), rank, what)
        first = 0
        for stretch in layout.stretches(rank):
            whole.narrow(dim, stretch.start, stretch.rows).copy_(rows.narrow(dim, first, stretch.rows))
            first += stretch.rows
    for rank, work in sends.items():
        peers.wait(work, rank, what)
    return whole


def check_length(x: torch.Tensor, length: int, dim: int) -> None:
    """Raise ShapeError unless an axis has this length."""
    if not -x.dim() <= dim < x.dim() or x.shape[dim] != length:
        raise ShapeError(
            f"x of shape {tuple(x.shape)} has no {length} rows on axis {dim}: give those that the layout says."
        )


def check_ranks(layout: Layout, peers: Peers) -> None:
    """Raise InputError unless the layout is for this group."""
    if not isinstance(layout, Layout):
        raise InputError(f"layout is {type(layout).__name__}: give Layout(length, ranks).")
    if layout.ranks != peers.size:
        raise InputError(
            f"the layout is for {layout.ranks} ranks, but the group has {peers.size}: give Layout(…, {peers.size})."
        )
