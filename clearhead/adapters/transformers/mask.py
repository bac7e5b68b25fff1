"""Translate a transformers model's mask into clearhead masks: a formula and a few slices, never a table.

transformers describes a mask by functions of positions, composed in `masking_utils`, and padding by one boolean per
key. Responsible for reading those. Padded sequences are cut out rather than masked, so each has the same bits as alone.
The model passes a lazy tensor from layer to layer that carries the translation. A model that computes with it, or a
mask that cannot be translated, gets transformers' own table.
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
from clearhead.adapters.torch.flex import bool_formula
from clearhead.adapters.torch.host import array_view
from clearhead.adapters.torch.lazy import NO_ANSWER, LazyTensor
from clearhead.adapters.torch.trace import trace_torch_function
from clearhead.adapters.transformers.families import refuse_unsupported_model, takes_boolean_masks
from clearhead.arrays import Array
from clearhead.errors import ClearheadError, InputError, ShapeError
from clearhead.once import cached_property
from clearhead.rules.expression import Formula
from clearhead.rules.mask_kinds import Causal, Mask, Where, Window, conjunction
from clearhead.rules.masks import causal, documents, full, prefix, where, window

MaskFunction = Callable[..., Any]
FULL_SLICE = slice(None)


@dataclass(frozen=True)
class BatchPart:
    """Some sequences of a batch, with common queries and keys, and the mask between these."""

    batch: slice
    queries: slice
    keys: slice
    mask: Mask


@dataclass(frozen=True, eq=False)
class Pattern:
    """The mask of one pass of a model: the arguments of an `AttentionMaskInterface` function as plain values."""

    batch: int
    queries: int
    keys: int
    first_query: int  # positions in the sequence, padding included
    first_key: int
    function: MaskFunction
    padding: Array | None  # (batch, positions), True at tokens

    @cached_property
    def aligned(self) -> bool:
        """Whether queries are aligned with the last keys; otherwise each counts from the first query."""
        return any(isinstance(part, Causal | Window) for part in read_mask(self.function, 0, 0).parts())

    @cached_property
    def stop(self) -> int:
        """Number of keys filled so far; a static cache has room for more."""
        stop = self.first_query - self.first_key + self.queries if self.aligned else self.keys
        if not self.queries <= stop <= self.keys and self.aligned:
            raise InputError(
                f"{self.queries} queries from position {self.first_query} on do not end within {self.keys} keys from "
                f"position {self.first_key} on: give the model a cache that holds all earlier tokens."
            )
        return stop

    @cached_property
    def visible(self) -> Array:
        """Which keys are tokens rather than padding, (batch, stop)."""
        visible = np.ones((self.batch, self.stop), bool)
        if self.padding is not None:
            tokens = self.padding[:, self.first_key : self.first_key + self.stop]
            visible[:, : tokens.shape[1]], visible[:, tokens.shape[1] :] = tokens, False
        return visible

    @cached_property
    def runs(self) -> list[tuple[int, int]] | None:
        """The begin and end of each sequence's tokens, or None if one has padding in between."""
        begin = self.visible.argmax(1)
        end = self.stop - self.visible[:, ::-1].argmax(1)
        counts = self.visible.sum(1)
        if not self.stop or ((counts > 0) & (counts != end - begin)).any():
            return None
        return [(int(b), int(e) if n else int(b)) for b, e, n in zip(begin, end, counts, strict=True)]

    @cached_property
    def parts(self) -> tuple[BatchPart, ...]:
        """The parts whose calls compute the full batch; queries in no part see nothing."""
        packed = packed_ids(self.function)
        if packed is not None:
            return tuple(self.document_part(n, ids) for n, ids in enumerate(packed))
        if self.runs is None or (self.aligned and not self.looks_back):
            return (BatchPart(FULL_SLICE, FULL_SLICE, slice(0, self.stop), self.batch_mask),)
        parts, first = [], 0
        for run, same in groupby(self.runs):
            count = len(list(same))
            parts += self.run_parts(slice(first, first + count), *run)
            first += count
        return tuple(parts)

    @cached_property
    def looks_back(self) -> bool:
        """Whether no query sees a later key, that is, whether causal is one of the joined masks."""
        return any(isinstance(factor, Causal) for factor in conjunction(self.rule(0)))

    def run_parts(self, batch: slice, begin: int, end: int) -> list[BatchPart]:
        """The parts for sequences whose tokens are the keys from begin to end."""
        if begin == end:
            return []
        if not self.aligned:
            return [BatchPart(batch, FULL_SLICE, slice(begin, end), self.rule(begin, batch.start))]
        shift, mask = self.stop - self.queries, self.rule(begin, batch.start)
        first, last = max(0, begin - shift), min(self.queries, end - shift)
        parts = [BatchPart(batch, slice(first, last), slice(begin, last + shift), mask)] if first < last else []
        if max(first, last) < self.queries:  # padding after the tokens, which sees them
            late = slice(max(first, last, 0), self.queries)
            parts.append(BatchPart(batch, late, slice(begin, self.stop), mask & prefix(end - begin)))
        return parts

    def document_part(self, number: int, ids: Array) -> BatchPart:
        """The part for one sequence of packed documents; each document has the same bits as alone."""
        return BatchPart(
            slice(number, number + 1), FULL_SLICE, slice(0, self.stop), documents(ids=ids) & self.rule(0, number)
        )

    @cached_property
    def batch_mask(self) -> Mask:
        """One mask for the full batch, over keys up to `stop`."""
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
        if self.aligned:
            return read_mask(self.function, first, first, batch)
        mask = read_mask(self.function, self.first_query, first, batch)
        return mask if mask == full() else mask & window(None, None, align="start")

    def row_seen(self, rows: Array) -> torch.Tensor:
        """transformers' own mask for some queries, (batch, 1, rows, stop), independent of this file's translation."""
        batch = torch.arange(self.batch)[:, None, None, None]
        query = torch.from_numpy(rows)[:, None] + self.first_query
        key = torch.arange(self.stop) + self.first_key
        seen: torch.Tensor = self.function(batch, torch.zeros(1, 1, 1, 1, dtype=torch.long), query, key)
        visible = torch.from_numpy(self.visible)[:, None, None, :]
        return seen.expand(self.batch, 1, len(rows), self.stop) & visible


