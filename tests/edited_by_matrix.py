"""Edited attention by the full matrix of weights, in torch operations: what tests compare interventions with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

NAME = "by_matrix"
Pairs = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]  # positions of query and key, tokens: which pairs


@dataclass
class MatrixEdit:
    """One edit of a layer."""

    kind: str
    layer: int
    heads: list[int]
    pairs: Pairs = lambda q, k, n: (q >= 0) & (k >= 0)
    number: Any = None


@dataclass
class State:
    """The edits in force, and how many keys of each sequence are padding on the left."""

    edits: list[MatrixEdit] = field(default_factory=list)
    padding: list[int] = field(default_factory=list)
    crosses: bool = False  # whether edits are of cross-attention
    seen: dict[int, torch.Tensor] = field(default_factory=dict)  # weights of the last pass, by layer
    items: dict[int, int] = field(default_factory=dict)  # how many each layer has had, those that a cache dropped too


state = State()


def attention(
    query, key, value, scores_mask, scale, edits, *, cap=None, sink=None, bias=None, first=None, dropped=0, padding=()
):
    """Output and weights of (batch, heads, n, dim), with edits in the matrix."""
    batch, heads, queries, _ = query.shape
    key, value = (x.repeat_interleave(heads // x.shape[1], 1) for x in (key, value))
    scores = query @ key.mT * scale
    if cap is not None:
        scores = torch.tanh(scores / cap) * cap
    if bias is not None:
        scores = scores + bias
    if scores_mask is not None:
        scores = scores + scores_mask[..., : key.shape[2]]
    hidden = scores < -1e30
    first = key.shape[2] - queries if first is None else first
    pads = torch.tensor(padding or [0] * batch)[:, None, None, None]
    q = (torch.arange(queries) + first)[:, None] + dropped - pads
    k = torch.arange(key.shape[2]) + dropped - pads
    count = key.shape[2] + dropped - pads
    sinks = torch.full((batch, heads, queries, 1), -torch.inf, dtype=scores.dtype)
    if sink is not None:
        sinks = sink.reshape(1, -1, 1, 1).expand(batch, heads, queries, 1).to(scores.dtype)

    def chosen(edit):
        mine = torch.tensor([head in edit.heads for head in range(heads)])[:, None, None]
        return mine & edit.pairs(q, k, count).expand(batch, 1, queries, key.shape[2])

    for edit in edits:
        mine = torch.tensor([head in edit.heads for head in range(heads)])[:, None, None]
        if edit.kind == "uniform":
            rows = chosen(edit).any(-1, keepdim=True)
            scores, sinks = torch.where(rows, 0, scores), torch.where(rows, -torch.inf, sinks)
    for edit in edits:
        mine = torch.tensor([head in edit.heads for head in range(heads)])[:, None, None]
        if edit.kind == "sink":
            sinks = torch.where(mine, edit.number, sinks)
        if edit.kind == "cut":
            scores = torch.where(chosen(edit), -torch.inf, scores)
        if edit.kind == "scale, renormalized":
            scores = torch.where(chosen(edit), scores + torch.log(torch.as_tensor(edit.number)), scores)
    scores = torch.where(hidden, torch.finfo(scores.dtype).min, scores)
    weights = torch.softmax(torch.cat([scores, sinks], -1), -1)[..., :-1].nan_to_num()
    for edit in edits:
        if edit.kind == "scale":
            weights = torch.where(chosen(edit), weights * edit.number, weights)
        if edit.kind == "weights":
            weights = torch.where(chosen(edit).any(-1, keepdim=True), edit.number, weights)
    output = weights @ value
    for edit in edits:
        mine = torch.tensor([head in edit.heads for head in range(heads)])[:, None, None]
        if edit.kind == "output":
            rows = chosen(edit).any(-1, keepdim=True)
            becomes = edit.number
            if becomes == "mean":
                tokens = (q >= 0).expand(batch, 1, queries, 1)
                becomes = (output * tokens).sum(2, keepdim=True) / tokens.sum(2, keepdim=True)
            output = torch.where(rows, becomes, output)
    return output, weights


def forward(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **options):
    """transformers' attention interface."""
    crosses = not getattr(module, "is_causal", True) and key.shape[2] != query.shape[2]
    number = getattr(module, "layer_idx", None)
    edits = [edit for edit in state.edits if edit.layer == number and crosses == state.crosses]
    if not crosses:
        state.items[number] = query.shape[2] + (state.items[number] if query.shape[2] == 1 else 0)
    output, state.seen[number] = attention(
        query,
        key,
        value,
        attention_mask,
        query.shape[-1] ** -0.5 if scaling is None else scaling,
        edits,
        cap=options.get("softcap"),
        sink=options.get("s_aux"),
        bias=options.get("position_bias"),
        first=0 if crosses else None,
        dropped=0 if crosses else state.items[number] - key.shape[2],
        padding=[] if crosses else state.padding,
    )
    return output.transpose(1, 2).contiguous(), state.seen[number]


AttentionInterface.register(NAME, forward)
AttentionMaskInterface.register(NAME, eager_mask)


def by_matrix(model, edits, call, padding=(), *, crosses=False):
    """What a call gives on a model whose weights are edited in the matrix."""
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    state.edits, state.padding, state.crosses = list(edits), list(padding), crosses
    try:
        return call()
    finally:
        state.edits, state.padding = [], []
        model.set_attn_implementation(before)
