"""Attention calls of a running PyTorch model, as those see them who observe or change them.

Responsible for describing a call independently of the function that computes it, and for the chain of handlers around
it. `intercept` and `adapters.transformers.interface` turn calls of torch's and transformers' functions into these.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from clearhead.rules.spans import Align
from clearhead.watched.visible import Visible

RowFunction = Callable[[torch.Tensor], torch.Tensor]  # numbers of queries to (batch, heads, rows, keys) booleans


@dataclass(frozen=True, eq=False)
class Visibility:
    """Which keys the queries of a call may see, as its model says it. What is None hides nothing.

    Tables have four axes, (batch, heads, queries, keys); axes of 1 broadcast.
    """

    table: torch.Tensor | None = None  # True where a key is visible
    causal: Align | None = None  # each query sees keys up to its own position; where queries stand among keys
    left: int | None = None  # each query sees so many keys before its own position
    right: int | None = None
    tokens: torch.Tensor | None = None  # (batch, keys), False at padding
    rows: RowFunction | None = None  # a table that is computed where it is needed
    source: Any = None  # the model's mask, if it alone says everything: layers that get the same one see the same
    intervals: Callable[[], Visible | None] | None = None  # what `rows` computes, if that is an interval for each query
    rule: Callable[[], Any] | None = None  # what `rows` computes: a clearhead mask, or torch's BlockMask

    @property
    def is_band(self) -> bool:
        """Whether causal and window say everything."""
        return self.table is None and self.tokens is None and self.rows is None


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """One call of attention: operands on the model's device, and everything that decides the weights.

    Scores are scale · q·k, capped by `cap`, plus `adds`; then come mask, sink and softmax.
    """

    module: torch.nn.Module  # the innermost module of the model that makes the call
    query: torch.Tensor  # (batch, heads, queries, dim)
    key: torch.Tensor  # (batch, key heads, keys, dim)
    value: torch.Tensor  # (batch, key heads, keys, value dim)
    scale: float
    visibility: Visibility
    adds: tuple[torch.Tensor, ...] = ()  # (batch, heads, queries, keys), axes of 1 broadcast
    cap: float | None = None
    sink: torch.Tensor | None = None  # one number for each head
    dropout: float = 0.0
    computed: str = "float32"  # the least precise dtype that the model's own attention computes in
    score_function: Callable[..., Any] | None = None  # of flex_attention: (score, batch, head, query, key)

    @property
    def is_empty(self) -> bool:
        """Whether nobody asks: a batch of no sequences, or a text of no tokens."""
        return not self.query.shape[0] or not self.query.shape[2]

    def visible_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """Which keys some queries see: (batch or 1, heads or 1, rows, keys)."""
        v, keys, queries = self.visibility, self.key.shape[2], self.query.shape[2]
        seen = torch.ones((1, 1, len(rows), keys), dtype=torch.bool, device=self.query.device)
        if v.causal is not None or v.left is not None or v.right is not None:
            position = rows[:, None] + (keys - queries if v.causal != "start" else 0)
            key = torch.arange(keys, device=self.query.device)
            if v.causal is not None:
                seen = seen & (key <= position)
            if v.left is not None:
                seen = seen & (key >= position - v.left)
            if v.right is not None:
                seen = seen & (key <= position + v.right)
        if v.table is not None:
            seen = seen & (v.table if v.table.shape[2] == 1 else v.table[:, :, rows])
        if v.tokens is not None:
            seen = seen & v.tokens[:, None, None]
        return seen if v.rows is None else seen & v.rows(rows)


@dataclass(frozen=True, eq=False)
class Answer:
    """The result of a call: the output (batch, heads, queries, value dim), and what changed it."""

    output: torch.Tensor
    changes: tuple[Any, ...] = ()


class Handler(Protocol):
    """Sees attention calls, and may answer them."""

    def wants(self, module: torch.nn.Module) -> bool:
        """Whether to handle the calls of a module."""

    def answer(self, call: AttentionCall, compute: Callable[[], Answer]) -> Answer:
        """The answer to a call; `compute` gives that of the model, or of the handlers that came before."""


handlers: list[Handler] = []  # the last one is asked first
inside = threading.local()


def interested(module: torch.nn.Module) -> list[Handler]:
    """The handlers of a module's calls; none for what is computed inside a call that is handled already."""
    if getattr(inside, "handled", False):
        return []
    return [handler for handler in handlers if handler.wants(module)]


@contextmanager
def handled() -> Iterator[None]:
    """Hide calls made inside one that is handled already."""
    before = getattr(inside, "handled", False)
    inside.handled = True
    try:
        yield
    finally:
        inside.handled = before


def compiled() -> Any:
    """Let a model's own attention be compiled as it always is, though the model runs uncompiled meanwhile."""
    return torch.compiler.set_stance("default") if "torch._dynamo" in sys.modules else nullcontext()


def answered(call: AttentionCall, chain: Sequence[Handler], compute: Callable[[], torch.Tensor]) -> Answer:
    """Ask the handlers of a call, the last one first; `compute` gives the model's own output."""
    if not chain:
        return Answer(compute())
    *others, last = chain
    return last.answer(call, lambda: answered(call, others, compute))


def own_or_changed(call: AttentionCall, chain: Sequence[Handler], compute: Callable[[], Any], read: Any) -> Any:
    """The raw result of the model's own function, or the Answer of a handler that replaced it.

    `read` turns a raw result into an output (batch, heads, queries, value dim).
    """
    raw: list[Any] = []

    def own() -> torch.Tensor:
        with compiled():
            raw[:] = [compute()]
        outputs.append(read(raw[0]))
        return outputs[-1]

    outputs: list[torch.Tensor] = []
    with handled():
        answer = answered(call, chain, own)
    return raw[0] if outputs and answer.output is outputs[-1] else answer
