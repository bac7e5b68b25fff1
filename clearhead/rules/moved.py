"""Rules over keys whose positions are not their places: the same formulas, reading positions from a table.

Kernels take a key's position from its place among the keys. Where a cache has let keys go in between, `key` in a
formula becomes an element of a table (batches, key heads, keys), and `query` one of a table (queries,). Both are read
from memory, so that a kernel serves every step of a growing cache.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from clearhead.arrays import Integers
from clearhead.rules.expression import Expression, Formula, rewrite
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.scores import Score
from clearhead.rules.simplification import simplify

POSITIONAL = {"query", "key"}


@dataclass(frozen=True, repr=False)
class Moved:
    """A mask or a score rule that sees keys at the positions of a table."""

    given: Any = field(compare=False)
    moved: Formula

    @property
    def formula(self) -> Formula:
        """Its formula at those positions."""
        return self.moved

    @property
    def function(self) -> Any:
        """The function that it was made from, for errors."""
        return getattr(self.given, "function", None)

    def __repr__(self) -> str:
        return repr(self.given)


class MovedMask(Moved, Mask):
    """A mask at positions of a table."""


class MovedScore(Moved, Score):
    """A score rule at positions of a table."""


def reads_positions(formula: Formula) -> bool:
    """Whether a formula depends on where a query or a key stands."""
    return not POSITIONAL.isdisjoint(formula.expression.leaves)


def moved(formula: Formula, queries: Integers, keys: Integers, group: int) -> Formula:
    """A formula with positions of `queries` (queries,) and `keys` (batches, key heads, keys), read in place.

    `group` query heads share a key head.

    >>> import numpy as np
    >>> distance = Expression("sub", "int", (Expression("query", "int"), Expression("key", "int")))
    >>> moved(Formula(distance), np.array([5]), np.array([[[0, 4, 5]]]), 1).expression
    (a0[row] - a1[0, 0, key])
    """
    leaf = {name: Expression(name, "int") for name in ("batch", "head", "row", "key")}
    zero, (batches, heads, _), count = constant(0), keys.shape, len(formula.arrays)
    batch = leaf["batch"] if batches > 1 else zero
    head = Expression("floordiv", "int", (leaf["head"], constant(group))) if heads > 1 else zero
    places = {
        "query": Expression("load", "int", (leaf["row"],), array=count),
        "key": Expression("load", "int", (batch, head, leaf["key"]), array=count + 1),
    }
    expression = rewrite_leaves(formula.expression, places)
    return Formula(simplify(expression), (*formula.arrays, queries, keys))


def rewrite_leaves(e: Expression, places: dict[str, Expression]) -> Expression:
    """The expression with other expressions in place of leaves."""
    return rewrite(e, lambda x: places.get(x.op))


def constant(number: int) -> Expression:
    """A whole number."""
    return Expression("constant", "int", value=number)
