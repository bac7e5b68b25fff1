"""Where a tile of queries stands: batch, head and positions, for rules that ask.

Kept in scratch memory while a tile is computed; here it is written, and read as the leaves of an expression.
"""

from clearhead.kernels.abi.call import FIELDS, PLACE
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.expressions import Positions, Rule
from clearhead.kernels.ir.simd import Function, Value
from clearhead.rules.expression import Expression


def write_place(f: Function, place: Value, **numbers: Value) -> None:
    """Remember where the tile stands."""
    for name, number in numbers.items():
        f.block.store(f.i64(number), place_of(f, place, name), align=8)


def read_place(f: Function, place: Value, name: str) -> Value:
    """One of the numbers."""
    return f.load_int(place, PLACE.index(name))


def place_of(f: Function, place: Value, name: str) -> Value:
    """Where one of the numbers is kept."""
    return f.at(place, 8 * PLACE.index(name))


def rule_of_queries(f: Function, expression: Expression, variant: Variant, table: Value, place: Value) -> Rule:
    """An expression for vectors whose lanes are queries."""
    parameters = f.at(table, f.mul(f.load_int(table, FIELDS.index("parameters")), 8))
    fixed = {name: read_place(f, place, name) for name in ("batch", "head")}
    return Rule(f, expression, variant, parameters, fixed, ("query", "row"))


def queries_in_lanes(f: Function, rule: Rule, place: Value, first: Value) -> Positions:
    """The positions of a vector of queries from the tile's query `first` on; beyond the last they repeat it."""
    start = f.add(read_place(f, place, "row"), first)
    row = f.block.add(f.lane(), f.splat_int(start))
    last = f.splat_int(read_place(f, place, "last"))
    row = f.block.select(f.block.icmp_signed("<", row, last), row, last)
    return rule.lanes(row=row, query=f.block.add(row, f.splat_int(read_place(f, place, "shift"))))
