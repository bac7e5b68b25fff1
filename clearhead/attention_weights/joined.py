"""One summary out of those of pieces of the queries, or of stretches of the keys.

Decides in which order sums are added: that of the pieces as they are given. Maxima, lists and what belongs to one query
or key have the same bits however the pieces are cut.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from clearhead.arrays import Array
from clearhead.attention_weights.questions import PER_KEY, SHARES
from clearhead.errors import InputError

Joined: TypeAlias = tuple[dict[str, Array], dict[str, tuple[Any, ...]]]  # answers, and what stands along them


class Extent(NamedTuple):
    """Which queries and keys a summary is about, and the numbers that were given with its questions."""

    place: tuple[int, int] | None  # of the first query and the last one, where that is known
    queries: int
    first_key: int
    stop: int
    top: int
    window: int


ADDED_OVER_KEYS = ("entropy", "distance", "within", "first", *SHARES)


def of_rows(pieces: Sequence[Any]) -> Joined:
    """Per query the pieces' answers one after another, per key their sums and maxima."""
    names, ranges = checked(pieces), widest(pieces)
    check_rows(extents(pieces))
    if "received_mean" in names:
        raise InputError("means over pieces of the queries do not add up: ask for received_sum, and divide the total.")
    answers: dict[str, Array] = {}
    for name in names:
        parts = [ranges(piece, name) for piece in pieces]
        if name in ("received_sum", "received_max"):
            answers[name] = reduce(np.add if name == "received_sum" else np.fmax, parts)
        else:
            axis = -2 if name in (*SHARES, "top_weights", "top_keys", "carriers") else -1
            answers[name] = np.concatenate(parts, axis=axis)
    return answers, joined_names(pieces)


def of_keys(pieces: Sequence[Any]) -> Joined:
    """Per key the stretches' answers one after another, per query their sums, maxima and longest lists."""
    names, ranges = checked(pieces), widest(pieces)
    check_keys(extents(pieces))
    if "carriers" in names:
        raise InputError("carriers need whole rows, not stretches of keys: ask for them over all keys.")
    answers: dict[str, Array] = {}
    for name in names:
        parts = [ranges(piece, name) for piece in pieces]
        if name in PER_KEY:
            answers[name] = np.concatenate(parts, axis=-1)
        elif name in ADDED_OVER_KEYS:
            answers[name] = reduce(np.add, parts)
        elif name == "effective":  # e^(a + b)
            answers[name] = reduce(np.multiply, parts)
        elif name == "off_first":
            answers[name] = reduce(np.fmax, parts)
        elif name == "sink_share":
            answers[name] = parts[0]
    if "top_keys" in names:
        answers |= longest(pieces)
    return {name: answers[name] for name in names}, joined_names(pieces)


def longest(pieces: Sequence[Any]) -> dict[str, Array]:
    """The largest weights of several lists: falling, of equals the earlier key first."""
    weights = np.concatenate([piece.top_weights for piece in pieces], axis=-1)
    keys = np.concatenate([piece.top_keys for piece in pieces], axis=-1)
    order = np.argsort(-weights, axis=-1, kind="stable")[..., : pieces[0].top_keys.shape[-1]]
    return {"top_weights": np.take_along_axis(weights, order, -1), "top_keys": np.take_along_axis(keys, order, -1)}


def checked(pieces: Sequence[Any]) -> list[str]:
    """The names of answers that all pieces have; raises InputError."""
    if not pieces or any(set(piece) != set(pieces[0]) for piece in pieces):
        asked = [", ".join(piece) for piece in pieces]
        raise InputError(f"summaries of {asked} do not join: give at least one, all with the same questions.")
    named = [{name: x for name, x in piece.names.items() if name != "distance_edges"} for piece in pieces]
    if any(names != named[0] for names in named):
        raise InputError(f"summaries with {named} do not join: name groups and matches alike in all pieces.")
    return list(pieces[0])


def extents(pieces: Sequence[Any]) -> list[Extent]:
    """What the pieces are about; raises InputError if their questions came with other numbers."""
    found = [piece.extent for piece in pieces if piece.extent is not None]
    asked = {(x.top, x.window) for x in found}
    if len(asked) > 1:
        told = " and ".join(f"top={top}, window={window}" for top, window in sorted(asked))
        raise InputError(f"summaries with {told} do not join: ask all pieces alike.")
    return found


def check_rows(found: Sequence[Extent]) -> None:
    """Check that pieces of the queries are over the same keys, and ascend."""
    for before, after in pairwise(found):
        if (before.first_key, before.stop) != (after.first_key, after.stop):
            raise InputError(
                f"a summary is over keys {before.first_key} to {before.stop}, the next over {after.first_key} to "
                f"{after.stop}: of_rows joins pieces of the queries over the same keys, of_keys stretches of the keys."
            )
        if before.place and after.place and after.place[0] <= before.place[1]:
            raise InputError(
                f"a summary ends at query {before.place[1]}, the next begins at {after.place[0]}: give pieces in "
                "ascending order, each once."
            )


def check_keys(found: Sequence[Extent]) -> None:
    """Check that stretches of the keys are those of the same queries, and that none is missing in between."""
    for before, after in pairwise(found):
        if (before.place, before.queries) != (after.place, after.queries):
            raise InputError(
                f"a summary is of {before.queries} queries, the next of {after.queries}, at {before.place} and "
                f"{after.place}: of_keys joins stretches of keys for the same queries, of_rows pieces of the queries."
            )
        if before.stop != after.first_key:
            raise InputError(
                f"a summary ends at key {before.stop}, the next begins at {after.first_key}: give stretches in "
                "ascending order without a gap."
            )


def widest(pieces: Sequence[Any]) -> Any:
    """Answers by name, with as many ranges of distances as the piece that reaches farthest; nearer ones have none."""
    most = max((x.distances.shape[-1] for x in pieces if "distances" in x), default=0)

    def answer(piece: Mapping[str, Array], name: str) -> Array:
        x = piece[name]
        return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, most - x.shape[-1])]) if name == "distances" else x

    return answer


def joined_names(pieces: Sequence[Any]) -> dict[str, tuple[Any, ...]]:
    """What stands along answers' last axes."""
    return max((piece.names for piece in pieces), key=lambda names: len(names.get("distance_edges", ())))
