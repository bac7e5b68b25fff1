"""What becomes of a block's weights Wᵀ[key, query] in a sweep: sums, maxima, lists, blocks and pictures.

Each part walks the rows of one block, queries in the lanes; `w` is the number of vectors of queries. Weights are
α = exp(s − LSE), and exactly 0 where nothing is seen. Sums over keys begin anew in each block, so that long rows lose
little; sums over queries are taken in a fixed order, whoever computes them.
"""

from collections.abc import Callable
from functools import reduce

import llvmlite.ir as ir

from clearhead.kernels.abi.softmax_state import FOUND, LSE
from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.ir import math
from clearhead.kernels.ir.simd import Value, i64, internal_function

GATHERED = ("received_sum", "received_max")  # for each key, over the queries of a task


def write_weights(module: ir.Module, tile: Tile, w: int, consumers: tuple[str, ...], whole: bool) -> ir.Function:
    """α = exp(s − LSE) in place of S for `rows` keys, and what is found on the way.

    `ahead` is how many items the tile's first query stands before the key of row 0, `near` the number of items within
    which a key is near. Where sums or maxima over the tile's queries are wanted, they go to `sums`, a vector a row,
    maxima behind all sums. `whole` is for blocks of which every pair is seen.
    """
    name = f"weights_{w}" if whole else f"weights_seen_{w}"
    f = internal_function(module, tile, name, "s_p", "rows", "state_p", "ahead", "near", "sums_p", "maxima_p")
    s, rows, state, ahead, near, sums, maxima = f.arguments
    b, vectors = f.block, range(w)
    lse = [f.load(f.in_row(state, LSE, x)) for x in vectors]
    kept = [name for name in ("entropy", "distance", "within", "off_first") if name in consumers]
    placed = bool({"distance", "within"} & set(consumers))
    lane = b.sitofp(f.lane(), f.vector)
    places = [b.fadd(lane, f.splat(b.sitofp(f.add(ahead, x * f.lanes), f.vector.element))) for x in vectors]
    limit = f.splat(b.sitofp(near, f.vector.element))
    zero, hidden, floor = f.constant(0.0), f.constant(-float("inf")), f.constant(math.constants(f).exp_floor)

    def found(name: str, t: Value, e: Value, far: Value, before: Value) -> Value:
        match name:
            case "entropy":
                return f.fma(e, f.larger(t, floor), before)
            case "distance":
                return f.fma(e, far, before)
            case "within":
                return b.fadd(before, b.select(b.fcmp_ordered("<", far, limit), e, zero))
            case _:
                return f.larger(e, before)

    def row(i: Value, carried: list[Value]) -> list[Value]:
        index, *old = carried
        new, es = [], []
        for x in vectors:
            score = f.load(f.in_row(s, i, x))
            t = b.fsub(score, lse[x])
            e = math.exp(f, t)
            if not whole:  # hidden pairs weigh 0 even in a row that is not a number
                e = b.select(b.fcmp_unordered("!=", score, hidden), e, zero)
            f.store(e, f.in_row(s, i, x))
            far = f.intrinsic(f"llvm.fabs.v{f.lanes}{f.element.name}", f.vector, b.fsub(places[x], index))
            new += [found(name, t, e, far, old[x * len(kept) + n]) for n, name in enumerate(kept)]
            es.append(e)
        offset = f.mul(i, f.lanes * f.element.bytes)
        if "received_sum" in consumers:
            f.store(tree(b.fadd, es), f.at(sums, offset))
        if "received_max" in consumers:
            f.store(tree(f.larger, es), f.at(maxima, offset))
        return [b.fadd(index, f.constant(1.0)) if placed else index, *new]

    results = f.loop(0, rows, 1, row, [zero] * (1 + w * len(kept)))[1:]
    for x in vectors:
        for n, name in enumerate(kept):
            place, result = f.in_row(state, FOUND[name], x), results[x * len(kept) + n]
            f.store((f.larger if name == "off_first" else b.fadd)(result, f.load(place)), place)
    return f.finish()


