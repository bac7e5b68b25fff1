"""Carried sums: what queries know of the keys so far, and the kernels that add keys to it, join it and divide it.

Responsible for running these kernels over arrays; `clearhead.pieces` checks what users ask, in which order. Sums are
dense, in the computation's dtype: `Sums` of a call with leading axes `lead` are m, l (lead, queries) and o (lead,
queries, value dim).
"""

import ctypes
import math
from typing import NamedTuple

import numpy as np

from clearhead.arrays import Array, ceil_div
from clearhead.cache.pages import Paged
from clearhead.definition.canonical import BLOCK, SEGMENT
from clearhead.engine.execute import KEY_FIELD, QUERY_FIELD, VALUE_FIELD
from clearhead.engine.inputs import Operands
from clearhead.engine.launch import Launch
from clearhead.kernels.abi.call import FIELDS
from clearhead.kernels.abi.tiles import ELEMENTS, tile_for
from clearhead.kernels.abi.variant import Variant
from clearhead.machine.address import address
from clearhead.machine.compile import KernelSpec, kernels
from clearhead.machine.target import target
from clearhead.machine.threads import WORTH_A_THREAD, allowed, run_kernel

ROWS = 256  # that a task of the join and finish kernels takes


class Sums(NamedTuple):
    """Each query's maximum m, its sum l of exp(s − m), and its sum o of exp(s − m) · v."""

    m: Array
    l: Array
    o: Array

    def copy(self) -> "Sums":
        """The same sums in new arrays."""
        return Sums(*(np.array(x, order="C") for x in self))


def no_sums(shape: tuple[int, ...], dtype: "np.dtype[np.floating]") -> Sums:
    """The sums of no keys, for outputs of a shape; their maximum is the lowest finite number."""
    m = np.full(shape[:-1], np.finfo(dtype).min, dtype)
    return Sums(m, np.zeros_like(m), np.zeros(shape, dtype))


def add_keys(
    launch: Launch,
    operands: Operands,
    first_key: int,
    before: Sums | None,
    threads: int | None,
    into: Sums | None = None,
) -> Sums:
    """The sums before a stretch of keys, if any, and its own. `launch` is that of the stretch.

    `into` may be overwritten for the result; `before` itself may be given.
    """
    shape, dtype = launch.output_shape, launch.lse_dtype
    if launch.decode is not None and launch.tasks:
        parts = segment_sums(launch, operands, first_key, threads)
        return joined(parts, before, threads, into)
    sums = into or Sums(np.empty(shape[:-1], dtype), np.empty(shape[:-1], dtype), np.empty(shape, dtype))
    if launch.tasks:
        results = {"output": sums.o, "lse": sums.m, "workspace": sums.l}
        if before is not None:
            results["counters"] = np.array([address(x) for x in (before.o, before.m, before.l)], np.int64)
        run_stretch(launch, operands, first_key, results, threads, before)
    return sums


def joined(parts: list[Sums], before: Sums | None, threads: int | None, into: Sums | None) -> Sums:
    """The sums before, if any, and those of each segment behind them; `into` as for `add_keys`."""
    first = parts.pop(0) if before is None else before
    if into is None:
        total = first if before is None else first.copy()
    else:
        total = into
        for own, x in zip(total, first, strict=True):
            own[...] = x
    for part in parts:
        join_sums(total, part, threads)
    return total


