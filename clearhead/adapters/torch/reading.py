"""Read an attention call as arrays on the host: what is copied, who sees whom, what is added to scores.

Responsible for copies from other devices, which do not wait, and for compact forms of masks and biases, found on the
model's device. `watched` defines these forms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor

from clearhead.adapters.torch.calls import AttentionCall
from clearhead.adapters.torch.dispatch import is_batched, is_wrapped, needs_operators
from clearhead.adapters.torch.flex import float_formula
from clearhead.adapters.torch.host import array_view
from clearhead.adapters.torch.remembered import remembered
from clearhead.adapters.torch.rule_names import join_rule
from clearhead.adapters.torch.trace import trace_torch_function
from clearhead.arrays import Array, Integers
from clearhead.errors import InputError
from clearhead.rules.scores import Score
from clearhead.rules.spans import POSITIONS
from clearhead.watched.added import Added
from clearhead.watched.growing import Arriving
from clearhead.watched.visible import Visible, visible_band, within_tokens

PAIRS_AT_ONCE = 1 << 24  # of a mask that is computed row by row
FINGERPRINT_DIMS = 4  # numbers of each head, at least, that a key is recognised by
OVERLAPPING = ("cuda", "xpu")  # devices that copy to pinned memory while they compute


def refuse_without_numbers(call: AttentionCall) -> None:
    """Raise InputError for a call whose operands hold no numbers, or those of several at once."""
    x = call.query
    unreal = x.is_meta or isinstance(x, FakeTensor) or is_batched(x) or is_wrapped(x)
    if unreal or needs_operators() or torch._C._are_functorch_transforms_active():
        raise InputError(
            f"{type(call.module).__name__} is traced, mapped or run without data, but a watch records data: call the "
            "model itself inside the with block."
        )


# Copies


@dataclass(eq=False)
class DeviceCopy:
    """A copy on its way from a device."""

    tensor: torch.Tensor  # in host memory
    event: Any  # recorded after the copy

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return self.tensor.numel() * self.tensor.element_size()

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        return tuple(self.tensor.shape)

    def arrived(self) -> Array:
        """The array, after waiting for the copy."""
        if self.event is not None:
            self.event.synchronize()
        return array_view(self.tensor)


def host_copy(x: torch.Tensor, *, exact: bool = False) -> Array | Arriving:
    """A copy of a tensor in host memory, without waiting for it where a device can go on; 16-bit unless `exact`."""
    x = x.detach()
    if exact and x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    if x.is_cpu:
        return array_view(x.clone(memory_format=torch.contiguous_format))
    waits = x.device.type not in OVERLAPPING
    target = torch.empty(x.shape, dtype=x.dtype, pin_memory=not waits)
    target.copy_(x, non_blocking=not waits)
    if waits:
        return array_view(target)
    event = torch.Event(x.device.type)
    event.record(torch.accelerator.current_stream(x.device))
    return DeviceCopy(target, event)


def chosen(x: torch.Tensor, axis: int, numbers: Sequence[int]) -> torch.Tensor:
    """Some entries of a tensor's axis; itself if these are all."""
    if list(numbers) == list(range(x.shape[axis])):
        return x
    return x.index_select(axis, torch.tensor(numbers, device=x.device))


