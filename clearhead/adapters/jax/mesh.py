"""Arrays inside `jax.shard_map`, which differ from device to device along axes of a mesh, or do not.

Decides that all arrays of a call differ alike: what a foreign function gives, JAX cannot know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax


def varying(arrays: Sequence[Any]) -> frozenset[str]:
    """The axes along which any of some arrays differs."""
    kinds = [jax.typeof(x) for x in arrays]  # jax 0.9 says it in one word, later ones in two
    return frozenset().union(*(k.vma if hasattr(k, "vma") else k.manual_axis_type.varying for k in kinds))


def alike(arrays: Sequence[Any], axes: frozenset[str]) -> list[Any]:
    """The arrays, now said to differ along these axes."""
    missing = [tuple(sorted(axes - varying([x]))) for x in arrays]
    return [jax.lax.pcast(x, names, to="varying") if names else x for x, names in zip(arrays, missing, strict=True)]
