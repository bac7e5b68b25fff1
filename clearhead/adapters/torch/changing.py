"""Compute edited heads of a model's attention calls, and leave the others as the model computed them.

Responsible for what a pass's edits come to: one call of the operator for the heads whose weights change, a second one
where rows need not sum to 1, one for each pattern of another run, and last the outputs that are replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from clearhead.adapters.torch.call_places import PlaceKeeper
from clearhead.adapters.torch.call_rules import CallRules, on_processor, rules_of
from clearhead.adapters.torch.calls import Answer, AttentionCall
from clearhead.adapters.torch.operator import attend
from clearhead.adapters.torch.patterns import Pattern, pattern_of, values_of
from clearhead.errors import InputError
from clearhead.interventions.edits import Ablate, Cut, Edit, Layer, Patch, Scale, Sink, Uniform
from clearhead.interventions.places import Places
from clearhead.interventions.rules import added, hidden, rows_of

WEIGHT_EDITS = (Cut, Scale, Uniform, Sink, Patch)


class Changing:
    """The handler that applies edits; `edits` grows while the block runs, `reached` is told of each use."""

    def __init__(
        self,
        layers: dict[torch.nn.Module, Layer],
        edits: Sequence[Edit],
        reached: Callable[[Edit, AttentionCall, Places], None],
    ) -> None:
        self.layers, self.edits, self.reached, self.keeper = layers, edits, reached, PlaceKeeper()

    def wants(self, module: torch.nn.Module) -> bool:
        """Whether a layer has edits, or stands beside cross-attention that has."""
        if isinstance(module, torch.nn.TransformerEncoderLayer):  # torch's fast path computes it as a whole
            return self.wants(module.self_attn)
        layer = self.layers.get(module)
        if layer is None:
            return False
        crossing = layer[0] != "cross" and any(part == "cross" for edit in self.edits for part, _ in edit.layers)
        return crossing or any(edit.of(layer) for edit in self.edits)

    def answer(self, call: AttentionCall, compute: Callable[[], Answer]) -> Answer:
        """The model's answer with the edited heads replaced."""
        before = compute()
        if call.is_empty:
            return before
        if call.query.is_meta:
            raise InputError(
                f"{type(call.module).__name__} is on the meta device, which has no numbers to change: load the model's "
                "weights, or move it by model.to_empty(device='cpu')."
            )
        layer = self.layers[call.module]
        places = self.keeper.places(call, layer[0] == "cross")
        own = [edit for edit in self.edits if edit.of(layer)]
        for edit in own:
            self.reached(edit, call, places)
        own = [edit for edit in own if rows_of(edit, places).any()]
        if not own:
            return before
        if call.dropout:
            raise InputError(
                f"{type(call.module).__name__} drops attention weights (dropout={call.dropout:g}), so what an edit "
                "does differs from pass to pass: call model.eval() before."
            )
        others = [change for change in before.changes if isinstance(change, Edit)]
        output = changed_output(call, before.output, own, [*others, *own], layer, places)
        return Answer(output, (*before.changes, *own))


def changed_output(
    call: AttentionCall, before: torch.Tensor, own: Sequence[Edit], every: Sequence[Edit], layer: Layer, places: Places
) -> torch.Tensor:
    """The output with heads of `own` edits replaced; `every` has those too that `before` contains already."""
    count = call.query.shape[1]
    heads = sorted({head for edit in own if isinstance(edit, WEIGHT_EDITS) for head in edit.heads_of(count)})
    output = before
    if heads:
        mine = tuple(e for e in every if isinstance(e, WEIGHT_EDITS) and set(e.heads_of(count)) & set(heads))
        edited = EditedHeads(call, tuple(heads), layer, places, mine)
        new = edited.output().to(before.device, before.dtype)
        rows = edited.selected(mine).to(before.device)
        output = with_heads(output, heads, new if bool(rows.all()) else torch.where(rows, new, before[:, heads]))
    for edit in every:
        if isinstance(edit, Ablate):
            anew = edit.heads_of(count) if edit in own else [head for head in edit.heads_of(count) if head in heads]
            output = ablated(output, edit, anew, places) if anew else output
    return output


def with_heads(output: torch.Tensor, heads: Sequence[int], new: torch.Tensor) -> torch.Tensor:
    """An output (batch, heads, queries, dim) with some heads replaced, the others bit for bit."""
    if list(heads) == list(range(output.shape[1])):
        return new
    return output.index_copy(1, torch.tensor(heads, device=output.device), new)