def sample(key: torch.Tensor) -> torch.Tensor:
    """A few numbers of each key, by which it is known again: (sequences, heads, keys, FINGERPRINT_DIMS or more).

    A copy even where these are all numbers, for a cache may write other keys into its memory.
    """
    step = max(1, key.shape[-1] // FINGERPRINT_DIMS)
    return key.detach()[..., step // 2 :: step].clone(memory_format=torch.contiguous_format)


def fingerprints(key: torch.Tensor) -> Integers:
    """A number for each key of each sequence, (sequences, keys), by which it is known again."""
    some = sample(key)
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[some.element_size()]
    bits = some.view(whole).to(torch.int64)
    numbers = torch.arange(1, bits.shape[1] * bits.shape[3] + 1, dtype=torch.int64, device=bits.device) * FACTOR
    factors = ((numbers ^ (numbers >> 29)) * FACTOR | 1).reshape(1, bits.shape[1], 1, bits.shape[3])
    return (bits * factors).sum((1, 3)).cpu().numpy()


def numbers_of(some: torch.Tensor) -> Array:
    """A sample of keys as rows, (sequences, keys, numbers)."""
    return array_view(some.double().transpose(1, 2).flatten(2).cpu())


FACTOR = 0x5851F42D4C957F2D  # an odd number without a pattern

# Masks


def visible_of(call: AttentionCall) -> tuple[Visible, int]:
    """Who sees whom, and how many of the keys anybody sees: a cache may have room for more."""
    v, queries, keys = call.visibility, call.query.shape[2], call.key.shape[2]
    if v.is_band or not keys:
        visible = band_of(call)
        if not keys or (v.causal is None and v.left is None and v.right is None):
            return visible, keys
        return visible, max(int(visible.high.max(initial=0)), min(queries, keys))
    if v.source is None:
        visible = read_visible(call)
    else:
        visible = remembered(v.source, (*call.query.shape[:3], keys), partial(read_visible, call))
    return visible, keys if visible.tokens is None else visible.tokens.shape[1]


def band_of(call: AttentionCall) -> Visible:
    """What causal and window show, whatever else hides."""
    v, queries, keys = call.visibility, call.query.shape[2], call.key.shape[2]
    if v.causal is None and v.left is None and v.right is None:
        return visible_band(queries, keys, 0, None, None)
    offset = 0 if v.causal == "start" else keys - queries
    return visible_band(queries, keys, offset, v.left, 0 if v.causal is not None else v.right)


def read_visible(call: AttentionCall) -> Visible:
    """Find intervals and padding in a mask: told by the call, or found in all its pairs."""
    v = call.visibility
    if v.table is None and v.rows is None and v.tokens is not None:
        band = band_of(call)
        return within_tokens(band.low, band.high, v.tokens.bool().cpu().numpy())
    told = None if v.intervals is None else v.intervals()
    return visible_in_pairs(call) if told is None else told


def visible_in_pairs(call: AttentionCall) -> Visible:
    """Find intervals and padding in all pairs, some rows at a time; one bit a pair if a mask has no such form."""
    queries, keys = call.query.shape[2], call.key.shape[2]
    device = call.query.device
    step = max(1, PAIRS_AT_ONCE // max(1, keys * call.query.shape[0]))
    parts = [torch.arange(first, min(first + step, queries), device=device) for first in range(0, queries, step)]
    tokens = reduce(torch.logical_or, (call.visible_rows(rows).any(2) for rows in parts))  # (batch, heads, keys)
    alike = tokens.shape[1] == 1 or bool((tokens == tokens[:, :1]).all())
    lows, highs, intervals = [], [], alike
    before = torch.nn.functional.pad(tokens[:, 0].long().cumsum(-1), (1, 0))  # (batch, keys + 1)
    for rows in parts if intervals else ():
        seen = call.visible_rows(rows)
        if seen.shape[1] > 1 and not bool((seen == seen[:, :1]).all()):
            intervals = False
            break
        seen = seen[:, 0]  # (batch, rows, keys)
        low, any_key = seen.to(torch.uint8).argmax(-1), seen.any(-1)
        high = torch.where(any_key, keys - seen.flip(-1).to(torch.uint8).argmax(-1), 0)
        low = torch.where(any_key, low, 0)
        counts = before.gather(1, high) - before.gather(1, low)
        if bool((counts != seen.sum(-1)).any()):
            intervals = False
            break
        lows.append(low)
        highs.append(high)
    if intervals:
        first, end = (torch.cat(x, 1).to(torch.int32).cpu().numpy() for x in (lows, highs))
        there = tokens[:, 0].cpu().numpy()
        last = int(np.flatnonzero(there.any(0))[-1]) + 1 if there.any() else keys
        if call.query.shape[2] <= last:
            there = there[:, :last]
        return Visible(first, end, None if there.all() and there.shape[1] == keys else there)
    bits = [np.packbits(call.visible_rows(rows).cpu().numpy(), axis=-1) for rows in parts]
    shape = (1, queries)
    there = tokens.any(1).cpu().numpy()
    return Visible(np.zeros(shape, np.int32), np.full(shape, keys, np.int32), there, np.concatenate(bits, axis=2))


# What is added to scores, sinks, score functions


def added_of(call: AttentionCall, heads: list[int], keys: int) -> Added | None:
    """The sum of what a model adds to the scores of some heads, one number for each distance where that says it."""
    if not call.adds:
        return None
    total = reduce(torch.add, (x.detach() for x in call.adds))[..., :keys]
    if total.shape[1] > 1:
        total = chosen(total, 1, heads)
    if not bool(total.any()):
        return None
    total = total.float()
    queries = total.shape[2]
    rows = call.query.shape[2]
    if (
        queries == rows
        and total.shape[3] == keys
        and (rows == 1 or bool((total[:, :, 1:, 1:] == total[:, :, :-1, :-1]).all()))
    ):
        first, rest = total[:, :, -1], total[:, :, :-1, -1].flip(-1)
        return Added(torch.cat([first, rest], -1).cpu().numpy(), True)
    return Added(total.cpu().numpy(), False)


def sink_of(call: AttentionCall, heads: tuple[int, ...]) -> Array | None:
    """The sinks of some heads."""
    if call.sink is None:
        return None
    if call.sink.numel() != call.query.shape[1]:
        raise InputError(
            f"{type(call.module).__name__} has a sink for each query, {tuple(call.sink.shape)}, not for each head: "
            "leave its layers out with layers=…."
        )
    sink = call.sink.detach().reshape(-1).to(torch.promote_types(call.sink.dtype, torch.float32))
    found: Array = sink.cpu().numpy()[list(heads)]
    return found


def score_rules(call: AttentionCall) -> tuple[Score, ...]:
    """A model's own score function as rules."""
    if call.score_function is None:
        return ()
    formula = float_formula(trace_torch_function(call.score_function, ("score", *POSITIONS), call.query.dtype))
    rule, tables = join_rule((), None, formula)
    return tuple(rule.filled([array_view(x.cpu()) for x in tables])[1])
