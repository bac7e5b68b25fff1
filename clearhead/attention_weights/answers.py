"""From questions about weights to one sweep, and from its sums to the answers.

Responsible for checking what is asked and for reading answers off sums. `questions` lists them, `labels` and
`factors` what is given with them, `sweep` computes the sums.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array, Integers
from clearhead.attention_weights.factors import key_factors
from clearhead.attention_weights.joined import Extent
from clearhead.attention_weights.labels import group_pairs, labels_of, match_pairs
from clearhead.attention_weights.lazy import LazyMatrix, axis_indices, check_memory
from clearhead.attention_weights.lse import Source
from clearhead.attention_weights.questions import NEEDS, PER_KEY, checked_questions
from clearhead.attention_weights.summary import Summary, carriers
from clearhead.attention_weights.sweep import Sweep
from clearhead.errors import InputError
from clearhead.rules.placement import placed_at


class Given(NamedTuple):
    """What is given with the questions."""

    top: int
    window: int
    shares: Sequence[float]
    queries: slice | npt.ArrayLike
    v: npt.ArrayLike | None
    factors: npt.ArrayLike | None
    groups: Any
    matches: Any


def answer(w: LazyMatrix, names: Sequence[str], given: Given) -> Summary:
    """Answer questions about weights; raises InputError or ShapeError."""
    pages = w.source.pages
    names = checked_questions(names, placed=pages is None or pages.kept is None)
    check_given(names, given)
    (rows, at), flat = axis_indices(given.queries, w.shape[-2]), np.ascontiguousarray(w.heads.reshape(-1))
    factors = key_factors(w, given.v, given.factors)
    groups = group_pairs(given.groups, w.shape) if "groups" in names else {}
    matches = match_pairs(given.matches, w.shape) if "matches" in names else {}
    edges = distance_edges(w.source.farthest) if "distances" in names else ()
    near, most = min(int(given.window), w.source.farthest + 1), min(int(given.top), w.shape[-1])
    first = w.source.first_key
    labels = labels_of([*groups.values(), *matches.values()], w.shape, w.dtype) if groups or matches else None
    sweep = replace(
        w.sweep(flat, rows, 0, w.shape[-1]),
        near=near,
        top=max(1, most),
        factors=None if factors is None else after_gap(factors.reshape(-1, w.shape[-1]), first),
        labels=None if labels is None else replace(labels, keys=after_gap(labels.keys, first)),
        ranges=max(0, len(edges) - 1),
    )
    longest = max(sweep.share_count, int(given.top) if "top" in names else 0)
    check_memory((*w.heads.shape, len(rows), longest), w.dtype)
    sums = sums_of(sweep, names, (len(groups), len(matches)))
    answers: dict[str, Array] = {}
    for name in names:
        answers |= read(name, w, sweep, sums, given)
    answers = {name: x if name in PER_KEY else x[:, at] for name, x in answers.items()}
    answers = {name: x.reshape(*w.heads.shape, *x.shape[1:]) for name, x in answers.items()}
    if factors is not None:
        for name in PER_KEY:
            if name in answers:  # unseen values count as 0, even if infinite
                x = answers[name]
                answers[name] = np.multiply(x, factors, where=x != 0, out=np.zeros_like(x))
    called = {"group_names": tuple(groups), "match_names": tuple(matches), "distance_edges": edges}
    return Summary(answers, {name: names for name, names in called.items() if names}, extent_of(w, rows, given))


def extent_of(w: LazyMatrix, rows: Integers, given: Given) -> Extent:
    """Which queries and keys a summary is about, and the numbers that were given with its questions."""
    first, keys = w.source.first_key, w.shape[-1]
    at = placed_at(w.source.problem.rules.given[0])
    known = len(rows) and (at is not None or len(rows) < w.shape[-2])
    place = (int(rows[0]) + (at or 0), int(rows[-1]) + (at or 0)) if known else None
    return Extent(place, len(rows), first, first + keys, int(given.top), int(given.window))


def sums_of(sweep: Sweep, names: Sequence[str], pairs: tuple[int, int]) -> dict[str, Array]:
    """What the questions are answered from; `pairs` are the numbers of groups and matches among the pairs of labels."""
    wanted = {need for name in names if (need := NEEDS[name]) is not None}
    sums = sweep.reductions(tuple(wanted)) if wanted - {"carriers"} else {}
    if "shares" in sums:
        sums["groups"], sums["matches"], sums["distances"] = np.split(sums["shares"], np.cumsum(pairs), axis=-1)
    return sums


def read(name: str, w: LazyMatrix, sweep: Sweep, sums: dict[str, Array], given: Given) -> dict[str, Array]:
    """The answers to one question, (heads, queries or keys, ...)."""
    match name:
        case "effective":
            return {name: np.exp(sums["entropy"])}
        case "received_mean":
            return {name: sums["received_sum"] / w.dtype.type(max(1, len(sweep.queries)))}
        case "top":
            padding = [(0, 0), (0, 0), (0, int(given.top) - sums["top_keys"].shape[-1])]
            lists = (("top_weights", 0), ("top_keys", -1))
            return {key: np.pad(sums[key], padding, constant_values=none) for key, none in lists}
        case "carriers":
            return {name: carriers_of(w, sweep, given.shares)}
        case "sink_share":
            return {name: sink_share(w.source, sweep.heads, sweep.queries)}
        case _:
            return {name: sums[name]}


def check_given(names: Sequence[str], given: Given) -> None:
    """Check numbers, and that groups and matches come with their questions; raises InputError."""
    for name, number in (("top", given.top), ("window", given.window)):
        if not isinstance(number, int | np.integer) or number < 1:
            raise InputError(f"summary's {name}={number!r} must be a positive integer: use 1, 2, 3 …")
    if "carriers" in names and not are_shares(given.shares):
        raise InputError(f"summary's shares={given.shares!r} must be a list of numbers from 0 to 1: use [0.5, 0.9].")
    for name, value in (("groups", given.groups), ("matches", given.matches)):
        if value is not None and name not in names:
            raise InputError(f"summary got {name} but not the question {name!r}: ask summary({name!r}, {name}=…).")


def are_shares(shares: Any) -> bool:
    """Whether these are shares of a row, one at least."""
    numbers = list(shares) if isinstance(shares, Iterable) else []
    real = bool(numbers) and all(isinstance(x, int | float | np.integer | np.floating) for x in numbers)
    return real and all(0 <= x <= 1 for x in numbers)


def after_gap(of_keys: Array, first_key: int) -> Array:
    """Numbers (..., keys) of a stretch of keys as kernels index them: from the first of all keys on."""
    return np.ascontiguousarray(np.pad(of_keys, [(0, 0)] * (of_keys.ndim - 1) + [(first_key, 0)]))


def distance_edges(farthest: int) -> tuple[int, ...]:
    """The edges 0, 1, 2, 4, 8 … of the ranges of distances between queries and keys.

    >>> distance_edges(4), distance_edges(0)
    ((0, 1, 2, 4, 8), (0, 1))
    """
    return (0, *(1 << n for n in range(farthest.bit_length() + 1)))


def sink_share(source: Source, heads: Integers, queries: Integers) -> Array:
    """The share of each query that goes to the sink, (heads, queries): exp(sink − LSE), 0 without a sink."""
    dtype = np.dtype(source.problem.computed)
    if source.sink is None:
        return np.zeros((len(heads), len(queries)), dtype)
    lse = source.lse(queries, heads)[heads[:, None], queries]
    sinks = np.broadcast_to(source.sink, source.problem.lead).reshape(-1, 1)[heads].astype(dtype)
    with np.errstate(invalid="ignore"):
        share: Array = np.exp(sinks - lse)
    return np.where(np.isneginf(lse), dtype.type(0), share)


def carriers_of(w: LazyMatrix, sweep: Sweep, shares: Sequence[float]) -> Array:
    """The fewest keys that carry each share of each row, (heads, queries, shares)."""
    out = np.empty((len(sweep.heads), len(sweep.queries), len(shares)), np.int64)
    for head, start, part in w.parts(sweep.heads, sweep.queries, 0, w.shape[-1]):
        out[head, start : start + len(part)] = carriers(part, shares)
    return out
