"""How operators compute on DTensors: each rank its own batches or heads, where rows do not depend on the others'.

Responsible for the placements. torch's `register_sharding` knows operators that return a fixed number of tensors, which
derivatives do not, so operands are redistributed here and the operator sees each rank's own memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard

from clearhead.adapters.torch.rule_names import rule_named
from clearhead.errors import InputError

BATCH, HEADS = 0, 1


def call_spread(function: Callable[..., Any], *operands: Any) -> Any:
    """An operator's results as DTensors, from DTensors and plain tables or sinks, which are alike on all ranks.

    Raises InputError if only some of query, key and value are DTensors.
    """
    mesh = next(x.device_mesh for x in tensors_in(operands) if isinstance(x, DTensor))
    wanted = placements_for(mesh, operands)

    def local(x: Any) -> Any:
        if isinstance(x, list | tuple):
            return [local(part) for part in x]
        if not isinstance(x, torch.Tensor):
            return x
        spread = x if isinstance(x, DTensor) else DTensor.from_local(x, mesh, [Replicate()] * mesh.ndim)
        return spread.redistribute(mesh, wanted).to_local()

    results = function(*map(local, operands))
    copies = [Replicate()] * mesh.ndim  # of what has no heads: sinks, tables, and the empty ones in their place
    return type(results)(
        DTensor.from_local(x, mesh, wanted if x.dim() > 2 else copies, run_check=False) for x in results
    )


def placements_for(mesh: Any, operands: Sequence[Any]) -> list[Placement]:
    """The first DTensor's cuts along batches and heads, if all operands can be cut so; else copies."""
    place = next(n for n, x in enumerate(operands) if isinstance(x, str))
    *tensors, tables, sink = operands[:place]
    kinds = [type(x).__name__ for x in tensors[-3:]]
    if len(set(kinds)) > 1:
        raise InputError(f"query, key and value are {', '.join(kinds)}: make all three DTensors, or none.")
    copies: list[Placement] = [Replicate()] * mesh.ndim
    if tables or sink is not None or not rule_named(operands[place]).leaves.isdisjoint({"batch", "head"}):
        return copies
    if any(x.dim() != 4 for x in tensors[-3:]):
        return copies
    own = next(x for x in tensors if isinstance(x, DTensor)).placements
    axes = [axis for axis in (BATCH, HEADS) if can_be_cut([x.shape[axis] for x in tensors], axis, mesh.size())]
    return [cut if any(cut == Shard(axis) for axis in axes) else Replicate() for cut in own]


def can_be_cut(counts: Sequence[int], axis: int, pieces: int) -> bool:
    """Whether tensors of these sizes along an axis can be cut evenly; query heads stay with their key head."""
    return all(count % pieces == 0 for count in counts) and (axis == HEADS or len(set(counts)) == 1)


def tensors_in(operands: Sequence[Any]) -> Iterator[torch.Tensor]:
    """All tensors among operands, those in lists too."""
    for x in operands:
        if isinstance(x, list | tuple):
            yield from tensors_in(x)
        elif isinstance(x, torch.Tensor):
            yield x
