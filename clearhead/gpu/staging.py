"""Rows from a GPU's global to its shared memory: eight threads take a row, 32 dims at a time."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

from clearhead.gpu.thread import Floats, Thread, wide
from clearhead.gpu.tile import THREADS
from clearhead.kernels.ir.values import Int, least

TOGETHER, STRIPE = 8, 32  # threads of a row, and the dims that they copy: four each


class GlobalRows(NamedTuple):
    """Rows of a matrix in global memory, from the first one on."""

    base: Floats
    stride: Int
    first: Int
    last: Int


class Target(NamedTuple):
    """Rows in shared memory."""

    base: Floats
    stride: int


def stage(
    f: Thread[Any],
    rows: GlobalRows,
    count: int,
    dims: range,
    target: Target,
    copy: Callable[[Floats, Floats], None],
    order: Callable[[Int, Int], Int] = operator.add,
) -> None:
    """Copy some dims of `count` rows, row `order(n, mine)` to n + mine; those beyond the last repeat it."""
    mine, d = f.thread // TOGETHER, f.thread % TOGETHER * 4
    for n in f.range(0, count, THREADS // TOGETHER):
        source = rows.base + rows.stride * wide(least(order(n, mine) + rows.first, rows.last)) + d
        place = target.base + ((n + mine) * target.stride + d)
        for dim in range(0, len(dims), STRIPE):
            copy(source + (dims.start + dim), place + dim)
