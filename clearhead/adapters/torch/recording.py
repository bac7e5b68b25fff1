"""Record a PyTorch model's attention for `clearhead.watch`: each call of a layer becomes a pass of a `Record`.

The model computes everything itself. A pass of the model gives each layer a `Pass` of its own; a *place* is a layer's
part and number, a *run* the passes over one text. Responsible for telling which run and place a call belongs to, for
the memory limit, and for taking back a pass that failed. `pass_hooks` tells where passes begin and end, `reading` turns
a call into arrays, `watched` holds and shows them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from clearhead.adapters.torch.attention_layers import AttentionLayer, layers_like, spans
from clearhead.adapters.torch.calls import Answer, AttentionCall
from clearhead.adapters.torch.patches import Patches
from clearhead.adapters.torch.reading import (
    added_of,
    chosen,
    fingerprints,
    host_copy,
    numbers_of,
    refuse_without_numbers,
    sample,
    score_rules,
    sink_of,
    visible_of,
)
from clearhead.adapters.torch.remembered import remembered
from clearhead.arrays import Integers
from clearhead.errors import InputError
from clearhead.watched.added import refuse_rules
from clearhead.watched.lineage import Continuation, continuation, near_continuation
from clearhead.watched.records import MemoryLimitError, Pass, Record, in_bytes
from clearhead.watched.run import Run
from clearhead.watched.seen import Watch
from clearhead.watched.visible import Visible, with_tokens

NEAR = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 3e-2}  # of keys that are computed anew each pass
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
    model: torch.nn.Module | None = None
    modules: frozenset[torch.nn.Module] = frozenset()  # of the model
    patches: Patches = field(default_factory=Patches)
    entries: dict[torch.nn.Module, int] = field(default_factory=dict)  # how often each layer was entered in this pass
    calls: dict[torch.nn.Module, int] = field(default_factory=dict)  # of attention, since each layer's latest entry
    since_checked: dict[tuple[str, int], int] = field(
        default_factory=dict
    )  # queries since the last checked one, by place
    running: Any = None  # the module whose pass is running
    passes: int = 0  # of the whole model
    all_calls: int = 0  # of all its layers
    passes_before: dict[tuple[str, int], int] = field(
        default_factory=dict
    )  # each place's, before the one that is running
    fed: list[torch.Tensor] = field(default_factory=list)  # tokens that were fed in, the latest last
    padding_masks: list[torch.Tensor] = field(default_factory=list)  # that the model was given, the latest last

    def wants(self, module: torch.nn.Module) -> bool:
        """Whether a module is one of the model's layers; one that its code did not tell becomes one."""
        if module not in self.layers and module in self.modules and self.model is not None:
            found = layers_like(self.model, module, list(self.layers.values()))
            self.layers |= {layer.module: layer for layer in found}
        return module in self.layers

    def answer(self, call: AttentionCall, compute: Callable[[], Answer]) -> Answer:
        """The model's own answer, after recording the call."""
        answer = compute()
        self.all_calls += 1
        if self.seen.stopped or recomputing() or call.is_empty:
            return answer
        place, nth = self.place_of(call)
        if not self.chosen(*place):
            return answer
        try:
            with torch.no_grad():  # nothing is saved for gradients that a checkpointed layer would not save again
                if not (nth and self.extend(call, answer, place)):
                    self.take(call, answer, place if not nth else (f"{place[0]} {nth + 1}", place[1]))
        except BaseException:
            self.undo_pass()
            raise
        return answer

    def place_of(self, call: AttentionCall) -> tuple[tuple[str, int], int]:
        """The part and the number of the layer that calls, and how many calls it made before since it was entered.

        A module that is entered again in the same pass (ALBERT's one layer, twelve times) is the next layer each time:
        its numbers go on after those of all its part. Without a hook (torch's fused layers) each call is an entry.
        """
        module, layer = call.module, self.layers[call.module]
        if self.running is None and not self.entries.get(module) and module in self.calls:
            self.count_anew()  # the layer alone was called, once more: a pass of its own
        nth = self.calls.get(module, 0)
        self.calls[module] = nth + 1
        entries = self.entries.get(module)
        turn, nth = (nth, 0) if entries is None else (entries - 1, nth)
        count = sum(other.part == layer.part for other in self.layers.values())
        return (layer.part, layer.number + turn * count), nth

    # Passes of the model, and of its layers

    def enters(self, module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        """A layer starts; it may call attention several times."""
        if recomputing():
            return
        if self.running is None and module in self.entries:  # called by itself, once more
            self.count_anew()
        self.entries[module] = self.entries.get(module, 0) + 1
        self.calls[module] = 0

    def count_anew(self) -> None:
        """Start counting the calls of a pass, which keeps what the pass before it recorded."""
        self.calls.clear()
        self.entries.clear()
        self.passes_before.clear()

    def begins(self, module: torch.nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        """A module, possibly inside another, starts a pass."""
        for x in (*args[:1], *(x for name, x in options.items() if name.endswith("input_ids"))):
            if isinstance(x, torch.Tensor) and x.dim() == 2 and x.dtype in (torch.int64, torch.int32):
                self.fed = [*self.fed[-3:], x]
        for name, x in options.items():
            if name.endswith("attention_mask") and isinstance(x, torch.Tensor) and x.dim() == 2:
                self.padding_masks = [*self.padding_masks[-3:], x]
        if self.running is module:  # the last pass was interrupted
            self.undo_pass()
        if self.running is None or self.running is module:
            self.running = module
            self.count_anew()

    def ends(self, module: torch.nn.Module, args: tuple[Any, ...], options: dict[str, Any], output: Any) -> None:
        """A module has returned an output, or failed."""
        if self.running is not module:
            return
        self.running = None
        self.passes += 1
        if output is None:
            self.undo_pass()
        self.count_anew()

    def undo_pass(self) -> None:
        """Remove what an unfinished pass recorded."""
        run = self.seen.runs[-1] if self.seen.runs else Run()
        for place, passes in self.passes_before.items():
            record = run.records.get(place)
            if record is not None:
                record.cut(passes)
                if not record.passes:
                    del run.records[place]
        if self.seen.runs and not run.records:
            self.seen.runs.pop()
        self.passes_before.clear()
        self.seen.spent = self.seen.nbytes

    def parts(self) -> list[str]:
        """The names of the model's parts."""
        return list(dict.fromkeys(layer.part for layer in self.layers.values()))

    def let_go(self) -> None:
        """Drop what only a further pass would need: the tensors that are where the model's are."""
        for run in self.seen.runs:
            for record in run.records.values():
                record.sample = None

    def finish(self, name: str) -> None:
        """Give tokens their text at the end of the block; raises InputError if the model ran and nothing was seen."""
        if self.passes and not self.all_calls:
            raise InputError(
                f"{name} ran, but called none of the functions whose attention can be seen. Some choose by a setting: "
                "load it with attn_implementation='sdpa', or leave torch.jit and torch.compile(fullgraph=True) out."
            )
        layers = self.layers.values()
        if self.all_calls and not any(self.chosen(layer.part, layer.number) for layer in layers):
            parts = {part: spans(sorted(x.number for x in layers if x.part == part)) for part in self.parts()}
            known = "; ".join(f"{part} {numbers}" for part, numbers in parts.items())
            raise InputError(f"{name} ran, but none of the chosen layers is among those that it has: {known}.")
        for run in self.seen.runs:
            run.grids = {part: grid for part, grid in run.grids.items() if run.has_grid(part, grid)}
            if self.tokenizer is not None:
                run.names = {number: str(self.tokenizer.decode([number])) for number in run.token_numbers()}

    # One call

    def latest(self, place: tuple[str, int]) -> Record | None:
        """The record of a place in the latest run, if it has one."""
        return self.seen.runs[-1].records.get(place) if self.seen.runs else None

    def take(self, call: AttentionCall, answer: Answer, place: tuple[str, int]) -> None:
        """Add a call to its layer's record."""
        refuse_without_numbers(call)
        visible, keys = visible_of(call)
        queries = call.query.shape[2]
        record = self.latest(place)
        prints, continues = None, None
        if record is not None or call.key.shape[2] != queries:
            prints = fingerprints(call.key)
        if record is not None and prints is not None:
            # `keys` ends at the last key that anybody sees. More may be there, as padding on the right that this pass
            # adds; or fewer than usual, as in a cache with free room or one that let keys go. The longer guess first.
            usual = min(call.key.shape[2], record.passes[-1].keys + queries)
            for count in dict.fromkeys((max(keys, usual), keys)):
                continues = self.continued(record, prints[:, :count], queries, call.key[:, :, :count])
                if continues is not None:
                    keys = count
                    break
        key, value = call.key[:, :, :keys], call.value[:, :, :keys]
        visible = self.with_padding(
            visible, call.query.shape[0], keys, None if continues is None else record, continues
        )
        prints = None if prints is None else prints[:, :keys]
        if record is None or continues is None:
            record = self.begun(call, place, keys)
            prints = fingerprints(key) if prints is None else prints
        if continues is not None and record.rules:
            raise refuse_rules(f"layer {place[1]} of {place[0]}")
        new = keys - (0 if continues is None else continues.known)
        self.add(
            call, answer, place, record, visible, key[:, :, keys - new :], value[:, :, keys - new :], prints, continues
        )
        record.sample = sample(key)

    def extend(self, call: AttentionCall, answer: Answer, place: tuple[str, int]) -> bool:
        """Join a layer's further call to its last pass, if each looks at its own piece of a text or of images."""
        record = self.latest(place)
        length = call.query.shape[2]
        bare = call.visibility.is_band and call.visibility.causal is None and call.visibility.left is None
        if record is None or not bare or call.adds or call.key.shape[2] != length or not record.passes:
            return False
        last = record.passes[-1]
        if last.continues is not None or last.sequences != call.query.shape[0] or last.visible.tokens is not None:
            return False
        if last.queries != last.keys or last.visible.bits is not None or call.scale != record.scale:
            return False
        visible, _ = visible_of(call)
        self.add(call, answer, place, record, visible, call.key, call.value, fingerprints(call.key), None)
        if len(record.passes) > 1 and record.passes[-2] is last:
            record.join_last()
        return True

    def with_padding(
        self, visible: Visible, batch: int, keys: int, before: Record | None, continues: Continuation | None
    ) -> Visible:
        """What a pass sees, with padding told from tokens that merely no query of this pass sees.

        Keys of the pass before are what they were; new ones are padding where nobody sees them and the model's mask of
        padding, if it was given one, says so.
        """
        if visible.tokens is None and (before is None or before.tokens[-1] is None):
            return visible
        tokens = np.ones((batch, keys), bool)
        if visible.tokens is not None:
            looked_at = np.zeros((len(visible.tokens), keys), bool)  # by any query of this pass
            looked_at[:, : visible.tokens.shape[1]] = visible.tokens[:, :keys]
            visible = replace(visible, tokens=looked_at)
            mask = self.padding_mask(batch, keys)
            # Without the model's mask, intervals tell padding (causal queries see all tokens); a table of bits does
            # not, for it may hide a token from everybody: then every key counts as a token.
            unseen_tokens = mask if mask is not None else visible.bits is not None
            tokens = np.broadcast_to(looked_at | unseen_tokens, (batch, keys)).copy()
        if before is not None and continues is not None and before.tokens[-1] is not None:
            old = before.tokens[-1]
            for row, (parent, kept) in enumerate(zip(continues.parents, continues.kept, strict=True)):
                tokens[row, : continues.known] = old[parent][kept]
        return with_tokens(visible, keys, tokens)

    def continued(self, record: Record, prints: Integers, queries: int, key: torch.Tensor) -> Continuation | None:
        """How a call continues its layer's last pass."""
        before, old, share = record.prints[-1], record.sample, NEAR.get(key.dtype, 0.0)
        found = None if before is None else continuation(before, prints, queries)
        if found is None and old is not None and share and old.shape[1] == key.shape[1]:
            found = near_continuation(numbers_of(old), numbers_of(sample(key)), queries, share)
        return found

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
        record = Record(
            heads=heads,
            key_heads=shared_heads(heads, count // key_count)[1],
            count=count,
            dtype=call.computed,
            scale=call.scale,
            cap=call.cap,
            sink=sink_of(call, heads),
            rules=score_rules(call),
            card=call.query.device.index if call.query.is_cuda else None,
            crosses=self.layers[call.module].part == "cross",
        )
        runs[-1].records[place] = record
        grid = self.patches.grid_of(place[0], self.layers.values())
        if grid is not None:
            runs[-1].grids.setdefault(place[0], grid)
        self.passes_before.setdefault(place, 0)
        self.since_checked[place] = CHECK_INTERVAL
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
        heads = list(record.heads)
        used, _ = shared_heads(heads, count // call.key.shape[1])
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
            self.passes_before.setdefault(place, len(record.passes))
            record.add(one, {name: host_copy(x) for name, x in tensors.items()}, prints)

    def ids_for(self, batch: int, queries: int) -> Any:
        """The tokens that were fed in, if some of this shape were."""
        for x in reversed(self.fed):
            if x.shape == (batch, queries):
                return remembered(x, "tokens", partial(host_copy, x))
        return None

    def padding_mask(self, batch: int, keys: int) -> Any:
        """The mask of padding that the model was given for so many keys, if it was: no table tells it for sure."""
        for x in reversed(self.padding_masks):
            if x.shape == (batch, keys):
                return x.bool().cpu().numpy()
        return None

    def checked_rows(
        self, place: tuple[str, int], queries: int, visible: Any, record: Record, call: AttentionCall
    ) -> tuple[int, ...]:
        """The queries whose own output is kept: a few of a prompt, later one now and then."""
        self.since_checked[place] = self.since_checked.get(place, CHECK_INTERVAL) + queries
        if self.since_checked[place] < CHECK_INTERVAL or call.dropout:
            return ()
        self.since_checked[place] = (
            0 if record.passes else CHECK_INTERVAL
        )  # the first token after a prompt is also checked
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
        self.undo_pass()
        self.seen.stopped = (
            f"{limit} was reached after {passes} passes; these are kept, and the model goes on unwatched"
        )
        warnings.warn(
            f"the watch stopped: {self.seen.stopped}. Choose layers=… or heads=…, or give more memory.", stacklevel=2
        )
        return False


def shared_heads(heads: Sequence[int], group: int) -> tuple[list[int], tuple[int, ...]]:
    """The key heads that some heads use, `group` heads each, and for each of these heads its key head's place there."""
    used = sorted({head // group for head in heads})
    return used, tuple(used.index(head // group) for head in heads)


def recomputing() -> bool:
    """Whether gradients are being computed, for which checkpointed layers run once more."""
    return torch._C._current_graph_task_id() != -1
