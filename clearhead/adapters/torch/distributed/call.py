"""One call of sharded attention: its checked arguments, and which rank needs which rows.

Responsible for everything that is decided before data moves. Nothing here depends on the numbers in tensors.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.autograd import forward_ad

from clearhead.adapters.torch.arguments import check_number, check_tensors, scale_or_default
from clearhead.adapters.torch.dispatch import is_batched, is_spread
from clearhead.adapters.torch.distributed.agreement import Facts, digest_of, own_code
from clearhead.adapters.torch.distributed.layout import Layout, Stretch
from clearhead.adapters.torch.distributed.travel import Parcel
from clearhead.adapters.torch.host import FLOAT_DTYPES, array_view, refuse_location
from clearhead.adapters.torch.rule_names import split_rules
from clearhead.arrays import is_integer
from clearhead.definition.canonical import SEGMENT
from clearhead.engine.problem import check_rules, check_scale, check_sink
from clearhead.errors import DtypeError, InputError, ShapeError
from clearhead.once import cached_property
from clearhead.rules.document_masks import Documents
from clearhead.rules.fused import fuse
from clearhead.rules.mask_kinds import Causal, Full, Mask, Window, checked_mask, conjunction
from clearhead.rules.masks import full
from clearhead.rules.scores import Score, ScoreLike, as_rules

Way = Literal["gather", "stream"]
Sums = Literal["same", "sum"]

RULES = "mask and score"  # names the fact of what rules compute
MOST_GATHERED = 1 << 30  # bytes of keys and values a rank, above which they stream unless asked otherwise


@dataclass(frozen=True)
class Call:
    """The arguments that all ranks share."""

    layout: Layout
    batch: tuple[int, ...]  # leading axes before the heads
    heads: int
    key_heads: int
    dim: int
    value_dim: int
    dtype: torch.dtype
    mask: Mask
    score: tuple[Score, ...]
    scale: float
    way: Way
    gradients: Sums
    ahead: int

    @property
    def group(self) -> int:
        """How many query heads share a key head."""
        return self.heads // self.key_heads

    @cached_property
    def band(self) -> tuple[int | None, int | None]:
        """A query sees at most the keys at its own position + low to + high."""
        return band_of(self.mask, self.layout.length)

    @cached_property
    def document_ends(self) -> dict[int, int]:
        """Where each document stops, by where it starts."""
        return {unit.document: unit.stop for unit in self.layout.units}

    def seen_keys(self, queries: Stretch) -> tuple[int, int]:
        """The first key that queries may see, and the one after the last."""
        low, high = self.band
        first, stop = queries.document, self.document_ends[queries.document]
        return (
            first if low is None else max(first, queries.start + low),
            stop if high is None else min(stop, queries.stop + high),
        )

    def sees(self, queries: Stretch, keys: Stretch) -> bool:
        """Whether a query may see one of some keys."""
        first, stop = self.seen_keys(queries)
        return queries.document == keys.document and keys.start < stop and first < keys.stop

    def mask_at(self, row: int) -> Mask:
        """The mask for queries of which the first stands at a row of the sequence."""
        return self.mask & full(at=row)

    @cached_property
    def key_readers(self) -> npt.NDArray[np.bool_]:
        """Whose queries see which segments of keys: (ranks, segments)."""
        starts = [segment.start for segment in self.layout.segments]
        needed = np.zeros((self.layout.ranks, len(starts)), bool)
        for rank in range(self.layout.ranks):
            for queries in self.layout.stretches(rank):
                first, stop = self.seen_keys(queries)
                needed[rank, bisect_right(starts, first) - 1 : bisect_left(starts, stop)] = True
        return needed

    @property
    def key_parcels(self) -> Iterator[Parcel]:
        """All segments of keys, each with the ranks whose queries see it."""
        segments, readers = self.layout.segments, self.key_readers
        for n, segment in enumerate(segments):
            ranks = frozenset(np.flatnonzero(readers[:, n]).tolist())
            yield Parcel(segment, ranks, f"segment {n + 1} of {len(segments)}")

    def query_chunks(self, cut: int) -> tuple[Stretch, ...]:
        """All queries in chunks of about a segment, which begin at multiples of `cut` from their document's start."""
        chunks: list[Stretch] = []
        for document, end in self.document_ends.items():
            starts = (document + (row - row % cut) for row in range(0, end - document, SEGMENT))
            chunks += [Stretch(start, stop, document, -1) for start, stop in pairwise((*starts, end))]
        return tuple(chunks)

    def query_parcels(self, chunk: Stretch) -> list[Parcel]:
        """The parts of a chunk that one rank has, with the ranks whose keys some of the chunk's queries see."""
        parts = [
            unit._replace(start=max(unit.start, chunk.start), stop=min(unit.stop, chunk.stop))
            for unit in self.layout.units
            if unit.start < chunk.stop and chunk.start < unit.stop
        ]
        readers = self.readers(lambda own: self.sees(chunk, own))
        return [Parcel(part, readers, f"the stretch of queries {part.start} to {part.stop}") for part in parts]

    def readers(self, needs: Callable[[Stretch], bool]) -> frozenset[int]:
        """The ranks with a stretch that needs something."""
        ranks = range(self.layout.ranks)
        return frozenset(rank for rank in ranks if any(map(needs, self.layout.stretches(rank))))

    @property
    def facts(self) -> Facts:
        """What all ranks must have in common."""
        heads = f"{self.heads} over {self.key_heads}"
        return (
            own_code()
            | rule_facts(self.mask, self.score)
            | {
                "the layout": repr(self.layout),
                "the dtype": str(self.dtype),
                "the shapes": f"batch {self.batch}, heads {heads}, dims {self.dim} and {self.value_dim}",
                "the scale": repr(self.scale),
                "the options": f"way={self.way!r}, gradients={self.gradients!r}, ahead={self.ahead}",
            }
        )

    @property
    def words(self) -> Facts:
        """Facts as a reader knows them."""
        return rule_words(self.mask, self.score)