def segment_sums(launch: Launch, operands: Operands, first_key: int, threads: int | None) -> list[Sums]:
    """The sums of each segment of keys that a decode kernel finds, ascending."""
    shape, dtype, decode = launch.output_shape, launch.lse_dtype, launch.decode
    assert decode is not None  # noqa: S101
    workspace = np.empty(launch.workspace // dtype.itemsize, dtype)
    run_stretch(launch, operands, first_key, {"workspace": workspace}, threads)
    count, rows, dims = decode.segments, decode.rows, shape[-1]
    by_head = workspace.reshape(decode.heads, -1)
    o = by_head[:, : count * rows * dims].reshape(decode.heads, count, rows, dims)
    states = by_head[:, count * rows * dims :].reshape(decode.heads, count, rows, 2)
    return [
        Sums(  # copies: a view would keep the whole workspace
            *(np.array(x, order="C").reshape(to) for x, to in zip(found, (shape[:-1], shape[:-1], shape), strict=True))
        )
        for found in ((states[:, n, :, 0], states[:, n, :, 1], o[:, n]) for n in range(count))
    ]


def run_stretch(
    launch: Launch,
    operands: Operands,
    first_key: int,
    results: dict[str, Array],
    threads: int | None,
    before: Sums | None = None,
) -> None:
    """Run a launch over a stretch of keys; `results` are the fields of the call's table that hold sums.

    Kernels count keys from the first of all, so that a stretch's arrays are said to begin as much earlier.
    """
    assert launch.entry is not None  # noqa: S101
    q, k, v, pages = operands
    axis, step = -2, first_key
    if pages is not None:
        (k, v), axis, step = pages.tables, -1, first_key // BLOCK
    table = launch.table_type.from_buffer_copy(launch.template)
    table[QUERY_FIELD] = address(q)
    for where, x in ((KEY_FIELD, k), (VALUE_FIELD, v)):
        table[where] = address(x) - step * x.strides[axis]
    for name, array in results.items():
        table[FIELDS.index(name)] = address(array)
    count = min(launch.most_threads, threads or allowed())
    arrays = (q, k, v, pages, launch.held, before, *results.values())
    run_kernel(launch.entry, table, launch.scratch_size, count, launch.isa, arrays)


def join_sums(total: Sums, part: Sums, threads: int | None) -> None:
    """Merge a segment's own sums behind the total, in place: the order decides the bits."""
    named = {"query": part.o, "key": part.m, "value": part.l, "output": total.o, "lse": total.m, "workspace": total.l}
    run_rows("join", total.o, named, threads)


def finish_sums(sums: Sums, sink: Array | None, threads: int | None, into: Array | None = None) -> tuple[Array, Array]:
    """Output and log-sum-exp, in the computation's dtype; `into` receives the output, and may be the sums' o."""
    lead, dtype = sums.m.shape[:-1], sums.m.dtype
    y, lse = np.empty_like(sums.o) if into is None else into, np.empty_like(sums.m)
    named = {"query": sums.o, "key": sums.m, "value": sums.l, "output": y, "lse": lse}
    if sink is not None:
        named["sink"] = np.ascontiguousarray(np.broadcast_to(sink, lead), dtype)
    run_rows("finish", sums.o, named, threads)
    return y, lse


def run_rows(kernel: str, o: Array, named: dict[str, Array], threads: int | None) -> None:
    """Run a kernel over the rows of sums whose o is given; `named` are its operands."""
    *lead, queries, dims = o.shape
    heads, place = math.prod(lead), target()
    if not heads * queries:
        return
    tile = tile_for(ELEMENTS[o.dtype.name], place.vector_bits, place.registers)
    code = kernels.get(KernelSpec(kernel, tile, place, Variant(sink="sink" in named)))
    tasks = ceil_div(heads * queries, ROWS)
    numbers = {"tasks": tasks, "rows": ROWS, "queries": queries, "heads": heads, "value_dim": dims}
    numbers |= {name: address(array) for name, array in named.items()}
    table = (ctypes.c_int64 * len(FIELDS))(*(numbers.get(name, 0) for name in FIELDS))
    count = min(threads or allowed(), tasks, max(1, o.size // WORTH_A_THREAD))
    run_kernel(code.entry, table, 0, count, place.isa, tuple(named.values()))


def segments_between(first_key: int, stop: int) -> list[tuple[int, int]]:
    """The segments of the keys from `first_key` to `stop`: each one's first key, and the one after its last."""
    return [(start, min(start + SEGMENT, stop)) for start in range(first_key, stop, SEGMENT)]


def keys_of(operands: Operands) -> Array | Paged:
    """What a search for faults reads keys from."""
    return operands.k if operands.pages is None else operands.pages
