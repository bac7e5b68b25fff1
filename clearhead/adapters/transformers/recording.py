"""Listening to a transformers model for `clearhead.watch`: what each layer computed becomes a `Record`.

Decides which passes belong together, when memory is spent, and which rows the model's own attention computes again for
the check. What is kept and how it is shown is `clearhead.watch`.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface

from clearhead.adapters.transformers.attention import NAME, Call, listeners
from clearhead.adapters.transformers.mask import Pattern
from clearhead.errors import InputError
from clearhead.problem import Array
from clearhead.rules.masks import Causal, Window, conjunction
from clearhead.watch import Record, Watch

CHECKED = 4  # rows of a prompt that the model's own attention computes too
EVERY = 64  # and one token in so many after it
PLAIN = ("float32", "float64")  # dtypes that are kept as they are


@contextmanager
def recording(model: torch.nn.Module, seen: Watch) -> Iterator[None]:
    """Let a model compute by clearhead, write down what it does, and put back what it had."""
    before = model.config._attn_implementation
    listener = Listener(seen, set(model.modules()), "eager" if before == NAME else before, layer_count(model))
    model.set_attn_implementation(NAME)
    listeners.append(listener)
    try:
        yield
    finally:
        listeners.remove(listener)
        model.set_attn_implementation(before)


def layer_count(model: torch.nn.Module) -> int:
    """How many layers a model says it has."""
    return int(getattr(model.config, "num_hidden_layers", 1))


@dataclass(eq=False)
class Listener:
    """One watch's ear at the adapter."""

    seen: Watch
    modules: set[torch.nn.Module]
    own: str  # the attention that is trusted
    layers: int
    counts: dict[int, int] = field(default_factory=dict)  # tokens since a row was checked, by layer

    def __call__(self, call: Call) -> None:
        """Take in one layer's attention."""
        if call.module not in self.modules:
            return
        number = getattr(call.module, "layer_idx", None)
        if number is None:
            raise InputError(
                f"{type(call.module).__name__} has no layer_idx: watch knows decoder layers that have one."
            )
        if self.seen.chosen_layers is not None and number not in self.seen.chosen_layers:
            return
        pattern = followed(call, number)
        record = self.record_for(call, pattern, number)
        heads, kept = list(record.heads), key_heads_of(call, record.heads)
        new = pattern.queries if record.passes else pattern.stop
        check_unchanged(record, call, pattern, number, kept)
        parts = {
            "query": widened(call.query[:, heads]),
            "key": widened(call.key[:, kept, -new:]),
            "value": widened(call.value[:, kept, -new:]),
            "lse": call.lse[:, heads],
        }
        self.claim(sum(part.nbytes for part in parts.values()), record, number)
        for name, part in parts.items():
            getattr(record, name).append(part)
        record.passes.append(pattern.queries)
        record.trusted = False
        self.note_own(call, pattern, record, number)

    def record_for(self, call: Call, pattern: Pattern, number: int) -> Record:
        """The record that goes on with this pass, or a new one."""
        runs = self.seen.runs
        if runs and number in runs[-1] and runs[-1][number].stop == pattern.first_query:
            return runs[-1][number]
        if runs and number in runs[-1] and pattern.first_query:
            raise InputError(
                f"layer {number} goes on at position {pattern.first_query}, but was seen up to "
                f"{runs[-1][number].stop}: watch follows greedy and sampled text, not caches that are cut back."
            )
        if not runs or number in runs[-1]:
            runs.append({})
        runs[-1][number] = new_record(call, pattern, self.seen.chosen_heads)
        self.counts[number] = EVERY
        return runs[-1][number]

    def claim(self, more: int, record: Record, number: int) -> None:
        """Refuse what would take more memory than the watch was given."""
        needed = self.seen.spent + more
        if not record.passes:  # the same again for the layers that follow
            chosen = self.seen.chosen_layers
            needed += more * sum(n > number and (chosen is None or n in chosen) for n in range(self.layers))
        if needed > self.seen.memory:
            raise InputError(
                f"watching layer {number} and those after it would take {needed / 2**20:,.0f} MiB, more than "
                f"memory={self.seen.memory} ({self.seen.memory / 2**20:,.0f} MiB): choose layers=… or heads=…, or give "
                "more memory."
            )
        self.seen.spent += more

    def note_own(self, call: Call, pattern: Pattern, record: Record, number: int) -> None:
        """Some rows as the model's own attention computes them: of a prompt a few, of later tokens now and then."""
        self.counts[number] += pattern.queries
        if self.counts[number] < EVERY:
            return
        self.counts[number] = 0 if len(record.passes) > 1 else EVERY  # the first token after a prompt is checked too
        first = max(0, max(record.begins) - pattern.first_query)
        rows = np.unique(np.linspace(first, pattern.queries - 1, CHECKED).astype(np.int64))
        output = own_output(call, pattern, rows, self.own)
        for n, row in enumerate(rows):
            record.rows.append(pattern.first_query + int(row))
            record.own.append(output[:, n, list(record.heads)])
            self.seen.spent += record.own[-1].nbytes


