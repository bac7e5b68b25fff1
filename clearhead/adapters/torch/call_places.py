"""Where the queries and keys of attention calls stand in their sequences, over the passes of a model with a cache.

A query sees its own key last. Responsible for finding padding, which nobody sees, and for recognizing a pass that
goes on where the one before it ended: with a cache that keeps all keys, has room for more, or drops the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from clearhead.adapters.torch.calls import AttentionCall
from clearhead.interventions.places import Booleans, Places


@dataclass(frozen=True, eq=False)
class Sequence:
    """What is known of a layer's sequences after a pass."""

    tokens: Booleans  # (sequences, items so far), False at padding
    dropped: int  # keys that the cache no longer has
    first_key: torch.Tensor  # a fingerprint of the first key that it has


class PlaceKeeper:
    """The places of each call of a model, one pass after another."""

    def __init__(self) -> None:
        self.sequences: WeakKeyDictionary[Any, Sequence] = WeakKeyDictionary()
        self.last: Places | None = None  # of the last self-attention, for the cross-attention beside it

    def places(self, call: AttentionCall, crosses: bool) -> Places:
        """The places of a call's queries and keys."""
        batch, queries, keys = call.query.shape[0], call.query.shape[2], call.key.shape[2]
        last_row = seen_by(call, [queries - 1])
        first = 0 if queries == keys else int(np.flatnonzero(last_row.any(0))[-1:].sum()) + 1 - queries
        if crosses or first < 0:
            return self.cross_places(call, last_row)
        now = tokens_of(call, first, last_row)
        dropped, tokens = self.go_on(call, first, now)
        place = np.where(tokens, np.cumsum(tokens, 1) - 1, -1)
        key = np.full((batch, keys), -1)
        held = place[:, dropped : dropped + keys]
        key[:, : held.shape[1]] = held
        counts = tokens.sum(1)
        self.last = Places(place[:, dropped + first :], key, counts, counts, np.arange(batch))
        return self.last

    def go_on(self, call: AttentionCall, first: int, now: Booleans) -> tuple[int, Booleans]:
        """How many keys the cache dropped, and which items of all so far are tokens."""
        mark = call.key[:, 0, 0].detach().clone()
        before = self.sequences.get(call.module) if first else None
        dropped, tokens = 0, now
        if before is not None and len(before.tokens) == len(now):
            kept = before.first_key.shape == mark.shape and torch.equal(before.first_key, mark)
            dropped = before.dropped if kept else max(before.tokens.shape[1] - first, 0)
            old = before.tokens[:, : dropped + first]
            missing = np.ones((len(now), dropped + first - old.shape[1]), bool)
            tokens = np.concatenate([old, missing, now[:, first:]], axis=1)
        self.sequences[call.module] = Sequence(tokens, dropped, mark)
        return dropped, tokens

    def cross_places(self, call: AttentionCall, last_row: Booleans) -> Places:
        """The places of a call whose keys are another sequence's: all that the last query sees."""
        batch, queries = call.query.shape[0], call.query.shape[2]
        key = np.where(last_row, np.cumsum(last_row, 1) - 1, -1)
        query, counts = np.broadcast_to(np.arange(queries), (batch, queries)), np.full(batch, queries)
        if self.last is not None and self.last.query.shape == query.shape:
            query, counts = self.last.query, self.last.query_count
        return Places(query, key, counts, last_row.sum(1), np.arange(batch))


def tokens_of(call: AttentionCall, first: int, last_row: Booleans) -> Booleans:
    """Which keys up to the last query's own are tokens, (batch, n): what it sees, and what those see before that."""
    batch, queries = call.query.shape[0], call.query.shape[2]
    tokens = np.ones((batch, first + queries), bool)
    if call.visibility.is_band:
        return tokens
    tokens[:] = last_row[:, : first + queries]
    while True:
        rows = {int(at) - 1 - first for at in tokens.argmax(1)[tokens.any(1)]}
        rows |= set() if tokens.any(1).all() else {0}
        more = seen_by(call, sorted(row for row in rows if row >= 0))[:, : first + queries] & ~tokens
        if not more.any():
            return tokens
        tokens |= more


def seen_by(call: AttentionCall, rows: list[int]) -> Booleans:
    """Which keys some queries see in any head, (batch, keys)."""
    batch, keys = call.query.shape[0], call.key.shape[2]
    if not rows:
        return np.zeros((batch, keys), bool)
    seen = call.visible_rows(torch.tensor(rows, device=call.query.device)).any(1).any(1).cpu()
    table: Booleans = seen.expand(batch, keys).numpy().copy()
    return table
