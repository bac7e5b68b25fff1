"""The join kernel: the sums of a segment, found apart, merged behind the sums of the keys before it, row by row.

The merge is that of `definition.canonical`. In the call's table, query, key and value are the segment's o, m and l;
output, lse and workspace are the total's, which become those of both. All are dense, and a task is some rows.
"""

import llvmlite.ir as ir

from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.code import Code
from clearhead.kernels.ir.values import Int, Vector, fma
from clearhead.kernels.parts.frame import Frame
from clearhead.kernels.parts.merge import join_maxima
from clearhead.kernels.parts.rows import each_dim, each_row
from clearhead.kernels.parts.task_queue import write_queue


def join(tile: Tile, _: Variant) -> ir.Module:
    """Write the join kernel: `i64 join(table, scratch, budget)`, to be called as `forward` is."""
    module = ir.Module("clearhead.join")
    write_queue(module, tile, "join", write_task)
    return module


def write_task(f: Code, frame: Frame, task: Int) -> Int:
    """Some rows; gives the cost in multiply-adds."""
    get, size = frame.field, f.element.bytes
    part_o, part_m, part_l = (get(name).pointer() for name in ("query", "key", "value"))
    o, m, l = (get(name).pointer() for name in ("output", "lse", "workspace"))
    dims = get("value_dim")

    for row in each_row(f, frame, task):
        at = row * size
        top, before, now = join_maxima(f, f.broadcast(m + at), f.broadcast(part_m + at))
        part = f.broadcast(part_l + at) * now
        f.store(fma(f.broadcast(l + at), before, part).first(), l + at)
        f.store(top.first(), m + at)

        def joined(whole: Vector, own: Vector) -> Vector:
            return fma(whole, before, own * now)

        first = row * (dims * size)
        each_dim(f, dims, (o + first, part_o + first), o + first, joined)
    return frame.field("rows") * dims
