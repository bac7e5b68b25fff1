"""Shares of a query's weight in a sweep: on the keys of its own label, and on the keys in each range of distances.

Queries stand in the lanes; a tile's shares are rows of one number for each of its queries, label pairs first, ranges
of distances behind them. As in `weight_reductions`, a sum begins anew in each block and adds its weights in ascending
order, so a share has the same bits whatever the tile.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Self

import llvmlite.ir as ir

from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.ir.code import Code, Emitted, Function
from clearhead.kernels.ir.values import (
    Int,
    Lanes,
    Pointer,
    Truth,
    Vector,
    call_intrinsic,
    constant,
    i1,
    i64,
    least,
    most,
)
from clearhead.kernels.parts.frame import Frame, sweep_field
from clearhead.kernels.parts.tile import TileRows


class WeightsBlock(NamedTuple):
    """The weights Wᵀ[key, query] of a tile's queries and one block of keys."""

    s: Pointer
    rows: Int
    ahead: Int  # how many items the tile's first query stands after the key of row 0
    key: Int  # row 0's


@dataclass(frozen=True)
class Shares:
    """A module's functions for shares; without the consumers "matches" and "distances", they write nothing."""

    matches: dict[int, Emitted["Matches"]]
    distances: dict[int, Emitted["Distances"]]

    @classmethod
    def write(cls, module: ir.Module, tile: Tile, consumers: tuple[str, ...]) -> Self:
        """Write them into a module, for every number of vectors of queries."""
        widths = range(1, tile.vectors + 1)
        return cls(
            {w: write_matches(module, tile, w) for w in widths if "matches" in consumers},
            {w: write_distances(module, tile, w) for w in widths if "distances" in consumers},
        )

    def enter(self, f: Code, frame: Frame, head: Int, tile: TileRows) -> None:
        """As a tile begins: where its head's labels of keys lie, and a copy of its queries' labels."""
        if not self.matches:
            return
        get, size = partial(sweep_field, frame), f.element.bytes
        pairs, queries = get("labels"), frame.field("queries")
        before = head * get("label_heads") * pairs  # pairs of the heads before
        frame.position().write(key_labels=get("key_labels") + before * frame.field("keys") * size)
        labels = frame.scratch + get("at_labels")
        for pair in f.range(0, pairs):
            own = (get("query_labels") + ((before + pair) * queries + tile.first) * size).pointer()
            for q in f.range(0, f.tile.queries):
                label = f.load_bits(own + least(q, tile.rows - 1) * size, 8 * size)
                f.store(label, f.at(labels, pair, 0) + q * size)

    def clear(self, f: Code, frame: Frame) -> None:
        """Nothing found yet for the tile's queries."""
        if not (self.matches or self.distances):
            return
        shares = frame.scratch + sweep_field(frame, "at_shares")
        for number in f.range(0, sweep_field(frame, "share_count")):
            for x in range(f.tile.vectors):
                f.store(f.constant(0.0), f.at(shares, number, x))

    def add(self, f: Code, frame: Frame, w: int, block: WeightsBlock) -> None:
        """Add a block's weights to their query's shares."""
        get, size = partial(sweep_field, frame), f.element.bytes
        s, rows, ahead, key = block
        if self.matches:
            shares, labels = frame.scratch + get("at_shares"), frame.scratch + get("at_labels")
            keys = (frame.position().read("key_labels") + key * size).pointer()
            step, apart = frame.field("keys") * size, get("apart").pointer()
            f.call(self.matches[w], Matches(s, rows, ahead, shares, get("labels"), labels, keys, step, apart))
        if self.distances:
            pairs = get("labels")
            shares = f.at(frame.scratch + get("at_shares"), pairs, 0)
            f.call(self.distances[w], Distances(s, rows, ahead, shares, get("share_count") - pairs))

    def write_out(self, f: Code, frame: Frame, index: Int, rows: Int) -> None:
        """A finished tile's shares to where the query of number `index` has its place."""
        if not (self.matches or self.distances):
            return
        get, size = partial(sweep_field, frame), f.element.bytes
        count, shares = get("share_count"), frame.scratch + get("at_shares")
        for entry in f.range(0, rows * count):
            q, number = entry // count, entry % count
            share = f.load_number(f.at(shares, number, 0) + q * size)
            f.store(share, get("shares").pointer() + (index * count + entry) * size)


class Matches(NamedTuple):
    """Add the weights of `rows` keys whose label is the query's own, for each of `pairs` of labels.

    `labels` are rows of the tile's own labels, `keys` the label of row 0 in the first pair; the next pair's lies
    `step` bytes behind. Where a pair's number in `apart` is not 0, one key does not count: with 1 a query's own, with 2
    the one behind it, and so on.
    """

    s: Pointer
    rows: Int
    ahead: Int  # how many items the tile's first query stands after the key of row 0
    shares: Pointer
    pairs: Int
    labels: Pointer
    keys: Pointer
    step: Int
    apart: Pointer


