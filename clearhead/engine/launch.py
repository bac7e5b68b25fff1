"""Prepare a problem for calls: choose the kernel and tile, write the call table, size scratch memory and threads.

Nothing here depends on an operand's address, so equal problems share one launch.
"""

import ctypes
import math
import struct
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from clearhead import debug
from clearhead.arrays import Array, ceil_div
from clearhead.definition.canonical import BLOCK, SEGMENT
from clearhead.engine.by_definition import check_by_definition
from clearhead.engine.problem import Problem
from clearhead.errors import MachineError
from clearhead.kernels.abi.call import AXIS, FIELDS, PLACE, ROW, SEEN_BYTES
from clearhead.kernels.abi.softmax_state import SOFTMAX_ROWS
from clearhead.kernels.abi.tiles import CACHE_LINE, ELEMENTS, STORED, Tile, padded, tile_for
from clearhead.kernels.abi.variant import Variant
from clearhead.machine import loading
from clearhead.machine.compile import Entry, Kernel, KernelSpec, kernels
from clearhead.machine.target import Target, target
from clearhead.machine.threads import WORTH_A_THREAD, Table
from clearhead.rules.expression import Expression, depends, parts
from clearhead.rules.scores import Score
from clearhead.rules.spans import FARTHEST

FEW = 4  # the decode kernel takes up to this many queries
NO_EDGE = 2 * FARTHEST  # how far before a query the first key that it sees stands, without a left edge


@dataclass(frozen=True, slots=True)
class Launch:
    """A prepared problem, to which a call only adds addresses."""

    entry: Entry | None  # None where nothing can be compiled, and the definition computes
    isa: str
    output_shape: tuple[int, ...]
    output_dtype: np.dtype[Any]
    lse_dtype: np.dtype[Any]
    tasks: int
    table_type: type[Table]
    template: bytes  # the call's table without addresses
    scratch_size: int
    most_threads: int  # the work does not pay for more
    held: tuple[Any, ...]  # arrays whose addresses are in the template, kept alive
    workspace: int  # bytes of memory that the threads of a call share
    counters: int  # how many the threads of a call share
    decode: "Decode | None"  # how the segments of keys lie in that memory
    doubtful: Problem | None  # the problem, if one of its rules can fail at run time
    score: tuple[Score, ...]  # the score rules as they were traced

    @property
    def held_bytes(self) -> int:
        """Memory of the arrays that the launch keeps alive."""
        return sum(int(array.nbytes) for array in self.held if array is not None)


def kernel_for(problem: Problem) -> Kernel:
    """The compiled kernel that runs a problem; read its `.spec`, `.ir` and `.asm`.

    >>> import numpy as np
    >>> from clearhead import causal, problem
    >>> x = np.zeros((40, 8), np.float32)
    >>> kernel_for(problem(x, x, x, mask=causal())).spec.kernel
    'forward'
    """
    return kernels.get(spec_for(problem))


def spec_for(problem: Problem, place: Target | None = None) -> KernelSpec:
    """The kernel, tile and rules of a problem, for `place` or the current target. Lengths and dims do not matter."""
    place = place or target()
    score, mask, _, arrays = problem.rules.expressions
    variant = Variant(
        score=score,
        mask=mask,
        arrays=tuple((array.dtype.name, array.ndim) for array in arrays),
        windowed=problem.rules.low is not None,
        packed=problem.rules.packed,
        sink=problem.sink,
        paged=problem.paged,
        int8=problem.int8,
        native=problem.native,
        storage=problem.storage,
        unrounded=problem.unrounded,
        carried=problem.carried,
        long=problem.rules.long and problem.computed == "float32",
    )
    if problem.native and (place.isa != "avx512" or "+avx512bf16" not in place.features):
        raise MachineError(
            f"precision='native' needs AVX-512 with its bfloat16 instructions, not {place.isa}: use 'exact'."
        )
    tile = tile_for(ELEMENTS[problem.computed], place.vector_bits, place.registers)
    if decodes(problem, tile):
        return KernelSpec("decode", tile, place, variant)
    return KernelSpec("forward", tile, place, replace(variant, key_rows=key_rows_of(problem)))


