"""Rules over keys whose positions are not their places: the same formulas, reading positions from a table.

Kernels take a key's position from its place among the keys. Where a cache has let keys go in between, `key` in a
formula becomes an element of a table (batches, key heads, keys), and `query` the index of the query plus an offset.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from clearhead.arrays import Integers
from clearhead.rules.expression import Expression, Formula, rewrite
from clearhead.rules.masks import Mask
from clearhead.rules.scores import Score
from clearhead.rules.simplification import simplify

POSITIONAL = {"query", "key"}


@dataclass(frozen=True)
class MovedMask(Mask):
    """A mask that sees keys at the positions of a table."""

    given: Mask = field(compare=False)
    moved: Formula

    @property
    def formula(self) -> Formula:
        """The mask's formula at those positions."""
        return self.moved

    @property
    def function(self) -> Any:
        """The function that the mask was made from, for errors."""
        return getattr(self.given, "function", None)

    def __repr__(self) -> str:
        return repr(self.given)


@dataclass(frozen=True)
class MovedScore(Score):
    """A score rule that sees keys at the positions of a table."""

    given: Score = field(compare=False)
    moved: Formula

    @property
    def formula(self) -> Formula:
        """The rule's formula at those positions."""
        return self.moved

    @property
    def function(self) -> Any:
        """The function that the rule was made from, for errors."""
        return getattr(self.given, "function", None)

    def __repr__(self) -> str:
        return repr(self.given)


def reads_positions(formula: Formula) -> bool:
    """Whether a formula depends on where a query or a key stands."""
    return not POSITIONAL.isdisjoint(formula.expression.leaves)


def moved(formula: Formula, positions: Integers, group: int, offset: int) -> Formula:
    """A formula with keys at `positions` (batches, key heads, keys), read in place, and queries at index + `offset`.

    `group` query heads share a key head.

    >>> import numpy as np
    >>> distance = Expression("sub", "int", (Expression("query", "int"), Expression("key", "int")))
    >>> moved(Formula(distance), np.array([[[0, 4, 5]]]), 1, 5).expression
    ((row + 5) - a0[0, 0, key])
    """
    leaf = {name: Expression(name, "int") for name in ("batch", "head", "row", "key")}
    zero, (batches, heads, _) = constant(0), positions.shape
    batch = leaf["batch"] if batches > 1 else zero
    head = Expression("floordiv", "int", (leaf["head"], constant(group))) if heads > 1 else zero
    places = {
        "query": Expression("add", "int", (leaf["row"], constant(offset))),
        "key": Expression("load", "int", (batch, head, leaf["key"]), array=len(formula.arrays)),
    }
    expression = rewrite_leaves(formula.expression, places)
    return Formula(simplify(expression), (*formula.arrays, positions))


def rewrite_leaves(e: Expression, places: dict[str, Expression]) -> Expression:
    """The expression with other expressions in place of leaves."""
    return rewrite(e, lambda x: places.get(x.op))


def constant(number: int) -> Expression:
    """A whole number."""
    return Expression("constant", "int", value=number)