def write_matches(module: ir.Module, tile: Tile, w: int) -> Emitted[Matches]:
    """One pass over the block for each pair of labels."""
    f = Function(module, tile, f"matches_{w}", Matches)
    s, rows, ahead, shares, pairs, labels, keys, step, apart = f.arguments
    vectors = range(w)
    places = [f.lane() + f.splat_int(ahead + x * f.lanes) for x in vectors]
    nowhere, zero = f.integer(-1), f.constant(0.0)

    for pair in f.range(0, pairs):
        wanted = [f.load_lanes(f.at(labels, pair, x)) for x in vectors]
        number = apart.entry(pair)
        before = f.splat_int(number - 1)
        own = [(number != 0).choose(place + before, nowhere) for place in places]  # the row that does not count
        first = keys + pair * step

        def row(i: Int, sums: list[Vector]) -> list[Vector]:
            label = Lanes(f.build, f.spread(f.read(first + i * f.element.bytes, f.integers.element)))
            index = f.splat_int(i)
            hits = [(label == wanted[x]) & (own[x] != index) for x in vectors]
            return [sums[x] + hits[x].choose(f.load(f.at(s, i, x)), zero) for x in vectors]

        add_to(f, shares, pair, f.loop(0, rows, 1, row, [zero] * w))
    return f.finish()


class Distances(NamedTuple):
    """Add the weights of `rows` keys to ranges of distances: 0, 1, 2–3, 4–7, and so on; there are `ranges`."""

    s: Pointer
    rows: Int
    ahead: Int  # how many items the tile's first query stands after the key of row 0
    shares: Pointer
    ranges: Int


def write_distances(module: ir.Module, tile: Tile, w: int) -> Emitted[Distances]:
    """Most blocks lie within one range and are added whole; only where a border cuts one, lanes are compared."""
    f = Function(module, tile, f"distances_{w}", Distances)
    s, rows, ahead, shares, ranges = f.arguments
    vectors, zero = range(w), f.constant(0.0)
    lane = f.lane().rounded(f.vector)
    places = [lane + f.splat_int(ahead + x * f.lanes).rounded(f.vector) for x in vectors]

    least_ahead, most_ahead = ahead - rows + 1, ahead + (w * f.lanes - 1)
    ends = magnitude(least_ahead), magnitude(most_ahead)
    crossed = (least_ahead < 1) & (most_ahead > -1)  # some query's own key is among them
    nearest = bit_length(crossed.choose(f.i64(0), least(*ends)))
    # Lanes beyond the tile's last query may stand farther than any; they weigh 0.
    farthest = least(bit_length(most(*ends)), ranges - 1)

    def whole(i: Int, sums: list[Vector]) -> list[Vector]:
        return [sums[x] + f.load(f.at(s, i, x)) for x in vectors]

    with f.either(nearest == farthest) as (then, otherwise):
        with then:
            add_to(f, shares, nearest, f.loop(0, rows, 1, whole, [zero] * w))
        with otherwise:
            for number in f.range(nearest, farthest + 1):
                above = f.splat_int(f.i64(1) << number)
                stop = above.rounded(f.vector)
                start = ((number == 0).choose(f.integer(0), above.logical_right(1))).rounded(f.vector)

                def cut(i: Int, sums: list[Vector]) -> list[Vector]:
                    row = f.splat_int(i).rounded(f.vector)
                    far = [(places[x] - row).size() for x in vectors]
                    inside: list[Truth] = [(start <= far[x]) & (far[x] < stop) for x in vectors]
                    return [sums[x] + inside[x].choose(f.load(f.at(s, i, x)), zero) for x in vectors]

                add_to(f, shares, number, f.loop(0, rows, 1, cut, [zero] * w))
    return f.finish()


def add_to(f: Code, shares: Pointer, number: Int, sums: list[Vector]) -> None:
    """Add a block's sums to one row of the tile's shares."""
    for x, total in enumerate(sums):
        place = f.at(shares, number, x)
        f.store(f.load(place) + total, place)


def magnitude(x: Int) -> Int:
    """|x|."""
    return most(x, -x)


def bit_length(x: Int) -> Int:
    """How many binary digits x ≥ 0 has: the number of the range that a distance is in."""
    zeros = call_intrinsic(x.build, "llvm.ctlz.i64", i64, [x.ir, constant(i1, 0)])
    return 64 - Int(x.build, zeros)