def followed(call: Call, number: int) -> Pattern:
    """The pattern of a layer that watch can follow: causal, perhaps a sliding window, padding on the left."""
    pattern = call.pattern
    known = pattern is not None and all(
        isinstance(part, Causal) or (isinstance(part, Window) and part.right is None)
        for part in conjunction(pattern.rule(0))
    )
    if pattern is None or not known or not pattern.aligned:
        raise InputError(f"layer {number} masks by {call.mask!r}: watch knows causal layers and sliding windows.")
    if pattern.runs is None or any(end != pattern.stop for _, end in pattern.runs):
        raise InputError(f"layer {number} has padding behind or between tokens: watch knows padding on the left alone.")
    if any(name not in ("Softcap",) for name in (type(rule).__name__ for rule in call.score)):
        raise InputError(f"layer {number} changes scores by {call.score!r}: watch knows softcap alone.")
    return pattern


def new_record(call: Call, pattern: Pattern, chosen: tuple[int, ...] | None) -> Record:
    """An empty record with all that does not grow."""
    count = call.query.shape[1]
    heads = tuple(range(count)) if chosen is None else chosen
    if any(not 0 <= head < count for head in heads) or not heads:
        raise InputError(f"heads {list(heads)} cannot be watched: the layer has heads 0 to {count - 1}.")
    kept = key_heads_of(call, heads)
    group = count // call.key.shape[1]
    windows = [part.left for part in conjunction(pattern.rule(0)) if isinstance(part, Window)]
    return Record(
        heads=heads,
        key_heads=tuple(kept.index(head // group) for head in heads),
        first_query=pattern.first_query,
        first_key=pattern.first_key,
        begins=tuple(pattern.first_key + begin for begin, _ in pattern.runs or ()),
        dtype=call.query.dtype.name,
        scale=call.query.shape[-1] ** -0.5 if call.scale is None else float(call.scale),
        cap=None if call.given["softcap"] is None else float(call.given["softcap"]),
        left=min((left for left in windows if left is not None), default=None),
        sink=None if call.sink is None else widened(call.sink[list(heads)]),
    )


def key_heads_of(call: Call, heads: tuple[int, ...]) -> list[int]:
    """The key heads that some query heads use."""
    group = call.query.shape[1] // call.key.shape[1]
    return sorted({head // group for head in heads})


def check_unchanged(record: Record, call: Call, pattern: Pattern, number: int, kept: list[int]) -> None:
    """The key before the new ones must be the last that was recorded: beam search, for one, reorders a cache."""
    if not record.passes or call.key.shape[2] <= pattern.queries:
        return
    before = call.key[:, kept, -pattern.queries - 1]
    if before.shape != record.key[-1][:, :, -1].shape or not np.array_equal(before, record.key[-1][:, :, -1]):
        raise InputError(
            f"layer {number}: the cache was changed between two steps, as beam search does: watch follows greedy and "
            "sampled text."
        )


def widened(array: Array) -> Array:
    """A copy; numbers of 16 bits as float32, exactly."""
    return np.array(array, order="C") if array.dtype.name in PLAIN else array.astype(np.float32)


def own_output(call: Call, pattern: Pattern, rows: Array, own: str) -> Array:
    """What a model's own attention gives for some queries: (batch, rows, heads, value dim).

    The mask is transformers' answer for these rows, so that a rule that clearhead has misread shows.
    """
    seen = pattern.row_seen(rows)
    query, key, value = call.tensors
    if own == "eager":
        forward = sys.modules[type(call.module).__module__].eager_attention_forward
        mask = torch.zeros(seen.shape, dtype=query.dtype).masked_fill(~seen, torch.finfo(query.dtype).min)
    else:
        forward, mask = AttentionInterface()[own], seen
    options: dict[str, Any] = {name: x for name, x in call.given.items() if x is not None}
    with torch.no_grad():
        output, _ = forward(
            call.module,
            query[:, :, torch.from_numpy(rows)],
            key[:, :, : pattern.stop],
            value[:, :, : pattern.stop],
            mask,
            dropout=0.0,
            **options,
        )
    return output.to(torch.float64 if output.dtype == torch.float64 else torch.float32).numpy()  # type: ignore[no-any-return]
