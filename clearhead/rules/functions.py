"""Elementwise functions for rules: they work on what a rule is traced with, on arrays and on numbers alike.

numpy's functions of the same names (np.exp, np.where …) work in rules too.
"""

from typing import Any

import numpy as np

from clearhead.rules import meanings
from clearhead.rules.tracers import Traced, apply


def exp(x: Any) -> Any:
    """eˣ.

    >>> float(exp(0.0))
    1.0
    """
    return np.exp(x)


def log(x: Any) -> Any:
    """The natural logarithm.

    >>> float(log(1.0))
    0.0
    """
    return np.log(x)


def tanh(x: Any) -> Any:
    """The hyperbolic tangent.

    >>> float(tanh(0.0))
    0.0
    """
    return np.tanh(x)


def sqrt(x: Any) -> Any:
    """The square root.

    >>> float(sqrt(4.0))
    2.0
    """
    return np.sqrt(x)


def sigmoid(x: Any) -> Any:
    """1 / (1 + e⁻ˣ), without overflow.

    >>> float(sigmoid(0.0))
    0.5
    """
    if isinstance(x, Traced):
        return apply("sigmoid", x)
    x = np.asarray(x)
    return meanings.sigmoid(x.astype(np.result_type(x.dtype, np.float16)))


def where(condition: Any, a: Any, b: Any) -> Any:
    """a where the condition holds, else b.

    >>> where(np.array([True, False]), 1, 2).tolist()
    [1, 2]
    """
    return np.where(condition, a, b)


def minimum(a: Any, b: Any) -> Any:
    """The smaller of two.

    >>> int(minimum(1, 2))
    1
    """
    return np.minimum(a, b)


def maximum(a: Any, b: Any) -> Any:
    """The larger of two.

    >>> int(maximum(1, 2))
    2
    """
    return np.maximum(a, b)
