"""One sweep over weights: which queries, keys and heads, and how their weights are used.

Responsible for grouping tiles and for the memory of a sweep. Each group has separate sums, so the number of threads
does not change a bit of the result. `matrix` and `summary` define the questions, `kernels.sweep` writes the code.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from clearhead import debug
from clearhead.arrays import Array, Integers, ceil_div
from clearhead.attention_weights.by_definition import Asked, block_weights, pool, reduce
from clearhead.attention_weights.labels import Labels
from clearhead.attention_weights.lse import Source, run_weight_kernel, weight_tiles
from clearhead.definition.canonical import BLOCK
from clearhead.engine.launch import call_table, key_rows_bytes, scratch_offsets, spec_for
from clearhead.kernels.abi.call import FIELDS, PLACE, ROW, SEEN_BYTES, SWEEP
from clearhead.kernels.abi.softmax_state import FOUND, SWEEP_ROWS
from clearhead.kernels.abi.tiles import CACHE_LINE, STORED, Tile, padded
from clearhead.machine import loading
from clearhead.machine.compile import KernelSpec

ROWS_APART = 2  # queries of which each alone is computed sooner than a vector of them
GROUPS = 16  # groups of tiles of one head that sum over queries separately
WORTH_A_GROUP = 8  # tiles
WORKSPACE = 1 << 22  # bytes of such sums at a time; further heads take further rounds
GATHERED = ("received_sum", "received_max")
UNUSED_PLACES = dict.fromkeys((name for name in FIELDS if name.startswith("at_")), 0)  # until something lies there
OWN_PLACES = tuple(name for name in SWEEP if name.startswith("at_"))
SHARES = ("matches", "distances")


@dataclass(frozen=True)
class Sweep:
    """A selection of weights: heads by number, queries in any order, and keys from begin to end."""

    source: Source
    heads: Integers
    queries: Integers
    begin: int
    end: int
    near: int = 0
    top: int = 1
    factors: Array | None = None  # (heads, keys): factors of weights in lists
    labels: Labels | None = None  # pairs of labels by which weights are summed
    ranges: int = 0  # how many ranges of distances weights are summed in
    outputs: dict[str, Array] = field(default_factory=dict)

    def array(self, out: Array, what: str) -> None:
        """Write weights ("block") or scores ("scores") into `out` (heads, queries, keys), with a dense last axis.

        It must hold what hidden pairs have, 0 or −∞.
        """
        self.run((what,), None, out, (out.strides[0], 0, out.strides[1]))

    def picture(self, out: Array, how: str, borders: Integers) -> None:
        """Write sums or maxima ("pool_sum", "pool_max") over bins into `out` (heads, rows, columns), all zeros.

        Row r of the picture pools the queries from index borders[r] up to borders[r + 1].
        """
        self.run((how,), borders, out, (out.strides[0], out.strides[1], 0))

    def reductions(self, wanted: Sequence[str]) -> dict[str, Array]:
        """Reductions per query (heads, queries) and per key (heads, keys).

        The names are those of `kernels.parts.weight_reductions`; "top" gives "top_weights" and "top_keys",
        (heads, queries, top). "matches" and "distances" give "shares" (heads, queries, label pairs + ranges).
        """
        per_query = [name for name in FOUND if name in wanted]
        dtype = np.dtype(self.source.problem.computed)
        rows = np.zeros((len(per_query), len(self.heads), len(self.queries)), dtype)
        results: dict[str, Array] = dict(zip(per_query, rows, strict=True))
        lists: dict[str, Array] = {}
        if "top" in wanted:
            shape = (len(self.heads), len(self.queries), self.top)
            lists = {"top_weights": np.zeros(shape, dtype), "top_keys": np.full(shape, -1)}
        shares = [name for name in SHARES if name in wanted]
        if shares:
            lists["shares"] = np.zeros((*rows.shape[1:], self.share_count), dtype)
        gathered = [name for name in GATHERED if name in wanted]
        consumers = (*per_query, *gathered, *(name for name in ("top",) if name in wanted), *shares)
        results |= lists
        # Vectors of sums are written whole: behind the last key, wherever its block begins, there is room for another.
        width = padded(self.end - self.begin) + CACHE_LINE // dtype.itemsize
        results |= {name: np.empty((len(self.heads), self.end - self.begin), dtype) for name in gathered}
        borders = self.even_groups() if gathered else None
        groups = 1 if borders is None else len(borders) - 1
        step = max(1, WORKSPACE // max(1, groups * width * dtype.itemsize * len(gathered))) if gathered else 1 << 62
        for first in range(0, len(self.heads), step):
            part = slice(first, first + step)
            factors = None if self.factors is None else self.factors[part]
            labels = None if self.labels is None else self.labels.of(part)
            round_ = replace(self, heads=self.heads[part], factors=factors, labels=labels, outputs={})
            outputs = {"rows": np.ascontiguousarray(rows[:, part])} | {name: x[part] for name, x in lists.items()}
            target = np.zeros((len(round_.heads), groups, len(gathered), width), dtype)
            round_.outputs.update(outputs)
            round_.run(consumers, borders, target, target.strides[:3])
            rows[:, part] = outputs["rows"]
            for n, name in enumerate(gathered):
                join = np.add if name == "received_sum" else np.fmax
                join.reduce(target[:, :, n, : self.end - self.begin], axis=1, out=results[name][part])
        return results

    @property
    def share_count(self) -> int:
        """How many shares each query has: one for each pair of labels and each range of distances."""
        return self.ranges + (0 if self.labels is None else self.labels.count)

    # Tiles

    @property
    def spec(self) -> KernelSpec:
        """The sweep kernel for the problem, even if another kernel computes its output."""
        return replace(spec_for(self.source.problem), kernel="sweep")

    def spec_of(self, consumers: tuple[str, ...]) -> KernelSpec:
        """The kernel for what becomes of the weights."""
        spec = self.spec
        variant = replace(spec.variant, sink=False, native=False, consumers=consumers)
        if consumers in (("block",), ("scores",)) and self.row_by_row(spec.tile):
            return replace(spec, kernel="row_sweep", variant=replace(variant, key_rows=(), packed=False))
        return replace(spec, variant=variant)

    def row_by_row(self, tile: Tile) -> bool:
        """Whether there are so few queries, and dense rows of whole vectors, that keys go in the lanes."""
        problem = self.source.problem
        dense = problem.paged or problem.key.element == STORED.get(problem.storage, tile.element.bytes)
        return (
            len(self.queries) <= ROWS_APART
            and dense
            and problem.query_dim % tile.lanes == 0
            and not self.source.first_key
        )

    def even_groups(self) -> Integers:
        """At most GROUPS groups of equally many full tiles, independent of heads and threads."""
        n = len(self.queries)
        if loading.fault():
            return np.array([0, n])
        per_tile = self.spec.tile.queries
        tiles = ceil_div(n, per_tile)
        groups = max(1, min(GROUPS, tiles // WORTH_A_GROUP))
        return np.minimum(np.arange(groups + 1) * tiles // groups * per_tile, n)

    # Running

    def run(
        self, consumers: tuple[str, ...], borders: Integers | None, target: Array, strides: tuple[int, ...]
    ) -> None:
        """Write the call tables and run the kernel."""
        if not len(self.heads) or not len(self.queries) or self.begin >= self.end:
            return
        if self.source.elsewhere is not None and self.source.elsewhere.run(self, consumers, target):
            return
        if loading.fault():
            self.run_by_definition(consumers, borders, target)
            return
        source, spec, problem = self.source, self.spec_of(consumers), self.source.problem
        weighed = consumers != ("scores",)
        lse = source.lse(self.queries, self.heads) if weighed or problem.rules.doubtful else np.empty(0)
        rows = 1 if spec.kernel == "row_sweep" else spec.tile.queries
        tiles = weight_tiles(problem, self.queries, rows, borders)
        # Without borders, each tile is a group.
        groups = np.arange(len(tiles) + 1) if borders is None else np.searchsorted(tiles[:, -1], borders)
        tasks = len(self.heads) * (len(groups) - 1)
        places, scratch_size, sweep_places = self.scratch_layout(spec.tile)
        numbers, kept = call_table(problem, tasks, places, [tuple(t[:5]) for t in tiles.tolist()], None)
        outputs, nothing = self.outputs, np.empty(0)
        found = outputs.get("rows", nothing)
        fields = {
            "heads": self.heads.ctypes.data,
            "groups": len(groups) - 1,
            "group_table": groups.ctypes.data,
            "begin": self.begin,
            "end": self.end,
            "queries": len(self.queries),
            "target": target.ctypes.data,
            **dict(zip(("target_head", "target_group", "target_row"), strides, strict=True)),
            "rows": found.ctypes.data,
            "rows_step": found.strides[0],
            "near": self.near,
            "top": self.top,
            "top_weights": outputs.get("top_weights", nothing).ctypes.data,
            "top_keys": outputs.get("top_keys", nothing).ctypes.data,
            "factors": 0 if self.factors is None else self.factors.ctypes.data,
            "bins": target.shape[-1],
            "shares": outputs.get("shares", nothing).ctypes.data,
            "share_count": self.share_count,
            **label_fields(self.labels),
            **sweep_places,
        }
        sweep_table = np.array([fields[name] for name in SWEEP], np.int64)
        call = {
            "query": source.query, "key": source.key, "lse": lse, "tile_table": tiles, "sweep": sweep_table,
        }  # fmt: skip
        debug.say(
            1, f"{spec.kernel} {', '.join(consumers)} {spec.target.isa} for {len(self.heads)} × {len(self.queries)}"
        )
        run_weight_kernel(
            spec,
            numbers,
            call,
            scratch_size,
            source.count(tasks, len(self.queries)),
            (self, target, groups, kept),
            source.first_key,
        )

    def run_by_definition(self, consumers: tuple[str, ...], borders: Integers | None, target: Array) -> None:
        """Do the same from whole matrices, where nothing can be compiled."""
        source = self.source
        s = source.defined.scores[self.heads[:, None], self.queries, self.begin : self.end]
        if consumers == ("scores",):
            target[...] = s
            return
        a = block_weights(s, source.lse(self.queries, self.heads)[self.heads[:, None], self.queries])
        if consumers == ("block",):
            target[...] = a
        elif consumers[0] in ("pool_sum", "pool_max"):
            assert borders is not None  # noqa: S101
            pool(a, borders, consumers[0], target)
        else:
            asked = Asked(
                source.problem, self.queries, self.begin, self.near, self.top, self.factors, self.labels, self.ranges
            )
            reduce(asked, a, consumers, self.outputs, target)

    def scratch_layout(self, tile: Tile) -> tuple[dict[str, int], int, dict[str, int]]:
        """Offsets in a thread's scratch memory, and its size: it holds one tile, whatever the length."""
        problem = self.source.problem
        sizes = UNUSED_PLACES | {
            "at_scores": (BLOCK + 2 * max(tile.keys)) * tile.row,
            "at_softmax": SWEEP_ROWS * tile.row,
            "at_query": problem.query_dim * tile.row,
            "at_keys": BLOCK * problem.query_dim * tile.element.bytes,
            "at_rows": 8 * len(ROW),
            "at_place": 8 * len(PLACE),
            "at_seen": BLOCK * tile.vectors * SEEN_BYTES,
            "at_key_rows": key_rows_bytes(problem, tile),
            "at_list": 2 * self.top * tile.row,
            "at_sums": 2 * BLOCK * tile.vector_bits // 8,
            "at_shares": self.share_count * tile.row,
            "at_labels": (0 if self.labels is None else self.labels.count) * tile.row,
        }
        places, size = scratch_offsets(sizes)
        return places, size, {name: places.pop(name) for name in OWN_PLACES}


def label_fields(labels: Labels | None) -> dict[str, int]:
    """The sweep's numbers of labels."""
    if labels is None:
        return dict.fromkeys(("labels", "label_heads", "query_labels", "key_labels", "apart"), 0)
    return {
        "labels": labels.count,
        "label_heads": int(labels.of_each_head),
        "query_labels": labels.queries.ctypes.data,
        "key_labels": labels.keys.ctypes.data,
        "apart": labels.apart.ctypes.data,
    }
