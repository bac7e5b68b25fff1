"""What a transformers model asks to be masked, as clearhead masks: a formula and a few slices, never a table.

transformers describes a mask by functions of positions put together by `masking_utils`, and padding by one truth for
each key. Decides how those are read; padded sequences are cut out rather than masked, so that each is computed as it
would be alone. What the model hands from layer to layer is a lazy tensor that carries the reading; a model that works
on it, or a mask that cannot be read, gets transformers' own table.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from transformers.masking_utils import causal_mask_function, eager_mask, sdpa_mask

from clearhead.adapters.torch import dispatch
from clearhead.adapters.torch.flex import condition
from clearhead.adapters.torch.host import view
from clearhead.adapters.torch.lazy import NOT_HERE, LazyTensor
from clearhead.adapters.torch.trace import trace_torch_function
from clearhead.adapters.transformers.families import refuse_strangers, takes_truths
from clearhead.arrays import Array
from clearhead.errors import ClearheadError, InputError, ShapeError
from clearhead.once import cached_property
from clearhead.rules.expression import Formula
from clearhead.rules.masks import (
    Causal,
    Mask,
    Where,
    Window,
    causal,
    conjunction,
    documents,
    full,
    prefix,
    where,
    window,
)

Function = Callable[..., Any]
ALL = slice(None)


@dataclass(frozen=True)
class Part:
    """Some sequences of a batch with the queries and keys that they have in common, and the mask between those."""

    batch: slice
    queries: slice
    keys: slice
    mask: Mask


@dataclass(frozen=True, eq=False)
class Pattern:
    """Who may see whom in one pass of a model: what `AttentionMaskInterface` functions are told, numbers as numbers."""

    batch: int
    queries: int
    keys: int
    first_query: int  # positions in the sequence, padding included
    first_key: int
    function: Function
    padding: Array | None  # (batch, positions), True where a token is

    @cached_property
    def aligned(self) -> bool:
        """Whether queries have places among the keys, the last ones; else each counts from the first query."""
        return any(isinstance(part, Causal | Window) for part in read(self.function, 0, 0).parts())

    @cached_property
    def stop(self) -> int:
        """How many of the keys there are so far: a static cache has room for more."""
        stop = self.first_query - self.first_key + self.queries if self.aligned else self.keys
        if not self.queries <= stop <= self.keys and self.aligned:
            raise InputError(
                f"{self.queries} queries from position {self.first_query} on do not end within {self.keys} keys from "
                f"position {self.first_key} on: give the model a cache that holds all that it saw."
            )
        return stop

    @cached_property
    def visible(self) -> Array:
        """(batch, stop): which keys are tokens rather than padding."""
        visible = np.ones((self.batch, self.stop), bool)
        if self.padding is not None:
            own = self.padding[:, self.first_key : self.first_key + self.stop]
            visible[:, : own.shape[1]], visible[:, own.shape[1] :] = own, False
        return visible

    @cached_property
    def runs(self) -> list[tuple[int, int]] | None:
        """Where each sequence's tokens begin and end, or None if one has padding in between."""
        begin = self.visible.argmax(1)
        end = self.stop - self.visible[:, ::-1].argmax(1)
        counts = self.visible.sum(1)
        if not self.stop or ((counts > 0) & (counts != end - begin)).any():
            return None
        return [(int(b), int(e) if n else int(b)) for b, e, n in zip(begin, end, counts, strict=True)]

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The calls that give the whole batch; queries that no part has see nothing."""
        packed = packed_ids(self.function)
        if packed is not None:
            return tuple(self.document_part(n, ids) for n, ids in enumerate(packed))
        if self.runs is None or (self.aligned and not self.looks_back):
            return (Part(ALL, ALL, slice(0, self.stop), self.whole),)
        parts, first = [], 0
        for run, same in groupby(self.runs):
            count = len(list(same))
            parts += self.run_parts(slice(first, first + count), *run)
            first += count
        return tuple(parts)

    @cached_property
    def looks_back(self) -> bool:
        """Whether no query sees a later key, as `&` of something with causal tells."""
        return any(isinstance(factor, Causal) for factor in conjunction(self.rule(0)))

    def run_parts(self, batch: slice, begin: int, end: int) -> list[Part]:
        """Sequences whose tokens are the keys from begin to end."""
        if begin == end:
            return []
        if not self.aligned:
            return [Part(batch, ALL, slice(begin, end), self.rule(begin, batch.start))]
        shift, mask = self.stop - self.queries, self.rule(begin, batch.start)
        first, last = max(0, begin - shift), min(self.queries, end - shift)
        parts = [Part(batch, slice(first, last), slice(begin, last + shift), mask)] if first < last else []
        if max(first, last) < self.queries:  # padding behind the tokens, which looks back at them
            late = slice(max(first, last, 0), self.queries)
            parts.append(Part(batch, late, slice(begin, self.stop), mask & prefix(end - begin)))
        return parts

    def document_part(self, number: int, ids: Array) -> Part:
        """One sequence of packed documents: each is computed as it would be alone."""
        return Part(slice(number, number + 1), ALL, slice(0, self.stop), documents(ids=ids) & self.rule(0, number))

    @cached_property
    def whole(self) -> Mask:
        """One mask for the whole batch over the keys up to `stop`."""
        rule, packed = self.rule(0), packed_ids(self.function)
        if packed is not None:
            ids = np.array(packed)
            rule = rule & where(lambda batch, head, query, key: ids[batch, query] == ids[batch, key])
        if self.visible.all():
            return rule
        visible = self.visible
        return rule & where(lambda batch, head, query, key: visible[batch, key])

    def rule(self, begin: int, batch: int = 0) -> Mask:
        """The mask without padding and documents, for keys from `begin` and sequences from `batch` on."""
        first = self.first_key + begin
        return read(self.function, first if self.aligned else self.first_query, first, batch)

    def row_seen(self, rows: Array) -> torch.Tensor:
        """transformers' own answer for some queries, (batch, 1, rows, stop): it owes nothing to this file's reading."""
        batch = torch.arange(self.batch)[:, None, None, None]
        query = torch.from_numpy(rows)[:, None] + self.first_query
        key = torch.arange(self.stop) + self.first_key
        seen: torch.Tensor = self.function(batch, torch.zeros(1, 1, 1, 1, dtype=torch.long), query, key)
        visible = torch.from_numpy(self.visible)[:, None, None, :]
        return seen.expand(self.batch, 1, len(rows), self.stop) & visible


# What the model hands on


class MaskTensor(LazyTensor):
    """A mask of any size, (batch, 1, queries, keys), that says in `pattern` what it would hold.

    Where a model works on it, it holds what transformers would give for sdpa, True where a key is seen, or for eager
    attention, which is added, if the model knows that alone.
    """

    pattern: Pattern
    table: Callable[[], torch.Tensor]

    def compute(self) -> torch.Tensor:
        """The table, for a model that works on it."""
        refuse_strangers()
        return self.table()

    def again(self) -> "MaskTensor":
        """The same."""
        return mask_of(self.pattern, self.table, self.dtype)


def mask_of(pattern: Pattern, table: Callable[[], torch.Tensor], dtype: torch.dtype) -> MaskTensor:
    """A mask that has been read."""
    mask: MaskTensor = MaskTensor.shaped((pattern.batch, 1, pattern.queries, pattern.keys), dtype)
    mask.pattern, mask.table = pattern, table
    return mask


def itself(mask: MaskTensor, *_: Any, **__: Any) -> MaskTensor:
    """The same: generation asks for this with a static cache."""
    return mask


def some_of(mask: MaskTensor, index: Any) -> Any:
    """The same where an index takes everything, as of no more keys than there are."""
    entries = index if isinstance(index, tuple) else (index,)
    if len(entries) > 4 or not all(isinstance(entry, slice) for entry in entries):
        return NOT_HERE
    everything = all(entry.indices(n) == (0, n, 1) for entry, n in zip(entries, mask.shape, strict=False))
    return mask if everything else NOT_HERE


def moved(mask: MaskTensor, *args: Any, **options: Any) -> Any:
    """The same where nothing changes."""
    wanted = {str(x) for x in (*args, *options.values())}
    return mask if wanted <= {"cpu", str(mask.dtype), "False", "True"} else NOT_HERE


MaskTensor.answers = {"contiguous": itself, "__getitem__": some_of, "to": moved, "cpu": itself}
told: set[str] = set()


def mask_forward(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | torch.Tensor = 0,
    kv_offset: int = 0,
    mask_function: Function | None = None,
    attention_mask: torch.Tensor | None = None,
    **kwargs: Any,
) -> torch.Tensor:
    """What transformers calls once for each kind of layer in a pass; (batch, 1, queries, keys) without memory."""
    function = mask_function or causal_mask_function
    padding = attention_mask if attention_mask is None else attention_mask.to(torch.bool)
    sizes = {"batch_size": batch_size, "q_length": q_length, "kv_length": kv_length}
    places = {"q_offset": q_offset, "kv_offset": kv_offset, "mask_function": function, "attention_mask": padding}
    skips = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    truths = takes_truths(kwargs.get("config"))
    own: Any = sdpa_mask if truths else eager_mask  # which give no None where they may not skip
    table: Callable[[], torch.Tensor] = partial(own, **(kwargs | sizes | places | skips))
    refuse_strangers()
    if not readable(padding, q_offset):
        return table()
    if padding is not None and (padding.dim() != 2 or padding.shape[0] not in (1, batch_size)):
        raise ShapeError(
            f"attention_mask has shape {tuple(padding.shape)}: give ({batch_size}, positions), True where a token is, "
            "or all four axes, (batch, heads, queries, keys)."
        )
    visible = None if padding is None else padding.numpy()
    pattern = Pattern(batch_size, q_length, kv_length, int(q_offset), int(kv_offset), function, visible)
    try:
        _ = pattern.parts
    except (ClearheadError, RuntimeError) as error:
        if not torch._C._are_functorch_transforms_active():
            tell(str(error))
        return table()
    return mask_of(pattern, table, torch.bool if truths else kwargs.get("dtype", torch.float32))


def readable(*tensors: Any) -> bool:
    """Whether the numbers of tensors can be read now, and will be the same when what is traced runs."""
    if dispatch.followed() or get_proxy_mode() is not None:
        return False
    given = [x for x in tensors if isinstance(x, torch.Tensor)]
    if type(torch.empty(0)) is not torch.Tensor or torch.compiler.is_exporting():
        return False
    return all(type(x) is torch.Tensor and x.is_cpu and not dispatch.is_wrapped(x) for x in given)


def tell(why: str) -> None:
    """Warn once of each reason."""
    if why not in told:
        told.add(why)
        warnings.warn(f"clearhead takes this model's mask as a table of queries × keys: {why}", stacklevel=2)


# How functions are read


def captured(function: Function) -> dict[str, Any]:
    """What a function that another one made has kept, by name."""
    names, cells = function.__code__.co_freevars, function.__closure__ or ()
    return {name: cell.cell_contents for name, cell in zip(names, cells, strict=True)}


def packed_ids(function: Function) -> list[Array] | None:
    """Each sequence's document numbers, (positions), if transformers found several documents in one sequence."""
    match name(function):
        case "packed_sequence_mask_function":
            return list(captured(function)["packed_sequence_mask"].numpy())
        case "and_masks":
            found = [ids for f in captured(function)["mask_functions"] if (ids := packed_ids(f)) is not None]
            return found[0] if found else None
    return None


