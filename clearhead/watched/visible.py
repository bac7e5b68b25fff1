"""Which keys the queries of a pass see, in O(n) memory where possible, and the mask that says so.

Nearly every mask shows each query an interval of keys, less those that are padding. Responsible for that form, and for
the simplest mask of `rules.masks` with the same meaning. A mask of another form is kept as one bit for each pair.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Integers
from clearhead.rules.document_masks import run_lengths
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.masks import causal, dense, documents, full, where, window

Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Visible:
    """Query i sees the keys from low[i] up to high[i] whose `tokens` is True, or those of `bits`.

    The first axis is the sequence's; 1 stands for all.
    """

    low: Integers  # (sequences or 1, queries)
    high: Integers
    tokens: Booleans | None = None  # (sequences or 1, keys), False at padding
    bits: npt.NDArray[np.uint8] | None = None  # (sequences or 1, heads or 1, queries, ⌈keys / 8⌉), instead of intervals

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(x.nbytes for x in (self.low, self.high, self.tokens, self.bits) if x is not None)

    @property
    def is_alike(self) -> bool:
        """Whether all queries of a sequence see the same keys."""
        alike = (self.low == self.low[:, :1]).all() and (self.high == self.high[:, :1]).all()
        return bool(alike) and (self.bits is None or bool((self.bits == self.bits[:, :, :1]).all()))

    def interval(self, row: int) -> tuple[Integers, Integers]:
        """A sequence's intervals."""
        own = row if len(self.low) > 1 else 0
        return self.low[own].astype(np.int64), self.high[own].astype(np.int64)

    def tokens_of(self, row: int, keys: int) -> Booleans:
        """Which keys of a sequence are tokens."""
        return np.ones(keys, bool) if self.tokens is None else self.tokens[row if len(self.tokens) > 1 else 0]

    def table(self, row: int, keys: int) -> Booleans:
        """The pairs of a sequence, (heads or 1, queries, keys)."""
        if self.bits is not None:
            own = self.bits[row if len(self.bits) > 1 else 0]
            return np.unpackbits(own, axis=-1, count=keys).astype(bool)
        low, high = self.interval(row)
        key = np.arange(keys)
        return ((key >= low[:, None]) & (key < high[:, None]) & self.tokens_of(row, keys))[None]


def visible_band(queries: int, keys: int, offset: int, left: int | None, right: int | None) -> Visible:
    """What a band shows: keys from `left` before to `right` after each query, whose position is its index + offset."""
    position = np.arange(queries) + offset
    low = np.zeros(queries, np.int64) if left is None else position - left
    high = np.full(queries, keys) if right is None else position + right + 1
    bounds = (np.clip(x, 0, keys).astype(np.int32)[None] for x in (low, high))
    return Visible(*bounds)


def within_tokens(low: Integers, high: Integers, tokens: Booleans) -> Visible:
    """What intervals (sequences, queries) show of keys of which some are padding, (sequences, keys).

    Each interval begins and ends at a token. Keys that no query sees count as padding, and are left out at the end.
    """
    keys, place = tokens.shape[1], np.arange(tokens.shape[1])
    ends = np.full((len(tokens), 1), keys), np.zeros((len(tokens), 1), np.int64)
    following = np.minimum.accumulate(np.where(tokens, place, keys)[:, ::-1], axis=1)[:, ::-1]
    following = np.concatenate([following, ends[0]], axis=1)  # the first token from each key on
    before = np.concatenate([ends[1], np.maximum.accumulate(np.where(tokens, place + 1, 0), axis=1)], axis=1)
    low, high = np.broadcast_arrays(low, high)
    shape = (len(tokens), low.shape[1])
    first, end = (
        np.take_along_axis(x, np.broadcast_to(at, shape).astype(np.int64), axis=1)
        for x, at in ((following, low), (before, high))
    )
    first, end = np.where(first < end, (first, end), 0).astype(np.int32)
    seen = tokens & covered(first, end, keys)
    last = int(np.flatnonzero(seen.any(0))[-1]) + 1 if seen.any() else keys
    seen = seen[:, :last] if shape[1] <= last else seen
    return Visible(first, end, None if seen.all() and seen.shape[1] == keys else seen)


