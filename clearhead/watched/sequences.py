"""One sequence of a record: the passes that led to its last one, as queries × keys, and its check against the model.

A pass's keys are those of an earlier pass, perhaps of another sequence (beam search), perhaps without the last ones
(rejected candidates) or the first ones (a sliding cache), and then its own. Responsible for following that back, for
leaving padding out, and for the mask and the rules that the whole has.

Keys are numbered in three ways: in their *pass*, as the model had them; by their *place* in a `Walk`, where each key of
the sequence stands once, padding too; and among the *tokens* that are shown, where padding is left out (`compact` leads
from places to these).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clearhead.arrays import Array, Integers
from clearhead.attention_weights.lazy import check_memory
from clearhead.attention_weights.matrix import Weights, weights
from clearhead.errors import InputError, TrustError
from clearhead.interventions.edits import Ablate, Edit, Patch
from clearhead.interventions.shown import edited_weights
from clearhead.machine import loading
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.scores import Score, softcap
from clearhead.watched.added import Added, consecutive, joined, over_pairs, rule_of
from clearhead.watched.growing import Growing
from clearhead.watched.records import Pass, Record
from clearhead.watched.visible import Shown

TOLERANCES = {
    "float64": 1e-10,
    "float32": 1e-4,
    "float16": 1e-2,
    "bfloat16": 5e-2,
}  # allowed error, as a share of the largest value


@dataclass(eq=False)
class Walk:
    """The keys of a sequence as its passes are followed, and where each pass's queries and keys stand among them."""

    # Of each place: the sequence whose pass brought the key, its number among all keys of the record, and …
    rows: Integers = field(default_factory=lambda: np.empty(0, np.int64))
    items: Integers = field(default_factory=lambda: np.empty(0, np.int64))
    tokens: Array = field(default_factory=lambda: np.empty(0, bool))  # False at padding
    steps: list[Step] = field(default_factory=list)


@dataclass(eq=False)
class Step:
    """One pass of a sequence."""

    number: int
    row: int  # the sequence's row in that pass
    places: Integers  # of each of the pass's keys
    own: Integers  # the place of each query's own key; −1 in cross-attention
    kept: Array  # which queries are still part of the text


def lineage(record: Record, sequence: int) -> list[int]:
    """The row of each pass that a sequence of the last pass comes from."""
    rows = [sequence]
    for one in reversed(record.passes[1:]):
        rows.append(rows[-1] if one.continues is None else int(one.continues.parents[rows[-1]]))
    return rows[::-1]


def walk(record: Record, rows: list[int]) -> Walk:
    """Follow a sequence through the passes of a record."""
    path, at = Walk(), 0
    for number, (one, row) in enumerate(zip(record.passes, rows, strict=True)):
        old = np.empty(0, np.int64)
        if one.continues is not None:
            old = path.steps[-1].places[one.continues.kept[row]]
        if one.new:  # after the last old key: what stood there was rejected; queries alone reject nothing
            cut_back(path, int(old.max(initial=-1)) + 1)
        start = len(path.rows)
        new = np.arange(start, start + one.new)
        path.rows = np.concatenate([path.rows, np.full(one.new, row)])
        path.items = np.concatenate([path.items, np.arange(at, at + one.new)])
        path.tokens = np.concatenate([path.tokens, one.visible.tokens_of(row, one.keys)[one.keys - one.new :]])
        own = np.full(one.queries, -1)
        if one.new >= one.queries and not crosses(record):
            own = new[one.new - one.queries :]
        path.steps.append(Step(number, row, np.concatenate([old, new]), own, np.ones(one.queries, bool)))
        at += one.new
    return path


def cut_back(path: Walk, length: int) -> None:
    """Forget keys from `length` on, which the model took back, and their queries."""
    if length < len(path.rows):
        path.rows, path.items, path.tokens = path.rows[:length], path.items[:length], path.tokens[:length]
        for step in path.steps:
            step.kept &= step.own < length


def crosses(record: Record) -> bool:
    """Whether queries and keys are of different texts.

    Their layer's name says so, later passes bring queries alone, or several queries see the same of more or fewer keys.
    """
    if not record.passes:  # of a loaded record, whose sequences are put together
        return False
    first = record.passes[0]
    if record.crosses or first.queries > first.new or any(not one.new for one in record.passes[1:]):
        return True
    return 1 < first.queries < first.keys and first.visible.is_alike


