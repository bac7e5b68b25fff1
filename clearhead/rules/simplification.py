"""Expressions with less work and the same value to the bit: what can be known beforehand is not calculated.

Decides what changes nothing. Constants of floats stay, for they round in the computation's dtype.
"""

from __future__ import annotations

import numpy as np

from clearhead.rules.expression import Expression, fits, rewrite
from clearhead.rules.operations import OPERATIONS


def simplify(e: Expression) -> Expression:
    """The same value to the bit with less work: constants folded, and what multiplies by 1 or chooses always left out.

    >>> simplify(Expression("mul", "int", (Expression("key", "int"), Expression("constant", "int", value=1))))
    key
    """
    return rewrite(e, simpler)


def simpler(e: Expression) -> Expression | None:
    """One step of `simplify`, the arguments being as simple as they can."""
    constants = [a.value for a in e.args if a.op == "constant"]
    if e.op in OPERATIONS and len(constants) == len(e.args) and all(a.kind != "float" for a in (e, *e.args)):
        value = exactly(e)
        return Expression("constant", e.kind, value=value) if fits(value) else None
    if e.op == "float" and constants and float(constants[0] or 0) == constants[0]:
        return Expression("constant", "float", value=float(constants[0] or 0))
    if e.op in ("neg", "not") and e.args[0].op == e.op:
        return e.args[0].args[0]
    if e.op == "where" and e.args[0].op == "constant":
        return e.args[1] if e.args[0].value else e.args[2]
    if e.op in ("and", "or"):
        for a, other in (e.args, e.args[::-1]):
            if a.op == "constant":
                return other if bool(a.value) == (e.op == "and") else a
    return without_neutral(e)


def without_neutral(e: Expression) -> Expression | None:
    """What times 1, divided by 1, plus or minus 0 is; −0.0 + 0.0 is another number, so that floats keep their + 0."""
    if e.op not in ("add", "sub", "mul", "div", "floordiv") or (e.op == "floordiv" and e.kind == "float"):
        return None
    neutral = ("0", "0.0") if e.op == "sub" else ("0",) if e.op == "add" else ("1", "1.0")
    a, b = e.args
    if b.op == "constant" and repr(b.value) in neutral:
        return a
    if e.op in ("add", "mul") and a.op == "constant" and repr(a.value) in neutral:
        return b
    return None


def exactly(e: Expression) -> int | bool:
    """The value of an operation on constants, of whole numbers as large as it is."""
    args = (np.asarray(a.value, bool if a.kind == "bool" else object) for a in e.args)
    value = np.asarray(OPERATIONS[e.op].meaning(*args)).item()
    return bool(value) if e.kind == "bool" else int(value)
