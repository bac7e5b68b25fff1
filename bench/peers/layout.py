"""Layouts that peers want, and reading their answers back as (batch, heads, queries, dim)."""

from typing import Any

import numpy as np

from clearhead.arrays import Array


def positions_first(x: Array, *, flat: bool = False) -> Array:
    """(batch, heads, n, dim) as (batch, n, heads, dim), or (batch, n, heads · dim)."""
    turned = np.ascontiguousarray(x.swapaxes(1, 2))
    return turned.reshape(*turned.shape[:2], -1) if flat else turned


def heads_first(answer: Any, dim: int) -> Array:
    """What lies as (batch, queries, heads, dim), or so with heads and dims as one axis."""
    found = np.asarray(answer)
    return found.reshape(*found.shape[:2], -1, dim).swapaxes(1, 2)