def write_gather(module: ir.Module, tile: Tile, name: str) -> ir.Function:
    """Add the sums over a tile's queries, a vector for each of `rows` keys, to what was gathered for those keys.

    Or take the larger. Memory is read and written in whole vectors beyond the last row.
    """
    f = internal_function(module, tile, f"gather_{name}", "sums_p", "rows", "target_p")
    sums, rows, target = f.arguments
    size = f.lanes * f.element.bytes
    join = f.block.fadd if name == "received_sum" else f.larger
    whole = f.mul(f.block.sdiv(f.add(rows, f.lanes - 1), f.i64(f.lanes)), f.lanes)
    f.loop(rows, whole, 1, lambda i, _: f.store(f.constant(0.0), f.at(sums, f.mul(i, size))))

    def keys(i: Value, _: list[Value]) -> None:
        columns = f.columns([f.load(f.at(sums, f.mul(f.add(i, r), size))) for r in range(f.lanes)])
        place = f.at(target, f.mul(i, f.element.bytes))
        f.store(join(tree(join, columns), f.load(place)), place)

    f.loop(0, whole, f.lanes, keys)
    return f.finish()


def write_list(module: ir.Module, tile: Tile, w: int) -> ir.Function:
    """Enter a block's weights into each query's list of the `count` largest, which falls; of equals the first stays.

    The list holds rows of weights, then rows of keys; `key` is row 0's. Weights are multiplied by their key's factor,
    unless `factors` is null.
    """
    f = internal_function(module, tile, f"list_{w}", "s_p", "rows", "list_p", "count", "key", "factors_p")
    s, rows, listed, count, first_key, factors = f.arguments
    b = f.block

    def scaled(i: Value, _: list[Value]) -> None:
        factor = f.broadcast(f.at(factors, f.mul(f.add(first_key, i), f.element.bytes)))
        for x in range(w):
            place = f.in_row(s, i, x)
            f.store(b.fmul(f.load(place), factor), place)

    with f.when(b.icmp_unsigned("!=", b.ptrtoint(factors, i64), f.i64(0))):
        f.loop(0, rows, 1, scaled)
    keys, last = f.at(listed, f.mul(count, tile.row)), f.sub(count, 1)

    def row(i: Value, least: list[Value]) -> list[Value]:
        return [enter(x, f.load(f.in_row(s, i, x)), f.add(first_key, i), least[x]) for x in range(w)]

    def enter(x: int, weight: Value, key: Value, least: Value) -> Value:
        larger = b.bitcast(b.fcmp_ordered(">", weight, least), ir.IntType(f.lanes))
        before = b.block
        inside, after = f.ir.append_basic_block("enter"), f.ir.append_basic_block("entered")
        b.cbranch(b.icmp_unsigned("!=", larger, ir.Constant(larger.type, 0)), inside, after)
        b.position_at_end(inside)
        never = ir.Constant(ir.VectorType(ir.IntType(1), f.lanes), None)

        def rank(r: Value, carried: list[Value]) -> list[Value]:
            value, number, moved = carried
            at, at_key = f.in_row(listed, r, x), f.in_row(keys, r, x)
            old, old_key = f.load(at), b.load(at_key, typ=f.integers, align=1)
            moved = b.or_(moved, b.fcmp_ordered(">", value, old))
            f.store(b.select(moved, value, old), at)
            b.store(b.select(moved, number, old_key), at_key, align=1)
            return [b.select(moved, old, value), b.select(moved, old_key, number), moved]

        f.loop(0, count, 1, rank, [weight, f.splat_int(key), never])
        now = f.load(f.in_row(listed, last, x))
        here = b.block
        b.branch(after)
        b.position_at_end(after)
        result = b.phi(f.vector)
        result.add_incoming(least, before)
        result.add_incoming(now, here)
        return result

    f.loop(0, rows, 1, row, [f.load(f.in_row(listed, last, x)) for x in range(w)])
    return f.finish()