# The tensor that the model passes on


class MaskTensor(LazyTensor):
    """A mask (batch, 1, queries, keys) without memory, described by `pattern`.

    If a model computes with it, it becomes transformers' table for sdpa, True where a key is visible, or, for models
    without sdpa, the table that eager attention adds.
    """

    pattern: Pattern
    table: Callable[[], torch.Tensor]

    def compute(self) -> torch.Tensor:
        """The table, for a model that computes with the mask."""
        refuse_unsupported_model()
        return self.table()

    def again(self) -> "MaskTensor":
        """The same mask as a new tensor."""
        return mask_of(self.pattern, self.table, self.dtype)


def mask_of(pattern: Pattern, table: Callable[[], torch.Tensor], dtype: torch.dtype) -> MaskTensor:
    """A lazy mask for a pattern."""
    mask: MaskTensor = MaskTensor.shaped((pattern.batch, 1, pattern.queries, pattern.keys), dtype)
    mask.pattern, mask.table = pattern, table
    return mask


def same_mask(mask: MaskTensor, *_: Any, **__: Any) -> MaskTensor:
    """The mask itself; generation with a static cache calls this."""
    return mask


def sliced_mask(mask: MaskTensor, index: Any) -> Any:
    """The mask itself if an index selects everything."""
    entries = index if isinstance(index, tuple) else (index,)
    if len(entries) > 4 or not all(isinstance(entry, slice) for entry in entries):
        return NO_ANSWER
    everything = all(entry.indices(n) == (0, n, 1) for entry, n in zip(entries, mask.shape, strict=False))
    return mask if everything else NO_ANSWER


def converted_mask(mask: MaskTensor, *args: Any, **options: Any) -> Any:
    """The mask itself if a conversion changes nothing."""
    wanted = {str(x) for x in (*args, *options.values())}
    return mask if wanted <= {"cpu", str(mask.dtype), "False", "True"} else NO_ANSWER


MaskTensor.answers = {"contiguous": same_mask, "__getitem__": sliced_mask, "to": converted_mask, "cpu": same_mask}
warned_reasons: set[str] = set()


def mask_forward(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | torch.Tensor = 0,
    kv_offset: int = 0,
    mask_function: MaskFunction | None = None,
    attention_mask: torch.Tensor | None = None,
    **kwargs: Any,
) -> torch.Tensor:
    """Make the mask of one kind of layer for a pass, (batch, 1, queries, keys), without memory."""
    function = mask_function or causal_mask_function
    padding = attention_mask if attention_mask is None else attention_mask.to(torch.bool)
    sizes = {"batch_size": batch_size, "q_length": q_length, "kv_length": kv_length}
    positions = {"q_offset": q_offset, "kv_offset": kv_offset, "mask_function": function, "attention_mask": padding}
    skips = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    boolean = takes_boolean_masks(kwargs.get("config"))
    make_table: Any = sdpa_mask if boolean else eager_mask  # without skips, they never return None
    table: Callable[[], torch.Tensor] = partial(make_table, **(kwargs | sizes | positions | skips))
    refuse_unsupported_model()
    if not readable(padding, q_offset):
        return table()
    if padding is not None and (padding.dim() != 2 or padding.shape[0] not in (1, batch_size)):
        raise ShapeError(
            f"attention_mask has shape {tuple(padding.shape)}: give ({batch_size}, positions), True at tokens, "
            "or all four axes, (batch, heads, queries, keys)."
        )
    visible = None if padding is None else padding.numpy()
    pattern = Pattern(batch_size, q_length, kv_length, int(q_offset), int(kv_offset), function, visible)
    try:
        _ = pattern.parts
    except (ClearheadError, RuntimeError) as error:
        if not torch._C._are_functorch_transforms_active():
            warn_once(str(error))
        return table()
    return mask_of(pattern, table, torch.bool if boolean else kwargs.get("dtype", torch.float32))


