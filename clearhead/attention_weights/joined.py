"""One summary out of those of pieces of the queries, or of stretches of the keys.

Decides in which order sums are added: that of the pieces as they are given. Maxima, lists and what belongs to one query
or key have the same bits however the pieces are cut.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, TypeAlias

import numpy as np

from clearhead.arrays import Array
from clearhead.attention_weights.questions import PER_KEY, SHARES
from clearhead.errors import InputError

Joined: TypeAlias = tuple[dict[str, Array], dict[str, tuple[Any, ...]]]  # answers, and what stands along them
ADDED_OVER_KEYS = ("entropy", "distance", "within", "first", *SHARES)


def of_rows(pieces: Sequence[Any]) -> Joined:
    """Per query the pieces' answers one after another, per key their sums and maxima."""
    names, ranges = checked(pieces), widest(pieces)
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
