"""The value of a formula on numpy's arrays: what the definition, and all that is compared with it, calculates.

Decides how numbers are held: floats in the computation's dtype, each operation rounded once, whole numbers in 64 bits.
A formula has a value everywhere: what divides by 0 is 0, and what leaves an array reads its first or last element;
`rules.faults` finds the pairs where Python has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from clearhead.arrays import Array
from clearhead.rules.expression import LEAVES, Expression, Formula, parts
from clearhead.rules.operations import OPERATIONS


def evaluate(formula: Formula, leaves: Mapping[str, Any], functions: Any = None, dtype: Any = np.float64) -> Array:
    """The formula's value for arrays of leaves, broadcast against each other.

    `functions` has those operations, by name, that are not exact; None: numpy's. Floats are calculated in the score's
    dtype, or in `dtype` where there is no score.

    >>> evaluate(Formula(Expression("query", "int")), {"query": np.arange(3)}).tolist()
    [0, 1, 2]
    """
    dtype = np.asarray(leaves["score"]).dtype if "score" in leaves else np.dtype(dtype)
    types = {"float": dtype, "int": np.dtype(np.int64), "bool": np.dtype(np.bool_)}
    known: dict[Expression, Any] = {}

    def value(e: Expression, args: list[Any]) -> Any:
        if e.op in LEAVES:
            return np.asarray(leaves[e.op], types[e.kind])
        if e.op == "constant":
            return np.asarray(e.value, types[e.kind])
        if e.op == "load":
            return load(formula.arrays[e.array or 0], args).astype(types[e.kind])
        if e.op == "size":
            return np.asarray(formula.arrays[e.array or 0].shape[int(e.value or 0)])
        if e.op == "float":
            return args[0].astype(types[e.kind])
        row = OPERATIONS[e.op]
        return (row.meaning if row.exact or functions is None else getattr(functions, e.op))(*args)

    with np.errstate(all="ignore"):
        for part in parts(formula.expression):
            known[part] = np.asarray(value(part, [known[a] for a in part.args]))
    result: Array = known[formula.expression]
    return result


def load(array: Array, index: list[Any]) -> Array:
    """Elements of an array; an index below 0 counts from the end, and none leaves the array."""
    places = []
    for x, size in zip(index, array.shape, strict=True):
        x = np.where(x < 0, x + size, x)
        places.append(np.clip(x, 0, size - 1))
    return np.asarray(array[tuple(np.broadcast_arrays(*places))])