def readable(*tensors: Any) -> bool:
    """Whether tensors can be read now, and stay the same in a traced program."""
    if dispatch.needs_operators() or get_proxy_mode() is not None:
        return False
    candidates = [x for x in tensors if isinstance(x, torch.Tensor)]
    if type(torch.empty(0)) is not torch.Tensor or dispatch.is_exporting():
        return False
    return all(type(x) is torch.Tensor and x.is_cpu and not dispatch.is_wrapped(x) for x in candidates)


def warn_once(why: str) -> None:
    """Warn once per reason."""
    if why not in warned_reasons:
        warned_reasons.add(why)
        warnings.warn(f"clearhead uses this model's mask as a table of queries × keys: {why}", stacklevel=2)


# Reading mask functions


def closure_variables(function: MaskFunction) -> dict[str, Any]:
    """The closure variables of a function, by name."""
    names, cells = function.__code__.co_freevars, function.__closure__ or ()
    return {name: cell.cell_contents for name, cell in zip(names, cells, strict=True)}


def packed_ids(function: MaskFunction) -> list[Array] | None:
    """The document ids of each sequence, (positions), if transformers found several documents in one sequence."""
    match factory_name(function):
        case "packed_sequence_mask_function":
            return list(closure_variables(function)["packed_sequence_mask"].numpy())
        case "and_masks":
            nested = [ids for f in closure_variables(function)["mask_functions"] if (ids := packed_ids(f)) is not None]
            return nested[0] if nested else None
    return None


def factory_name(function: MaskFunction) -> str:
    """The name of the `masking_utils` function that created a mask function, such as `sliding_window_overlay`."""
    module = getattr(function, "__module__", "")
    return function.__qualname__.split(".")[0] if module == "transformers.masking_utils" else ""


def read_mask(function: MaskFunction, query_from: int, key_from: int, batch: int = 0) -> Mask:
    """Translate a mask function, for queries and keys from these positions on and sequences from `batch` on."""
    origin = query_from, key_from, batch
    variables = closure_variables(function) if hasattr(function, "__code__") else {}
    match factory_name(function):
        case "causal_mask_function":
            return causal(align="end")
        case "bidirectional_mask_function" | "packed_sequence_mask_function":  # documents are cut out, not masked
            return full()
        case "and_masks":
            return reduce(Mask.__and__, without_full([read_mask(f, *origin) for f in variables["mask_functions"]]))
        case "or_masks":
            return reduce(Mask.__or__, [read_mask(f, *origin) for f in variables["mask_functions"]])
        case "sliding_window_overlay":
            return window(int(variables["sliding_window"]) - 1, None, align="end")
        case "sliding_window_bidirectional_overlay":
            return window(int(variables["sliding_window"]), int(variables["sliding_window"]), align="end")
        case "remap_positions_for_packed_sequence" if factory_name(variables["mask_function"]) in (
            "causal_mask_function",
            "and_masks",
        ):
            return read_mask(variables["mask_function"], *origin)  # distances within a document do not change
        case "chunked_overlay":
            size, starts = int(variables["chunk_size"]), variables["left_padding"].numpy()[batch:]
            return where(
                lambda batch, head, query, key: (
                    (key + key_from - starts[batch]) // size == (query + query_from - starts[batch]) // size
                )
            )
        case "blockwise_overlay":
            groups = variables["block_sequence_ids"].numpy()[batch:]
            return where(
                lambda batch, head, query, key: (
                    (groups[batch, query + query_from] == groups[batch, key + key_from])
                    & (groups[batch, query + query_from] >= 0)
                )
            )
    return traced_mask(function, *origin)


def without_full(masks: list[Mask]) -> list[Mask]:
    """The masks without `full()`, unless nothing else is left."""
    return [mask for mask in masks if mask != full()] or [full()]


def traced_mask(function: MaskFunction, query_from: int, key_from: int, first: int) -> Mask:
    """Trace a model's own mask function, which may compute with positions and index tensors."""

    def moved(batch: Any, head: Any, query: Any, key: Any) -> Any:
        return function(batch + first, head, query + query_from, key + key_from)

    qualified_name = getattr(function, "__qualname__", repr(function))
    try:
        formula = bool_formula(trace_torch_function(moved, ("batch", "head", "query", "key")))
    except (ClearheadError, TypeError, AttributeError, RuntimeError, IndexError) as error:
        raise InputError(f"the mask function {qualified_name} cannot become a formula, {error}") from error
    tensors: tuple[Any, ...] = formula.arrays
    return Where(function, Formula(formula.expression, tuple(array_view(table) for table in tensors)))
