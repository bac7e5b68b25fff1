"""What a transformers model asks to be masked, as clearhead masks: a formula and a few slices, never a table.

transformers describes a mask by functions of positions put together by `masking_utils`, and padding by one truth for
each key. Decides how those are read; padded sequences are cut out rather than masked, so that each is computed as it
would be alone. Leaves the calls themselves to `adapters.transformers`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from itertools import groupby
from typing import Any

import numpy as np
import torch

from clearhead.errors import ClearheadError, InputError
from clearhead.once import cached_property
from clearhead.problem import Array
from clearhead.rules.masks import Causal, Mask, Window, causal, conjunction, documents, full, prefix, where, window

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
        """Whether queries have places among the keys, the last ones; else every query sees all that is not padding."""
        return any(isinstance(part, Causal | Window) for part in self.rule(0).parts())

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
        return read(self.function, self.first_key + begin, batch)

    def row_seen(self, rows: Array) -> torch.Tensor:
        """transformers' own answer for some queries, (batch, 1, rows, stop): it owes nothing to this file's reading."""
        batch = torch.arange(self.batch)[:, None, None, None]
        query = torch.from_numpy(rows)[:, None] + self.first_query
        key = torch.arange(self.stop) + self.first_key
        seen = self.function(batch, torch.zeros(1, 1, 1, 1, dtype=torch.long), query, key)
        visible = torch.from_numpy(self.visible)[:, None, None, :]
        return seen.expand(self.batch, 1, len(rows), self.stop) & visible


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


def read(function: Function, origin: int, batch: int) -> Mask:
    """A mask function as a mask over keys from position `origin` and sequences from number `batch` on."""
    kept = captured(function) if hasattr(function, "__code__") else {}
    match name(function):
        case "causal_mask_function":
            return causal(align="end")
        case "bidirectional_mask_function" | "packed_sequence_mask_function":  # documents are cut out, not masked
            return full()
        case "and_masks":
            return reduce(Mask.__and__, strictest([read(f, origin, batch) for f in kept["mask_functions"]]))
        case "or_masks":
            return reduce(Mask.__or__, [read(f, origin, batch) for f in kept["mask_functions"]])
        case "sliding_window_overlay":
            return window(int(kept["sliding_window"]) - 1, None, align="end")
        case "sliding_window_bidirectional_overlay":
            return window(int(kept["sliding_window"]), int(kept["sliding_window"]), align="end")
        case "remap_positions_for_packed_sequence" if name(kept["mask_function"]) in (
            "causal_mask_function",
            "and_masks",
        ):
            return read(kept["mask_function"], origin, batch)  # distances inside a document stay as they are
        case "chunked_overlay":
            size, starts = int(kept["chunk_size"]), kept["left_padding"].numpy()[batch:]
            return where(
                lambda batch, head, query, key: (
                    (key + origin - starts[batch]) // size == (query + origin - starts[batch]) // size
                )
            )
        case "blockwise_overlay":
            groups = kept["block_sequence_ids"].numpy()[batch:]
            return where(
                lambda batch, head, query, key: (
                    (groups[batch, query + origin] == groups[batch, key + origin])
                    & (groups[batch, query + origin] >= 0)
                )
            )
    return traced(function, origin, batch)


def strictest(masks: list[Mask]) -> list[Mask]:
    """The same without `full()`, unless that is all."""
    return [mask for mask in masks if mask != full()] or [full()]


def traced(function: Function, origin: int, first: int) -> Mask:
    """A function of a model's own, which may calculate with positions."""
    try:
        return where(lambda batch, head, query, key: function(batch + first, head, query + origin, key + origin))
    except (ClearheadError, TypeError, AttributeError, RuntimeError, IndexError) as error:
        called = getattr(function, "__qualname__", repr(function))
        raise InputError(
            f"the mask function {called} cannot become a formula ({error}): use attn_implementation='sdpa' for this "
            "model, or pass a four-dimensional attention_mask."
        ) from error
