"""Record a transformers model's attention for `clearhead.watch`: each layer's calls become a `Record`.

Responsible for joining passes to runs, for the memory limit, for removing a failed pass, and for choosing the rows that
the model's own attention recomputes for the check. `layers` finds the layers, `watched` holds and shows records.
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

CHECKED_ROWS = 4  # rows of a prompt that the model's own attention also computes
CHECK_INTERVAL = 64  # after the prompt, one token in this many is checked
FULL_PRECISION = ("float32", "float64")  # dtypes that are recorded unchanged


@contextmanager
def recording(model: Any, seen: Watch) -> Iterator[None]:
    """Let clearhead compute a model's attention and record it; restore the model afterwards."""
    numbers: dict[Any, int] = watchable(model, seen.chosen_layers)
    before = [(config, config._attn_implementation_internal) for config in configs_of(model)]
    names = {id(config): name for config, name in before}
    listener = Listener(seen, numbers, {module: names.get(id(module.config)) for module in numbers})
    hooks = []
    model.set_attn_implementation(NAME)
    try:
        unchanged = sorted({type(m).__name__ for m in numbers if m.config._attn_implementation != NAME})
        if unchanged:
            raise InputError(f"{', '.join(unchanged)} did not take attn_implementation='{NAME}': choose other layers.")
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
    """Records the calls of watched layers."""

    seen: Watch
    numbers: dict[torch.nn.Module, int]  # of the watched layers
    own: dict[torch.nn.Module, str | None]  # the attention that each layer had before, which is trusted
    counts: dict[int, int] = field(default_factory=dict)  # tokens since the last checked row, by layer
    running: Any = None  # the model whose pass is running
    unsure: set[int] = field(default_factory=set)  # layers with an unfinished pass

    def wants(self, module: torch.nn.Module) -> bool:
        """Whether a layer is watched."""
        return module in self.numbers

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def begins(self, model: Any, _: Any) -> None:
        """A model, possibly inside another, starts a pass."""
        if self.running is model:  # the last pass was interrupted
            self.forget()
        if self.running is None or self.running is model:
            self.running = model
            self.unsure.clear()

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def ends(self, model: Any, _: Any, output: Any) -> None:
        """A model has returned an output, or failed."""
        if self.running is model:
            self.running = None
            if output is None:
                self.forget()
            self.unsure.clear()

    def __call__(self, call: Call) -> None:
        """Record one layer's call."""
        number = self.numbers[call.module]
        if number in self.unsure:  # a new pass has begun
            self.unsure.clear()
        try:
            self.take(call, number)
        except BaseException:
            self.forget()
            raise

    def forget(self) -> None:
        """Remove what an unfinished pass recorded."""
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
        """Add one layer's call to its record."""
        pattern = supported_pattern(call, number)
        record = self.record_for(call, pattern, number)
        record.complete_passes = len(record.passes)
        self.unsure.add(number)
        heads, key_heads = list(record.heads), key_heads_of(call, record.heads)
        new = pattern.queries if record.passes else pattern.stop
        check_unchanged(record, call, pattern, number, key_heads)
        parts = {
            "query": copied(call.query[:, heads]),
            "key": copied(call.key[:, key_heads, -new:]),
            "value": copied(call.value[:, key_heads, -new:]),
            "lse": call.lse[:, heads],
        }
        self.claim(sum(part.nbytes for part in parts.values()), record, number)
        if record.passes:  # for sequences whose tokens begin in this pass
            pairs = zip(record.begins, begins_of(pattern), strict=True)
            record.begins = tuple(old if old < record.stop else new for old, new in pairs)
        for name, part in parts.items():
            getattr(record, name).append(part)
        record.passes.append(pattern.queries)
        record.trusted = False
        self.note_own(call, pattern, record, number)

    def record_for(self, call: Call, pattern: Pattern, number: int) -> Record:
        """The record that this pass continues, or a new one."""
        runs = self.seen.runs
        if runs and number in runs[-1] and runs[-1][number].stop == pattern.first_query:
            return runs[-1][number]
        if runs and number in runs[-1] and pattern.first_query:
            raise InputError(
                f"layer {number} continues at position {pattern.first_query}, but was recorded up to "
                f"{runs[-1][number].stop}: watch supports greedy and sampled text, not caches that are cut back."
            )
        if not runs or number in runs[-1]:
            runs.append({})
        runs[-1][number] = new_record(call, pattern, self.seen.chosen_heads, number, self.own[call.module])
        self.counts[number] = CHECK_INTERVAL
        return runs[-1][number]

    def claim(self, size: int, record: Record, number: int) -> None:
        """Reserve memory, or raise MemoryLimitError."""
        layers, needed = [number], self.seen.spent + size
        if not record.passes:  # later layers will need as much
            layers += [n for n in self.numbers.values() if n > number]
            needed += size * (len(layers) - 1)
        if needed > self.seen.memory:
            names = f"layer{'s' * (len(layers) > 1)} {spans(layers)}"
            raise MemoryLimitError(
                f"with {names} the watch would hold {in_bytes(needed)}, more than memory={self.seen.memory} "
                f"({in_bytes(self.seen.memory)}): choose layers=… or heads=…, or give more memory. Its records of "
                "earlier passes stay.",
                needed,
            )
        self.seen.spent += size

    def note_own(self, call: Call, pattern: Pattern, record: Record, number: int) -> None:
        """Add rows from the model's own attention: a few of a prompt, later one now and then."""
        self.counts[number] += pattern.queries
        began = [begin - pattern.first_query for begin in record.begins if begin < record.stop]
        if self.counts[number] < CHECK_INTERVAL or not began:
            return
        self.counts[number] = (
            0 if len(record.passes) > 1 else CHECK_INTERVAL
        )  # the first token after a prompt is also checked
        rows = np.unique(np.linspace(max(0, *began), pattern.queries - 1, CHECKED_ROWS).astype(np.int64))
        output = own_output(call, pattern, rows, self.own[call.module])
        for n, row in enumerate(rows):
            record.rows.append(pattern.first_query + int(row))
            record.own.append(output[:, n, list(record.heads)])
            self.seen.spent += record.own[-1].nbytes


