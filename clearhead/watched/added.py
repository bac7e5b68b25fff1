"""What a model adds to scores (position biases), pass by pass, and the rule that adds it to a whole sequence's.

Most biases depend on the distance between query and key alone, as T5's: then one number for each distance is kept.
"""

from dataclasses import dataclass

import numpy as np

from clearhead.arrays import Array, Integers
from clearhead.attention_weights.lazy import check_memory
from clearhead.errors import InputError
from clearhead.rules.scores import Score, bias, relative


@dataclass(frozen=True, eq=False)
class Added:
    """Numbers added to the scores of a pass.

    With `by_distance`, `table` (sequences or 1, heads or 1, queries + keys − 1) has a number for each distance between
    key and query, from the last query's first key on; else it is (sequences or 1, heads or 1, queries or 1, keys or 1).
    """

    table: Array
    by_distance: bool

    @property
    def nbytes(self) -> int:
        """Bytes of the table."""
        return int(self.table.nbytes)

    def of(self, row: int) -> Array:
        """A sequence's table."""
        own: Array = self.table[row if len(self.table) > 1 else 0]
        return own


def joined(parts: list[tuple[Array, bool, Integers, Integers]], heads: int, queries: int, keys: int) -> Added:
    """What is added to a sequence, from each pass's table, its queries and its keys (numbers in the sequence).

    The table has no axis of sequences: it is (heads, 2·max(1, keys − 1) + 1) by distance, else (heads, queries, keys).
    Distances need as many queries as keys: else not every mask says where queries stand among keys.
    """
    if queries == keys and all(by_distance and consecutive(at) and consecutive(to) for _, by_distance, at, to in parts):
        table = distance_table(parts, heads, keys)
        if table is not None:
            return Added(table, True)
    check_memory((heads, queries, keys), np.dtype(np.float32))
    whole = np.zeros((heads, queries, keys), np.float32)
    for own, by_distance, at, to in parts:
        part = own
        if by_distance:
            part = over_pairs(own, own.shape[-1] - len(to) + 1, len(to))
        whole[:, at[:, None], to] = np.broadcast_to(part, (heads, len(at), len(to)))
    return Added(whole, False)


def over_pairs(table: Array, queries: int, keys: int) -> Array:
    """A table by distance, (heads, queries + keys − 1), as one number for each pair."""
    pairs: Array = table[:, np.arange(keys) - np.arange(queries)[:, None] + queries - 1]
    return pairs


def rule_of(added: Added) -> Score:
    """The score rule that adds the numbers of a sequence."""
    return relative(added.table, added.table.shape[-1] // 2) if added.by_distance else bias(added.table)


def consecutive(numbers: Integers) -> bool:
    """Whether numbers follow each other."""
    return bool((np.diff(numbers) == 1).all())


def distance_table(parts: list[tuple[Array, bool, Integers, Integers]], heads: int, keys: int) -> Array | None:
    """One number for each distance key − query, (heads, 2·keys − 1), or None if passes disagree."""
    most = max(1, keys - 1)
    table = np.full((heads, 2 * most + 1), np.nan, np.float32)
    for own, _, at, to in parts:
        n, m = len(at), len(to)
        if own.shape[-1] != n + m - 1:
            return None
        first = int(to[0]) - int(at[-1]) + most
        if first < 0 or first + n + m - 1 > table.shape[1]:
            return None
        there, new = table[:, first : first + n + m - 1], np.broadcast_to(own, (heads, n + m - 1))
        known = ~np.isnan(there)
        if not np.allclose(there[known], new[known], rtol=0, atol=0):
            return None
        there[...] = new
    return np.nan_to_num(table, nan=0.0)


def refuse_rules(layer: str) -> InputError:
    """The error for score functions over a cache, whose positions are those of a single call."""
    return InputError(
        f"{layer} gives flex_attention a score function and continues over a cache: its positions count from each "
        "call's first query, so only a pass without a cache can be watched."
    )
