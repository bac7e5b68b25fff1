"""The narrowing kernel: float32 numbers in the 16 bits of the operands' dtype, rounded to nearest, ties to even.

numpy rounds to float16 number by number; this does it a vector at a time, with the same bits. In the call's table,
query and output are the numbers and where they go, both dense, and queries counts them; a task is `rows` of them.
"""

import llvmlite.ir as ir

from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.code import Code
from clearhead.kernels.ir.storage import store_rounded, stored_bytes
from clearhead.kernels.ir.values import Int, least
from clearhead.kernels.parts.frame import Frame
from clearhead.kernels.parts.task_queue import write_queue

COST = 8  # multiply-adds that a core does in the time of one number, about: memory, and not arithmetic, is waited for


def narrowing(tile: Tile, variant: Variant) -> ir.Module:
    """Write the narrowing kernel: `i64 narrowing(table, scratch, budget)`, to be called as `forward` is."""
    module = ir.Module("clearhead.narrowing")
    write_queue(module, tile, "narrowing", lambda f, frame, task: write_task(f, frame, task, variant.storage))
    return module


def write_task(f: Code, frame: Frame, task: Int, storage: str) -> Int:
    """Some numbers: whole vectors, then one at a time; gives the cost in multiply-adds."""
    get, size, stored = frame.field, f.element.bytes, stored_bytes(f, storage)
    first = task * get("rows")
    count = least(get("rows"), get("queries") - first)
    numbers, narrow = get("query").pointer() + first * size, get("output").pointer() + first * stored
    vectors = count // f.lanes

    for x in f.unrolled_range(0, vectors, 4):
        store_rounded(f, storage, f.load(f.at(numbers, 0, x)), narrow + x * (f.lanes * stored))
    for n in f.range(vectors * f.lanes, count):
        store_rounded(f, storage, f.load_number(numbers + n * size), narrow + n * stored)
    return count * COST
