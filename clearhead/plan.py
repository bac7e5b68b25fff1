"""What is decided once for a problem: which kernel, with which tile; the call's table, scratch memory and threads.

Decides nothing that an address could change, so equal problems share one preparation.
"""

import ctypes
import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from clearhead import debug
from clearhead.definition.canonical import BLOCK
from clearhead.kernels.call import AXIS, FIELDS, PLACE, SEEN_BYTES
from clearhead.kernels.state import ROWS
from clearhead.kernels.tiles import DIM_STEP, ELEMENTS, Tile, tile_for
from clearhead.kernels.variant import Variant
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
    lse_dtype: np.dtype[Any]
    tasks: int
    table_type: type[Table]
    template: bytes  # the call's table without addresses
    scratch_size: int
    most_threads: int  # more would not be worth waking
    kept: tuple[Any, ...]  # arrays whose addresses stand in the template

    @property
    def kept_bytes(self) -> int:
        """How much memory those arrays hold."""
        return sum(array.nbytes for array in self.kept if array is not None)


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
    """Which kernel, with which tile and rules, for the target in force. Lengths and dims change no code."""
    place = target()
    score, mask, _, arrays = asked.rules.expressions
    variant = Variant(
        score=score,
        mask=mask,
        arrays=tuple((array.dtype.name, array.ndim) for array in arrays),
        windowed=asked.rules.low is not None,
        packed=asked.rules.packed,
        sink=asked.sink,
        storage=asked.storage,
    )
    return Plan("forward", tile_for(ELEMENTS[asked.computed], place.vector_bits, place.registers), place, variant)


def prepare(asked: Problem) -> Prepared:
    """Find the kernel for a problem and write its table."""
    kernel = kernel_for(asked)
    tile, isa = kernel.plan.tile, kernel.plan.target.isa
    tiles = tiles_of(asked, tile)
    tasks = asked.heads * len(tiles) if asked.value_dim else 0
    places, scratch_size = scratch_layout(asked, tile)
    numbers, kept = table(asked, tasks, places, tiles)
    work = asked.pairs * (asked.query_dim + asked.value_dim)
    debug.say(1, f"{kernel.plan.kernel} {tile.element.name} {isa} for {asked.lead} × {asked.queries} × {asked.keys}")
    debug.say(3, f"{kernel.plan} {asked}")
    return Prepared(
        entry=kernel.entry,
        isa=isa,
        output_shape=asked.output_shape,
        lse_dtype=np.dtype(asked.computed),
        tasks=tasks,
        table_type=ctypes.c_int64 * len(numbers),
        template=struct.pack(f"{len(numbers)}q", *numbers),
        scratch_size=scratch_size,
        most_threads=max(1, min(tasks, work // WORTH_A_THREAD)),
        kept=kept,
    )


def tiles_of(asked: Problem, tile: Tile) -> list[tuple[int, int, int, int, int]]:
    """Each tile's queries, and the keys of its document: (first query, queries, shift, first key, keys).

    The order is that of the kernel's numbers: ascending, but packed documents' tiles by falling cost.
    """
    tiles = [
        (first, min(tile.queries, span.first_query + span.queries - first), span.offset, span.first_key, span.keys)
        for span in asked.rules.spans
        for first in range(span.first_query, span.first_query + span.queries, tile.queries)
    ]
    if asked.rules.packed:
        tiles.sort(key=lambda t: -min(t[4], t[0] + t[1] + t[2] - t[3]) if asked.rules.high is not None else -t[4])
    return tiles


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
        "at_place": 8 * len(PLACE),
        "at_seen": BLOCK * tile.vectors * SEEN_BYTES,
    }
    places, end = {}, 0
    for name, needed in room.items():
        places[name] = end
        end += -(-needed // 64) * 64
    return places, end


def table(
    asked: Problem, tasks: int, places: dict[str, int], tiles: list[tuple[int, int, int, int, int]]
) -> tuple[list[int], tuple[Any, ...]]:
    """The call's table, its operands' addresses still 0; and the arrays whose addresses stand in it already."""
    operands = {"query": asked.query, "key": asked.key, "value": asked.value, "output": asked.output}
    rules, axes = asked.rules, [n for n, size in enumerate(asked.axes) if size != 1]
    heads = asked.lead[-1] if asked.lead else 1
    _, _, constants, arrays = rules.expressions
    kinds = rules.kinds(tiles, BLOCK, math.prod(asked.lead[:-1]), heads)
    tile_table = np.array(tiles, np.int64) if rules.packed else None
    fields = {
        **dict.fromkeys(("next_task", *operands, "lse", "sink"), 0),
        "tasks": tasks,
        "queries": asked.queries,
        "keys": asked.keys,
        "query_dim": asked.query_dim,
        "value_dim": asked.value_dim,
        "low": -asked.queries - asked.keys if rules.low is None else rules.low,
        "high": asked.queries + asked.keys if rules.high is None else rules.high,
        "shift": rules.spans[0].offset if rules.spans else 0,
        "heads": heads,
        "parameters": len(FIELDS) + len(AXIS) * len(axes),
        "tiles": len(tiles),
        "tile_table": 0 if tile_table is None else tile_table.ctypes.data,
        "blocks": 0 if kinds is None else kinds.ctypes.data,
        "block_columns": 0 if kinds is None else kinds.shape[-1],
        "block_heads": 0 if kinds is None or kinds.shape[1] == 1 else kinds.strides[1],
        "block_batches": 0 if kinds is None or kinds.shape[0] == 1 else kinds.strides[0],
        "scale": bits(asked.scale),
        **{f"{name}_row": operand.row for name, operand in operands.items()},
        **{f"{name}_element": operand.element for name, operand in operands.items()},
        **places,
        "axes": len(axes),
    }
    numbers = [fields[name] for name in FIELDS]
    for axis in axes:  # an axis of one head is no step to take
        numbers += [asked.axes[axis], *(operands[name].lead[axis] for name in AXIS[1:])]
    numbers += [bits(constant) for constant in constants]
    for array in arrays:
        numbers.append(array.ctypes.data)
        for size, stride in zip(array.shape, array.strides, strict=True):
            numbers += [size, stride]
    return numbers, (tile_table, kinds, *arrays)


def bits(x: float) -> int:
    """A float64's bits as an integer."""
    return int(struct.unpack("q", struct.pack("d", x))[0])