def key_rows_of(problem: Problem) -> tuple[Expression, ...]:
    """What score rules load from arrays that hold, in each query's row, the numbers of all keys side by side."""
    score, _, _, arrays = problem.rules.expressions

    def along_keys(load: Expression) -> bool:
        array, (*others, last) = arrays[load.array or 0], load.args
        elsewhere = frozenset[str]().union(*(depends(index) for index in others))
        return (
            last.op == "key"
            and array.shape[-1] >= problem.keys
            and array.strides[-1] == array.itemsize
            and array.dtype.name == problem.computed
            and not elsewhere.isdisjoint(("row", "query"))
            and elsewhere.isdisjoint(("key", "score"))
        )

    if score is None:
        return ()
    return tuple(part for part in parts(score) if part.op == "load" and part.args and along_keys(part))


def decodes(problem: Problem, tile: Tile) -> bool:
    """Whether the decode kernel runs a problem: few queries, dense rows, dims that fill vectors."""
    size = STORED.get(problem.storage, tile.element.bytes)
    output_size = tile.element.bytes if problem.unrounded else size
    dense = problem.output.element == output_size and (
        problem.paged or problem.key.element == problem.value.element == size
    )
    full_vectors = problem.query_dim % tile.lanes == 0 and problem.value_dim % tile.lanes == 0
    return 0 < problem.queries <= FEW and dense and full_vectors and not problem.native and not problem.rules.packed


@dataclass(frozen=True)
class Decode:
    """How a decode is split: rows share their keys, and each task is a segment of keys."""

    axes: tuple[int, ...]
    group: int
    rows: int
    first_segment: int
    segments: int

    @property
    def heads(self) -> int:
        """How many times the kernel walks the keys."""
        return math.prod(self.axes)

    def workspace(self, problem: Problem, tile: Tile) -> int:
        """Bytes for the output and softmax state of every segment."""
        return self.heads * self.segments * self.rows * (problem.value_dim + 2) * tile.element.bytes


def decode_of(problem: Problem) -> Decode:
    """Make heads that share keys the rows of one task, and skip segments that no query sees."""
    shared = bool(problem.axes) and problem.key.lead[-1] == 0 and problem.value.lead[-1] == 0
    group = problem.axes[-1] if shared else 1
    span = problem.rules.spans[0]
    low = 0 if problem.rules.low is None else span.offset + problem.rules.low
    high = problem.keys if problem.rules.high is None else span.offset + problem.queries + problem.rules.high
    first = max(problem.first_key, min(low, problem.keys - 1)) // SEGMENT
    last = max(1, ceil_div(max(0, min(high, problem.keys)), SEGMENT))
    axes = problem.axes[:-1] if shared else problem.axes
    return Decode(axes, group, group * problem.queries, first, max(1, last - first))


def prepare(problem: Problem, score: tuple[Score, ...]) -> Launch:
    """Find the kernel for a problem and write its call table; without a compiler, leave the call to the definition."""
    if loading.fault():
        return launch_by_definition(problem, score)
    return launch_on(kernel_for(problem), problem, score)


def launch_by_definition(problem: Problem, score: tuple[Score, ...]) -> Launch:
    """A launch without a kernel, which `by_definition` computes; raises MachineError for what that cannot."""
    check_by_definition(problem, problem.query_dim + problem.value_dim)
    return Launch(
        entry=None,
        isa="",
        output_shape=problem.output_shape,
        output_dtype=np.dtype(problem.computed if problem.unrounded else problem.dtype),
        lse_dtype=np.dtype(problem.computed),
        tasks=problem.heads * problem.queries,
        table_type=ctypes.c_int64 * 0,
        template=b"",
        scratch_size=0,
        most_threads=1,
        held=(),
        workspace=0,
        counters=0,
        decode=None,
        doubtful=problem if problem.rules.doubtful else None,
        score=score,
    )


