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
from clearhead.definition.canonical import BLOCK, SEGMENT
from clearhead.engine.problem import Array, Problem
from clearhead.errors import MachineError
from clearhead.kernels.abi.call import AXIS, FIELDS, PLACE, ROW, SEEN_BYTES
from clearhead.kernels.abi.softmax_state import ROWS
from clearhead.kernels.abi.tiles import DIM_STEP, ELEMENTS, STORED, Tile, tile_for
from clearhead.kernels.abi.variant import Variant
from clearhead.machine.compile import Entry, Kernel, Plan, kernels
from clearhead.machine.target import Target, target
from clearhead.machine.threads import WORTH_A_THREAD, Table

FEW = 4  # queries that the decode kernel takes


@dataclass(frozen=True, slots=True)
class Prepared:
    """A problem made ready: a call only adds addresses."""

    entry: Entry
    isa: str
    output_shape: tuple[int, ...]
    output_dtype: np.dtype[Any]
    lse_dtype: np.dtype[Any]
    tasks: int
    table_type: type[Table]
    template: bytes  # the call's table without addresses
    scratch_size: int
    most_threads: int  # more would not be worth waking
    kept: tuple[Any, ...]  # arrays whose addresses stand in the template

    workspace: int  # bytes of shared memory for one call, and how many counters
    counters: int
    doubtful: Problem | None  # what is asked, if a rule may turn out to be at fault

    @property
    def kept_bytes(self) -> int:
        """How much memory those arrays hold."""
        return sum(array.nbytes for array in self.kept if array is not None)


def kernel_for(asked: Problem) -> Kernel:
    """The compiled kernel that a problem runs on: its `.plan`, `.ir` and `.asm` may be read.

    >>> import numpy as np
    >>> from clearhead import causal, problem
    >>> x = np.zeros((40, 8), np.float32)
    >>> kernel_for(problem(x, x, x, mask=causal())).plan.kernel
    'forward'
    """
    return kernels.get(plan_for(asked))


def plan_for(asked: Problem, place: Target | None = None) -> Plan:
    """Which kernel, with which tile and rules, for a target or the one in force. Lengths and dims change no code."""
    place = place or target()
    score, mask, _, arrays = asked.rules.expressions
    variant = Variant(
        score=score,
        mask=mask,
        arrays=tuple((array.dtype.name, array.ndim) for array in arrays),
        windowed=asked.rules.low is not None,
        packed=asked.rules.packed,
        sink=asked.sink,
        paged=asked.paged,
        int8=asked.int8,
        native=asked.native,
        storage=asked.storage,
        wide=asked.wide,
        long=asked.rules.long and asked.computed == "float32",
    )
    if asked.native and (place.isa != "avx512" or "+avx512bf16" not in place.features):
        raise MachineError(
            f"precision='native' needs AVX-512 with its bfloat16 instructions, not {place.isa}: use 'exact'."
        )
    tile = tile_for(ELEMENTS[asked.computed], place.vector_bits, place.registers)
    return Plan("decode" if decodes(asked, tile) else "forward", tile, place, variant)


def decodes(asked: Problem, tile: Tile) -> bool:
    """Whether the decode kernel takes a problem: few queries, dense rows of whole vectors."""
    size = STORED.get(asked.storage, tile.element.bytes)
    written = tile.element.bytes if asked.wide else size
    dense = asked.output.element == written and (asked.paged or asked.key.element == asked.value.element == size)
    whole = asked.query_dim % tile.lanes == 0 and asked.value_dim % tile.lanes == 0
    return 0 < asked.queries <= FEW and dense and whole and not asked.native and not asked.rules.packed


@dataclass(frozen=True)
class Decode:
    """How a decode is divided: its rows share their keys, its tasks are segments of keys."""

    axes: tuple[int, ...]
    group: int
    rows: int
    first_segment: int
    segments: int

    @property
    def heads(self) -> int:
        """How many times keys are walked."""
        return math.prod(self.axes)

    def workspace(self, asked: Problem, tile: Tile) -> int:
        """Bytes of all segments' sums and states."""
        return self.heads * self.segments * self.rows * (asked.value_dim + 2) * tile.element.bytes


