"""What becomes of a block's weights Wᵀ[key, query] in a sweep: sums, maxima, lists, blocks and pictures.

Each part walks the rows of one block, queries in the lanes; `w` is the number of vectors of queries. Weights are
α = exp(s − LSE), and exactly 0 where nothing is seen. Sums over keys begin anew in each block, so that long rows lose
little; sums over queries are taken in a fixed order, whoever computes them.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import llvmlite.ir as ir

from clearhead.kernels.abi.softmax_state import FOUND, SWEEP_LSE
from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.ir import math
from clearhead.kernels.ir.code import Code, Emitted, Function
from clearhead.kernels.ir.math import exp
from clearhead.kernels.ir.transpose import columns
from clearhead.kernels.ir.values import Float, Int, Pointer, Truth, Vector, fma, larger
from clearhead.kernels.parts.tile import vectors_of

GATHERED = ("received_sum", "received_max")  # for each key, over the queries of a task


class SweepWeights(NamedTuple):
    """α = exp(s − LSE) in place of S for `rows` keys, and what is found on the way.

    Where sums or maxima over the tile's queries are wanted, they go to `sums` and `maxima`, a vector a row.
    """

    s: Pointer
    rows: Int
    state: Pointer
    ahead: Int  # how many items the tile's first query stands after the key of row 0
    near: Int  # the number of items within which a key is near
    sums: Pointer
    maxima: Pointer


def write_weights(module: ir.Module, tile: Tile, w: int, consumers: tuple[str, ...]) -> Emitted[SweepWeights]:
    """A score of −∞, hidden or not, weighs 0 even in a row that is not a number; maxima pass over such a row."""
    f = Function(module, tile, f"weights_{w}", SweepWeights)
    s, rows, state, ahead, near, sums, maxima = f.arguments
    vectors = range(w)
    lse = [f.load(f.at(state, SWEEP_LSE, x)) for x in vectors]
    carried_names = [name for name in ("entropy", "distance", "within", "off_first") if name in consumers]
    placed = bool({"distance", "within"} & set(consumers))
    # How far each lane's query stands after the key of row 0, as floats; whole numbers this small are exact.
    lane = f.lane().rounded(f.vector)
    places = [lane + f.splat(float_of(f, ahead + x * f.lanes)) for x in vectors]
    limit = f.splat(float_of(f, near))
    zero, hidden, floor = f.constant(0.0), f.constant(-float("inf")), f.constant(math.constants(f).exp_floor)

    def joined(name: str, t: Vector, weight: Vector, far: Vector, before: Vector) -> Vector:
        """What was found so far and one weight more; t is its logarithm."""
        match name:
            case "entropy":
                return fma(weight, larger(t, floor), before)
            case "distance":
                return fma(weight, far, before)
            case "within":
                return before + (far < limit).choose(weight, zero)
            case _:
                return larger(weight, before)

    def row(i: Int, carried: list[Vector]) -> list[Vector]:
        index, *before = carried
        new: list[Vector] = []
        weights: list[Vector] = []
        for x in vectors:
            score = f.load(f.at(s, i, x))
            t = score - lse[x]
            weight = (score != hidden).choose(exp(f, t), zero)
            f.store(weight, f.at(s, i, x))
            far = (places[x] - index).size()
            new += [
                joined(name, t, weight, far, before[x * len(carried_names) + n]) for n, name in enumerate(carried_names)
            ]
            weights.append(weight)
        offset = i * (f.lanes * f.element.bytes)
        if "received_sum" in consumers:
            f.store(tree(add, weights), sums + offset)
        if "received_max" in consumers:
            f.store(reduce(lambda top, weight: larger(weight, top), weights, zero), maxima + offset)
        return [index + f.constant(1.0) if placed else index, *new]

    results = f.loop(0, rows, 1, row, [zero] * (1 + w * len(carried_names)))[1:]
    for x in vectors:
        for n, name in enumerate(carried_names):
            place, result = f.at(state, FOUND[name], x), results[x * len(carried_names) + n]
            f.store((larger if name == "off_first" else add)(result, f.load(place)), place)
    return f.finish()


def float_of(f: Code, x: Int) -> Float:
    """A whole number as one float."""
    return Float(f.build, f.build.sitofp(x.ir, f.scalar))


class Gather(NamedTuple):
    """Join sums over a tile's queries, a vector for each of `rows` keys, to what was gathered for those keys."""

    sums: Pointer
    rows: Int
    target: Pointer


def write_gather(module: ir.Module, tile: Tile, name: str) -> Emitted[Gather]:
    """Add, or take the larger. Memory is read and written in whole vectors beyond the last row."""
    f = Function(module, tile, f"gather_{name}", Gather)
    sums, rows, target = f.arguments
    size = f.lanes * f.element.bytes
    join: Callable[[Vector, Vector], Vector] = add if name == "received_sum" else larger
    whole = vectors_of(f, rows) * f.lanes
    for i in f.range(rows, whole):
        f.store(f.constant(0.0), sums + i * size)

    # A square of as many keys as lanes: transposed, each key's lanes stand in one place of all vectors.
    for i in f.range(0, whole, f.lanes):
        transposed = columns(f, [f.load(sums + (i + r) * size) for r in range(f.lanes)])
        place = target + i * f.element.bytes
        f.store(join(tree(join, transposed), f.load(place)), place)
    return f.finish()


