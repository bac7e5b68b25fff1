"""Arrays inside `jax.shard_map`, which vary between devices along some axes of a mesh.

Responsible for making all arrays of a call vary along the same axes, since JAX cannot infer the type of a foreign
function's results.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax


def varying(arrays: Sequence[Any]) -> frozenset[str]:
    """The axes along which any of the arrays varies."""
    kinds = [jax.typeof(x) for x in arrays]  # the attribute in jax 0.9, and in later versions
    return frozenset().union(*(k.vma if hasattr(k, "vma") else k.manual_axis_type.varying for k in kinds))


def make_alike(arrays: Sequence[Any], axes: frozenset[str]) -> list[Any]:
    """Mark the arrays as varying along these axes."""
    missing = [tuple(sorted(axes - varying([x]))) for x in arrays]
    return [jax.lax.pcast(x, names, to="varying") if names else x for x, names in zip(arrays, missing, strict=True)]
