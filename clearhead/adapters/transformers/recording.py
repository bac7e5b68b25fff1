"""Listening to a transformers model for `clearhead.watch`: what each layer computed becomes a `Record`.

Decides which passes belong together, when memory is spent, that a pass which fails leaves nothing behind, and which
rows the model's own attention computes again for the check. Which layers there are to listen to is `layers`', what is
kept and how it is shown `clearhead.watch`'s.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from clearhead.adapters.transformers.attention import NAME, Call, listeners
from clearhead.adapters.transformers.layers import computed_in, configs_of, own_attention, spans, watchable
from clearhead.adapters.transformers.mask import Pattern, packed_ids
from clearhead.arrays import Array
from clearhead.errors import InputError
from clearhead.rules.masks import Causal, Window, conjunction
from clearhead.watched.records import MemoryLimitError, Record, in_bytes
from clearhead.watched.seen import Watch

CHECKED = 4  # rows of a prompt that the model's own attention computes too
EVERY = 64  # and one token in so many after it
PLAIN = ("float32", "float64")  # dtypes that are kept as they are


@contextmanager
def recording(model: Any, seen: Watch) -> Iterator[None]:
    """Let a model compute by clearhead, write down what it does, and put back what it had."""
    numbers: dict[Any, int] = watchable(model, seen.chosen_layers)
    before = [(config, config._attn_implementation_internal) for config in configs_of(model)]
    own = {id(config): name for config, name in before}
    listener = Listener(seen, numbers, {module: own.get(id(module.config)) for module in numbers})
    hooks = []
    model.set_attn_implementation(NAME)
    try:
        deaf = sorted({type(m).__name__ for m in numbers if m.config._attn_implementation != NAME})
        if deaf:
            raise InputError(f"{', '.join(deaf)} did not take attn_implementation='{NAME}': choose other layers.")
        for part in (module for module in model.modules() if isinstance(module, PreTrainedModel)):
            hooks.append(part.register_forward_pre_hook(listener.begins))
            hooks.append(part.register_forward_hook(listener.ends, always_call=True))
        listeners.append(listener)
        yield
    finally:
        if listener in listeners:
            listeners.remove(listener)
        for hook in hooks:
            hook.remove()
        if listener.running is not None:
            listener.forget()
        for config, name in before:
            config._attn_implementation_internal = name


@dataclass(eq=False)
class Listener:
    """One watch's ear at the adapter."""

    seen: Watch
    numbers: dict[torch.nn.Module, int]  # of the layers that are watched
    own: dict[torch.nn.Module, str | None]  # the attention that each had, which is trusted
    counts: dict[int, int] = field(default_factory=dict)  # tokens since a row was checked, by layer
    running: Any = None  # the model whose pass it is
    unsure: set[int] = field(default_factory=set)  # layers with a pass that has not come to its end

    def wants(self, module: torch.nn.Module) -> bool:
        """Whether a layer is watched."""
        return module in self.numbers

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def begins(self, model: Any, _: Any) -> None:
        """A model, or a model in a model, is called."""
        if self.running is model:  # its last pass was interrupted
            self.forget()
        if self.running is None or self.running is model:
            self.running = model
            self.unsure.clear()

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def ends(self, model: Any, _: Any, output: Any) -> None:
        """It has given an output, or failed."""
        if self.running is model:
            self.running = None
            if output is None:
                self.forget()
            self.unsure.clear()

    def __call__(self, call: Call) -> None:
        """Take in one layer's attention."""
        number = self.numbers[call.module]
        if number in self.unsure:  # the next pass
            self.unsure.clear()
        try:
            self.take(call, number)
        except BaseException:
            self.forget()
            raise

    def forget(self) -> None:
        """Leave no part of a pass behind."""
        run = self.seen.runs[-1] if self.seen.runs else {}
        for number in self.unsure & set(run):
            record = run[number]
            record.cut(record.complete_passes)
            if not record.passes:
                del run[number]
        if self.seen.runs and not run:
            self.seen.runs.pop()
        self.unsure.clear()
        self.seen.spent = self.seen.nbytes

    def take(self, call: Call, number: int) -> None:
        """Write down one layer's attention."""
        pattern = followed(call, number)
        record = self.record_for(call, pattern, number)
        record.complete_passes = len(record.passes)
        self.unsure.add(number)
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
        if record.passes:  # a sequence whose tokens begin with this pass
            found = zip(record.begins, begins_of(pattern), strict=True)
            record.begins = tuple(old if old < record.stop else new for old, new in found)
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
        runs[-1][number] = new_record(call, pattern, self.seen.chosen_heads, number, self.own[call.module])
        self.counts[number] = EVERY
        return runs[-1][number]

    def claim(self, more: int, record: Record, number: int) -> None:
        """Refuse what would take more memory than the watch was given."""
        layers, needed = [number], self.seen.spent + more
        if not record.passes:  # the same again for the layers that follow
            layers += [n for n in self.numbers.values() if n > number]
            needed += more * (len(layers) - 1)
        if needed > self.seen.memory:
            own = f"layer{'s' * (len(layers) > 1)} {spans(layers)}"
            raise MemoryLimitError(
                f"with {own} the watch would keep {in_bytes(needed)}, more than memory={self.seen.memory} "
                f"({in_bytes(self.seen.memory)}): choose layers=… or heads=…, or give more memory. What it kept of "
                "earlier passes stays.",
                needed,
            )
        self.seen.spent += more

    def note_own(self, call: Call, pattern: Pattern, record: Record, number: int) -> None:
        """Some rows as the model's own attention computes them: of a prompt a few, of later tokens now and then."""
        self.counts[number] += pattern.queries
        began = [begin - pattern.first_query for begin in record.begins if begin < record.stop]
        if self.counts[number] < EVERY or not began:
            return
        self.counts[number] = 0 if len(record.passes) > 1 else EVERY  # the first token after a prompt is checked too
        rows = np.unique(np.linspace(max(0, *began), pattern.queries - 1, CHECKED).astype(np.int64))
        output = own_output(call, pattern, rows, self.own[call.module])
        for n, row in enumerate(rows):
            record.rows.append(pattern.first_query + int(row))
            record.own.append(output[:, n, list(record.heads)])
            self.seen.spent += record.own[-1].nbytes


