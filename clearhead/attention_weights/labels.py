"""Labels of queries and keys, by which weights are summed: groups of keys, and keys that match a query.

A pair of labels says for each query which keys count: those with the query's own label. A group of keys is such a pair,
whose label all queries have. `kernels.parts.weight_shares` sums, `definition.weights` defines the meaning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array, Integers
from clearhead.errors import InputError, ShapeError

NO_KEY, NO_QUERY = -1, -2  # labels that match nothing, once labels are numbered


class Match(NamedTuple):
    """A pair of labels for `summary("matches")`: the weight on keys whose label equals the query's own is summed.

    `queries` (..., queries) and `keys` (..., keys) are integers; a negative label matches nothing. Without `own`, the
    key at the query's own position does not count, or, where a key has the label of the item `shift` before it, the key
    `shift` behind that position.
    """

    queries: npt.ArrayLike
    keys: npt.ArrayLike
    own: bool = True
    shift: int = 0


def token_matches(ids: npt.ArrayLike, *, queries: int | None = None) -> dict[str, Match]:
    """The matches that name a head's job: "previous", "duplicate" and "induction", from tokens (n,) or (batch, n).

    `previous` is the token before the query's own, `duplicate` an equal token elsewhere, `induction` the token behind
    an equal one elsewhere. The last `queries` tokens are queries, all of them by default; negative tokens match
    nothing. Raises InputError. Definition: `clearhead.definition.weights.matches`.

    >>> from clearhead import weights
    >>> w = weights([[0.0]] * 4, [[0.0]] * 4)
    >>> s = w.summary("matches", matches=token_matches([7, 8, 7, 8]))
    >>> s.match_names, s.matches[3].tolist()
    (('previous', 'duplicate', 'induction'), [0.25, 0.25, 0.25])
    """
    tokens = integers(ids, "token_matches' ids")
    count = tokens.shape[-1]
    if queries is None:
        queries = count
    if not isinstance(queries, int | np.integer) or not 0 <= queries <= count:
        raise InputError(f"token_matches' queries={queries!r} are not among {count} tokens: use 0 to {count}.")
    if tokens.ndim > 1:
        tokens = tokens[..., None, :]  # for all heads
    place, own = np.arange(count), slice(count - int(queries), None)
    before = np.concatenate([np.full_like(tokens[..., :1], -1), tokens[..., :-1]], axis=-1)
    return {
        "previous": Match(place[own] - 1, place),
        "duplicate": Match(tokens[..., own], tokens, own=False),
        "induction": Match(tokens[..., own], before, own=False, shift=1),
    }


@dataclass(frozen=True)
class Labels:
    """Pairs of labels as the sweep kernel reads them, numbered from 0 and as wide as the computation's floats."""

    queries: Array  # (heads, or 1 for all, pairs, all queries)
    keys: Array  # (heads, or 1 for all, pairs, all keys)
    apart: Integers  # (pairs,): 0, or 1 + how far behind a query's own key the one stands that does not count

    @property
    def count(self) -> int:
        """How many pairs."""
        return len(self.apart)

    @property
    def of_each_head(self) -> bool:
        """Whether each head has labels of its own."""
        return len(self.queries) > 1

    def of(self, part: slice) -> "Labels":
        """The labels of some heads."""
        return replace(self, queries=self.queries[part], keys=self.keys[part]) if self.of_each_head else self


