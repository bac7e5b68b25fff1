"""The source of weights: a problem, its queries and keys, and the LSE of each query, computed on demand.

Responsible for cutting queries into tiles and for computing missing LSEs. The forward kernel runs on just those tiles,
with the same bits as `attend`. `sweep` chooses the weights.
"""

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array, Integers
from clearhead.attention_weights.by_definition import Scores, defined_scores
from clearhead.cache.pages import Paged
from clearhead.engine.diagnosis import raise_rule_fault
from clearhead.engine.launch import call_table, scratch_layout, spec_for
from clearhead.engine.problem import Operand, Problem
from clearhead.errors import InputError
from clearhead.kernels.abi.call import FIELDS
from clearhead.machine import loading
from clearhead.machine.compile import KernelSpec, kernels
from clearhead.machine.threads import WORTH_A_THREAD, allowed, run_kernel
from clearhead.once import cached_property

MOST_SUMMED = 1 << 12  # `check` sums about this many weights, but at least one row


class Elsewhere(Protocol):
    """What sweeps over weights in place of the CPU's kernel, with the same bits."""

    def run(self, sweep: Any, consumers: tuple[str, ...], target: Array) -> bool:
        """Write what a sweep's consumers want into its target and outputs, as `Sweep.run` does, or leave it to that."""


