"""The finish kernel: carried sums divided, row by row, into outputs and log-sum-exps; a sink joins first.

The bits are those of `definition.canonical`. In the call's table, query, key and value are the sums' o, m and l, all
dense, as are output and lse; a task is some rows. Rows of one head share a sink.
"""

import llvmlite.ir as ir

from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.code import Code
from clearhead.kernels.ir.math import log
from clearhead.kernels.ir.values import Int, Vector, fma
from clearhead.kernels.parts.frame import Frame
from clearhead.kernels.parts.merge import join_maxima
from clearhead.kernels.parts.rows import each_dim, each_row
from clearhead.kernels.parts.task_queue import write_queue


def finish(tile: Tile, variant: Variant) -> ir.Module:
    """Write the finish kernel: `i64 finish(table, scratch, budget)`, to be called as `forward` is."""
    module = ir.Module("clearhead.finish")
    write_queue(module, tile, "finish", lambda f, frame, task: write_task(f, frame, task, sunk=variant.sink))
    return module


def write_task(f: Code, frame: Frame, task: Int, *, sunk: bool) -> Int:
    """Some rows; gives the cost in multiply-adds."""
    get, size, zero = frame.field, f.element.bytes, f.constant(0.0)
    o, sums_m, sums_l = (get(name).pointer() for name in ("query", "key", "value"))
    y, lse = (get(name).pointer() for name in ("output", "lse"))
    dims = get("value_dim")

    for row in each_row(f, frame, task):
        at = row * size
        m, l = f.broadcast(sums_m + at), f.broadcast(sums_l + at)
        factor = None
        if sunk:
            sink = (get("sink") + row // get("queries") * size).pointer()
            m, factor, weight = join_maxima(f, m, f.broadcast(sink))
            l = fma(l, factor, weight)
        f.store((m + log(f, l)).first(), lse + at)
        inverse = (l == zero).choose(zero, 1.0 / l)
        by = inverse if factor is None else factor * inverse

        def divided(x: Vector) -> Vector:
            return fma(x, by, zero)

        first = row * (dims * size)
        each_dim(f, dims, (o + first,), y + first, divided)
    return frame.field("rows") * dims
