"""`sharded_decode`: few queries over a cache that several ranks hold. Keys and values stay; queries and sums travel.

The asking rank sends its queries, each rank sends back the undivided sums of each of its segments, and the asking rank
joins them in ascending order, as one process would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import torch

from clearhead.adapters.torch.arguments import check_tensors
from clearhead.adapters.torch.distributed.agreement import FUNCTION, Facts, agree, collected_from, own_code
from clearhead.adapters.torch.distributed.call import (
    band_of,
    check_places,
    check_timeout,
    check_transforms,
    rule_facts,
    rule_words,
)
from clearhead.adapters.torch.distributed.layout import Layout, Stretch
from clearhead.adapters.torch.distributed.peers import Peers
from clearhead.adapters.torch.distributed.sharding import check_ranks
from clearhead.adapters.torch.host import array_view, dense
from clearhead.arrays import Array, is_integer
from clearhead.cache.key_value import KeyValueCache
from clearhead.definition.canonical import SEGMENT
from clearhead.engine.problem import check_scale
from clearhead.errors import InputError, ShapeError
from clearhead.pieces.origin import Origin
from clearhead.pieces.partial import Partial, join, segments
from clearhead.pieces.stretch import Call
from clearhead.rules.mask_kinds import Mask, checked_mask
from clearhead.rules.masks import CAUSAL, full
from clearhead.rules.scores import ScoreLike, as_rules


@torch.compiler.disable  # type: ignore[untyped-decorator]
def sharded_decode(
    q: torch.Tensor | None,
    caches: Sequence[KeyValueCache],
    layout: Layout,
    *,
    source: int = 0,
    group: Any = None,
    mask: Mask = CAUSAL,
    score: ScoreLike = (),
    sink: torch.Tensor | None = None,
    scale: float | None = None,
    timeout: float = 60.0,
) -> torch.Tensor | None:
    """`attention` of the last queries over keys and values that all ranks hold together, with the bits of one process.

    `layout` says who holds which of `layout.length` keys; `caches` are this rank's, one for each of its stretches
    (`layout.stretches(rank)`). On rank `source`, q is (..., heads, n, d), the queries of the last n positions, and the
    result (..., heads, n, dv); other ranks give None and get None. Only q, and dv + 2 numbers a row and segment of 2048
    keys, travel. All ranks must call it alike. It has no gradient.

    Raises InputError, ShapeError or DtypeError, on all ranks, and PeerError as `sharded_attention` does.

    >>> from clearhead.adapters.torch import attention
    >>> alone = torch.distributed.HashStore()
    >>> torch.distributed.init_process_group("gloo", store=alone, rank=0, world_size=1)
    >>> x, cache = torch.randn(2, 3000, 16), KeyValueCache()
    >>> cache.append(x.numpy(), x.numpy())
    >>> y = sharded_decode(x[:, -1:], [cache], Layout(3000, 1))
    >>> torch.equal(y, attention(x, x, x)[:, -1:])
    True
    >>> torch.distributed.destroy_process_group()
    """
    check_timeout(timeout)
    peers = Peers(group, timeout)
    with peers.alone():
        return decoded(peers, q, caches, layout, source, mask, score, sink, scale)


def decoded(
    peers: Peers,
    q: torch.Tensor | None,
    caches: Sequence[KeyValueCache],
    layout: Layout,
    source: int,
    mask: Mask,
    score: ScoreLike,
    sink: torch.Tensor | None,
    scale: float | None,
) -> torch.Tensor | None:
    """`sharded_decode`, while no other thread is in a call on the group."""
    facts: Facts = {FUNCTION: "sharded_decode"} | own_code()
    agree(peers, facts)  # so that the next message is what it seems
    told = collected_from(peers, description_of(q, caches))
    words, fault = {}, None
    try:
        check_transforms("sharded_decode")
        asked = asked_of(told, layout, peers, source)
        check_own(q, caches, layout, peers.rank, source)
        rules = as_rules(score)
        check_places(checked_mask(mask), layout)
        if sink is not None:
            check_tensors(sink=sink)
        factor = check_scale(asked.shape[-1] ** -0.5 if scale is None else scale)
        facts |= rule_facts(mask, rules) | {"the source": str(source), "the scale": repr(factor)}
        facts["the layout"], words = repr(layout), rule_words(mask, rules)
    except Exception as error:  # whatever a user's rule raises, the others are to know
        fault = error
    agree(peers, facts, fault, words)
    at = layout.length - asked.shape[-2]
    with peers.together():
        held = seen_segments(mask, at, layout)
        queries = travelled(peers, q, asked, source, {rows.rank for rows in held})
        options: dict[str, Any] = {
            "mask": mask & full(at=at),
            "score": rules,
            "scale": factor,
            "threads": torch.get_num_threads(),
        }
        own = dict(own_sums(array_view(queries), caches, layout.stretches(peers.rank), held, options))
        if peers.rank != source:
            send_sums(peers, own, source)
            return None
        origin = Call.of(array_view(queries), **options).origin
        whole = [own.get(rows) or received(peers, rows, asked, queries, origin) for rows in held]
    threads = options["threads"]
    total = reduce(lambda total, part: join(total, part, threads=threads), whole)
    return dense(total.finish(None if sink is None else array_view(sink), threads=threads).output, queries)


class Asked(NamedTuple):
    """What the asking rank's queries are like, and the value dim of all caches."""

    shape: tuple[int, ...]
    dtype: str
    value_dim: int