@dataclass(frozen=True, eq=False)
class Source:
    """Holds queries and keys without copying them; `known` is the LSE (..., queries), if available.

    `key` is the array of keys or the table of a cache's `pages`, which must live as long. With `matching`, the LSE
    belongs to these queries and keys, so rows sum to 1 until somebody changes them. `elsewhere` sweeps over
    them on a card.
    """

    problem: Problem
    query: Array
    key: Array
    known: Array | None = None
    sink: Array | None = field(default=None, repr=False)
    threads: int | None = None
    pages: Paged | None = None
    matching: bool = True
    elsewhere: Elsewhere | None = None

    @property
    def first_key(self) -> int:
        """Which of all keys the array's first one is; a cache's tables have a place for every key."""
        return 0 if self.pages is not None else self.problem.first_key

    @property
    def farthest(self) -> int:
        """No query and key are farther apart."""
        problem = self.problem
        lasts = [span.first_query + span.queries - 1 + span.offset for span in problem.rules.spans]
        return max(0, problem.queries - 1, problem.keys - 1, *lasts)

    @cached_property
    def lse_and_final(self) -> tuple[Array, npt.NDArray[np.bool_]]:
        """LSEs (heads, queries), and which of them are final: computed, and checked for faults of rules."""
        shape = self.problem.heads, self.problem.queries
        if self.known is None:
            return np.zeros(shape, self.problem.computed), np.zeros(shape, bool)
        known = np.ascontiguousarray(self.known, self.problem.computed).reshape(shape)
        return known, np.full(shape, self.matching or self.first_key > 0 or not self.problem.rules.doubtful)

    @cached_property
    def defined(self) -> Scores:
        """All scores and log-sum-exps by the definition, where nothing can be compiled."""
        return defined_scores(self.problem, self.query, self.pages or self.key, self.sink)

    def lse(self, queries: Integers, heads: Integers | None = None) -> Array:
        """The log-sum-exp of scores, (all heads, all queries), valid for `queries` of `heads`, by default all."""
        lse, final = self.lse_and_final
        # np.unique is C++ that aborts a daemon thread at the interpreter's end, before Python 3.14.
        chosen = np.arange(len(lse)) if heads is None else np.array(sorted(set(heads.tolist())), np.intp)
        wanted = np.zeros(final.shape[1], bool)
        wanted[queries] = True
        missing = ~final[chosen] & wanted
        for first, last in alike_neighbours(chosen, missing):
            lacking = np.flatnonzero(missing[first])
            part = slice(int(chosen[first]), int(chosen[last]) + 1)
            self.find(lse if self.known is None else lse.copy(), lacking, part)
            final[part, lacking] = True
        return lse

    def check(self, weights: Array, heads: Integers, queries: Integers) -> None:
        """Check that complete rows of weights, (heads, queries, keys), sum to 1 minus the sink's share.

        They do not if q, k, a rule's array or the LSE changed after the LSE was computed. Checks a sample of many rows,
        including the last. Raises InputError.
        """
        if not (self.matching and weights.size):
            return
        step = -max(1, weights.size // MOST_SUMMED)
        weights, queries = weights[:, ::step], queries[::step]
        lse = self.lse_and_final[0][heads[:, None], queries].astype(np.float64)
        sinks = -np.inf if self.sink is None else np.broadcast_to(self.sink, self.problem.lead).reshape(-1, 1)[heads]
        units = 8 * np.finfo(weights.dtype).eps * (np.abs(lse) + weights.shape[-1] + 64)  # the rounding error
        with np.errstate(invalid="ignore", over="ignore"):
            sums = weights.sum(-1, dtype=np.float64)
            wrong = np.abs(sums + np.exp(sinks - lse) - 1) > units
        wrong &= np.isfinite(lse)
        if wrong.any():
            raise InputError(
                f"the weights of query {queries[wrong.any(0)][0]} sum to {sums[wrong][0]:.6g}: q, k or an array "
                "that a rule reads has changed since its log-sum-exp was computed. Read weights before "
                "you change them, or give attend(...) copies."
            )

    def find(self, lse: Array, queries: Integers, heads: slice) -> None:
        """Compute the LSEs of some queries of neighbouring heads.

        This is attention with one dim of the keys as values and no output, begun at the first head's tasks and ended
        with the last one's.
        """
        if loading.fault():
            lse[heads, queries] = self.defined.lse[heads, queries]
            return
        size = self.query.itemsize
        problem = replace(self.problem, value_dim=1, output=Operand((0,) * len(self.problem.axes), 0, size))
        spec = spec_for(problem)
        spec = replace(spec, kernel="forward", variant=replace(spec.variant, packed=True))
        tiles = np.ascontiguousarray(weight_tiles(problem, queries, spec.tile.queries)[::-1, :-1])  # most keys first
        places, scratch_size = scratch_layout(problem, spec.tile, None)
        tasks = heads.stop * len(tiles)
        numbers, kept = call_table(problem, tasks, places, [tuple(tile) for tile in tiles.tolist()], None)
        numbers[FIELDS.index("next_task")] = heads.start * len(tiles)
        nowhere = np.zeros(8)
        sinks = nowhere if self.sink is None else np.broadcast_to(self.sink, problem.lead)
        sinks = np.ascontiguousarray(sinks, problem.computed)
        call = {
            "query": self.query, "key": self.key, "value": self.key, "output": nowhere, "lse": lse, "sink": sinks,
            "tile_table": tiles,
        }  # fmt: skip
        threads = self.count((heads.stop - heads.start) * len(tiles), len(queries))
        run_weight_kernel(spec, numbers, call, scratch_size, threads, (self, kept))
        if problem.rules.doubtful:
            lost = np.zeros_like(lse, bool)
            lost[heads, queries] = np.isnan(lse[heads, queries])
            raise_rule_fault(self.problem, lost, self.query, self.pages or self.key)

    def keys_of(self, queries: slice) -> slice:
        """The keys that some of neighbouring queries may see, judging by the band and the documents alone."""
        rules, begins, ends = self.problem.rules, [], []
        for span in rules.spans:
            first = max(queries.start, span.first_query)
            last = min(queries.stop, span.first_query + span.queries) - 1
            if first <= last:
                low = 0 if rules.low is None else first + span.offset + rules.low - span.first_key
                high = span.keys if rules.high is None else last + span.offset + rules.high + 1 - span.first_key
                begins.append(span.first_key + min(max(0, low), span.keys))
                ends.append(span.first_key + min(max(0, high), span.keys))
        return slice(min(begins, default=0), max(ends, default=0))

    def count(self, tasks: int, queries: int) -> int:
        """Number of threads for a run over some queries of all heads."""
        n = self.threads
        if n is not None and (not isinstance(n, int) or n < 1):
            raise InputError(f"threads={n!r} is not a number of threads: use 1, 2, 3 … or None for the default.")
        pairs = self.problem.pairs // max(1, self.problem.queries) * queries
        worth = max(1, min(tasks, pairs * self.problem.query_dim // WORTH_A_THREAD))
        return 1 if worth == 1 else min(worth, n or allowed())


def alike_neighbours(heads: Integers, missing: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Runs of heads with successive numbers that lack the same queries, as first and last place; not those with none.

    >>> list(alike_neighbours(np.array([2, 3, 5]), np.array([[True], [True], [True]])))
    [(0, 1), (2, 2)]
    """
    if not missing.any():
        return
    breaks = [n for n in range(1, len(heads)) if heads[n] != heads[n - 1] + 1 or (missing[n] != missing[n - 1]).any()]
    for first, stop in pairwise([0, *breaks, len(heads)]):
        if missing[first].any():
            yield first, stop - 1


def weight_tiles(problem: Problem, queries: Integers, size: int, borders: Integers | None = None) -> Integers:
    """Tiles of at most `size` neighbouring queries, laid out as `call.SWEEP_TILE`; none crosses a border."""
    spans = problem.rules.spans
    starts = np.array([span.first_query for span in spans])
    which = np.searchsorted(starts, queries, side="right") - 1
    gaps = (np.diff(queries) != 1) | (np.diff(which) != 0)
    cuts = {0, len(queries), *(np.flatnonzero(gaps) + 1).tolist()}
    edges = sorted(cuts if borders is None else cuts | set(borders.tolist()))
    tiles = []
    for start, stop in pairwise(edges):
        span, first = spans[which[start]], int(queries[start])
        tiles += [
            (first + at, min(size, stop - start - at), span.offset, span.first_key, span.keys, start + at)
            for at in range(0, stop - start, size)
        ]
    return np.array(tiles, np.int64).reshape(-1, 6)


def run_weight_kernel(
    spec: KernelSpec,
    numbers: list[int],
    arrays: dict[str, Array],
    scratch_size: int,
    threads: int,
    kept: tuple[object, ...],
    first_key: int = 0,
) -> None:
    """Run a spec's kernel on a call table, with the addresses of `arrays` filled in.

    Kernels count keys from the first of all, so that an array that begins at `first_key` is said to begin earlier.
    """
    for name, array in arrays.items():
        numbers[FIELDS.index(name)] = array.ctypes.data
    if first_key:
        numbers[FIELDS.index("key")] -= first_key * arrays["key"].strides[-2]
    kernel = kernels.get(spec)
    call = (ctypes.c_int64 * len(numbers))(*numbers)
    run_kernel(kernel.entry, call, scratch_size, threads, spec.target.isa, (arrays, kept))
