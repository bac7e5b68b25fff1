"""Results of float32 in the 16 bits of their operands' dtype, where what a kernel found was kept unrounded.

Responsible for the conversion's speed: numpy's to float16 goes number by number, and takes twenty times as long as the
kernel's. The bits are numpy's.
"""

import ctypes
import functools
from typing import Any

import numpy as np

from clearhead.arrays import Array, ceil_div
from clearhead.kernels.abi.call import FIELDS
from clearhead.kernels.abi.tiles import F32, STORED, tile_for
from clearhead.kernels.abi.variant import Variant
from clearhead.machine import loading
from clearhead.machine.address import address
from clearhead.machine.compile import Entry, KernelSpec, kernels
from clearhead.machine.target import Target, target
from clearhead.machine.threads import allowed, run_kernel

NUMBERS = 1 << 14  # that a task takes
WORTH_A_KERNEL = 1 << 12  # numbers: numpy rounds fewer in less time than a kernel's call takes
WORTH_A_THREAD = 1 << 18  # numbers, about 30 µs

TABLE = ctypes.c_int64 * len(FIELDS)
TASKS, ROWS, QUERIES, QUERY, OUTPUT = (FIELDS.index(name) for name in ("tasks", "rows", "queries", "query", "output"))


def rounded(numbers: Array, dtype: np.dtype[Any], threads: int | None = None) -> Array:
    """Numbers in a float dtype, each rounded once, ∞ on overflow; the same array if they have it."""
    many = numbers.size >= WORTH_A_KERNEL
    if many and numbers.dtype == np.float32 and dtype.name in STORED and not loading.fault():
        narrow = np.empty(numbers.shape, dtype)
        write_rounded(np.ascontiguousarray(numbers), narrow, threads or allowed())
        return narrow
    with np.errstate(over="ignore", invalid="ignore"):
        return numbers.astype(dtype, copy=False)


def write_rounded(numbers: Array, narrow: Array, threads: int) -> None:
    """Round numbers of float32 into an array of 16 bits; both are dense."""
    tasks, place = ceil_div(numbers.size, NUMBERS), target()
    table = TABLE()
    table[TASKS], table[ROWS], table[QUERIES] = tasks, NUMBERS, numbers.size
    table[QUERY], table[OUTPUT] = address(numbers), address(narrow)
    count = min(threads, tasks, max(1, numbers.size // WORTH_A_THREAD))
    run_kernel(entry_for(narrow.dtype.name, place), table, 0, count, place.isa, (numbers, narrow))


@functools.cache
def entry_for(storage: str, place: Target) -> Entry:
    """The kernel for a dtype."""
    tile = tile_for(F32, place.vector_bits, place.registers)
    return kernels.get(KernelSpec("narrowing", tile, place, Variant(storage=storage))).entry
