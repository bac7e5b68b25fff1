"""Recognise the keys of an earlier pass by what they hold, whatever a program did to its cache in between.

A key is known by a fingerprint of its numbers. Beam search reorders sequences, assisted generation cuts them back,
sliding caches drop their first keys, eviction drops any: each shows in which fingerprints come again.
"""

from dataclasses import dataclass

import numpy as np

from clearhead.arrays import Array, Integers


@dataclass(frozen=True, eq=False)
class Continuation:
    """How each sequence of a pass continues one of the pass before: which of its keys come again, in order."""

    parents: Integers  # (sequences,) rows of the pass before
    kept: tuple[slice | Integers, ...]  # for each sequence, positions among its parent's keys
    known: int  # keys of this pass that come again; the others are new


def continuation(before: Integers, now: Integers, queries: int) -> Continuation | None:
    """How fingerprints (sequences, keys) of a pass continue those of the one before, or None if they do not.

    All keys but those of the queries come again; in cross-attention, where keys stay, all of them.
    """
    keys = now.shape[1]
    crosses = keys == before.shape[1] and queries < keys and all(any_row(before, row) is not None for row in now)
    known = keys if crosses else keys - queries
    if known <= 0:
        return None
    parents, kept = [], []
    for number, row in enumerate(now[:, :known]):
        nearest = sorted(range(len(before)), key=lambda parent: abs(parent - number))  # beams of a text are neighbours
        found = ((parent, place(before[parent], row)) for parent in nearest)
        match = next(((parent, at) for parent, at in found if at is not None), None)
        if match is None:
            return None
        parents.append(match[0])
        kept.append(match[1])
    return Continuation(np.array(parents), tuple(kept), known)


def near_continuation(before: Array, now: Array, queries: int, share: float) -> Continuation | None:
    """The same for keys that a model computes anew in each pass, with other roundings, as from a compressed cache.

    Given are some numbers of each key, (sequences, keys, numbers), which may differ by a share of the largest. The keys
    that come again are the first or the last ones.
    """
    known = now.shape[1] - queries
    if known <= 0:
        return None
    parents, kept = [], []
    for number, row in enumerate(now[:, :known]):
        nearest = sorted(range(len(before)), key=lambda parent: abs(parent - number))
        starts = {max(0, start) for start in (0, before.shape[1] - known)}
        found = ((parent, start) for parent in nearest for start in starts if near(before[parent, start:], row, share))
        match = next(found, None)
        if match is None:
            return None
        parents.append(match[0])
        kept.append(slice(match[1], match[1] + known))
    return Continuation(np.array(parents), tuple(kept), known)


def near(before: Array, row: Array, share: float) -> bool:
    """Whether some keys are the first of others, but for roundings."""
    if len(before) < len(row):
        return False
    return bool(np.abs(before[: len(row)] - row).max() <= share * np.abs(row).max())


def any_row(before: Integers, row: Integers) -> int | None:
    """A row of fingerprints that equals another."""
    equal = (before == row).all(axis=1)
    return int(equal.argmax()) if equal.any() else None


def place(before: Integers, row: Integers) -> slice | Integers | None:
    """Where some fingerprints stand among others, in order: a slice if they are neighbours."""
    if len(row) > len(before):
        return None
    if np.array_equal(before[: len(row)], row):
        return slice(0, len(row))
    for start in np.flatnonzero(before == row[0]):
        if np.array_equal(before[start : start + len(row)], row):
            return slice(int(start), int(start) + len(row))
    at, places = 0, []
    order = {int(x): n for n, x in reversed(list(enumerate(before.tolist())))}
    if any(int(x) not in order for x in row):
        return None
    for x in row:
        found = np.flatnonzero(before[at:] == x)
        if not len(found):
            return None
        at += int(found[0]) + 1
        places.append(at - 1)
    return np.array(places)