@dataclass(frozen=True, eq=False)
class EditedHeads:
    """Heads of a call whose weights are edited."""

    call: AttentionCall
    heads: tuple[int, ...]
    layer: Layer
    places: Places
    edits: tuple[Edit, ...]

    @property
    def count(self) -> int:
        """The layer's number of heads."""
        return self.call.query.shape[1]

    def output(self) -> torch.Tensor:
        """Their output, (batch, heads, queries, value dim), in the processor's memory."""
        call, group = self.call, self.count // self.call.key.shape[1]
        query, key, value = (on_processor(x) for x in (call.query, call.key, call.value))
        swaps = [edit for edit in self.edits if isinstance(edit, Patch) and edit.values]
        if swaps or len(self.heads) < self.count:  # heads that share a key head may get different values
            shared = [head // group for head in self.heads]
            query, key, value = query[:, list(self.heads)], key[:, shared], value[:, shared]
        rules = rules_of(call, self.heads)
        for edit in swaps:
            value = self.patched_values(value, edit) if edit.queries.everything else value
        output = self.by_patterns(query, key, value, rules)
        for edit in swaps:
            if not edit.queries.everything:
                other = self.by_patterns(query, key, self.patched_values(value, edit), rules)
                output = torch.where(self.selected([edit]), other, output)
        return output

    def by_patterns(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rules: CallRules
    ) -> torch.Tensor:
        """The output for some values: by this run's weights, or where edits say so by another's."""
        output = self.by_own_pattern(query, key, value, rules)
        for edit in self.edits:
            if isinstance(edit, Patch) and edit.pattern:
                output = self.patched(output, value, edit)
        return output

    def by_own_pattern(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rules: CallRules
    ) -> torch.Tensor:
        """The output with this run's own weights."""
        sink, forced = self.sinks(rules.sink)
        output = self.attended(query, key, value, rules, sink, self.places)
        evened = [edit for edit in self.edits if isinstance(edit, Uniform)]
        if sink is None or not evened:
            return output
        even = self.attended(query, key, value, rules, torch.where(forced, sink, -torch.inf), self.places)
        for edit in evened:
            output = torch.where(self.selected([edit]), even, output)
        return output

    def attended(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        rules: CallRules,
        sink: torch.Tensor | None,
        places: Places,
        *,
        uniform: bool = True,
    ) -> torch.Tensor:
        """Attention under the edits; weights that are not renormalized keep the log-sum-exp that they had."""
        edits = self.edits if uniform else tuple(edit for edit in self.edits if not isinstance(edit, Uniform))
        edits = tuple(edit for edit in edits if rows_of(edit, places).any())
        here = edits, places, self.heads, self.count
        hides = hidden(*here)
        name, tables = rules.named(hides, added(*here, kept=True))
        output, lse = attend(query, key, value, tables, sink, name, rules.scale)
        if all(edit.renormalize for edit in edits if isinstance(edit, Scale)):
            return output
        name, tables = rules.named(hides, added(*here, kept=False))
        _, whole = attend(query, key, value[..., :1], tables, sink, name, rules.scale)
        return output * share(lse, whole)[..., None].to(output.dtype)

    def sinks(self, own: torch.Tensor | None) -> tuple[torch.Tensor | None, torch.Tensor]:
        """The score of each head's sink, and which were set by edits."""
        forced = torch.zeros(len(self.heads), dtype=torch.bool)
        sink = own
        for edit in self.edits:
            if isinstance(edit, Sink):
                mine = torch.tensor([head in edit.heads_of(self.count) for head in self.heads])
                number = -torch.inf if edit.value is None else edit.value
                dtype = torch.float64 if self.call.query.dtype is torch.float64 else torch.float32
                old = torch.full((len(self.heads),), -torch.inf, dtype=dtype) if sink is None else sink
                sink, forced = torch.where(mine, number, old), forced | mine
        return sink, forced

    def selected(self, edits: Sequence[Edit]) -> torch.Tensor:
        """Which rows of the output some edits change, (batch, heads, queries, 1)."""
        found = torch.zeros(1, dtype=torch.bool)
        for edit in edits:
            mine = torch.tensor([head in edit.heads_of(self.count) for head in self.heads])
            found = found | mine[:, None, None] & torch.from_numpy(rows_of(edit, self.places))[:, None, :, None]
        return found

    def patched(self, output: torch.Tensor, value: torch.Tensor, edit: Patch) -> torch.Tensor:
        """The output with an edit's rows by the weights of another run."""
        rows = rows_of(edit, self.places)
        heads = [n for n, head in enumerate(self.heads) if head in edit.heads_of(self.count)]
        whole = [self.heads[n] for n in heads]
        group = len(self.heads) // value.shape[1]
        inner = replace(self, heads=tuple(whole))
        for b in np.flatnonzero(rows.any(1)):
            queries, keys = (np.flatnonzero(place[b] >= 0) for place in (self.places.query, self.places.key))
            part = self.places.part(int(b), queries, keys)
            pattern = pattern_of(edit, self.layer, part, whole, self.count)
            own = value[b : b + 1, [n // group for n in heads]][:, :, keys]
            got = inner.by_pattern(pattern, own.to(pattern.query.dtype), part).to(output.dtype)
            chosen = np.flatnonzero(rows[b][queries])
            at = torch.tensor(int(b)), torch.tensor(heads)[:, None], torch.from_numpy(queries[chosen])[None]
            output = output.index_put(at, got[0, :, chosen])
        return output

    def by_pattern(self, pattern: Pattern, value: torch.Tensor, places: Places) -> torch.Tensor:
        """The output of another run's weights over this run's values, under the edits of pairs."""
        output = self.attended(
            pattern.query, pattern.key, value, pattern.rules, pattern.rules.sink, places, uniform=False
        )
        if pattern.lse is None:
            return output
        name, tables = pattern.rules.named()
        _, whole = attend(
            pattern.query, pattern.key, value[..., :1], tables, pattern.rules.sink, name, pattern.rules.scale
        )
        return output * share(whole, pattern.lse)[..., None].to(output.dtype)

    def patched_values(self, value: torch.Tensor, edit: Patch) -> torch.Tensor:
        """The values of each head, with an edit's from another run."""
        group = len(self.heads) // value.shape[1]
        value = value.repeat_interleave(group, 1) if group > 1 else value
        heads = [n for n, head in enumerate(self.heads) if head in edit.heads_of(self.count)]
        for b in range(len(value)):
            if edit.sequence in (None, b):
                keys = np.flatnonzero(self.places.key[b] >= 0)
                part = self.places.part(b, slice(0, 0), keys)
                got = values_of(edit, self.layer, part, [self.heads[n] for n in heads], self.count)
                at = torch.tensor(b), torch.tensor(heads)[:, None], torch.from_numpy(keys)[None]
                value = value.index_put(at, got.to(value.dtype))
        return value


def share(lse: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """The part of a whole that some weights have, by log-sum-exps; 0 where there are none."""
    nothing = (lse == -torch.inf) | (whole == -torch.inf)
    return torch.exp(torch.where(nothing, -torch.inf, lse - torch.where(nothing, 0, whole)))


def ablated(output: torch.Tensor, edit: Ablate, heads: Sequence[int], places: Places) -> torch.Tensor:
    """An output with some heads of an edit replaced, for its queries."""
    rows, own = rows_of(edit, places), output[:, list(heads)]
    if isinstance(edit.output, float):
        becomes = torch.full((), edit.output, dtype=own.dtype, device=own.device)
    elif isinstance(edit.output, str):
        tokens = torch.from_numpy(places.query >= 0).to(own.device)[:, None, :, None]
        total = torch.where(tokens, own, 0).sum(2, keepdim=True)
        becomes = total / tokens.sum(2, keepdim=True).clamp(min=1)
    else:
        becomes = given_output(output, edit, places, int(places.query.max(where=rows, initial=0)))
        becomes = (
            becomes if becomes.shape[1] == 1 else becomes[:, [edit.heads_of(output.shape[1]).index(h) for h in heads]]
        )
    at = torch.from_numpy(rows).to(own.device)[:, None, :, None]
    return with_heads(output, heads, torch.where(at, becomes, own))


def given_output(output: torch.Tensor, edit: Ablate, places: Places, last: int) -> torch.Tensor:
    """An edit's own numbers at a pass's positions, of which it changes those up to the last."""
    batch, count, queries, dim = output.shape
    given = torch.as_tensor(edit.output).to(output.device, output.dtype)
    sizes = ("sequences", 0, batch), ("heads", 1, len(edit.heads_of(count))), ("dims", 3, dim)
    for name, axis, size in sizes:
        if given.shape[axis] not in (1, size):
            raise InputError(
                f"{edit!r} gives numbers for {given.shape[axis]} {name}, but needs {size}: give as many, or 1."
            )
    if given.shape[2] == 1:
        return given
    if last >= given.shape[2]:
        raise InputError(
            f"{edit!r} gives numbers for {given.shape[2]} queries, but changes one at position {last}: give them for "
            "all, or choose some by queries=…"
        )
    index = torch.from_numpy(np.clip(places.query, 0, given.shape[2] - 1)).to(output.device)
    shape = batch, given.shape[1], queries, given.shape[3]
    return given.expand(batch, *given.shape[1:]).take_along_dim(index[:, None, :, None].expand(shape), 2)