def decode_of(asked: Problem) -> Decode:
    """Heads that share their keys become rows of one task; only segments that some query sees are walked."""
    shared = bool(asked.axes) and asked.key.lead[-1] == 0 and asked.value.lead[-1] == 0
    group = asked.axes[-1] if shared else 1
    span = asked.rules.spans[0]
    low = 0 if asked.rules.low is None else span.offset + asked.rules.low
    high = asked.keys if asked.rules.high is None else span.offset + asked.queries + asked.rules.high
    first = max(0, min(low, asked.keys - 1)) // SEGMENT
    last = max(1, -(-max(0, min(high, asked.keys)) // SEGMENT))
    axes = asked.axes[:-1] if shared else asked.axes
    return Decode(axes, group, group * asked.queries, first, max(1, last - first))


def prepare(asked: Problem) -> Prepared:
    """Find the kernel for a problem and write its table."""
    return arranged(asked, kernel_for(asked))


def arranged(asked: Problem, kernel: Kernel) -> Prepared:
    """Write the table of a problem for a kernel."""
    tile, isa = kernel.plan.tile, kernel.plan.target.isa
    decode = decode_of(asked) if kernel.plan.kernel == "decode" else None
    tiles = [] if decode else tiles_of(asked, tile)
    tasks = decode.heads * decode.segments if decode else asked.heads * len(tiles) if asked.value_dim else 0
    places, scratch_size = scratch_layout(asked, tile, decode)
    numbers, kept = table(asked, tasks, places, tiles, decode)
    work = asked.pairs * (asked.query_dim + asked.value_dim)
    debug.say(1, f"{kernel.plan.kernel} {tile.element.name} {isa} for {asked.lead} × {asked.queries} × {asked.keys}")
    if debug.level() >= 3:  # whose text takes longer than many a call
        debug.say(3, f"{kernel.plan} {asked}")
    return Prepared(
        entry=kernel.entry,
        isa=isa,
        output_shape=asked.output_shape,
        output_dtype=np.dtype(asked.computed if asked.wide else asked.dtype),
        lse_dtype=np.dtype(asked.computed),
        tasks=tasks,
        table_type=ctypes.c_int64 * len(numbers),
        template=struct.pack(f"{len(numbers)}q", *numbers),
        scratch_size=scratch_size,
        most_threads=max(1, min(tasks, work // WORTH_A_THREAD)),
        kept=kept,
        workspace=decode.workspace(asked, tile) if decode else 0,
        counters=decode.heads if decode else 0,
        doubtful=asked if asked.rules.doubtful else None,
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


def scratch_layout(asked: Problem, tile: Tile, decode: Decode | None) -> tuple[dict[str, int], int]:
    """Where in each thread's scratch memory what is kept, and its size: one tile of everything, whatever the length."""
    size = tile.element.bytes
    padded = -(-asked.value_dim // DIM_STEP) * DIM_STEP
    if decode:
        room = dict.fromkeys((name for name in FIELDS if name.startswith("at_")), 0) | {
            "at_scores": decode.rows * BLOCK * size * (2 if asked.rules.mask else 1),
            "at_softmax": decode.rows * 2 * size,
            "at_query": decode.rows * asked.query_dim * size,
            "at_rows": decode.rows * len(ROW) * 8,
        }
        return laid_out(room)
    room = {
        "at_rows": 0,
        "at_scores": (BLOCK + 2 * max(tile.keys)) * tile.row,
        "at_softmax": ROWS * tile.row,
        "at_query": asked.query_dim * tile.row,
        "at_output": tile.queries * padded * size,
        "at_total": tile.queries * padded * size,
        "at_keys": BLOCK * asked.query_dim * size,
        "at_values": BLOCK * padded * size,
        "at_place": 8 * len(PLACE),
        "at_seen": BLOCK * tile.vectors * SEEN_BYTES,
    }
    return laid_out(room)


def laid_out(room: dict[str, int]) -> tuple[dict[str, int], int]:
    """One behind the other, each from a cache line on."""
    places, end = {}, 0
    for name, needed in room.items():
        places[name] = end
        end += -(-needed // 64) * 64
    return places, end


def table(
    asked: Problem,
    tasks: int,
    places: dict[str, int],
    tiles: list[tuple[int, int, int, int, int]],
    decode: Decode | None,
) -> tuple[list[int], tuple[Any, ...]]:
    """The call's table, its operands' addresses still 0; and the arrays whose addresses stand in it already."""
    operands = {"query": asked.query, "key": asked.key, "value": asked.value, "output": asked.output}
    rules, walked = asked.rules, decode.axes if decode else asked.axes
    axes = [n for n, size in enumerate(walked) if size != 1]
    heads = asked.lead[-1] if asked.lead else 1
    _, _, constants, arrays = rules.expressions
    kinds = rules.kinds(tiles, BLOCK, math.prod(asked.lead[:-1]), heads)
    tile_table = np.array(tiles, np.int64) if rules.packed else None
    fields = {
        **dict.fromkeys(("next_task", *operands, "lse", "sink", "workspace", "counters", "sweep"), 0),
        "first_key": asked.first_key,
        "rows": decode.rows if decode else 0,
        "group": decode.group if decode else 1,
        "group_query": asked.query.lead[-1] if decode and decode.group > 1 else 0,
        "group_output": asked.output.lead[-1] if decode and decode.group > 1 else 0,
        "segments": decode.segments if decode else 0,
        "first_segment": decode.first_segment if decode else 0,
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
        **block_fields(kinds),
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


def block_fields(kinds: Array | None) -> dict[str, int]:
    """Where it stands what is known of blocks beforehand: (batches or 1, heads or 1, tiles, blocks), or nothing."""
    if kinds is None:
        return dict.fromkeys(("blocks", "block_columns", "block_heads", "block_batches"), 0)
    batches, heads, _, columns = kinds.shape
    return {
        "blocks": kinds.ctypes.data,
        "block_columns": columns,
        "block_heads": 0 if heads == 1 else kinds.strides[1],
        "block_batches": 0 if batches == 1 else kinds.strides[0],
    }


def bits(x: float) -> int:
    """A float64's bits as an integer."""
    return int(struct.unpack("q", struct.pack("d", x))[0])