def labels_of(pairs: Sequence[Match], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Labels:
    """Number the labels of pairs for weights of a shape, (..., queries, keys)."""
    *lead, queries, keys = shape
    shared = all(np.size(x) == np.shape(x)[-1] for pair in pairs for x in pair[:2])
    heads = 1 if shared else int(np.prod(lead))
    whole = np.dtype(f"int{8 * dtype.itemsize}")
    labels = Labels(
        np.empty((heads, len(pairs), queries), whole),
        np.empty((heads, len(pairs), keys), whole),
        np.array([0 if pair.own else 1 + pair.shift for pair in pairs], np.int64),
    )
    for n, pair in enumerate(pairs):
        of_queries, of_keys = numbered(np.asarray(pair.queries), np.asarray(pair.keys))
        for table, x in ((labels.queries, of_queries), (labels.keys, of_keys)):
            table[:, n] = x.reshape(-1) if shared else np.broadcast_to(x, (*lead, x.shape[-1])).reshape(heads, -1)
    return labels


def numbered(queries: Array, keys: Array) -> tuple[Array, Array]:
    """Labels as small numbers: equal where they were equal, NO_QUERY and NO_KEY where there is nothing to match."""
    known, number = np.unique(keys, return_inverse=True)
    at = np.searchsorted(known, queries)
    found = np.zeros(queries.shape, bool)
    inside = at < len(known)
    found[inside] = known[at[inside]] == queries[inside]
    return np.where(found, at, NO_QUERY), np.where(keys < 0, NO_KEY, number.reshape(keys.shape))


def group_pairs(groups: Any, shape: tuple[int, ...]) -> dict[str, Match]:
    """Groups of keys as pairs of labels, by name; raises InputError."""
    if not isinstance(groups, Mapping) or not groups:
        raise InputError(
            f"summary's groups={groups!r} must name some groups of keys: use {{'system': slice(0, 20)}}, for instance."
        )
    everyone = np.zeros(shape[-2], np.int64)
    return {name: Match(everyone, np.where(members(name, keys, shape), 0, -1)) for name, keys in groups.items()}


def members(name: object, chosen: Any, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Which keys a group has, (keys,), or (..., keys) for a mask of each head's own."""
    *lead, _, keys = shape
    what = f"summary's group {name!r}"
    if isinstance(chosen, slice):
        numbers = np.arange(keys)[chosen]
    else:
        array = np.asarray(chosen)
        if array.dtype == np.bool_:
            check_labels(array, (*lead, keys), f"{what}, a mask")
            return array
        if array.size and array.dtype.kind not in "iu":
            raise InputError(f"{what} is {chosen!r}: give a slice, a list of keys, or a mask of True and False.")
        numbers = array.astype(np.int64).reshape(-1)
    for number in numbers[(numbers < -keys) | (numbers >= keys)]:
        raise InputError(f"{what} has key {number}, but there are {keys}: use numbers from 0 to {keys - 1}.")
    found = np.zeros(keys, bool)
    found[numbers] = True
    return found


def match_pairs(matches: Any, shape: tuple[int, ...]) -> dict[str, Match]:
    """Pairs of labels, by name, checked; raises InputError or ShapeError."""
    if not isinstance(matches, Mapping) or not matches:
        raise InputError(
            f"summary's matches={matches!r} must name some pairs of labels: use clearhead.token_matches(ids), or "
            "{'name': (query_labels, key_labels)}."
        )
    *lead, queries, keys = shape
    pairs = {}
    for name, given in matches.items():
        what = f"summary's match {name!r}"
        if not isinstance(given, tuple) or not 2 <= len(given) <= 4:
            raise InputError(f"{what} is {given!r:.200}: give (query_labels, key_labels), or a clearhead.Match.")
        pair = Match(*given)
        of_queries = integers(pair.queries, f"{what}: query labels")
        of_keys = integers(pair.keys, f"{what}: key labels")
        check_labels(of_queries, (*lead, queries), f"{what}: query labels")
        check_labels(of_keys, (*lead, keys), f"{what}: key labels")
        if isinstance(pair.shift, bool) or not isinstance(pair.shift, int | np.integer) or pair.shift < 0:
            raise InputError(f"{what} has shift={pair.shift!r}: give 0, 1, 2 …")
        pairs[name] = Match(of_queries, of_keys, bool(pair.own), int(pair.shift))
    return pairs


def integers(labels: npt.ArrayLike, what: str) -> Integers:
    """Labels as an array of integers with at least one axis; raises InputError."""
    array = np.asarray(labels)
    whole = array.dtype.kind in "iub" or not array.size
    if not whole or not array.ndim or (array.dtype.kind == "u" and bool((array > np.iinfo(np.int64).max).any())):
        raise InputError(f"{what} are {labels!r:.200}: give an array of integers of 64 bits.")
    return array.astype(np.int64)


def check_labels(labels: Array, shape: tuple[int, ...], what: str) -> None:
    """Check that labels have the last axis of a shape, and leading axes that broadcast to it."""
    try:
        fits = labels.shape[-1:] == shape[-1:] and np.broadcast_shapes(labels.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(
            f"{what} of shape {labels.shape} does not fit: give one for each of {shape[-1]}, in a shape that "
            f"broadcasts to {shape}."
        )
