"""What is decided once for a problem: which kernel, with which tile; the call's table, scratch memory and threads.

Decides nothing that an address could change, so equal problems share one preparation.
"""

import ctypes
import struct
from dataclasses import dataclass

from clearhead import debug
from clearhead.definition.canonical import BLOCK
from clearhead.kernels.call import AXIS, FIELDS
from clearhead.kernels.state import ROWS
from clearhead.kernels.tiles import DIM_STEP, ELEMENTS, Tile, tile_for
from clearhead.machine.compile import Entry, Kernel, Plan, kernels
from clearhead.machine.target import target
from clearhead.machine.threads import WORTH_A_THREAD, Table
from clearhead.problem import Problem


@dataclass(frozen=True, slots=True)
class Prepared:
    """A problem made ready: a call only adds addresses."""

    entry: Entry
    isa: str
    output_shape: tuple[int, ...]
    tasks: int
    table_type: type[Table]
    template: bytes  # the call's table without addresses
    scratch_size: int
    most_threads: int  # more would not be worth waking


def kernel_for(asked: Problem) -> Kernel:
    """The compiled kernel that a problem runs on: its `.plan`, `.ir` and `.asm` may be read.

    >>> import numpy as np
    >>> from clearhead import causal, problem
    >>> x = np.zeros((4, 8), np.float32)
    >>> kernel_for(problem(x, x, x, mask=causal())).plan.kernel
    'forward'
    """
    return kernels.get(plan_for(asked))


def plan_for(asked: Problem) -> Plan:
    """Which kernel, with which tile, for the target in force. Lengths and dims change no code."""
    place = target()
    return Plan("forward", tile_for(ELEMENTS[asked.dtype], place.vector_bits, place.registers), place)


def prepare(asked: Problem) -> Prepared:
    """Find the kernel for a problem and write its table."""
    kernel = kernel_for(asked)
    tile, isa = kernel.plan.tile, kernel.plan.target.isa
    tasks = asked.heads * -(-asked.queries // tile.queries) if asked.value_dim else 0
    places, scratch_size = scratch_layout(asked, tile)
    numbers = table(asked, tasks, places)
    work = asked.pairs * (asked.query_dim + asked.value_dim)
    debug.say(1, f"{kernel.plan.kernel} {tile.element.name} {isa} for {asked.lead} × {asked.queries} × {asked.keys}")
    debug.say(3, f"{kernel.plan} {asked}")
    return Prepared(
        entry=kernel.entry,
        isa=isa,
        output_shape=asked.output_shape,
        tasks=tasks,
        table_type=ctypes.c_int64 * len(numbers),
        template=struct.pack(f"{len(numbers)}q", *numbers),
        scratch_size=scratch_size,
        most_threads=max(1, min(tasks, work // WORTH_A_THREAD)),
    )


def scratch_layout(asked: Problem, tile: Tile) -> tuple[dict[str, int], int]:
    """Where in each thread's scratch memory what is kept, and its size: one tile of everything, whatever the length."""
    size = tile.element.bytes
    padded = -(-asked.value_dim // DIM_STEP) * DIM_STEP
    room = {
        "at_scores": (BLOCK + max(tile.keys)) * tile.row,
        "at_softmax": ROWS * tile.row,
        "at_query": asked.query_dim * tile.row,
        "at_output": tile.queries * padded * size,
        "at_total": tile.queries * padded * size,
        "at_keys": BLOCK * asked.query_dim * size,
        "at_values": BLOCK * padded * size,
    }
    places, end = {}, 0
    for name, needed in room.items():
        places[name] = end
        end += -(-needed // 64) * 64
    return places, end


def table(asked: Problem, tasks: int, places: dict[str, int]) -> list[int]:
    """The call's table, its addresses still 0."""
    operands = {"query": asked.query, "key": asked.key, "value": asked.value, "output": asked.output}
    fields = {
        **dict.fromkeys(("next_task", *operands, "lse"), 0),
        "tasks": tasks,
        "queries": asked.queries,
        "keys": asked.keys,
        "query_dim": asked.query_dim,
        "value_dim": asked.value_dim,
        "reach": asked.reach,
        "scale": struct.unpack("q", struct.pack("d", asked.scale))[0],
        **{f"{name}_row": operand.row for name, operand in operands.items()},
        **{f"{name}_element": operand.element for name, operand in operands.items()},
        **places,
        "axes": sum(size != 1 for size in asked.axes),
    }
    numbers = [fields[name] for name in FIELDS]
    for axis, size in enumerate(asked.axes):
        if size != 1:  # an axis of one head is no step to take
            numbers += [size, *(operands[name].lead[axis] for name in AXIS[1:])]
    return numbers
