"""Execute a call: look up its launch, fill in the addresses, run the kernel.

Responsible for the work done in every call. `launch_cache` supplies everything that depends on shapes alone, `problem`
the checks, `machine` and `kernels` the code.
"""

import math
from typing import TypeAlias

import numpy as np

from clearhead.arrays import Array
from clearhead.cache.key_value import KeyValueCache
from clearhead.cache.pages import Layout, Paged
from clearhead.engine.by_definition import compute
from clearhead.engine.inputs import Operands, Rules, new
from clearhead.engine.kept import rules_over
from clearhead.engine.launch import Launch, kernel_for, launch_on
from clearhead.engine.launch_cache import launch_for
from clearhead.engine.problem import Problem, problem_of
from clearhead.errors import InputError, ShapeError
from clearhead.kernels.abi.call import FIELDS
from clearhead.machine.address import address
from clearhead.machine.threads import allowed, run_kernel
from clearhead.machine.unbroken import late
from clearhead.rules.masks import Mask, checked_mask
from clearhead.rules.reach import reach
from clearhead.rules.scores import as_rules

QUERY_FIELD, KEY_FIELD, VALUE_FIELD, OUTPUT_FIELD, LSE_FIELD, SINK_FIELD, WORKSPACE_FIELD, COUNTERS_FIELD = (
    FIELDS.index(name) for name in ("query", "key", "value", "output", "lse", "sink", "workspace", "counters")
)
EMPTY = np.empty(0)


# The output (..., queries, value_dim), and the log-sum-exp (..., queries), empty unless requested.
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
    """Attention over arrays or a cache's pages; pass `launch` to reuse the result of `launch_for`."""
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
    if launch.entry is None:
        compute(operands, rules._replace(score=launch.score), launch.doubtful, output, sums if lse else None)
        return output, sums
    table = launch.table_type.from_buffer_copy(launch.template)
    table[QUERY_FIELD], table[KEY_FIELD], table[VALUE_FIELD] = address(q), address(k), address(v)
    table[OUTPUT_FIELD] = address(output)
    if lse:
        table[LSE_FIELD] = address(sums)
    sink = rules[2]
    if sink is not None:
        sink = np.ascontiguousarray(np.broadcast_to(sink, launch.output_shape[:-2]), launch.lse_dtype)
        table[SINK_FIELD] = address(sink)
    workspace, counters = EMPTY, EMPTY
    if launch.counters:
        workspace, counters = np.empty(launch.workspace, np.uint8), np.zeros(launch.counters, np.int64)
        table[WORKSPACE_FIELD], table[COUNTERS_FIELD] = address(workspace), address(counters)
    count = 1 if launch.most_threads == 1 else min(launch.most_threads, threads or allowed())
    arrays = (q, k, v, output, sums, sink, workspace, counters, launch.held, pages)
    run_kernel(launch.entry, table, launch.scratch_size, count, launch.isa, arrays)
    if launch.doubtful is not None:
        check_rows(launch.doubtful, output, q, k if pages is None else pages)
    return output, sums


def execute_rows(
    operands: Operands,
    rules: Rules,
    rows: tuple[int, int],
    *,
    threads: int | None = None,
    out: Array | None = None,
    lse: bool = False,
) -> Result:
    """Some queries of a call, from the first row to before the second: they get the bits that they get in the whole."""
    scores = as_rules(rules.score)
    problem = problem_of(operands, rules._replace(score=scores), out=out, rows=rows)
    cut = operands._replace(q=operands.q[..., slice(*rows), :])
    launch = launch_on(kernel_for(problem), problem, scores)
    return execute(cut, rules, threads=threads, out=out, lse=lse, launch=launch)


def check_rows(problem: Problem, output: Array, query: Array, key: Array | Paged) -> None:
    """Raise TraceError if a row is NaN because a rule divides by 0 or reads outside its arrays."""
    lost = np.isnan(output[..., 0])
    if lost.any():
        late("clearhead.engine.diagnosis").raise_rule_fault(problem, lost, query, key)


def execute_cache(
    q: Array,
    cache: KeyValueCache,
    rules: Rules,
    *,
    threads: int | None = None,
    out: Array | None = None,
    lse: bool = False,
) -> Result:
    """Attention over a cache: the queries are the last positions, unless the mask says otherwise.

    Sequences of equal length run in one call, others one by one.
    """
    layout = check_cache(q, cache, rules)
    if not cache.batched or cache.alike:
        return execute_pages(q, cache.paged(slice(None)), rules, threads=threads, out=out, lse=lse)
    sink = rules.sink
    if sink is not None and sink.ndim > 1:
        raise ShapeError(f"sink of shape {sink.shape} and sequences of different lengths: give one number a head.")
    output = np.empty((*q.shape[:-1], layout.value_dim), q.dtype) if out is None else out
    sums = np.empty(q.shape[:-1], layout.computed) if lse else EMPTY
    for n in range(len(cache.counts)):
        one = slice(n, n + 1)
        _, lse_of_one = execute_pages(q[one], cache.paged(one), rules, threads=threads, out=output[one], lse=lse)
        if lse:
            sums[n] = lse_of_one[0]
    return output, sums


def execute_pages(q: Array, pages: Paged, rules: Rules, *, threads: int | None, out: Array | None, lse: bool) -> Result:
    """Attention over sequences of a cache that are all of one length."""
    operands = new(Operands, (q, pages.key, pages.value, pages))
    return execute(operands, rules_over(pages, rules, q.shape), threads=threads, out=out, lse=lse)


def check_cache(q: Array, cache: KeyValueCache, rules: Rules) -> Layout:
    """The cache's layout; raises ShapeError if the queries do not fit it, InputError if the mask does not."""
    if rules.precision != "exact":
        raise InputError(f"precision={rules.precision!r} does not work on a cache: use 'exact'.")
    if cache.layout is None:
        raise InputError("this cache is empty: append keys and values first.")
    if q.ndim < 3 or (cache.batched and q.shape[:-3] != (len(cache.counts),)):
        wanted = f"({len(cache.counts)}, heads, n, {cache.layout.key_dim})" if cache.batched else "(heads, n, dim)"
        raise ShapeError(f"q of shape {q.shape} does not fit {cache!r}: give {wanted}.")
    if cache.window is not None:
        check_window(cache.window, checked_mask(rules.mask))
    return cache.layout


def check_window(window: int, mask: Mask) -> None:
    """Raise InputError for a mask that surely shows keys that a cache with a window lets go, still held or not."""
    before = reach(mask)
    if before >= window:
        how_far = "to the first key" if before == math.inf else f"{before} keys"
        raise InputError(
            f"mask={mask!r} reaches back {how_far}, but KeyValueCache(window={window}) keeps no more than "
            f"{window - 1} keys before a query's own: give mask=window({window - 1}) or yours & window({window - 1}), "
            f"or make the cache with {'no window' if before == math.inf else f'window={before + 1}'}."
        )
