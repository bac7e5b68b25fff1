"""Record a PyTorch model's attention for `clearhead.watch`: each call of a layer becomes a pass of a `Record`.

The model computes everything itself. Responsible for joining passes to runs, for the memory limit, and for removing a
failed pass. `reading` turns a call into arrays, `watched` holds and shows them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from clearhead.adapters.torch.attention_layers import AttentionLayer, spans
from clearhead.adapters.torch.calls import Answer, AttentionCall
from clearhead.adapters.torch.reading import (
    added_of,
    chosen,
    fingerprints,
    host_copy,
    refuse_without_numbers,
    score_rules,
    sink_of,
    visible_of,
)
from clearhead.adapters.torch.remembered import remembered
from clearhead.arrays import Integers
from clearhead.errors import InputError
from clearhead.watched.added import refuse_rules
from clearhead.watched.lineage import Continuation, continuation
from clearhead.watched.records import MemoryLimitError, Pass, Record, in_bytes
from clearhead.watched.run import Run
from clearhead.watched.seen import Watch

CHECKED_ROWS = 4  # rows of a prompt whose own output is kept
CHECK_INTERVAL = 64  # after the prompt, that of one token in this many


@dataclass(eq=False)
class Recorder:
    """The handler of a watch: lets the model compute, and records."""

    seen: Watch
    layers: dict[torch.nn.Module, AttentionLayer]  # all of the model's, chosen or not
    chosen: Callable[[str, int], bool]  # a part and a number
    heads: tuple[int, ...] | None
    tokenizer: Any = None
    calls: dict[torch.nn.Module, int] = field(default_factory=dict)  # of each layer in this pass
    counts: dict[tuple[str, int], int] = field(default_factory=dict)  # tokens since the last checked row
    running: Any = None  # the module whose pass is running
    passes: int = 0  # of the whole model
    all_calls: int = 0  # of all its layers
    unsure: dict[tuple[str, int], int] = field(default_factory=dict)  # passes that layers had before this one
    fed: list[torch.Tensor] = field(default_factory=list)  # tokens that were fed in, the latest last

    def wants(self, module: torch.nn.Module) -> bool:
        """Whether a module is one of the model's layers."""
        return module in self.layers

    def answer(self, call: AttentionCall, compute: Callable[[], Answer]) -> Answer:
        """The model's own answer, after recording the call."""
        answer = compute()
        layer = self.layers[call.module]
        turn = self.calls.get(call.module, 0)
        self.calls[call.module] = turn + 1
        self.all_calls += 1
        count = sum(other.part == layer.part for other in self.layers.values())
        place = layer.part, layer.number + turn * count
        if self.seen.stopped or not self.chosen(*place):
            return answer
        try:
            self.take(call, answer, place)
        except BaseException:
            self.forget()
            raise
        return answer

    # Passes of the model

    def begins(self, module: torch.nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        """A module, possibly inside another, starts a pass."""
        for x in (*args[:1], *(x for name, x in options.items() if name.endswith("input_ids"))):
            if isinstance(x, torch.Tensor) and x.dim() == 2 and x.dtype in (torch.int64, torch.int32):
                self.fed = [*self.fed[-3:], x]
        if self.running is module:  # the last pass was interrupted
            self.forget()
        if self.running is None or self.running is module:
            self.running = module
            self.calls.clear()
            self.unsure.clear()

    def ends(self, module: torch.nn.Module, args: tuple[Any, ...], options: dict[str, Any], output: Any) -> None:
        """A module has returned an output, or failed."""
        if self.running is not module:
            return
        self.running = None
        self.passes += 1
        self.calls.clear()
        if output is None:
            self.forget()
        self.unsure.clear()

    def forget(self) -> None:
        """Remove what an unfinished pass recorded."""
        run = self.seen.runs[-1] if self.seen.runs else Run()
        for place, passes in self.unsure.items():
            record = run.records.get(place)
            if record is not None:
                record.cut(passes)
                if not record.passes:
                    del run.records[place]
        if self.seen.runs and not run.records:
            self.seen.runs.pop()
        self.unsure.clear()
        self.seen.spent = self.seen.nbytes

    def finish(self, name: str) -> None:
        """Give tokens their text at the end of the block; raises InputError if the model ran and nothing was seen."""
        if self.passes and not self.all_calls:
            raise InputError(
                f"{name} ran, but called none of the functions whose attention can be seen. Some choose by a setting: "
                "load it with attn_implementation='sdpa', or leave torch.jit and torch.compile(fullgraph=True) out."
            )

    # One call

    def take(self, call: AttentionCall, answer: Answer, place: tuple[str, int]) -> None:
        """Add a call to its layer's record."""
        refuse_without_numbers(call)
        visible, keys = visible_of(call)
        key, value = call.key[:, :, :keys], call.value[:, :, :keys]
        queries = call.query.shape[2]
        run = self.seen.runs[-1] if self.seen.runs else None
        record = run.records.get(place) if run is not None else None
        prints, continues = None, None
        if record is not None or keys != queries:
            prints = fingerprints(key)
        if record is not None and prints is not None:
            continues = self.continued(record, prints, queries)
        if record is None or continues is None:
            record = self.begun(call, place, keys)
            prints = fingerprints(key) if prints is None else prints
        if continues is not None and record.rules:
            raise refuse_rules(f"layer {place[1]} of {place[0]}")
        new = keys - (0 if continues is None else continues.known)
        self.add(
            call, answer, place, record, visible, key[:, :, keys - new :], value[:, :, keys - new :], prints, continues
        )

    def continued(self, record: Record, prints: Integers, queries: int) -> Continuation | None:
        """How a call continues its layer's last pass."""
        before = record.prints[-1]
        return None if before is None else continuation(before, prints, queries)

    def begun(self, call: AttentionCall, place: tuple[str, int], keys: int) -> Record:
        """A new record, in a new run if the latest one has this layer already."""
        runs = self.seen.runs
        if not runs or place in runs[-1].records:
            runs.append(Run())
        count, key_count = call.query.shape[1], call.key.shape[1]
        heads = tuple(range(count)) if self.heads is None else self.heads
        if any(not 0 <= head < count for head in heads):
            raise InputError(
                f"layer {place[1]} of {place[0]} has no heads {list(heads)}: choose from 0 to {count - 1}."
            )
        group = count // key_count
        used = sorted({head // group for head in heads})
        record = Record(
            heads=heads,
            key_heads=tuple(used.index(head // group) for head in heads),
            count=count,
            dtype=call.computed,
            scale=call.scale,
            cap=call.cap,
            sink=sink_of(call, heads),
            rules=score_rules(call),
        )
        runs[-1].records[place] = record
        self.unsure.setdefault(place, 0)
        self.counts[place] = CHECK_INTERVAL
        return record

    def add(
        self,
        call: AttentionCall,
        answer: Answer,
        place: tuple[str, int],
        record: Record,
        visible: Any,
        key: torch.Tensor,
        value: torch.Tensor,
        prints: Integers | None,
        continues: Continuation | None,
    ) -> None:
        """Copy what is new to the host, within the memory limit, and add it as a pass."""
        batch, count, queries, _ = call.query.shape
        group = count // call.key.shape[1]
        used = sorted({head // group for head in record.heads})
        heads = list(record.heads)
        tensors = {"query": chosen(call.query, 1, heads), "key": chosen(key, 1, used), "value": chosen(value, 1, used)}
        checked = self.checked_rows(place, queries, visible, record, call)
        output = chosen(chosen(answer.output, 2, checked), 1, heads) if checked else None
        keys = key.shape[2] + (0 if continues is None else continues.known)
        one = Pass(
            batch,
            queries,
            keys,
            key.shape[2],
            continues,
            visible,
            added_of(call, heads, keys),
            self.ids_for(batch, queries),
            checked,
            None if output is None else host_copy(output, exact=True),
            tuple(answer.changes),
        )
        size = sum(x.numel() * x.element_size() for x in tensors.values()) + one.nbytes
        if self.claim(size, place, record):
            self.unsure.setdefault(place, len(record.passes))
            record.add(one, {name: host_copy(x) for name, x in tensors.items()}, prints)

    def ids_for(self, batch: int, queries: int) -> Any:
        """The tokens that were fed in, if some of this shape were."""
        for x in reversed(self.fed):
            if x.shape == (batch, queries):
                return remembered(x, "tokens", partial(host_copy, x))
        return None

    def checked_rows(
        self, place: tuple[str, int], queries: int, visible: Any, record: Record, call: AttentionCall
    ) -> tuple[int, ...]:
        """The queries whose own output is kept: a few of a prompt, later one now and then."""
        self.counts[place] = self.counts.get(place, CHECK_INTERVAL) + queries
        if self.counts[place] < CHECK_INTERVAL or call.dropout:
            return ()
        self.counts[place] = 0 if record.passes else CHECK_INTERVAL  # the first token after a prompt is also checked
        first, last = 0, [queries - 1]
        tokens = visible.tokens
        if tokens is not None and tokens.shape[1] >= queries:
            own = tokens[:, tokens.shape[1] - queries :]
            there = own.any(axis=1)
            if there.any():
                first = int(own[there].argmax(axis=1).max())
                last = (queries - 1 - own[there, ::-1].argmax(axis=1)).tolist()
        rows = np.linspace(min(first, queries - 1), queries - 1, CHECKED_ROWS).astype(np.int64)
        return tuple(sorted({*rows.tolist(), *last}))

    def claim(self, size: int, place: tuple[str, int], record: Record) -> bool:
        """Reserve memory. A text that does not fit raises MemoryLimitError; later, recording stops."""
        part, number = place
        later = [x.number for x in self.layers.values() if x.part == part and x.number > number]
        layers = [number, *(n for n in later if not record.passes and self.chosen(part, n))]
        needed = self.seen.spent + size * len(layers)
        if needed <= self.seen.memory:
            self.seen.spent += size
            return True
        names = f"layer{'s' * (len(layers) > 1)} {spans(layers)}"
        limit = f"memory={self.seen.memory} ({in_bytes(self.seen.memory)})"
        if not record.passes:
            raise MemoryLimitError(
                f"with {names} of {part} the watch would hold {in_bytes(needed)}, more than {limit}: choose layers=… "
                "or heads=…, or give more memory. Its records of earlier passes stay.",
                needed,
            )
        passes = len(record.passes)
        self.forget()
        self.seen.stopped = (
            f"{limit} was reached after {passes} passes; these are kept, and the model goes on unwatched"
        )
        warnings.warn(
            f"the watch stopped: {self.seen.stopped}. Choose layers=… or heads=…, or give more memory.", stacklevel=2
        )
        return False


def of_heads(x: torch.Tensor, heads: list[int]) -> torch.Tensor:
    """Some heads of (batch, heads, …); a view if they are neighbours."""
    first, last = heads[0], heads[-1]
    return x[:, first : last + 1] if heads == list(range(first, last + 1)) else x[:, heads]


@contextmanager
def passes_of(model: torch.nn.Module, recorder: Recorder) -> Iterator[None]:
    """Tell a recorder where each pass of a model, or of a model inside it, begins and ends."""
    hooks = []
    fused = torch.nn.TransformerEncoderLayer, torch.nn.MultiheadAttention  # hooks would turn their fast paths off
    for module in model.modules():
        whole = any(base.__name__ == "PreTrainedModel" for base in type(module).__mro__)
        if (module is model or whole) and not isinstance(module, fused):
            hooks.append(module.register_forward_pre_hook(recorder.begins, with_kwargs=True))
            hooks.append(module.register_forward_hook(recorder.ends, with_kwargs=True, always_call=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        if recorder.running is not None:
            recorder.forget()