@dataclass(frozen=True)
class Compared:
    """How many of the model's own output rows were recomputed, the largest difference, and what was allowed."""

    rows: int
    difference: float
    allowed: float


@dataclass(eq=False)
class Sequence:
    """One sequence of a record: (heads, queries, …) and (key heads, keys, …), without padding."""

    record: Record
    layer: tuple[str, int]  # the part and the number
    number: int  # in the batch
    query: Array
    key: Array
    value: Array
    shown: Shown
    added: Added | None
    steps: tuple[int, ...]  # queries of each pass
    key_ids: Array | None
    query_ids: Array | None
    checks: tuple[tuple[int, Array], ...]  # a query's number, and the model's own output for it, (heads, value dim)
    changes: tuple[Edit, ...] = ()
    compared: Compared | None = None  # with the model's own output, once `check` has found it in the weights
    made: Weights | None = None  # `weights`, once asked for

    @property
    def mask(self) -> Mask:
        """The simplest mask with the meaning of the model's."""
        return self.shown.mask

    @property
    def score(self) -> tuple[Score, ...]:
        """The model's cap, what it adds, and its own score function."""
        capped: tuple[Score, ...] = () if self.record.cap is None else (softcap(self.record.cap),)
        return (*capped, *(() if self.added is None else (rule_of(self.added),)), *self.record.rules)

    @property
    def nbytes(self) -> int:
        """Bytes of queries, keys and values."""
        return self.query.nbytes + self.key.nbytes + self.value.nbytes

    @property
    def weights(self) -> Weights:
        """The weights (heads, queries, keys), unchecked."""
        if self.made is None:
            k, count = self.key, len(self.record.heads)
            if self.record.key_heads != tuple(n * len(k) // count for n in range(count)):  # unevenly shared, by heads=…
                k = k[list(self.record.key_heads)]
            own = weights(
                self.query, k, mask=self.mask, score=self.score, scale=self.record.scale, sink=self.record.sink
            )
            if self.record.card is not None and not loading.fault():
                from clearhead.gpu.lent import lend

                own = lend(own, self.record.card)
            self.made = own if not self.changes else self.edited(own)
        return self.made

    def edited(self, own: Weights) -> Weights:
        """The weights as interventions made them."""
        record = self.record
        return edited_weights(
            own,
            self.changes,
            self.layer,
            heads=record.heads,
            count=record.count,
            steps=self.steps,
            crosses=crosses(record),
            sequence=self.number,
        )

    def replaced(self) -> set[int]:
        """The heads whose outputs interventions replaced by other than weighted values."""
        replacing = [x for x in self.changes if isinstance(x, Ablate) or (isinstance(x, Patch) and x.values)]
        return {head for edit in replacing if edit.of(self.layer) for head in edit.heads_of(self.record.count)}

    @property
    def values(self) -> Array:
        """The values of each head, (heads, keys, value dim); raises InputError if another run's took their place."""
        moved = [x for x in self.changes if isinstance(x, Patch) and x.values and x.of(self.layer)]
        if moved:
            raise InputError(
                f"in layer {self.layer[1]} of {self.layer[0]}, {moved[0]!r} put another run's values in place of the "
                "recorded ones: take values from that run's watch."
            )
        chosen: Array = self.value[list(self.record.key_heads)]
        return chosen

    def check(self, layer: str) -> None:
        """Recompute output rows from the weights; raises TrustError unless they match the model's own output."""
        if self.compared is not None:
            return
        replaced = self.replaced()
        value = self.value.astype(np.promote_types(np.float32, self.weights.dtype))
        limit = TOLERANCES.get(self.record.dtype, 5e-2) * float(np.abs(value).max(initial=0))
        largest = 0.0
        for query, own in self.checks:
            row = self.weights.row(query)
            with np.errstate(invalid="ignore"):  # 0 · ∞, of a model whose values are not finite
                recomputed = np.stack([row[n] @ value[h] for n, h in enumerate(self.record.key_heads)])
                error = np.abs(recomputed - own).max(axis=-1)
            error[[head in replaced for head in self.record.heads]] = 0
            largest = max(largest, float(error.max(initial=0)))
            if not (error <= limit).all():
                head = self.record.heads[int(np.argmax(np.where(np.isnan(error), np.inf, error)))]
                place = f"{layer}, head {head}, position {query}"
                if not (np.isfinite(limit) and np.isfinite(own).all()):
                    raise TrustError(
                        f"{place}: the model's own values or outputs are not finite (NaN or infinity), so that nothing "
                        "can be compared with them. This layer is not shown: look for the first layer that is refused, "
                        "for there they begin."
                    )
                raise TrustError(
                    f"{place}: the output recomputed from recorded arrays differs by {error.max():.2g} (allowed: "
                    f"{limit:.2g}) from the model's own attention. This layer is not shown, since its weights would "
                    "not be those of the model: compare with attn_implementation='eager', and leave the layer out "
                    "with layers=…."
                )
        self.compared = Compared(len(self.checks), largest, limit)


def sequence_of(record: Record, layer: tuple[str, int], sequence: int, guide: Record | None = None) -> Sequence:
    """Put a sequence of the last pass together; `guide` as for `walked`."""
    return assembled(record, layer, sequence, walked(record, sequence, guide))


def walked(record: Record, sequence: int, guide: Record | None) -> Walk:
    """Follow a sequence, and leave out the queries that are padding.

    In cross-attention, `guide` is the record of the self-attention beside it, which knows whose queries they are.
    """
    path = walk(record, lineage(record, sequence))
    if guide is not None:
        beside = walk(guide, lineage(guide, sequence))
        for step, other in zip(path.steps, beside.steps, strict=True):
            step.row = other.row
            step.kept &= other.kept & beside.tokens[other.own]
    for step in path.steps:
        there = step.kept & (step.own >= 0)
        step.kept[there] &= path.tokens[step.own[there]]
    return path


def extent_of(record: Record, sequence: int, guide: Record | None = None) -> Shown:
    """What a sequence's queries see of its keys, and so how many there are, without its arrays."""
    path = walked(record, sequence, guide)
    queries = sum(int(step.kept.sum()) for step in path.steps)
    compact = np.cumsum(path.tokens) - path.tokens
    return shown_over(record, path, compact, int(path.tokens.sum()), queries)


def assembled(record: Record, layer: tuple[str, int], sequence: int, path: Walk) -> Sequence:
    """The arrays of a walk, and the mask over them."""
    compact = np.cumsum(path.tokens) - path.tokens  # each key's number when padding is left out
    keys = int(path.tokens.sum())
    query = taken_queries(record, path)
    value, key = (x.take(path.rows[path.tokens], path.items[path.tokens]) for x in (record.value, record.key))
    queries = query.shape[1]
    steps = tuple(int(step.kept.sum()) for step in path.steps)
    parts = list(added_parts(record, path, compact))
    ids = key_ids_of(record, path)
    return Sequence(
        record,
        layer,
        sequence,
        query,
        key,
        value,
        shown_over(record, path, compact, keys, queries),
        joined(parts, len(record.heads), queries, keys) if parts else None,
        steps,
        None if ids is None else ids[path.tokens],
        query_ids_of(record, path),
        tuple(checks_of(record, path)),
        tuple(dict.fromkeys(change for one in record.passes for change in one.changes)),
    )


def taken_queries(record: Record, path: Walk) -> Array:
    """The queries that belong to the text, (heads, queries, dim)."""
    starts = np.cumsum([0, *(one.queries for one in record.passes)])
    rows = np.concatenate([np.full(int(step.kept.sum()), step.row) for step in path.steps])
    items = np.concatenate([np.flatnonzero(step.kept) + starts[step.number] for step in path.steps])
    return record.query.take(rows, items)


def shown_over(record: Record, path: Walk, compact: Integers, keys: int, queries: int) -> Shown:
    """What all queries see of all tokens: an interval each, without those that a cache has let go by then.

    A pass's interval is over its keys. Its ends become places, and places token numbers.
    """
    if any(record.passes[step.number].visible.bits is not None for step in path.steps):
        none = np.zeros(queries, np.int64)
        return Shown(none, none, keys, table=table_over(record, path, compact, keys, queries))
    until, lows, highs, at = np.full(len(path.rows), queries), [], [], 0  # until: the first query without the key
    ends = np.append(compact, keys)  # the end of an interval may be one place after the last
    for step in path.steps:
        one = record.passes[step.number]
        low, high = one.visible.interval(step.row)
        places = np.append(step.places, step.places[-1:] + 1) if len(step.places) else np.zeros(1, np.int64)
        high = np.where(high > low, places[np.maximum(high, 1) - 1] + 1, 0)
        low = places[np.minimum(low, len(step.places))]
        if len(step.places):
            # Between its first and last key, a pass lacks those that its cache let go; before, its interval says so.
            gone = np.setdiff1d(np.arange(step.places.min(), step.places.max() + 1), step.places)
            gone = gone[gone < len(path.rows)]
            until[gone] = np.minimum(until[gone], at)
        lows.append(np.minimum(ends[np.minimum(low, len(compact))], ends[np.minimum(high, len(compact))])[step.kept])
        highs.append(ends[np.minimum(high, len(compact))][step.kept])
        at += int(step.kept.sum())
    dropped = until[path.tokens]
    return Shown(np.concatenate(lows), np.concatenate(highs), keys, None if (dropped >= queries).all() else dropped)


def is_token(path: Walk, places: Integers) -> Array:
    """Which places hold a token of the text."""
    inside = places < len(path.rows)
    inside[inside] = path.tokens[places[inside]]
    return inside


def table_over(record: Record, path: Walk, compact: Integers, keys: int, queries: int) -> Array:
    """The pairs of a mask that is not made of intervals, (heads or 1, queries, keys)."""
    bits = [record.passes[step.number].visible.bits for step in path.steps]
    heads = max(1 if b is None else b.shape[1] for b in bits)
    check_memory((heads, queries, keys), np.dtype(bool))
    table, at = np.zeros((heads, queries, keys), bool), 0
    for step in path.steps:
        one, count = record.passes[step.number], int(step.kept.sum())
        part = one.visible.table(step.row, one.keys)[:, step.kept]
        there = is_token(path, step.places)
        table[:, at : at + count, compact[step.places[there]]] = part[:, :, there]
        at += count
    return table


def added_parts(record: Record, path: Walk, compact: Integers) -> Iterator[Any]:
    """What each pass adds to scores: table, form, queries and keys."""
    at = 0
    for step in path.steps:
        one, count = record.passes[step.number], int(step.kept.sum())
        numbers = np.arange(at, at + count)
        at += count
        if one.added is None:
            continue
        table, there = one.added.of(step.row), is_token(path, step.places)
        by_distance = one.added.by_distance
        if by_distance and consecutive(np.flatnonzero(step.kept)) and consecutive(np.flatnonzero(there)):
            table = trimmed(table, step.kept, there, one)
        elif by_distance:  # padding inside
            table, by_distance = over_pairs(table, one.queries, len(there)), False
        if not by_distance:
            table = table[:, step.kept] if table.shape[1] > 1 else table
            table = table[:, :, there] if table.shape[2] > 1 else table
        if count:
            yield table, by_distance, numbers, compact[step.places[there]]


def trimmed(table: Array, kept: Array, there: Array, one: Pass) -> Array:
    """A table by distance for the queries and keys that are left when padding at one end is left out."""
    queries, keys = np.flatnonzero(kept), np.flatnonzero(there)
    if not len(queries) or not len(keys):
        return table[:, :0]
    first = int(keys[0]) - int(queries[-1]) + one.queries - 1
    return table[:, first : first + int(keys[-1] - keys[0]) + int(queries[-1] - queries[0]) + 1]


def checks_of(record: Record, path: Walk) -> Iterator[tuple[int, Array]]:
    """The queries whose own output was kept, by their numbers."""
    at = 0
    for step in path.steps:
        one = record.passes[step.number]
        numbers = at + np.cumsum(step.kept) - 1
        at += int(step.kept.sum())
        if one.output is None:
            continue
        output = one.output if isinstance(one.output, np.ndarray) else one.output.arrived()
        for n, query in enumerate(one.checked):
            if step.kept[query]:
                yield int(numbers[query]), output[step.row, :, n]


def ids_of(one: Pass) -> Array | None:
    """The tokens that were fed in, (sequences, queries)."""
    return one.ids if one.ids is None or isinstance(one.ids, np.ndarray) else one.ids.arrived()


def query_ids_of(record: Record, path: Walk) -> Array | None:
    """The tokens of the queries."""
    parts = [ids_of(record.passes[step.number]) for step in path.steps]
    if any(part is None for part in parts):
        return None
    return np.concatenate([part[s.row][s.kept] for part, s in zip(parts, path.steps, strict=True) if part is not None])


def key_ids_of(record: Record, path: Walk) -> Array | None:
    """The tokens of the keys, where they were queries, too."""
    if any(one.new and (one.new != one.queries or one.ids is None) for one in record.passes) or crosses(record):
        return None
    parts = [ids_of(one) for one in record.passes if one.new]
    stack = Growing()
    for part in parts:
        if part is not None:
            stack.append(part[:, None, :, None])
    taken: Array = stack.take(path.rows, path.items)[0, :, 0]
    return taken