class ListLargest(NamedTuple):
    """Enter a block's weights into each query's list of the `length` largest.

    The list holds rows of weights, then rows of keys; weights are multiplied by their key's factor, unless `factors`
    is null.
    """

    s: Pointer
    rows: Int
    list: Pointer
    length: Int
    key: Int  # row 0's
    factors: Pointer


def write_list(module: ir.Module, tile: Tile, w: int) -> Emitted[ListLargest]:
    """Lists fall; of equal weights the first stays."""
    f = Function(module, tile, f"list_{w}", ListLargest)
    s, rows, listed, length, first_key, factors = f.arguments

    with f.when(factors.given()):
        for i in f.range(0, rows):
            factor = f.broadcast(factors + (first_key + i) * f.element.bytes)
            for x in range(w):
                place = f.at(s, i, x)
                f.store(f.load(place) * factor, place)
    keys, last = listed + length * tile.row, length - 1

    def row(i: Int, smallest: list[Vector]) -> list[Vector]:
        return [enter(x, f.load(f.at(s, i, x)), first_key + i, smallest[x]) for x in range(w)]

    def enter(x: int, weight: Vector, key: Int, smallest: Vector) -> Vector:
        """Most weights are smaller than the smallest of every list: one comparison, and on to the next."""

        def insert() -> list[Vector]:
            never = Truth(f.build, ir.Constant(ir.VectorType(ir.IntType(1), f.lanes), None))

            def rank(r: Int, carried: list[Any]) -> list[Any]:
                """Down the list: what is larger takes its place, and what stood there moves on."""
                value, number, moved = carried
                at, at_key = f.at(listed, r, x), f.at(keys, r, x)
                before, key_before = f.load(at), f.load_lanes(at_key)
                moved = moved | (value > before)
                f.store(moved.choose(value, before), at)
                f.store(moved.choose(number, key_before), at_key)
                return [moved.choose(before, value), moved.choose(key_before, number), moved]

            f.loop(0, length, 1, rank, [weight, f.splat_int(key), never])
            return [f.load(f.at(listed, last, x))]

        enters = (weight > smallest).in_any_lane()
        return f.values_if(enters, insert, [smallest])[0]

    f.loop(0, rows, 1, row, [f.load(f.at(listed, last, x)) for x in range(w)])
    return f.finish()


class BlockOut(NamedTuple):
    """The weights of `queries` queries and `rows` keys as rows of an array, one for each query."""

    s: Pointer
    rows: Int
    queries: Int
    target: Pointer
    step: Int


def write_block_out(module: ir.Module, tile: Tile, *, streamed: bool) -> Emitted[BlockOut]:
    """`streamed`: past the caches, which saves reading what is overwritten; rows must begin at whole vectors."""
    f = Function(module, tile, "block_streamed" if streamed else "block_out", BlockOut)
    s, rows, queries, target, step = f.arguments
    size, whole = f.element.bytes, rows - rows % f.lanes

    def place(q: Int, i: Int) -> Pointer:
        return target + (q * step + i * size)

    def singles(q: Int, start: Int) -> None:
        for i in f.range(start, rows):
            f.store(f.load_number(f.at(s, i, 0) + q * size), place(q, i))

    full = queries - queries % f.lanes
    for q in f.range(0, full, f.lanes):
        for i in f.range(0, whole, f.lanes):
            lines = [f.load(f.at(s, i + r, 0) + q * size) for r in range(f.lanes)]
            for y, column in enumerate(columns(f, lines)):
                (f.stream if streamed else f.store)(column, place(q + y, i))
        for single in f.range(q, q + f.lanes):
            singles(single, whole)
    for q in f.range(full, queries):
        singles(q, f.i64(0))
    return f.finish()


class Pool(NamedTuple):
    """Pool a block's weights over the tile's queries and each bin of keys, into one row of a picture."""

    s: Pointer
    rows: Int
    target: Pointer
    start: Int  # row 0's key
    keys: Int
    bins: Int


def write_pool(module: ir.Module, tile: Tile, w: int, name: str) -> Emitted[Pool]:
    """Sum or largest; bin j holds the keys from ⌊j·keys/bins⌋ on."""
    f = Function(module, tile, f"pool_{w}", Pool)
    s, rows, target, start, keys, bins = f.arguments
    join: Callable[[Vector, Vector], Vector] = add if name == "pool_sum" else larger

    def border(j: Int) -> Int:
        """The row that bin j begins with."""
        return (j * keys // bins - start).clamp(0, rows)

    def holder(row: Int) -> Int:
        """The bin that holds a row."""
        return ((start + row + 1) * bins - 1) // keys

    for j in f.range(holder(f.i64(0)), holder(rows - 1) + 1):

        def row(i: Int, pooled: list[Vector]) -> list[Vector]:
            return [join(f.load(f.at(s, i, x)), pooled[x]) for x in range(w)]

        pooled = f.loop(border(j), border(j + 1), 1, row, [f.constant(0.0)] * w)
        total, step = tree(join, pooled), f.lanes // 2
        while step:
            total = join(total, f.shuffle(total, total, [lane ^ step for lane in range(f.lanes)]))
            step //= 2
        place = target + j * f.element.bytes
        f.store(join(f.broadcast(place), total).first(), place)
    return f.finish()


def tree(join: Callable[[Vector, Vector], Vector], vectors: Sequence[Vector]) -> Vector:
    """Join vectors in pairs, then the pairs, and so on."""
    while len(vectors) > 1:
        vectors = [reduce(join, vectors[i : i + 2]) for i in range(0, len(vectors), 2)]
    return vectors[0]
