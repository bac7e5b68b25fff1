"""The one way from a question to running code: look its launch up, give it addresses, run the kernel.

Responsible for what is done in every call. What depends on shapes alone comes from `launch_cache`, checks from
`problem`, code from `machine` and `kernels`.
"""

from typing import TypeAlias

import numpy as np

from clearhead.arrays import Array
from clearhead.cache.key_value import KeyValueCache
from clearhead.cache.pages import Layout, Paged
from clearhead.engine.inputs import Operands, Rules, new
from clearhead.engine.launch import Launch
from clearhead.engine.launch_cache import launch_for
from clearhead.engine.problem import Problem
from clearhead.errors import InputError, ShapeError
from clearhead.kernels.abi.call import FIELDS
from clearhead.machine.address import address
from clearhead.machine.threads import allowed, run_kernel
from clearhead.machine.unbroken import late
from clearhead.rules.masks import at_end, checked_mask

QUERY, KEY, VALUE, OUTPUT, LSE, SINK, WORKSPACE, COUNTERS = (
    FIELDS.index(name) for name in ("query", "key", "value", "output", "lse", "sink", "workspace", "counters")
)
EMPTY = np.empty(0)


# The output (..., queries, value_dim), and the log-sum-exp (..., queries), empty unless it was asked for.
Result: TypeAlias = tuple[Array, Array]


def execute(
    operands: Operands,
    rules: Rules,
    *,
    threads: int | None = None,
    out: Array | None = None,
    lse: bool = False,
    launch: Launch | None = None,
) -> Result:
    """Attention of arrays, or over a cache's pages, by the `launch` that `launch_for` gave for it, if it is at hand."""
    if launch is None:
        launch = launch_for(operands, rules, out)
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise InputError(f"threads={threads!r} is not a number of threads: use 1, 2, 3 … or None for the default.")
    q, k, v, pages = operands
    if pages is not None:
        k, v = pages.tables
    output = np.empty(launch.output_shape, launch.output_dtype) if out is None else out
    sums = np.empty(launch.output_shape[:-1], launch.lse_dtype) if lse else EMPTY
    if launch.tasks == 0:
        return output, sums
    table = launch.table_type.from_buffer_copy(launch.template)
    table[QUERY], table[KEY], table[VALUE], table[OUTPUT] = address(q), address(k), address(v), address(output)
    if lse:
        table[LSE] = address(sums)
    sink = rules[2]
    if sink is not None:
        sink = np.ascontiguousarray(np.broadcast_to(sink, launch.output_shape[:-2]), launch.lse_dtype)
        table[SINK] = address(sink)
    workspace, counters = EMPTY, EMPTY
    if launch.counters:
        workspace, counters = np.empty(launch.workspace, np.uint8), np.zeros(launch.counters, np.int64)
        table[WORKSPACE], table[COUNTERS] = address(workspace), address(counters)
    count = 1 if launch.most_threads == 1 else min(launch.most_threads, threads or allowed())
    arrays = (q, k, v, output, sums, sink, workspace, counters, launch.held, pages)
    run_kernel(launch.entry, table, launch.scratch_size, count, launch.isa, arrays)
    if launch.doubtful is not None:
        check_rows(launch.doubtful, output, q, k if pages is None else pages)
    return output, sums


def check_rows(problem: Problem, output: Array, query: Array, key: Array | Paged) -> None:
    """Raise TraceError if a row is not a number because a rule reads outside of its arrays, or the like."""
    lost = np.isnan(output[..., 0])
    if lost.any():
        late("clearhead.engine.diagnosis").check(problem, lost, query, key)


def execute_cache(
    q: Array,
    cache: KeyValueCache,
    rules: Rules,
    *,
    threads: int | None = None,
    out: Array | None = None,
    lse: bool = False,
) -> Result:
    """Attention over a cache: the queries are the last items, unless the mask says otherwise.

    Sequences that are alike go together; others one by one.
    """
    layout = check_cache(q, cache, rules)
    mask, score, sink, scale, precision = rules
    rules = new(Rules, (at_end(checked_mask(mask)), score, sink, scale, precision))
    if not cache.batched or cache.alike:
        return execute(paged(q, cache, slice(None)), rules, threads=threads, out=out, lse=lse)
    if sink is not None and sink.ndim > 1:
        raise ShapeError(f"sink of shape {sink.shape} and sequences of different lengths: give one number a head.")
    output = np.empty((*q.shape[:-1], layout.value_dim), q.dtype) if out is None else out
    sums = np.empty(q.shape[:-1], layout.computed) if lse else EMPTY
    for n in range(len(cache.counts)):
        own = slice(n, n + 1)
        _, part = execute(paged(q[own], cache, own), rules, threads=threads, out=output[own], lse=lse)
        if lse:
            sums[n] = part[0]
    return output, sums


def paged(q: Array, cache: KeyValueCache, sequences: slice) -> Operands:
    """Queries, and some sequences of a cache, all of one length."""
    pages = cache.paged(sequences)
    return new(Operands, (q, pages.key, pages.value, pages))


def check_cache(q: Array, cache: KeyValueCache, rules: Rules) -> Layout:
    """What a cache keeps, if the queries fit it."""
    if rules.precision != "exact":
        raise InputError(f"precision={rules.precision!r} is not for a cache: use 'exact'.")
    if cache.layout is None:
        raise InputError("this cache is empty: append keys and values first.")
    if q.ndim < 3 or (cache.batched and q.shape[:-3] != (len(cache.counts),)):
        wanted = f"({len(cache.counts)}, heads, n, {cache.layout.key_dim})" if cache.batched else "(heads, n, dim)"
        raise ShapeError(f"q of shape {q.shape} does not fit {cache!r}: give {wanted}.")
    return cache.layout
