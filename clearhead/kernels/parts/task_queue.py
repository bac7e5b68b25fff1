"""What all kernels have in common: the loop that takes tasks until none is left, and where a task's head begins.

Decides how threads share a call, by one atomic counter in its table; what a task is, each kernel says itself.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import llvmlite.ir as ir

from clearhead.kernels.abi.call import AXIS, FIELDS
from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.ir.code import Code, Function
from clearhead.kernels.ir.values import Int, Pointer, i64
from clearhead.kernels.parts.frame import FIELD_NUMBER, CallTable, Frame


class Kernel(NamedTuple):
    """What every kernel is called with."""

    table: CallTable
    scratch: Pointer
    budget: Int  # of multiply-adds, after which the caller looks up (for Ctrl-C) and calls again


def write_queue(module: ir.Module, tile: Tile, name: str, write_task: Callable[[Code, Frame, Int], Int]) -> None:
    """The exported function, `i64 name(table, scratch, budget)`: 0 when no task is left, 1 when the budget is spent.

    `write_task(f, frame, task)` writes one task and gives its cost in multiply-adds.
    """
    f = Function(module, tile, name, Kernel, result=True, exported=True)
    table, scratch, budget = f.arguments
    build, entry = f.build, f.build.block
    check, take, work, spent, none = (
        f.ir.append_basic_block(block) for block in ("check", "take", "work", "spent", "none")
    )
    # check: is any of the budget left?
    build.branch(check)
    build.position_at_end(check)
    left = Int(build, build.phi(i64))
    left.ir.add_incoming(budget.ir, entry)
    build.cbranch((left < 1).ir, spent, take)
    # take: the next task's number, which no other thread gets
    build.position_at_end(take)
    task = f.fetch_add(table + FIELD_NUMBER["next_task"] * 8, 1, "monotonic")
    build.cbranch((task < table.field("tasks")).ir, work, none)
    # work: the task, whose cost the budget pays
    build.position_at_end(work)
    left.ir.add_incoming((left - write_task(f, Frame(table, scratch), task)).ir, build.block)
    build.branch(check)
    build.position_at_end(spent)
    build.ret(f.i64(1).ir)
    build.position_at_end(none)
    f.finish(f.i64(0))


def addresses(
    f: Code, table: CallTable, head: Int, fields: Sequence[str] = FIELDS, axes: Sequence[str] = AXIS
) -> list[Pointer]:
    """Where one head's operands begin (of pages, their tables): its number written in the leading axes.

    The axes stand after the table's `fields`; `axes` names an axis's numbers, its size and a stride for each operand.
    """

    def axis(i: Int, carried: list[Int]) -> list[Int]:
        rest, *offsets = carried
        # The last axis turns fastest: it is the lowest digit of the head's number.
        entry = len(fields) + (table.field("axes") - 1 - i) * len(axes)
        size = table.entry(entry)
        index = rest % size
        strides = [table.entry(entry + n) for n in range(1, len(axes))]
        offsets = [offset + index * stride for offset, stride in zip(offsets, strides, strict=True)]
        return [rest // size, *offsets]

    _, *offsets = f.loop(0, table.field("axes"), 1, axis, [head, *[f.i64(0)] * len(axes[1:])])
    bases = [table.field(name).pointer() for name in axes[1:]]
    return [base + offset for base, offset in zip(bases, offsets, strict=True)]