def band_of(mask: Mask, length: int) -> tuple[int | None, int | None]:
    """How far from its own position a query may see, at most, to both sides."""
    fused = fuse(mask, (), length, length)
    return fused.low, fused.high


def rule_facts(mask: Mask, score: tuple[Score, ...]) -> Facts:
    """Rules, as all ranks must have them."""
    rule, arrays = split_rules(mask, score)
    return {RULES: rule.name, "the rules' arrays": digest_of(arrays)}


def rule_words(mask: Mask, score: tuple[Score, ...]) -> Facts:
    """Rules as they are shown; two different ones may look the same, and two equal functions different."""
    return {RULES: f"mask={mask!r}, score={score!r}" if score else f"mask={mask!r}"}


def checked_call(
    operands: Sequence[torch.Tensor],
    sink: torch.Tensor | None,
    layout: Layout,
    rank: int,
    *,
    mask: Mask,
    score: ScoreLike,
    scale: float | None,
    way: Way | None,
    gradients: Sums,
    ahead: int,
) -> Call:
    """The call that some arguments describe; raises InputError, ShapeError or DtypeError."""
    query, key, value = operands
    check_operands(query, key, value, layout.count(rank))
    mask, rules = checked_mask(mask), as_rules(score)
    check_places(mask, layout)
    lead, length = tuple(query.shape[:-2]), layout.length
    check_rules(mask, rules, lead, length, length)
    if sink is not None:
        check_tensors(sink=sink)
        check_sink(array_view(sink), lead)
    if way not in (None, "gather", "stream") or gradients not in ("same", "sum"):
        raise InputError(
            f"way={way!r}, gradients={gradients!r}: use way='gather' or 'stream', and gradients='same' or 'sum'."
        )
    if not is_integer(ahead) or ahead < 1:
        raise InputError(f"ahead={ahead!r} is not a number of segments on their way: use 1, 2, 3 …")
    gathered = math.prod(key.shape[:-2]) * length * (key.shape[-1] + value.shape[-1]) * key.element_size()
    return Call(
        layout=layout,
        batch=lead[:-1],
        heads=lead[-1],
        key_heads=key.shape[-3],
        dim=query.shape[-1],
        value_dim=value.shape[-1],
        dtype=query.dtype,
        mask=mask,
        score=rules,
        scale=check_scale(scale_or_default(query, scale)),
        way=way or ("gather" if gathered < MOST_GATHERED else "stream"),
        gradients=gradients,
        ahead=int(ahead),
    )


