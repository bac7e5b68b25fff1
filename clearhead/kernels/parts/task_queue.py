"""What all kernels have in common: the loop that takes tasks until none is left, and where a task's head begins.

Decides how threads share a call, by one atomic counter in its table; what a task is, each kernel says itself.
"""

from collections.abc import Callable, Sequence

import llvmlite.ir as ir

from clearhead.kernels.abi.call import AXIS, FIELDS
from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.ir.simd import Function, Value, i64, pointer
from clearhead.kernels.parts.packing import field


def write_queue(
    module: ir.Module, tile: Tile, name: str, write_task: Callable[[Function, Value, Value, Value], Value]
) -> None:
    """The exported function, `i64 name(table, scratch, budget)`: 0 when no task is left, 1 when the budget is spent.

    `write_task(f, table, scratch, task)` writes one task and gives its cost in multiply-adds.
    """
    f = Function(module, name, {"table_p": pointer, "scratch_p": pointer, "budget": i64}, tile, result=i64)
    table, scratch, budget = f.arguments
    build, entry = f.block, f.block.block
    check, take, work, spent, none = (
        f.ir.append_basic_block(block) for block in ("check", "take", "work", "spent", "none")
    )
    build.branch(check)
    build.position_at_end(check)
    left = build.phi(i64)
    left.add_incoming(budget, entry)
    build.cbranch(f.less(left, 1), spent, take)
    build.position_at_end(take)
    task = build.atomic_rmw("add", f.at(table, FIELDS.index("next_task") * 8), f.i64(1), "monotonic")
    build.cbranch(f.less(task, field(f, table, "tasks")), work, none)
    build.position_at_end(work)
    left.add_incoming(f.sub(left, write_task(f, table, scratch, task)), build.block)
    build.branch(check)
    build.position_at_end(spent)
    build.ret(f.i64(1))
    build.position_at_end(none)
    f.finish(f.i64(0))


def addresses(
    f: Function, table: Value, head: Value, fields: Sequence[str] = FIELDS, axes: Sequence[str] = AXIS
) -> list[Value]:
    """Where one head's operands begin (of pages, their tables): its number written in the leading axes.

    The axes stand behind the table's `fields`; `axes` names an axis's numbers, its size and a stride for each operand.
    """

    def axis(i: Value, carried: list[Value]) -> list[Value]:
        rest, *offsets = carried
        entry = f.add(len(fields), f.mul(f.sub(f.sub(field(f, table, "axes"), 1), i), len(axes)))
        size = f.load_int(table, entry)
        index = f.block.srem(rest, size)
        strides = [f.load_int(table, f.add(entry, n)) for n in range(1, len(axes))]
        offsets = [f.add(offset, f.mul(index, stride)) for offset, stride in zip(offsets, strides, strict=True)]
        return [f.block.sdiv(rest, size), *offsets]

    _, *offsets = f.loop(0, field(f, table, "axes"), 1, axis, [head, *[f.i64(0)] * len(axes[1:])])
    bases = [f.block.inttoptr(f.load_int(table, fields.index(name)), pointer) for name in axes[1:]]
    return [f.at(base, offset) for base, offset in zip(bases, offsets, strict=True)]