def supported_pattern(call: Call, number: int) -> Pattern:
    """The pattern of a layer that watch supports: causal or sliding window, padding on the left."""
    problem, pattern = call.problem, call.problem.pattern
    layer = f"layer {number} ({type(call.module).__name__})"
    if pattern is None or problem.hides is not None:
        raise unsupported_layer(layer, "has a mask given as a table", "causal layers and sliding windows")
    if packed_ids(pattern.function) is not None:
        raise unsupported_layer(
            layer, "has several documents in one sequence (position_ids restart)", "one in each row"
        )
    known = all(
        isinstance(part, Causal) or (isinstance(part, Window) and part.right is None)
        for part in conjunction(pattern.rule(0))
    )
    if not known or not pattern.aligned:
        raise unsupported_layer(layer, f"masks by {pattern.rule(0)!r}", "causal layers and sliding windows")
    if pattern.runs is None or any(begin < end != pattern.stop for begin, end in pattern.runs):
        raise unsupported_layer(
            layer, "has padding after or between tokens", "padding on the left (padding_side='left')"
        )
    if problem.adds:
        raise unsupported_layer(layer, "adds a position bias to its scores", "only softcap")
    return pattern


def unsupported_layer(layer: str, what: str, known: str) -> InputError:
    """The error for a layer that watch does not support."""
    return InputError(
        f"{layer} {what}: watch supports {known}. Leave the layer out with layers=…, or read it from "
        "output_attentions=True with attn_implementation='clearhead'."
    )


def begins_of(pattern: Pattern) -> tuple[int, ...]:
    """The position of each sequence's first token, or the end if it has no token yet."""
    return tuple(pattern.first_key + (begin if begin < end else pattern.stop) for begin, end in pattern.runs or ())


def new_record(call: Call, pattern: Pattern, chosen: tuple[int, ...] | None, number: int, before: str | None) -> Record:
    """An empty record with everything except the growing arrays."""
    count = call.query.shape[1]
    heads = tuple(range(count)) if chosen is None else chosen
    if any(not 0 <= head < count for head in heads):
        raise InputError(f"layer {number} has no heads {list(heads)}: choose from 0 to {count - 1}.")
    key_heads = key_heads_of(call, heads)
    group = count // call.key.shape[1]
    windows = [part.left for part in conjunction(pattern.rule(0)) if isinstance(part, Window)]
    sink = call.problem.sink
    return Record(
        heads=heads,
        key_heads=tuple(key_heads.index(head // group) for head in heads),
        first_query=pattern.first_query,
        first_key=pattern.first_key,
        begins=begins_of(pattern),
        dtype=computed_in(*own_attention(call.module, before), call.query.dtype.name),
        scale=call.problem.scale,
        cap=None if call.problem.cap is None else float(call.problem.cap),
        left=min((left for left in windows if left is not None), default=None),
        sink=None
        if sink is None
        else sink.detach().to(torch.promote_types(sink.dtype, torch.float32)).numpy()[[*heads]],
    )


def key_heads_of(call: Call, heads: tuple[int, ...]) -> list[int]:
    """The key heads that query heads use."""
    group = call.query.shape[1] // call.key.shape[1]
    return sorted({head // group for head in heads})


def check_unchanged(record: Record, call: Call, pattern: Pattern, number: int, key_heads: list[int]) -> None:
    """Check that the key before the new ones is the last recorded one; beam search, for instance, reorders a cache."""
    if not record.passes or call.key.shape[2] <= pattern.queries:
        return
    before = call.key[:, key_heads, -pattern.queries - 1]
    if before.shape != record.key[-1][:, :, -1].shape or not np.array_equal(before, record.key[-1][:, :, -1]):
        raise InputError(
            f"layer {number}: the cache was changed between two steps, as beam search does: watch supports greedy and "
            "sampled text."
        )


def copied(array: Array) -> Array:
    """A copy, with 16-bit numbers converted exactly to float32."""
    return np.array(array, order="C") if array.dtype.name in FULL_PRECISION else array.astype(np.float32)


def own_output(call: Call, pattern: Pattern, rows: Array, before: str | None) -> Array:
    """The output of the model's own attention for some queries: (batch, rows, heads, value dim).

    The mask comes from transformers, which reveals any rule that clearhead has mistranslated.
    """
    seen = pattern.row_seen(rows)
    query, key, value = call.tensors
    name, forward = own_attention(call.module, before)
    mask = seen
    if name == "eager":
        mask = torch.zeros(seen.shape, dtype=query.dtype).masked_fill(~seen, torch.finfo(query.dtype).min)
    options: dict[str, Any] = {name: x for name, x in call.options.items() if x is not None}
    others, listeners[:] = listeners[:], []  # if that attention calls clearhead, it must not be recorded
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
        listeners[:] = others
    return output.to(torch.float64 if output.dtype == torch.float64 else torch.float32).numpy()  # type: ignore[no-any-return]