def covered(low: Integers, high: Integers, keys: int) -> Booleans:
    """Which keys are in some interval of a sequence, (sequences, keys)."""
    steps = np.zeros((len(low), keys + 1), np.int64)
    for row, (begin, end) in enumerate(zip(low, high, strict=True)):
        np.add.at(steps[row], begin, 1)
        np.add.at(steps[row], end, -1)
    result: Booleans = np.cumsum(steps, axis=1)[:, :keys] > 0
    return result


def with_tokens(visible: Visible, keys: int, tokens: Booleans) -> Visible:
    """The same visible pairs, where other keys are tokens: a hidden token between visible ones takes bits to say."""
    if visible.tokens is None or visible.bits is not None:
        return replace(visible, tokens=tokens)
    key = np.arange(keys)
    first, last = visible.low.min(1)[:, None], visible.high.max(1)[:, None]
    if not (tokens & ~visible.tokens & (key >= first) & (key < last)).any():
        return replace(visible, tokens=tokens)
    tables = [visible.table(row, keys) for row in range(len(tokens))]
    whole = np.full_like(visible.high, keys)
    return Visible(np.zeros_like(visible.low), whole, tokens, np.packbits(np.stack(tables), axis=-1))


@dataclass(frozen=True, eq=False)
class Shown:
    """What a whole sequence's queries see: query i the keys from low[i] up to high[i], or the pairs of `table`."""

    low: Integers  # (queries,)
    high: Integers
    keys: int
    until: Integers | None = None  # (keys,) the number of the first query that each key is gone for
    table: Booleans | None = None  # (heads or 1, queries, keys), instead

    @property
    def mask(self) -> Mask:
        """The simplest mask that says it."""
        if self.table is not None:
            return dense(self.table)
        low, high = self.low, self.high
        if self.until is None:
            position = np.arange(len(low)) + self.keys - len(low)
            known = band(low, high, position, self.keys) or packed(low, high, self.keys)
            if known is not None:
                return known
            shown = where(lambda batch, head, query, key: (key >= low[query]) & (key < high[query]))
        else:
            gone = self.until
            shown = where(
                lambda batch, head, query, key: (key >= low[query]) & (key < high[query]) & (gone[key] > query)
            )
        return shown & window(None, None, align="start")  # queries are counted from the first


def band(low: Integers, high: Integers, position: Integers, keys: int) -> Mask | None:
    """Causal, window or full, if that says it."""
    everything = bool((high == keys).all())
    looks_back = bool((high == position + 1).all())
    if (low == 0).all() and (everything or looks_back):
        return full() if everything and not looks_back else causal(align="end")
    left = int((position - low).max(initial=0))
    if not (low == np.maximum(0, position - left)).all():
        return None
    if looks_back:
        return causal(align="end") & window(left, None, align="end")
    right = int((high - 1 - position).max(initial=0))
    if (high == np.minimum(keys, position + right + 1)).all():
        return window(left, right, align="end")
    return None


def packed(low: Integers, high: Integers, keys: int) -> Mask | None:
    """Documents, each full or causal, if that says it."""
    if len(low) != keys or not keys:
        return None
    starts, ends = np.unique(low), np.unique(high)
    lengths = run_lengths(low)
    stops = np.cumsum(lengths)
    if not np.array_equal(starts, stops - lengths):
        return None
    if np.array_equal(ends, stops) and np.array_equal(high, np.repeat(stops, lengths)):
        return documents(lengths) & full()
    if np.array_equal(high, np.arange(keys) + 1):
        return documents(lengths) & causal()
    return None
