"""What weights are computed from: a problem, its queries and keys, and each query's LSE where it is wanted.

Decides how queries are cut into tiles, and finds missing LSEs by the forward kernel on just those tiles, with the bits
that `attend` gives. Which weights are wanted is left to `sweep`.
"""

import ctypes
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array, Integers
from clearhead.cache.pages import Paged
from clearhead.engine.diagnosis import raise_rule_fault
from clearhead.engine.launch import call_table, scratch_layout, spec_for
from clearhead.engine.problem import Operand, Problem
from clearhead.errors import InputError
from clearhead.kernels.abi.call import FIELDS
from clearhead.machine.compile import KernelSpec, kernels
from clearhead.machine.threads import WORTH_A_THREAD, allowed, run_kernel
from clearhead.once import cached_property

MOST_SUMMED = 1 << 12  # weights whose sums are compared with 1, unless one row has more


@dataclass(frozen=True, eq=False)
class Source:
    """Queries and keys are held, not copied; `known` is the LSE (..., queries), if it is.

    `key` is the array of keys, or the table of a cache's `pages`, which must live as long. With `own`, the LSE is that
    of these queries and keys, so that rows sum to 1 while nobody changes them.
    """

    problem: Problem
    query: Array
    key: Array
    known: Array | None = None
    sink: Array | None = field(default=None, repr=False)
    threads: int | None = None
    pages: Paged | None = None
    own: bool = True

    @cached_property
    def found(self) -> tuple[Array, npt.NDArray[np.bool_]]:
        """LSEs (heads, queries), and for which queries they are right so far, or need no look at the rules' faults."""
        shape = self.problem.heads, self.problem.queries
        if self.known is None:
            return np.zeros(shape, self.problem.computed), np.zeros(shape[1], bool)
        known = np.ascontiguousarray(self.known, self.problem.computed).reshape(shape)
        return known, np.full(shape[1], self.own or not self.problem.rules.doubtful)

    def lse(self, queries: Integers) -> Array:
        """The log-sum-exp of scores, (heads, all queries), right for `queries`."""
        lse, found = self.found
        wanted = np.zeros_like(found)
        wanted[queries] = True
        missing = np.flatnonzero(wanted & ~found)
        if len(missing) and len(lse):
            self.find(lse if self.known is None else lse.copy(), missing)
            found[missing] = True
        return lse

    def check(self, weights: Array, heads: Integers, queries: Integers) -> None:
        """Whether whole rows of some heads, (heads, queries, keys), sum to 1 less the sink's share.

        They do not where q, k, a rule's array or the LSE was changed after the LSE was found. Of many rows, some are
        asked, the last among them. Raises InputError.
        """
        if not (self.own and weights.size):
            return
        step = -max(1, weights.size // MOST_SUMMED)
        weights, queries = weights[:, ::step], queries[::step]
        lse = self.found[0][heads[:, None], queries].astype(np.float64)
        sinks = -np.inf if self.sink is None else np.broadcast_to(self.sink, self.problem.lead).reshape(-1, 1)[heads]
        units = 8 * np.finfo(weights.dtype).eps * (np.abs(lse) + weights.shape[-1] + 64)  # what rounding explains
        with np.errstate(invalid="ignore", over="ignore"):
            sums = weights.sum(-1, dtype=np.float64)
            wrong = np.abs(sums + np.exp(sinks - lse) - 1) > units
        wrong &= np.isfinite(lse)
        if wrong.any():
            raise InputError(
                f"the weights of query {queries[wrong.any(0)][0]} sum to {sums[wrong][0]:.6g}: q, k or what a rule "
                "reads has changed since its log-sum-exp was found. Look before you change them, or give attend(...) "
                "copies."
            )

    def find(self, lse: Array, queries: Integers) -> None:
        """Write the LSEs of some queries: attention whose values, one dim of the keys, are thrown away."""
        size = self.query.itemsize
        problem = replace(self.problem, value_dim=1, output=Operand((0,) * len(self.problem.axes), 0, size))
        spec = spec_for(problem)
        spec = replace(spec, kernel="forward", variant=replace(spec.variant, packed=True))
        tiles = np.ascontiguousarray(tiles_of(problem, queries, spec.tile.queries)[::-1, :-1])  # most keys first
        places, scratch_size = scratch_layout(problem, spec.tile, None)
        tasks = problem.heads * len(tiles)
        numbers, kept = call_table(problem, tasks, places, [tuple(tile) for tile in tiles.tolist()], None)
        nowhere = np.zeros(8)
        sinks = nowhere if self.sink is None else np.broadcast_to(self.sink, problem.lead)
        sinks = np.ascontiguousarray(sinks, problem.computed)
        call = {
            "query": self.query, "key": self.key, "value": self.key, "output": nowhere, "lse": lse, "sink": sinks,
            "tile_table": tiles,
        }  # fmt: skip
        run(spec, numbers, call, scratch_size, self.count(tasks, len(queries)), (self, kept))
        if problem.rules.doubtful:
            lost = np.zeros_like(lse, bool)
            lost[:, queries] = np.isnan(lse[:, queries])
            raise_rule_fault(self.problem, lost, self.query, self.pages or self.key)

    def count(self, tasks: int, queries: int) -> int:
        """How many threads a run over some queries of all heads is worth."""
        n = self.threads
        if n is not None and (not isinstance(n, int) or n < 1):
            raise InputError(f"threads={n!r} is not a number of threads: use 1, 2, 3 … or None for the default.")
        pairs = self.problem.pairs // max(1, self.problem.queries) * queries
        worth = max(1, min(tasks, pairs * self.problem.query_dim // WORTH_A_THREAD))
        return 1 if worth == 1 else min(worth, n or allowed())


def tiles_of(problem: Problem, queries: Integers, size: int, borders: Integers | None = None) -> Integers:
    """Tiles of at most `size` neighbouring queries, as `call.SWEEP_TILE` has them; none stands across a border."""
    spans = problem.rules.spans
    starts = np.array([span.first_query for span in spans])
    which = np.searchsorted(starts, queries, side="right") - 1
    apart = (np.diff(queries) != 1) | (np.diff(which) != 0)
    cuts = {0, len(queries), *(np.flatnonzero(apart) + 1).tolist()}
    edges = sorted(cuts if borders is None else cuts | set(borders.tolist()))
    tiles = []
    for start, stop in pairwise(edges):
        span, first = spans[which[start]], int(queries[start])
        tiles += [
            (first + at, min(size, stop - start - at), span.offset, span.first_key, span.keys, start + at)
            for at in range(0, stop - start, size)
        ]
    return np.array(tiles, np.int64).reshape(-1, 6)


def run(
    spec: KernelSpec,
    numbers: list[int],
    arrays: dict[str, Array],
    scratch_size: int,
    threads: int,
    kept: tuple[object, ...],
) -> None:
    """Run a spec's kernel on a table, with arrays' addresses in their fields."""
    for name, array in arrays.items():
        numbers[FIELDS.index(name)] = array.ctypes.data
    kernel = kernels.get(spec)
    call = (ctypes.c_int64 * len(numbers))(*numbers)
    run_kernel(kernel.entry, call, scratch_size, threads, spec.target.isa, (arrays, kept))