def write_block_out(module: ir.Module, tile: Tile, streamed: bool) -> ir.Function:
    """The weights of `queries` queries and `rows` keys as rows of an array, one for each query.

    `streamed`: past the caches, which saves reading what is overwritten; rows must begin at whole vectors.
    """
    name = "block_streamed" if streamed else "block_out"
    f = internal_function(module, tile, name, "s_p", "rows", "queries", "target_p", "step")
    s, rows, queries, target, step = f.arguments
    size, whole = f.element.bytes, f.sub(rows, f.block.srem(rows, f.i64(f.lanes)))

    def place(q: Value, i: Value) -> Value:
        return f.at(target, f.add(f.mul(q, step), f.mul(i, size)))

    def singles(q: Value, start: Value) -> None:
        def single(i: Value, _: list[Value]) -> None:
            f.store_scalar(f.load_scalar(f.at(f.in_row(s, i, 0), f.mul(q, size))), place(q, i))

        f.loop(start, rows, 1, single)

    def vector(q: Value, _: list[Value]) -> None:
        def square(i: Value, _: list[Value]) -> None:
            lines = [f.load(f.at(f.in_row(s, f.add(i, r), 0), f.mul(q, size))) for r in range(f.lanes)]
            for y, column in enumerate(f.columns(lines)):
                (f.stream if streamed else f.store)(column, place(f.add(q, y), i))

        f.loop(0, whole, f.lanes, square)
        f.loop(q, f.add(q, f.lanes), 1, lambda y, _: singles(y, whole))

    full = f.sub(queries, f.block.srem(queries, f.i64(f.lanes)))
    f.loop(0, full, f.lanes, vector)
    f.loop(full, queries, 1, lambda q, _: singles(q, f.i64(0)))
    return f.finish()


def write_pool(module: ir.Module, tile: Tile, w: int, name: str) -> ir.Function:
    """Sum, or largest, of a block's weights over the tile's queries and each bin of keys, into one row of a picture.

    Bin j of `bins` holds the keys from ⌊j·keys/bins⌋ on, row 0 being key `start` of `keys`.
    """
    f = internal_function(module, tile, f"pool_{w}", "s_p", "rows", "target_p", "start", "keys", "bins")
    s, rows, target, start, keys, bins = f.arguments
    b = f.block
    join: Callable[[Value, Value], Value] = b.fadd if name == "pool_sum" else f.larger

    def border(j: Value) -> Value:
        return f.clamp(f.sub(b.sdiv(f.mul(j, keys), bins), start), 0, rows)

    def holder(row: Value) -> Value:
        return b.sdiv(f.sub(f.mul(f.add(f.add(start, row), 1), bins), 1), keys)

    def pooled(j: Value, _: list[Value]) -> None:
        def row(i: Value, acc: list[Value]) -> list[Value]:
            return [join(f.load(f.in_row(s, i, x)), acc[x]) for x in range(w)]

        acc = f.loop(border(j), border(f.add(j, 1)), 1, row, [f.constant(0.0)] * w)
        total, step = tree(join, acc), f.lanes // 2
        while step:
            total = join(total, f.shuffle(total, total, [lane ^ step for lane in range(f.lanes)]))
            step //= 2
        place = f.at(target, f.mul(j, f.element.bytes))
        f.store_scalar(b.extract_element(join(f.broadcast(place), total), f.i64(0)), place)

    f.loop(holder(f.i64(0)), f.add(holder(f.sub(rows, 1)), 1), 1, pooled)
    return f.finish()


def tree(join: Callable[[Value, Value], Value], vectors: list[Value]) -> Value:
    """Join vectors in pairs, then the pairs, and so on."""
    while len(vectors) > 1:
        vectors = [reduce(join, vectors[i : i + 2]) for i in range(0, len(vectors), 2)]
    return vectors[0]