def description_of(q: Any, caches: Any) -> dict[str, Any]:
    """What the others must know of this rank's arguments; nothing of wrong ones."""
    told: dict[str, Any] = {}
    if isinstance(q, torch.Tensor):
        told |= {"shape": list(q.shape), "dtype": str(q.dtype)}
    if isinstance(caches, Sequence):
        told["caches"] = sorted({str(x.layout) for x in caches if isinstance(x, KeyValueCache)})[:2]
        told["value dims"] = [x.layout.value_dim for x in caches if isinstance(x, KeyValueCache) and x.layout][:1]
    return told


def asked_of(facts: Sequence[dict[str, Any]], layout: Layout, peers: Peers, source: int) -> Asked:
    """The question, from what all ranks tell; raises InputError."""
    check_ranks(layout, peers)
    if not is_integer(source) or not 0 <= source < peers.size:
        raise InputError(f"source={source!r} is not a rank: use 0 to {peers.size - 1}.")
    shape, dtype = facts[source].get("shape", ()), facts[source].get("dtype", "")
    kinds = {kind for fact in facts for kind in fact.get("caches", ())}
    if len(kinds) > 1:
        raise InputError(f"the caches of the ranks differ: {'; '.join(sorted(kinds))}. Append alike arrays on each.")
    if not len(shape) >= 3 or not 0 < shape[-2] <= layout.length:
        raise ShapeError(
            f"q of shape {tuple(shape)} on rank {source}: give (..., heads, n, d), n up to the number of keys."
        )
    dims = [dim for fact in facts for dim in fact.get("value dims", ())]
    return Asked(tuple(shape), dtype, dims[0] if dims else 1)


def check_own(q: Any, caches: Any, layout: Layout, rank: int, source: int) -> None:
    """Raise InputError or ShapeError unless these are this rank's caches, and its queries if it asks."""
    if rank == source:
        check_tensors(q=q)
        if q.requires_grad and torch.is_grad_enabled():
            raise InputError("sharded_decode has no gradient: give q.detach(), or call sharded_attention.")
    elif q is not None:
        raise InputError(f"rank {rank} gives queries, but rank {source} asks: give q=None on all others.")
    if layout.documents is not None:
        raise InputError("the layout has documents, but a cache keeps sequences apart: ask for each one alone.")
    if not isinstance(caches, Sequence) or not all(isinstance(x, KeyValueCache) for x in caches):
        raise InputError("caches are not a list of KeyValueCache: give one for each of layout.stretches(rank).")
    stretches = layout.stretches(rank)
    lengths = [cache.lengths for cache in caches]
    if [set(x) for x in lengths] != [{rows.rows} for rows in stretches]:
        raise ShapeError(
            f"the caches hold {lengths} keys, but by the layout rank {rank} has {[x.rows for x in stretches]}: give a "
            "cache for each of layout.stretches(rank)."
        )


def seen_segments(mask: Mask, at: int, layout: Layout) -> list[Stretch]:
    """The segments that queries from a position on may see, ascending."""
    low, high = band_of(mask, layout.length)
    first = 0 if low is None else at + low
    stop = layout.length if high is None else layout.length + high
    return [rows for rows in layout.segments if rows.start < stop and first < rows.stop]


def travelled(peers: Peers, q: torch.Tensor | None, asked: Asked, source: int, holders: set[int]) -> torch.Tensor:
    """The queries, on every rank that holds keys that they see."""
    what = "the transfer of the queries"
    if peers.rank == source:
        own = q.contiguous()  # type: ignore[union-attr]
        peers.wait_all([(rank, peers.send(own, rank, what)) for rank in sorted(holders - {source})], what)
        return own
    queries = torch.empty(asked.shape, dtype=getattr(torch, asked.dtype.removeprefix("torch.")))
    if peers.rank in holders:
        peers.wait_all([(source, peers.receive(queries, source, what))], what)
    return queries


def own_sums(
    q: Array,
    caches: Sequence[KeyValueCache],
    stretches: Sequence[Stretch],
    wanted: Sequence[Stretch],
    options: dict[str, Any],
) -> Iterator[tuple[Stretch, Partial]]:
    """The sums of each of this rank's segments that are wanted."""
    for rows, cache in zip(stretches, caches, strict=True):
        inside = [segment for segment in wanted if rows.start <= segment.start < rows.stop]
        if inside:
            parts = segments(q, cache, first_key=rows.start, **options)
            for segment in inside:
                yield segment, parts[(segment.start - rows.start) // SEGMENT]


def send_sums(peers: Peers, own: dict[Stretch, Partial], source: int) -> None:
    """Send the sums of segments, each as (..., heads, n, dv + 2)."""
    what = "the transfer of sums"
    tensors = [torch.from_numpy(np.concatenate([x.o, x.m[..., None], x.l[..., None]], -1)) for x in own.values()]
    peers.wait_all([(source, peers.send(x, source, what)) for x in tensors], what)


def received(peers: Peers, rows: Stretch, asked: Asked, queries: torch.Tensor, origin: Origin) -> Partial:
    """The sums of a segment, from the rank that holds it."""
    wide = torch.float64 if queries.dtype is torch.float64 else torch.float32
    numbers = torch.empty((*asked.shape[:-1], asked.value_dim + 2), dtype=wide)
    what = f"the segment from key {rows.start} on"
    peers.wait_all([(rows.rank, peers.receive(numbers, rows.rank, what))], what)
    o, m, l = (np.ascontiguousarray(x) for x in np.split(numbers.numpy(), [asked.value_dim, asked.value_dim + 1], -1))
    return Partial(m[..., 0], l[..., 0], o, rows.start, rows.stop, 1, array_view(queries).dtype, origin)
