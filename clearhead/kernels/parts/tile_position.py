"""Rules in a tile whose lanes are queries: what they read of the tile's position, and each lane's own.

Decides how the leaves `batch`, `head`, `row` and `query` of an expression follow from where the tile stands.
"""

from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.code import Code
from clearhead.kernels.ir.expressions import EmittedRule, Positions
from clearhead.kernels.ir.values import Int, Lanes
from clearhead.kernels.parts.frame import CallTable, TilePosition
from clearhead.rules.expression import Expression


def rule_of_queries(
    f: Code, expression: Expression, variant: Variant, table: CallTable, position: TilePosition
) -> EmittedRule:
    """An expression for vectors whose lanes are queries."""
    parameters = table.parameters()
    fixed = {name: position.read(name) for name in ("batch", "head")}
    return EmittedRule(f, expression, variant, parameters, fixed, ("query", "row"))


def queries_in_lanes(f: Code, rule: EmittedRule, position: TilePosition, first: Int | int) -> Positions:
    """The positions of a vector of queries from the tile's query `first` on; lanes beyond the last repeat it."""
    row = f.lane() + f.splat_int(position.read("row") + first)
    last = f.splat_int(position.read("last"))
    row = (row < last).choose(row, last)
    query: Lanes = row + f.splat_int(position.read("shift"))
    return rule.lanes(row=row, query=query)