def launch_on(kernel: Kernel, problem: Problem, score: tuple[Score, ...]) -> Launch:
    """Write the call table of a problem for a kernel."""
    tile, isa = kernel.spec.tile, kernel.spec.target.isa
    decode = decode_of(problem) if kernel.spec.kernel == "decode" else None
    tiles = [] if decode else tiles_of(problem, tile)
    tasks = decode.heads * decode.segments if decode else problem.heads * len(tiles) if problem.value_dim else 0
    places, scratch_size = scratch_layout(problem, tile, decode)
    numbers, held = call_table(problem, tasks, places, tiles, decode)
    work = problem.pairs * (problem.query_dim + problem.value_dim)
    debug.say(
        1, f"{kernel.spec.kernel} {tile.element.name} {isa} for {problem.lead} × {problem.queries} × {problem.keys}"
    )
    if debug.level() >= 3:  # building this text takes longer than a small call
        debug.say(3, f"{kernel.spec} {problem}")
    return Launch(
        entry=kernel.entry,
        isa=isa,
        output_shape=problem.output_shape,
        output_dtype=np.dtype(problem.computed if problem.unrounded else problem.dtype),
        lse_dtype=np.dtype(problem.computed),
        tasks=tasks,
        table_type=ctypes.c_int64 * len(numbers),
        template=struct.pack(f"{len(numbers)}q", *numbers),
        scratch_size=scratch_size,
        most_threads=max(1, min(tasks, work // WORTH_A_THREAD)),
        held=held,
        workspace=decode.workspace(problem, tile) if decode else 0,
        counters=decode.heads if decode else 0,
        decode=decode,
        doubtful=problem if problem.rules.doubtful else None,
        score=score,
    )


def tiles_of(problem: Problem, tile: Tile) -> list[tuple[int, int, int, int, int]]:
    """The queries of each tile and the keys of its document: (first query, queries, shift, first key, keys).

    In the order in which threads take tiles: ascending, or by falling cost for packed documents.
    """
    tiles = [
        (first, min(tile.queries, span.first_query + span.queries - first), span.offset, span.first_key, span.keys)
        for span in problem.rules.spans
        for first in range(span.first_query, span.first_query + span.queries, tile.queries)
    ]
    if problem.rules.packed:
        tiles.sort(key=lambda t: -min(t[4], t[0] + t[1] + t[2] - t[3]) if problem.rules.high is not None else -t[4])
    return tiles


def scratch_layout(problem: Problem, tile: Tile, decode: Decode | None) -> tuple[dict[str, int], int]:
    """Offsets in a thread's scratch memory, and its size. It holds one tile, so it does not grow with the length."""
    size = tile.element.bytes
    if decode:
        sizes = dict.fromkeys((name for name in FIELDS if name.startswith("at_")), 0) | {
            "at_scores": decode.rows * BLOCK * size * (2 if problem.rules.mask else 1),
            "at_softmax": decode.rows * 2 * size,
            "at_query": decode.rows * problem.query_dim * size,
            "at_rows": decode.rows * len(ROW) * 8,
        }
        return scratch_offsets(sizes)
    sizes = {
        "at_rows": 0,
        "at_scores": (BLOCK + 2 * max(tile.keys)) * tile.row,
        "at_softmax": SOFTMAX_ROWS * tile.row,
        "at_query": problem.query_dim * tile.row,
        "at_output": tile.queries * padded(problem.value_dim) * size,
        "at_total": tile.queries * padded(problem.value_dim) * size,
        "at_keys": BLOCK * problem.query_dim * size,
        "at_values": BLOCK * padded(problem.value_dim) * size,
        "at_place": 8 * len(PLACE),
        "at_seen": BLOCK * tile.vectors * SEEN_BYTES,
        "at_key_rows": key_rows_bytes(problem, tile),
    }
    return scratch_offsets(sizes)


def key_rows_bytes(problem: Problem, tile: Tile) -> int:
    """Room for squares of what rules read along the keys."""
    return len(key_rows_of(problem)) * tile.lanes * tile.row


def scratch_offsets(sizes: dict[str, int]) -> tuple[dict[str, int], int]:
    """Offsets that place fields one after another, each aligned to a cache line, and the total size."""
    places, end = {}, 0
    for name, needed in sizes.items():
        places[name] = end
        end += ceil_div(needed, CACHE_LINE) * CACHE_LINE
    return places, end


def call_table(
    problem: Problem,
    tasks: int,
    places: dict[str, int],
    tiles: list[tuple[int, int, int, int, int]],
    decode: Decode | None,
) -> tuple[list[int], tuple[Any, ...]]:
    """The call table with operand addresses 0, and the arrays whose addresses it already contains."""
    operands = {"query": problem.query, "key": problem.key, "value": problem.value, "output": problem.output}
    rules, walked = problem.rules, decode.axes if decode else problem.axes
    axes = [n for n, size in enumerate(walked) if size != 1]
    heads = problem.lead[-1] if problem.lead else 1
    _, _, constants, arrays = rules.expressions
    first_block = 0 if rules.packed else problem.first_key // BLOCK
    kinds = rules.kinds(tiles, BLOCK, math.prod(problem.lead[:-1]), heads, first_block)
    tile_table = np.array(tiles, np.int64) if rules.packed else None
    fields = {
        **dict.fromkeys(("next_task", *operands, "lse", "sink", "workspace", "counters", "sweep"), 0),
        "threads": 1,
        "first_key": problem.first_key,
        "rows": decode.rows if decode else 0,
        "group": decode.group if decode else 1,
        "group_query": problem.query.lead[-1] if decode and decode.group > 1 else 0,
        "group_output": problem.output.lead[-1] if decode and decode.group > 1 else 0,
        "segments": decode.segments if decode else 0,
        "first_segment": decode.first_segment if decode else 0,
        "tasks": tasks,
        "queries": problem.queries,
        "keys": problem.keys,
        "query_dim": problem.query_dim,
        "value_dim": problem.value_dim,
        "low": -NO_EDGE if rules.low is None else rules.low,
        "high": beyond_all_keys(problem) if rules.high is None else rules.high,
        "shift": rules.spans[0].offset if rules.spans else 0,
        "heads": heads,
        "parameters": len(FIELDS) + len(AXIS) * len(axes),
        "tiles": len(tiles),
        "tile_table": 0 if tile_table is None else tile_table.ctypes.data,
        **block_fields(kinds, first_block),
        "scale": bits(problem.scale),
        **{f"{name}_row": operand.row for name, operand in operands.items()},
        **{f"{name}_element": operand.element for name, operand in operands.items()},
        **places,
        "axes": len(axes),
    }
    numbers = [fields[name] for name in FIELDS]
    for axis in axes:  # the kernel skips axes of size 1
        numbers += [problem.axes[axis], *(operands[name].lead[axis] for name in AXIS[1:])]
    numbers += [bits(constant) for constant in constants]
    for array in arrays:
        numbers += array_parameters(array.ctypes.data, array.shape, array.strides)
    return numbers, (tile_table, kinds, *arrays)


def beyond_all_keys(problem: Problem) -> int:
    """How far behind a query the last key that it sees stands, without a right edge; queries may stand before key 0."""
    first = min((span.offset - span.first_key for span in problem.rules.spans), default=0)
    return problem.queries + problem.keys - first


def array_parameters(where: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> list[int]:
    """An array as `Variant.at_array` reads it from the parameters: address, then size and stride of each axis."""
    return [where, *chain(*zip(shape, strides, strict=True))]


def block_fields(kinds: Array | None, first_block: int = 0) -> dict[str, int]:
    """Fields that point to the precomputed block kinds (batches or 1, heads or 1, tiles, blocks); 0 without them.

    Kernels count blocks from the first key of all; the table may begin later.
    """
    if kinds is None:
        return dict.fromkeys(("blocks", "block_columns", "block_heads", "block_batches"), 0)
    batches, heads, _, columns = kinds.shape
    return {
        "blocks": kinds.ctypes.data - first_block,
        "block_columns": columns,
        "block_heads": 0 if heads == 1 else kinds.strides[1],
        "block_batches": 0 if batches == 1 else kinds.strides[0],
    }


def bits(x: float) -> int:
    """A float64's bits as an integer."""
    return int(struct.unpack("q", struct.pack("d", x))[0])