def name(function: Function) -> str:
    """What made a function: `sliding_window_overlay` for its inner mask."""
    module = getattr(function, "__module__", "")
    return function.__qualname__.split(".")[0] if module == "transformers.masking_utils" else ""


def read(function: Function, query_from: int, key_from: int, batch: int = 0) -> Mask:
    """A mask function as a mask over queries and keys from these positions and sequences from number `batch` on."""
    places = query_from, key_from, batch
    kept = captured(function) if hasattr(function, "__code__") else {}
    match name(function):
        case "causal_mask_function":
            return causal(align="end")
        case "bidirectional_mask_function" | "packed_sequence_mask_function":  # documents are cut out, not masked
            return full()
        case "and_masks":
            return reduce(Mask.__and__, strictest([read(f, *places) for f in kept["mask_functions"]]))
        case "or_masks":
            return reduce(Mask.__or__, [read(f, *places) for f in kept["mask_functions"]])
        case "sliding_window_overlay":
            return window(int(kept["sliding_window"]) - 1, None, align="end")
        case "sliding_window_bidirectional_overlay":
            return window(int(kept["sliding_window"]), int(kept["sliding_window"]), align="end")
        case "remap_positions_for_packed_sequence" if name(kept["mask_function"]) in (
            "causal_mask_function",
            "and_masks",
        ):
            return read(kept["mask_function"], *places)  # distances inside a document stay as they are
        case "chunked_overlay":
            size, starts = int(kept["chunk_size"]), kept["left_padding"].numpy()[batch:]
            return where(
                lambda batch, head, query, key: (
                    (key + key_from - starts[batch]) // size == (query + query_from - starts[batch]) // size
                )
            )
        case "blockwise_overlay":
            groups = kept["block_sequence_ids"].numpy()[batch:]
            return where(
                lambda batch, head, query, key: (
                    (groups[batch, query + query_from] == groups[batch, key + key_from])
                    & (groups[batch, query + query_from] >= 0)
                )
            )
    return traced(function, *places)


def strictest(masks: list[Mask]) -> list[Mask]:
    """The same without `full()`, unless that is all."""
    return [mask for mask in masks if mask != full()] or [full()]


def traced(function: Function, query_from: int, key_from: int, first: int) -> Mask:
    """A function of a model's own, which may calculate with positions and look them up in tensors."""

    def moved(batch: Any, head: Any, query: Any, key: Any) -> Any:
        return function(batch + first, head, query + query_from, key + key_from)

    called = getattr(function, "__qualname__", repr(function))
    try:
        found = condition(trace_torch_function(moved, ("batch", "head", "query", "key")))
    except (ClearheadError, TypeError, AttributeError, RuntimeError, IndexError) as error:
        raise InputError(f"the mask function {called} cannot become a formula, {error}") from error
    tensors: tuple[Any, ...] = found.arrays
    return Where(function, Formula(found.expression, tuple(view(table) for table in tensors)))