def followed(call: Call, number: int) -> Pattern:
    """The pattern of a layer that watch can follow: causal, perhaps a sliding window, padding on the left."""
    asked, pattern = call.asked, call.asked.pattern
    layer = f"layer {number} ({type(call.module).__name__})"
    if pattern is None or asked.hides is not None:
        raise refused(layer, "was given its mask as a table", "causal layers and sliding windows")
    if packed_ids(pattern.function) is not None:
        raise refused(layer, "has several documents in one sequence (position_ids begin anew)", "one in each row")
    known = all(
        isinstance(part, Causal) or (isinstance(part, Window) and part.right is None)
        for part in conjunction(pattern.rule(0))
    )
    if not known or not pattern.aligned:
        raise refused(layer, f"masks by {pattern.rule(0)!r}", "causal layers and sliding windows")
    if pattern.runs is None or any(begin < end != pattern.stop for begin, end in pattern.runs):
        raise refused(layer, "has padding behind or between tokens", "padding on the left (padding_side='left')")
    if asked.adds:
        raise refused(layer, "adds a position bias to its scores", "softcap alone")
    return pattern


def refused(layer: str, what: str, known: str) -> InputError:
    """Why a layer cannot be followed."""
    return InputError(
        f"{layer} {what}: watch knows {known}. Leave the layer out by layers=…, or look at it by "
        "output_attentions=True with attn_implementation='clearhead'."
    )


def begins_of(pattern: Pattern) -> tuple[int, ...]:
    """The position of each sequence's first token; behind all, where none has come yet."""
    return tuple(pattern.first_key + (begin if begin < end else pattern.stop) for begin, end in pattern.runs or ())


def new_record(call: Call, pattern: Pattern, chosen: tuple[int, ...] | None, number: int, before: str | None) -> Record:
    """An empty record with all that does not grow."""
    count = call.query.shape[1]
    heads = tuple(range(count)) if chosen is None else chosen
    if any(not 0 <= head < count for head in heads):
        raise InputError(f"layer {number} has no heads {list(heads)}: choose from 0 to {count - 1}.")
    kept = key_heads_of(call, heads)
    group = count // call.key.shape[1]
    windows = [part.left for part in conjunction(pattern.rule(0)) if isinstance(part, Window)]
    sink = call.asked.sink
    return Record(
        heads=heads,
        key_heads=tuple(kept.index(head // group) for head in heads),
        first_query=pattern.first_query,
        first_key=pattern.first_key,
        begins=begins_of(pattern),
        dtype=computed_in(*own_attention(call.module, before), call.query.dtype.name),
        scale=call.asked.scale,
        cap=None if call.asked.cap is None else float(call.asked.cap),
        left=min((left for left in windows if left is not None), default=None),
        sink=None
        if sink is None
        else sink.detach().to(torch.promote_types(sink.dtype, torch.float32)).numpy()[[*heads]],
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


def own_output(call: Call, pattern: Pattern, rows: Array, before: str | None) -> Array:
    """What a model's own attention gives for some queries: (batch, rows, heads, value dim).

    The mask is transformers' answer for these rows, so that a rule that clearhead has misread shows.
    """
    seen = pattern.row_seen(rows)
    query, key, value = call.tensors
    name, forward = own_attention(call.module, before)
    mask = seen
    if name == "eager":
        mask = torch.zeros(seen.shape, dtype=query.dtype).masked_fill(~seen, torch.finfo(query.dtype).min)
    options: dict[str, Any] = {name: x for name, x in call.given.items() if x is not None}
    heard, listeners[:] = listeners[:], []  # its attention may be built on clearhead's, and these rows are no pass
    try:
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
    finally:
        listeners[:] = heard
    return output.to(torch.float64 if output.dtype == torch.float64 else torch.float32).numpy()  # type: ignore[no-any-return]