def check_operands(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, count: int) -> None:
    """Raise ShapeError, DtypeError or InputError unless these are one rank's rows."""
    check_tensors(q=query, k=key, v=value)
    shapes = f"q {tuple(query.shape)}, k {tuple(key.shape)}, v {tuple(value.shape)}"
    for x in (query, key, value):
        if is_spread(x):
            raise InputError(
                "q, k or v is a DTensor: give x.to_local() of one whose rows lie as the layout says. A DTensor with "
                "Shard on the rows has equal neighbouring parts; a Layout has units of 2048, in zigzag by default."
            )
        if not x.is_cpu or x.layout is not torch.strided:
            refuse_location(x)
    if query.dtype not in FLOAT_DTYPES or not query.dtype is key.dtype is value.dtype:
        raise DtypeError(f"q, k and v are {query.dtype}, {key.dtype} and {value.dtype}: give three of one float dtype.")
    if not 3 <= query.dim() == key.dim() == value.dim() or 0 in (query.shape[-1], value.shape[-1]):
        raise ShapeError(f"{shapes}: give (..., heads, rows, dim), equally many axes each.")
    if {x.shape[-2] for x in (query, key, value)} != {count}:
        raise ShapeError(f"{shapes}: by the layout this rank has {count} rows of each, as shard(x, layout) gives them.")
    heads, key_heads = query.shape[-3], key.shape[-3]
    if key.shape[:-2] != value.shape[:-2] or query.shape[:-3] != key.shape[:-3] or heads % max(1, key_heads):
        raise ShapeError(f"{shapes}: leading axes must be equal, and query heads a multiple of the key heads.")
    if query.shape[-1] != key.shape[-1]:
        raise ShapeError(f"{shapes}: the last axes of q and k must be equal.")


def check_places(mask: Mask, layout: Layout) -> None:
    """Raise InputError for a mask that places queries itself, or packs other documents than the layout."""
    for part in mask.parts():
        placed = isinstance(part, Causal | Full | Window) and part.at is not None
        if placed or getattr(part, "align", None) is not None:
            raise InputError(f"{mask!r} says where queries stand, which the layout does: leave out align and at.")
    packed = [part.lengths for part in conjunction(mask) if isinstance(part, Documents)]
    if packed and (layout.documents is None or packed != [layout.documents]):
        raise InputError(
            f"{mask!r} packs documents that the layout does not have: give Layout(…, documents=…) the same lengths."
        )
    if layout.documents is not None and not packed:
        raise InputError(
            f"the layout has documents, which the mask {mask!r} does not keep apart: add & documents(lengths), or "
            "leave them out of the layout."
        )


def check_transforms(name: str, *tensors: torch.Tensor) -> None:
    """Raise InputError inside torch.func's transforms, which would hand over tensors that cannot be sent."""
    transformed = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    if transformed or any(map(is_batched, tensors)):
        raise InputError(
            f"{name} is inside torch.vmap, torch.func, forward_ad or is_grads_batched: call it outside, with the batch "
            "as leading axes, and take gradients by backward()."
        )


def check_timeout(timeout: float) -> None:
    """Raise InputError for anything but a positive number of seconds."""
    check_number("timeout", timeout, 0.001, 1e6)
