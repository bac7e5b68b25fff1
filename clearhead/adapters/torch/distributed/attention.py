"""`sharded_attention`: attention over a sequence that the ranks of a group share, with gradients."""

from __future__ import annotations

from typing import Any

import torch

from clearhead.adapters.torch.arguments import check_tensors
from clearhead.adapters.torch.distributed.agreement import FUNCTION, agree
from clearhead.adapters.torch.distributed.call import Call, Sums, Way, check_timeout, check_transforms, checked_call
from clearhead.adapters.torch.distributed.forward import forward
from clearhead.adapters.torch.distributed.gradients import backward
from clearhead.adapters.torch.distributed.layout import Layout
from clearhead.adapters.torch.distributed.peers import Peers
from clearhead.adapters.torch.distributed.sharding import check_ranks
from clearhead.adapters.torch.host import array_view
from clearhead.adapters.torch.operator import autocast_operands
from clearhead.adapters.torch.reference import HALF_DTYPES
from clearhead.errors import InputError
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.masks import CAUSAL
from clearhead.rules.scores import ScoreLike


@torch.compiler.disable  # type: ignore[untyped-decorator]
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
    options: dict[str, Any] = {"way": way, "gradients": gradients, "ahead": ahead}
    facts, words, fault, differentiable = {FUNCTION: "sharded_attention"}, {}, None, False
    with peers.alone():
        try:
            check_transforms("sharded_attention")
            check_ranks(layout, peers)
            check_tensors(q=q, k=k, v=v)
            q, k, v = autocast_operands(q, k, v)
            call = checked_call((q, k, v), sink, layout, peers.rank, mask=mask, score=score, scale=scale, **options)
            differentiable = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (q, k, v, sink))
            facts, words = facts | call.facts | facts_of(sink, differentiable), call.words
        except Exception as error:  # whatever a user's rule raises, the others are to know
            fault = error
        number = agree(peers, facts, fault, words)
        if sink is not None and sink.dtype in HALF_DTYPES:
            sink = sink.float()
        if differentiable:
            output: torch.Tensor = ShardedFunction.apply(call, peers, number, q, k, v, sink)
            return output
        with peers.together():
            return forward(call, peers, q, k, v, sink)[0].to(q.dtype)


def facts_of(sink: torch.Tensor | None, differentiable: bool) -> dict[str, str]:
    """What else all ranks must have in common."""
    numbers = "none" if sink is None else f"{sink.dtype} {array_view(sink).tolist()}"
    return {"the sink": numbers, "the need of gradients": str(differentiable)}


class ShardedFunction(torch.autograd.Function):
    """Sharded attention with its gradients; both exchange tensors with all ranks."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> torch.Tensor:
        """The rank's output."""
        ctx.call, ctx.peers, ctx.number, *operands = inputs
        with ctx.peers.together():
            output, lse = forward(ctx.call, ctx.peers, *operands)
        ctx.save_for_backward(*operands, output, lse)
        return output if output.dtype is operands[0].dtype else output.to(operands[0].dtype)

    @staticmethod
    def backward(ctx: Any, d_output: torch.Tensor) -> Any:
        """The gradients of the rank's rows, and of the sink over all rows."""
        check_transforms("the backward of sharded_attention", d_output)  # all ranks run backward alike
        saved = ctx.saved_tensors  # which a checkpoint may compute anew, by a call of its own
        with torch.no_grad():
            gradients = own_gradients(ctx.call, ctx.peers, ctx.number, saved, d_output)
        if torch.is_grad_enabled():
            gradients = [x if x is None else FirstDerivative.apply(x, *saved[:4], d_output) for x in gradients]
        return None, None, None, *gradients


def own_gradients(call: Call, peers: Peers, number: int, saved: Any, d_output: torch.Tensor) -> list[Any]:
    """The gradients of query, key, value and sink, if all ranks want those of the same call."""
    facts = {FUNCTION: f"the gradients of call {number} of the group"} | call.facts
    with peers.alone():
        agree(peers, facts, words=call.words)
        with peers.together():
            return backward(call, peers, *saved, d_output.to(saved[0].dtype))


class FirstDerivative(torch.autograd.Function):
    """A gradient that depends on operands in a way that is not followed: an error if it is to be differentiated."""

    @staticmethod
    def forward(_ctx: Any, gradient: torch.Tensor, *_operands: Any) -> torch.Tensor:
        """The gradient."""
        return gradient.view_as(gradient)

    @staticmethod
    def backward(_ctx: Any, _: torch.Tensor) -> Any:
        """Refuse."""
        raise InputError(
            "sharded_attention has first derivatives only, and this backward goes through its gradients: leave out "
            "create_graph=True, or call attention on the whole sequence."
        )
