"""PyTorch's FlexAttention under torch.compile: rules as functions of one pair."""

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.peers.pytorch import as_array, tensors, torch_with
from clearhead.arrays import Array
from clearhead.cli.race import Contender

Rule = Callable[..., Any]


def causal(b: Any, h: Any, i: Any, j: Any) -> Any:
    """What a query sees."""
    return j <= i


def attention(q: Array, k: Array, v: Array, *, score: Rule | None = None, mask: Rule = causal) -> Contender:
    """Compiled FlexAttention with a `score_mod` and a BlockMask."""
    torch = torch_with()
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    operands = tensors(q, k, v)
    seen = create_block_mask(mask, None, None, q.shape[2], k.shape[2], device="cpu")
    compiled = torch.compile(flex_attention, dynamic=False)

    def call() -> Any:
        with torch.no_grad():
            return compiled(*operands, score_mod=score, block_mask=seen)

    return Contender(call, as_array)


def with_sink(q: Array, k: Array, v: Array, sinks: Array) -> Contender:
    """A sink as a key of its own, the last, with a value of 0: on a CPU it gives no log-sum-exp."""
    torch = torch_with()
    sink, last = torch.from_numpy(sinks), k.shape[2]
    k, v = (np.concatenate([x, np.zeros_like(x[:, :, :1])], 2) for x in (k, v))
    return attention(
        q, k, v,
        score=lambda s, b, h, i, j: torch.where(j == last, sink[h], s),
        mask=lambda b, h, i, j: (j <= i) | (j == last),
    )  # fmt: skip
