"""Edits as rules: what hides pairs, and what is added to scores, as formulas over a pass.

An edit that multiplies weights by f adds log f to scores. Rows then sum to 1 again, as rules are before the softmax;
an edit that does not renormalize is left out of the log-sum-exp instead. Uniform weights come of scores of 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from clearhead.arrays import Integers
from clearhead.interventions.edits import Cut, Edit, PairEdit, Scale, Uniform
from clearhead.interventions.places import Booleans, Places, by_position
from clearhead.rules.expression import Expression, Formula, renumber, rewrite
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.rule_tables import broadcast_index

SCORE, ZERO = Expression("score", "float"), Expression("constant", "float", value=0.0)
AXES = ("batch", "head", "row", "key")


def hidden(edits: Sequence[Edit], places: Places, heads: Sequence[int], count: int) -> Formula | None:
    """The pairs that cuts hide: a formula over batch, index among `heads`, row and key; None if there are none.

    `count` is the layer's number of heads.
    """
    found = [chosen(edit, places, heads, count) for edit in edits if isinstance(edit, Cut)]
    return reduce(lambda a, b: a.combine("or", b), found) if found else None


def added(edits: Sequence[Edit], places: Places, heads: Sequence[int], count: int, *, kept: bool) -> Formula | None:
    """What uniform and scaling edits make of a score; with `kept`, those too that do not renormalize."""
    rules = [changed_score(edit, ZERO, (), places, heads, count) for edit in edits if isinstance(edit, Uniform)]
    for edit in edits:
        if not isinstance(edit, Scale) or not (edit.renormalize or kept):
            continue
        table = by_position(in_head_order(edit, edit.logs, heads, count), places)
        index = broadcast_index(tuple(table.shape), AXES)
        raised = Expression("add", "float", (SCORE, Expression("load", "float", index, array=0)))
        rules.append(changed_score(edit, raised, (table,), places, heads, count))
    return reduce(lambda first, then: then.after(first), rules) if rules else None


def in_head_order(edit: Edit, table: Any, heads: Sequence[int], count: int) -> Any:
    """A table by an edit's heads as one by `heads`; those that it does not change read its first."""
    own = edit.heads_of(count)
    if table.shape[0] == 1 or own == tuple(heads):
        return table
    return table[np.array([own.index(head) if head in own else 0 for head in heads])]


def changed_score(
    edit: Edit, becomes: Expression, arrays: tuple[Any, ...], places: Places, heads: Sequence[int], count: int
) -> Formula:
    """A score that becomes something else in an edit's pairs."""
    at = chosen(edit, places, heads, count)
    if at.expression.op == "constant":
        return Formula(becomes, arrays)
    moved = renumber(at.expression, len(arrays))
    return Formula(Expression("where", "float", (moved, becomes, SCORE)), (*arrays, *at.arrays))


def chosen(edit: Edit, places: Places, heads: Sequence[int], count: int) -> Formula:
    """Whether an edit changes a pair."""
    own = set(edit.heads_of(count))
    parts = [table_formula(np.array([head in own for head in heads]), ("head",))]
    parts.append(table_formula(rows_of(edit, places), ("batch", "row")))
    if isinstance(edit, PairEdit):
        parts.append(table_formula(edit.keys.chosen(places.key, places.key_count), ("batch", "key")))
        if edit.where is not None:
            parts.append(over_positions(edit.where, places, heads))
    needed = [part for part in parts if part is not None]
    if not needed:
        return Formula(Expression("constant", "bool", value=True))
    return reduce(lambda a, b: a.combine("and", b), needed)


def rows_of(edit: Edit, places: Places) -> Booleans:
    """Which queries (sequences, n) an edit changes; never padding."""
    rows = edit.queries.chosen(places.query, places.query_count)
    if edit.sequence is not None:
        rows = rows & (places.sequences == edit.sequence)[:, None]
    return rows


def table_formula(table: Booleans, names: tuple[str, ...]) -> Formula | None:
    """Whether a table is true at some positions; None if it is everywhere."""
    if table.all():
        return None
    table = joint_rows(table) if table.ndim > 1 else table
    return Formula(Expression("load", "bool", broadcast_index(table.shape, names), array=0), (table,))


def over_positions(mask: Mask, places: Places, heads: Sequence[int]) -> Formula:
    """A mask over a model's heads and positions as a formula over a pass."""
    query, key = (joint_rows(np.maximum(x, 0)) for x in (places.query, places.key))
    tables: dict[str, tuple[Integers, tuple[str, ...]]] = {
        "query": (query, ("batch", "row")),
        "row": (query, ("batch", "row")),
        "key": (key, ("batch", "key")),
        "head": (np.array(heads), ("head",)),
        "batch": (places.sequences, ("batch",)),
    }
    formula = mask.formula
    arrays: list[Any] = list(formula.arrays)

    def position(e: Expression) -> Expression | None:
        if e.op not in tables:
            return None
        table, axes = tables[e.op]
        if len(table) == 1 and np.array_equal(table.reshape(-1), np.arange(table.size)):
            return Expression(axes[-1], "int") if table.ndim > 1 else Expression("constant", "int", value=0)
        arrays.append(table)
        return Expression("load", "int", broadcast_index(table.shape, axes), array=len(arrays) - 1)

    return Formula(rewrite(formula.expression, position), tuple(arrays))


def joint_rows(table: Any) -> Any:
    """The first row of a table whose rows are all the same, else all of them."""
    return table[:1] if (table == table[:1]).all() else table
