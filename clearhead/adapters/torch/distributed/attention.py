"""`sharded_attention`: attention over a sequence that the ranks of a group share, with gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from clearhead.adapters.torch.distributed.agreement import agree
from clearhead.adapters.torch.distributed.call import Call, Sums, Way, check_timeout, checked_call
from clearhead.adapters.torch.distributed.forward import forward
from clearhead.adapters.torch.distributed.gradients import backward
from clearhead.adapters.torch.distributed.layout import Layout
from clearhead.adapters.torch.distributed.peers import Peers
from clearhead.adapters.torch.distributed.sharding import check_ranks
from clearhead.adapters.torch.host import array_view
from clearhead.adapters.torch.reference import HALF_DTYPES
from clearhead.errors import InputError
from clearhead.rules.masks import CAUSAL, Mask
from clearhead.rules.scores import ScoreLike


def sharded_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    layout: Layout,
    *,
    group: Any = None,
    mask: Mask = CAUSAL,
    score: ScoreLike = (),
    sink: torch.Tensor | None = None,
    scale: float | None = None,
    way: Way | None = None,
    gradients: Sums = "same",
    ahead: int = 2,
    timeout: float = 60.0,
) -> torch.Tensor:
    """`attention` over a sequence of which each rank has the rows that `layout` says, with the bits of one process.

    q (..., heads, rows, d), k and v (..., key_heads, rows, d) are this rank's rows, ascending, as `shard` gives them;
    the result is this rank's rows (..., heads, rows, dv), under autograd. All ranks of `group` must call it alike, and
    run backward alike. Masks, rules and sinks are those of the whole sequence; their tables too.

    `way="gather"` holds all keys and values that the rank's queries see; `"stream"` holds `ahead` + 1 segments of 2048
    beside the rank's own rows. The default gathers up to 1 GiB. `gradients="same"` have one process's bits,
    `"sum"` adds up the ranks' shares of dK and dV: less work, other last bits. A sink's gradient is the whole
    sequence's, on every rank.

    Raises InputError, ShapeError or DtypeError, on all ranks if they differ in anything that matters to the result, and
    PeerError if another rank is lost, fails, or does not answer within `timeout` seconds.

    >>> x = torch.eye(2).reshape(1, 2, 2)
    >>> alone = torch.distributed.HashStore()
    >>> torch.distributed.init_process_group("gloo", store=alone, rank=0, world_size=1)
    >>> sharded_attention(x, x, x, Layout(2, 1), scale=1.0)[0].round(decimals=3)
    tensor([[1.0000, 0.0000],
            [0.2690, 0.7310]])
    >>> torch.distributed.destroy_process_group()
    """
    check_timeout(timeout)
    peers = Peers(group, timeout)
    call, fault = None, None
    try:
        check_ranks(layout, peers)
        options: dict[str, Any] = {"way": way, "gradients": gradients, "ahead": ahead}
        call = checked_call((q, k, v), sink, layout, peers.rank, mask=mask, score=score, scale=scale, **options)
    except InputError as error:
        fault = error
    differentiable = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (q, k, v, sink))
    agree(peers, {} if call is None else call.facts | facts_of(sink, differentiable), fault)
    assert call is not None  # noqa: S101  or `agree` has raised the fault
    if sink is not None and sink.dtype in HALF_DTYPES:
        sink = sink.float()
    with peers.together():
        if differentiable:
            output: torch.Tensor = ShardedFunction.apply(call, peers, q, k, v, sink)
            return output
        return forward(call, peers, q, k, v, sink)[0].to(q.dtype)


def facts_of(sink: torch.Tensor | None, differentiable: bool) -> dict[str, str]:
    """What else all ranks must have in common."""
    numbers = "none" if sink is None else f"{sink.dtype} {array_view(sink).tolist()}"
    return {"the function": "sharded_attention", "the sink": numbers, "the need of gradients": str(differentiable)}


class ShardedFunction(torch.autograd.Function):
    """Sharded attention with its gradients; both exchange tensors with all ranks."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> torch.Tensor:
        """The rank's output."""
        ctx.call, ctx.peers, *operands = inputs
        output, lse = forward(*inputs)
        ctx.save_for_backward(*operands, output, lse)
        return output if output.dtype is operands[0].dtype else output.to(operands[0].dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_output: torch.Tensor) -> Any:
        """The gradients of the rank's rows, and of the sink over all rows."""
        call: Call = ctx.call
        peers: Peers = ctx.peers
        query, *_ = ctx.saved_tensors
        agree(peers, {"the function": "the gradients of sharded_attention"} | call.facts)
        with peers.together():
            return None, None, *backward(call, peers, *ctx.saved_tensors, d_output.to(query.dtype))
