"""The forward kernel: attention's output and log-sum-exp, tile by tile, in O(n) memory.

Letters: q k v query, key, value; s score; p exp(score − m); m running maximum; l running sum of p; o running Σ p·v.
Queries lie in the lanes of vectors, keys and dims are walked in ascending order, so every lane is one scalar program:
`definition.canonical` writes it down. Scores of one block of keys are stored transposed, Sᵀ[key, query], and become P.

On the diagonal only what is seen is computed: with D the key that the tile's first query sees last, keys from
D + W·x on are hidden from vectors before x, and vector x of that stretch is masked lane by lane.
"""

from collections.abc import Callable
from dataclasses import dataclass

import llvmlite.ir as ir

from clearhead.definition.canonical import BLOCK, SEGMENT
from clearhead.kernels import math
from clearhead.kernels.call import AXIS, FIELDS
from clearhead.kernels.simd import Function, Int, Value, float_type, i64, pointer
from clearhead.kernels.tiles import DIM_STEP, Tile

# Softmax's state: one row of a tile each, in this order, behind "at_softmax"; the total's M and L follow.
M, L, ALPHA, TOP, SUM, TOTAL_M, TOTAL_L = range(7)


def forward(tile: Tile) -> ir.Module:
    """Write the forward kernel: `i64 forward(table, scratch, budget)`.

    It takes tiles from the table's queue until none is left (returns 0) or `budget` multiply-adds are spent (returns 1).
    """
    return Forward(tile).write()


@dataclass(frozen=True)
class Block:
    """A block of keys as one tile sees it: where its rows are, and where the diagonal cuts them."""

    start: Value  # absolute index of its first key
    rows: Value  # keys seen by any query
    diagonal: Value  # D, relative to the block's first key

    def edge(self, f: Function, x: int) -> Value:
        """The first row of the block that is hidden from vector x − 1 or masked in vector x."""
        return f.clamp(f.add(self.diagonal, x * f.lanes), 0, self.rows)


class Forward:
    """The functions of one module, each written once for every number of vectors that a tile may have."""

    def __init__(self, tile: Tile) -> None:
        self.tile = tile
        self.module = ir.Module("clearhead.forward")
        self.pack_query = self.write_pack_query()
        self.pack_rows = self.write_pack_rows()
        self.unpack_output = self.write_unpack_output()
        widths = range(1, tile.vectors + 1)
        self.score = {w: self.write_score(w) for w in widths}
        self.exponentials = {w: self.write_exponentials(w) for w in widths}
        self.values = {w: self.write_values(w) for w in widths}
        self.merge = {w: self.write_merge(w) for w in widths}
        self.attend = {w: self.write_attend(w) for w in widths}

    def function(self, name: str, *parameters: str) -> Function:
        """Start an internal function; parameters named `…_p` are pointers, others 64-bit integers."""
        kinds = {p: pointer if p.endswith("_p") else i64 for p in parameters}
        t = self.tile
        f = Function(self.module, name, kinds, t.element, t.lanes, t.vector_bits)
        f.internal()
        return f

    def vector_at(self, f: Function, base: Value, x: Int) -> Value:
        """The address of vector x of a tile's row."""
        return f.at(base, f.mul(x, f.lanes * f.element.bytes))

    # Scores

    def write_score(self, w: int) -> ir.Function:
        """Sᵀ of `rows` keys by w vectors of queries, and the running maximum of each query.

        Vector 0 sees row r only in its lanes from r − `hidden` on; hidden = rows hides nothing.
        """
        f = self.function(f"score_{w}", "q_p", "k_p", "stride", "dims", "s_p", "rows", "hidden", "m_p")
        q, k, stride, dims, s, rows, hidden, m = f.arguments
        size, count = f.element.bytes, self.tile.keys[w - 1]
        last = f.sub(rows, 1)

        def keys(i: Value, top: list[Value]) -> list[Value]:
            # The last group repeats the last key instead of reading beyond it; its rows of S are never used.
            row = [f.least(f.add(i, r), last) for r in range(count)]
            k_row = [f.at(k, f.mul(index, stride)) for index in row]

            def dim(d: Value, acc: list[Value]) -> list[Value]:
                q_row = f.at(q, f.mul(d, self.tile.row))
                qs = [f.load(self.vector_at(f, q_row, x)) for x in range(w)]
                ks = [f.broadcast(f.at(at, f.mul(d, size))) for at in k_row]
                return [f.fma(ks[r], qs[x], acc[r * w + x]) for r in range(count) for x in range(w)]

            acc = f.unrolled(0, dims, 4, dim, [f.constant(0.0)] * (count * w))
            for r in range(count):
                seen = f.block.icmp_signed(">=", f.lane(), f.splat_int(f.sub(row[r], hidden)))
                acc[r * w] = f.block.select(seen, acc[r * w], f.constant(-float("inf")))
                for x in range(w):
                    f.store(acc[r * w + x], self.vector_at(f, f.at(s, f.mul(f.add(i, r), self.tile.row)), x))
            return [f.larger(tree_max(f, acc[x::w]), top[x]) for x in range(w)]

        tops = f.loop(0, rows, count, keys, [f.load(self.vector_at(f, m, x)) for x in range(w)])
        for x in range(w):
            f.store(tops[x], self.vector_at(f, m, x))
        return f.finish()

    # Softmax

    def write_exponentials(self, w: int) -> ir.Function:
        """P = exp(S − m) in place of S, and each query's running sum of P."""
        f = self.function(f"exponentials_{w}", "p_p", "start", "stop", "m_p", "l_p")
        p, start, stop, m, l = f.arguments
        ms = [f.load(self.vector_at(f, m, x)) for x in range(w)]

        def row(i: Value, sums: list[Value]) -> list[Value]:
            at = [self.vector_at(f, f.at(p, f.mul(i, self.tile.row)), x) for x in range(w)]
            es = [math.exp(f, f.block.fsub(f.load(at[x]), ms[x])) for x in range(w)]
            for x in range(w):
                f.store(es[x], at[x])
            return [f.block.fadd(sums[x], es[x]) for x in range(w)]

        sums = f.unrolled(start, stop, max(1, 2 // w), row, [f.load(self.vector_at(f, l, x)) for x in range(w)])
        for x in range(w):
            f.store(sums[x], self.vector_at(f, l, x))
        return f.finish()

    # Weighted values

    def write_values(self, w: int) -> ir.Function:
        """Oᵀ = α·Oᵀ + Vᵀ·Pᵀ for one block, the block's own sum starting from zero; `first`: Oᵀ was zero."""
        f = self.function(
            f"values_{w}", "p_p", "v_p", "stride", "dims", "rows", "diagonal", "o_p", "alpha_p", "first"
        )
        p, v, stride, dims, rows, diagonal, o, alpha, first = f.arguments
        count, size = self.tile.dims[w - 1], f.element.bytes
        block = Block(f.int(0), rows, diagonal)
        edges = [block.edge(f, x) for x in range(w + 1)]
        fresh = f.block.icmp_signed("!=", first, f.int(0))

        def row(x0: int, masked: bool, v_dim: Value) -> Callable[[Value, list[Value]], list[Value]]:
            def step(i: Value, acc: list[Value]) -> list[Value]:
                p_row, v_row = f.at(p, f.mul(i, self.tile.row)), f.at(v_dim, f.mul(i, stride))
                ps = [f.load(self.vector_at(f, p_row, x)) for x in range(x0, w)]
                acc = list(acc)
                if masked:
                    hidden = f.sub(i, f.add(diagonal, x0 * f.lanes))
                    seen = f.block.icmp_signed(">=", f.lane(), f.splat_int(hidden))
                for r in range(count):
                    value = f.broadcast(f.at(v_row, r * size))
                    for x in range(x0, w):
                        sum_ = f.fma(value, ps[x - x0], acc[r * w + x])
                        # 0 × NaN is NaN: a hidden value must not even be multiplied.
                        hide = masked and x == x0
                        acc[r * w + x] = f.block.select(seen, sum_, acc[r * w + x]) if hide else sum_
                return acc

            return step

        alphas = [f.load(self.vector_at(f, alpha, x)) for x in range(w)]

        def dim(d: Value, _: list[Value]) -> None:
            v_dim = f.at(v, f.mul(d, size))
            acc = f.unrolled(0, edges[0], 4, row(0, False, v_dim), [f.constant(0.0)] * (count * w))
            for x in range(w):
                acc = f.loop(edges[x], edges[x + 1], 1, row(x, True, v_dim), acc)
            for r in range(count):
                o_row = f.at(o, f.mul(f.add(d, r), self.tile.row))
                for x in range(w):
                    at = self.vector_at(f, o_row, x)
                    before = f.block.select(fresh, f.constant(0.0), f.load(at))
                    f.store(f.fma(before, alphas[x], acc[r * w + x]), at)

        f.loop(0, dims, count, dim)
        return f.finish()

    def write_merge(self, w: int) -> ir.Function:
        """Join a finished segment (m, l, o) into the total (M, L, O)."""
        f = self.function(f"merge_{w}", "state_p", "o_p", "total_p", "dims")
        state, o, total, dims = f.arguments
        at = lambda which, x: self.vector_at(f, f.at(state, which * self.tile.row), x)  # noqa: E731
        alphas, betas = [], []
        for x in range(w):
            old, new = f.load(at(TOTAL_M, x)), f.load(at(M, x))
            top = f.larger(new, old)
            a, b = math.exp(f, f.block.fsub(old, top)), math.exp(f, f.block.fsub(new, top))
            f.store(top, at(TOTAL_M, x))
            f.store(f.fma(f.load(at(TOTAL_L, x)), a, f.block.fmul(f.load(at(L, x)), b)), at(TOTAL_L, x))
            alphas.append(a)
            betas.append(b)

        def dim(d: Value, _: list[Value]) -> None:
            for x in range(w):
                part = self.vector_at(f, f.at(o, f.mul(d, self.tile.row)), x)
                whole = self.vector_at(f, f.at(total, f.mul(d, self.tile.row)), x)
                f.store(f.fma(f.load(whole), alphas[x], f.block.fmul(f.load(part), betas[x])), whole)

        f.loop(0, dims, 1, dim)
        return f.finish()

    # Into and out of tiles

    def write_pack_query(self) -> ir.Function:
        """Qᵀ[dim, query] = scale · q, rows beyond the last query repeating it."""
        f = self.function("pack_query", "q_p", "row", "element", "rows", "vectors", "dims", "table_p", "qt_p")
        q, row, element, rows, vectors, dims, table, qt = f.arguments
        size, factor = f.element.bytes, scale(f, table)
        last = f.sub(rows, 1)
        dense = f.block.icmp_signed("==", element, f.int(size))
        whole = f.block.select(dense, f.sub(dims, f.block.srem(dims, f.int(f.lanes))), f.int(0))

        def vector(x: Value, _: list[Value]) -> None:
            first = f.mul(x, f.lanes)
            at = [f.at(q, f.mul(f.least(f.add(first, y), last), row)) for y in range(f.lanes)]

            def square(d: Value, _: list[Value]) -> None:
                for y, column in enumerate(f.load_columns([f.at(a, f.mul(d, size)) for a in at])):
                    target = f.at(qt, f.mul(f.add(d, y), self.tile.row))
                    f.store(f.block.fmul(column, f.splat(factor)), self.vector_at(f, target, x))

            def single(d: Value, _: list[Value]) -> None:
                def lane(y: Value, _: list[Value]) -> None:
                    i = f.add(first, y)
                    source = f.at(f.at(q, f.mul(f.least(i, last), row)), f.mul(d, element))
                    target = f.at(f.at(qt, f.mul(d, self.tile.row)), f.mul(i, size))
                    f.store_scalar(f.block.fmul(f.load_scalar(source), factor), target)

                f.loop(0, f.lanes, 1, lane)

            f.loop(0, whole, f.lanes, square)
            f.loop(whole, dims, 1, single)

        f.loop(0, vectors, 1, vector)
        return f.finish()

    def write_pack_rows(self) -> ir.Function:
        """Copy rows of keys or values whose elements lie apart, or whose dims must be padded, into dense rows."""
        f = self.function("pack_rows", "from_p", "row", "element", "rows", "dims", "padded", "to_p")
        source, row, element, rows, dims, padded, target = f.arguments
        size = f.element.bytes
        dense = f.block.icmp_signed("==", element, f.int(size))
        whole = f.block.select(dense, f.sub(dims, f.block.srem(dims, f.int(f.lanes))), f.int(0))

        def copy(i: Value, _: list[Value]) -> None:
            a, b = f.at(source, f.mul(i, row)), f.at(target, f.mul(i, f.mul(padded, size)))
            put = lambda d, x: f.store_scalar(x, f.at(b, f.mul(d, size)))  # noqa: E731
            f.loop(0, whole, f.lanes, lambda d, _: f.store(f.load(f.at(a, f.mul(d, size))), f.at(b, f.mul(d, size))))
            f.loop(whole, dims, 1, lambda d, _: put(d, f.load_scalar(f.at(a, f.mul(d, element)))))
            f.loop(dims, padded, 1, lambda d, _: put(d, ir.Constant(float_type(f.element), 0.0)))

        f.loop(0, rows, 1, copy)
        return f.finish()

    def write_unpack_output(self) -> ir.Function:
        """y = Oᵀ / l by rows, and LSE = m + log l; a query that sees nothing gets 0 and −∞."""
        f = self.function(
            "unpack_output", "o_p", "state_p", "y_p", "row", "element", "rows", "vectors", "dims", "lse_p"
        )
        o, state, y, row, element, rows, vectors, dims, lse = f.arguments
        size, last = f.element.bytes, f.sub(rows, 1)
        dense = f.block.icmp_signed("==", element, f.int(size))
        whole = f.block.select(dense, f.sub(dims, f.block.srem(dims, f.int(f.lanes))), f.int(0))
        zero, state_row = f.constant(0.0), lambda which: f.at(state, which * self.tile.row)
        wants_lse = f.block.icmp_unsigned("!=", f.block.ptrtoint(lse, i64), f.int(0))

        def vector(x: Value, _: list[Value]) -> None:
            first = f.mul(x, f.lanes)
            l = f.load(self.vector_at(f, state_row(TOTAL_L), x))
            empty = f.block.fcmp_ordered("==", l, zero)
            inverse = f.block.select(empty, zero, f.block.fdiv(f.constant(1.0), l))

            # + 0 turns −0 into 0: which of the two a sum of nothing is would depend on the tiling.
            def finished(d: Value) -> Value:
                at = self.vector_at(f, f.at(o, f.mul(d, self.tile.row)), x)
                return f.fma(f.load(at), inverse, zero)

            at = [f.at(y, f.mul(f.least(f.add(first, i), last), row)) for i in range(f.lanes)]

            def square(d: Value, _: list[Value]) -> None:
                # Lanes beyond the last query repeat its address; the earliest row, its own, is what stays.
                f.store_columns([finished(f.add(d, i)) for i in range(f.lanes)], [f.at(a, f.mul(d, size)) for a in at])

            def single(d: Value, _: list[Value]) -> None:
                column = self.vector_at(f, f.at(o, f.mul(d, self.tile.row)), x)
                f.store(finished(d), column)
                scatter(column, f.at(y, f.mul(d, element)), row)

            def scatter(source: Value, target: Value, step: Int) -> None:
                def lane(i: Value, _: list[Value]) -> None:
                    f.store_scalar(
                        f.load_scalar(f.at(source, f.mul(i, size))), f.at(target, f.mul(f.add(first, i), step))
                    )

                f.loop(0, f.least(f.lanes, f.sub(rows, first)), 1, lane)

            f.loop(0, whole, f.lanes, square)
            f.loop(whole, dims, 1, single)
            with f.when(wants_lse):
                place = self.vector_at(f, state_row(SUM), x)
                f.store(f.block.fadd(f.load(self.vector_at(f, state_row(TOTAL_M), x)), math.log(f, l)), place)
                scatter(place, lse, size)

        f.loop(0, vectors, 1, vector)
        return f.finish()

    # One tile of queries

    def write_attend(self, w: int) -> ir.Function:
        """A tile of w vectors of queries, from packing to output."""
        f = self.function(f"attend_{w}", "table_p", "scratch_p", "q_p", "k_p", "v_p", "y_p", "lse_p", "first", "rows")
        table, scratch, q, k, v, y, lse, first, rows = f.arguments
        get = lambda name: field(f, table, name)  # noqa: E731
        space = lambda name: f.at(scratch, get(name))  # noqa: E731
        state, qt, total = space("at_softmax"), space("at_query"), space("at_total")
        state_row = lambda which: f.at(state, which * self.tile.row)  # noqa: E731
        diagonal = f.add(first, get("reach"))
        stop = f.clamp(f.add(diagonal, rows), 0, get("keys"))
        dims = f.mul(f.block.sdiv(f.add(get("value_dim"), DIM_STEP - 1), f.int(DIM_STEP)), DIM_STEP)

        f.call(self.pack_query, q, get("query_row"), get("query_element"), rows, f.int(w), get("query_dim"), table, qt)
        for x in range(w):  # nothing seen yet
            f.store(f.constant(f.element.lowest), self.vector_at(f, state_row(TOTAL_M), x))
            f.store(f.constant(0.0), self.vector_at(f, state_row(TOTAL_L), x))
        with f.when(f.less(stop, 1)):
            f.loop(0, dims, 1, lambda d, _: self.clear(f, total, d, w))

        def segment(start: Value, _: list[Value]) -> None:
            alone = f.block.icmp_signed("==", start, f.int(0))
            # The first segment is the total so far; later ones are summed apart, then merged.
            o = f.block.select(alone, total, space("at_output"))
            for x in range(w):
                f.store(f.constant(f.element.lowest), self.vector_at(f, state_row(M), x))
                f.store(f.constant(0.0), self.vector_at(f, state_row(L), x))

            def block(b: Value, _: list[Value]) -> None:
                seen = Block(b, f.least(BLOCK, f.sub(stop, b)), f.sub(diagonal, b))
                fresh = f.block.zext(f.block.icmp_signed("==", b, start), i64)
                self.attend_block(f, w, table, scratch, k, v, seen, o, dims, fresh)

            f.loop(start, f.least(stop, f.add(start, SEGMENT)), BLOCK, block)
            with f.block.if_else(alone) as (then, otherwise):
                with then:
                    for x in range(w):
                        for ours, its in ((TOTAL_M, M), (TOTAL_L, L)):
                            its_value = f.load(self.vector_at(f, state_row(its), x))
                            f.store(its_value, self.vector_at(f, state_row(ours), x))
                with otherwise:
                    f.call(self.merge[w], state, o, total, dims)

        f.loop(0, stop, SEGMENT, segment)
        f.call(
            self.unpack_output, total, state, y, get("output_row"), get("output_element"), rows, f.int(w),
            get("value_dim"), lse,
        )  # fmt: skip
        return f.finish()

    def clear(self, f: Function, base: Value, d: Value, w: int) -> None:
        """Zero one row of a tile."""
        for x in range(w):
            f.store(f.constant(0.0), self.vector_at(f, f.at(base, f.mul(d, self.tile.row)), x))

    def attend_block(
        self, f: Function, w: int, table: Value, scratch: Value, k: Value, v: Value, block: Block, o: Value,
        dims: Value, fresh: Value,
    ) -> None:  # fmt: skip
        """Scores, softmax and weighted values of one block of keys, merged into the segment's (m, l, o)."""
        get = lambda name: field(f, table, name)  # noqa: E731
        space = lambda name: f.at(scratch, get(name))  # noqa: E731
        s, qt, state = space("at_scores"), space("at_query"), space("at_softmax")
        state_row = lambda which: f.at(state, which * self.tile.row)  # noqa: E731
        edges = [block.edge(f, x) for x in range(w + 1)]
        k_rows, k_stride = self.dense_rows(f, table, scratch, "key", k, block, get("query_dim"), get("query_dim"))
        v_rows, v_stride = self.dense_rows(f, table, scratch, "value", v, block, get("value_dim"), dims)

        for x in range(w):
            f.store(f.constant(f.element.lowest), self.vector_at(f, state_row(TOP), x))
            f.store(f.constant(0.0), self.vector_at(f, state_row(SUM), x))
        top, total = state_row(TOP), state_row(SUM)
        f.call(self.score[w], qt, k_rows, k_stride, get("query_dim"), s, edges[0], edges[0], top)
        for x in range(w):
            count = f.sub(edges[x + 1], edges[x])
            hidden = f.sub(f.add(block.diagonal, x * f.lanes), edges[x])
            f.call(
                self.score[w - x], self.vector_at(f, qt, x), f.at(k_rows, f.mul(edges[x], k_stride)), k_stride,
                get("query_dim"), self.vector_at(f, f.at(s, f.mul(edges[x], self.tile.row)), x), count, hidden,
                self.vector_at(f, top, x),
            )  # fmt: skip
        for x in range(w):
            old = f.load(self.vector_at(f, state_row(M), x))
            new = f.larger(f.load(self.vector_at(f, top, x)), old)
            f.store(new, self.vector_at(f, state_row(M), x))
            f.store(math.exp(f, f.block.fsub(old, new)), self.vector_at(f, state_row(ALPHA), x))
        f.call(self.exponentials[w], s, f.int(0), edges[0], state_row(M), total)
        for x in range(w):
            f.call(
                self.exponentials[w - x], self.vector_at(f, s, x), edges[x], edges[x + 1],
                self.vector_at(f, state_row(M), x), self.vector_at(f, total, x),
            )  # fmt: skip
        for x in range(w):
            l, a = (f.load(self.vector_at(f, state_row(which), x)) for which in (L, ALPHA))
            f.store(f.fma(l, a, f.load(self.vector_at(f, total, x))), self.vector_at(f, state_row(L), x))
        f.call(
            self.values[w], s, v_rows, v_stride, dims, block.rows, block.diagonal, o, state_row(ALPHA), fresh
        )

    def dense_rows(
        self, f: Function, table: Value, scratch: Value, name: str, base: Value, block: Block, dims: Value, padded: Value
    ) -> tuple[Value, Value]:
        """The block's rows of keys or values and their stride: in place if dense and whole, else copied."""
        row, element = field(f, table, f"{name}_row"), field(f, table, f"{name}_element")
        place, copies = f.at(base, f.mul(block.start, row)), f.at(scratch, field(f, table, f"at_{name}s"))
        in_place = f.block.and_(
            f.block.icmp_signed("==", element, f.int(f.element.bytes)), f.block.icmp_signed("==", dims, padded)
        )
        with f.when(f.block.not_(in_place)):
            f.call(self.pack_rows, place, row, element, block.rows, dims, padded, copies)
        rows = f.block.select(in_place, place, copies)
        return rows, f.block.select(in_place, row, f.mul(padded, f.element.bytes))

    # The whole problem

    def write(self) -> ir.Module:
        """The exported function: take a tile from the queue, find its rows, attend."""
        t = self.tile
        kinds = {"table_p": pointer, "scratch_p": pointer, "budget": i64}
        f = Function(self.module, "forward", kinds, t.element, t.lanes, t.vector_bits, result=i64)
        table, scratch, budget = f.arguments
        get = lambda name: field(f, table, name)  # noqa: E731
        build = f.block
        entry = build.block
        take, work, spent, none = (f.ir.append_basic_block(name) for name in ("take", "work", "spent", "none"))
        build.branch(take)
        build.position_at_end(take)
        left = build.phi(i64)
        left.add_incoming(budget, entry)
        enough = f.ir.append_basic_block("enough")
        build.cbranch(f.less(left, 1), spent, enough)
        build.position_at_end(enough)
        task = build.atomic_rmw("add", f.at(table, FIELDS.index("next_task") * 8), f.int(1), "monotonic")
        build.cbranch(f.less(task, get("tasks")), work, none)
        build.position_at_end(work)
        cost = self.write_task(f, table, scratch, task)
        left.add_incoming(f.sub(left, cost), build.block)
        build.branch(take)
        build.position_at_end(spent)
        build.ret(f.int(1))
        build.position_at_end(none)
        f.finish(f.int(0))
        return self.module

    def write_task(self, f: Function, table: Value, scratch: Value, task: Value) -> Value:
        """One tile of one head, the tiles with most keys first and head by head: its keys stay in the cache."""
        t, build = self.tile, f.block
        get = lambda name: field(f, table, name)  # noqa: E731
        tiles = build.sdiv(f.add(get("queries"), t.queries - 1), f.int(t.queries))
        index = f.sub(f.sub(tiles, 1), build.srem(task, tiles))
        head, first = build.sdiv(task, tiles), f.mul(index, t.queries)
        rows = f.least(t.queries, f.sub(get("queries"), first))

        def axis(i: Value, carried: list[Value]) -> list[Value]:
            rest, *offsets = carried
            a = f.sub(f.sub(get("axes"), 1), i)  # the last axis turns fastest
            entry = f.add(len(FIELDS), f.mul(a, len(AXIS)))
            at = build.srem(rest, f.load_int(table, entry))
            steps = [f.mul(at, f.load_int(table, f.add(entry, n))) for n in range(1, len(AXIS))]
            return [
                build.sdiv(rest, f.load_int(table, entry)),
                *(f.add(o, s) for o, s in zip(offsets, steps, strict=True)),
            ]

        _, *offsets = f.loop(0, get("axes"), 1, axis, [head, *[f.int(0)] * 4])
        address = lambda name: build.inttoptr(get(name), pointer)  # noqa: E731
        q, k, v, y = (f.at(address(n), o) for n, o in zip(("query", "key", "value", "output"), offsets, strict=True))
        q, y = f.at(q, f.mul(first, get("query_row"))), f.at(y, f.mul(first, get("output_row")))
        lse_index = f.add(f.mul(head, get("queries")), first)
        lse = f.at(address("lse"), f.mul(lse_index, t.element.bytes))
        wanted = build.icmp_signed("!=", get("lse"), f.int(0))
        lse = build.select(wanted, lse, address("lse"))

        vectors = build.sdiv(f.add(rows, t.lanes - 1), f.int(t.lanes))
        arguments = (table, scratch, q, k, v, y, lse, first, rows)
        after = f.ir.append_basic_block("attended")
        blocks = {w: f.ir.append_basic_block(f"vectors_{w}") for w in self.attend}
        switch = build.switch(vectors, blocks[t.vectors])
        for w, block in blocks.items():
            switch.add_case(f.int(w), block)
            build.position_at_end(block)
            f.call(self.attend[w], *arguments)
            build.branch(after)
        build.position_at_end(after)
        seen = f.clamp(f.add(f.add(first, get("reach")), rows), 1, get("keys"))
        return f.mul(f.mul(seen, t.queries), f.add(f.add(get("query_dim"), get("value_dim")), 1))


def tree_max(f: Function, vectors: list[Value]) -> Value:
    """The lane-wise maximum of several vectors, in pairs."""
    while len(vectors) > 1:
        pairs = [vectors[i : i + 2] for i in range(0, len(vectors), 2)]
        vectors = [f.larger(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return vectors[0]


def field(f: Function, table: Value, name: str) -> Value:
    """Read one field of the call's table."""
    return f.load_int(table, FIELDS.index(name))


def scale(f: Function, table: Value) -> Value:
    """The scale, rounded to the element type."""
    bits = f.block.bitcast(field(f, table, "scale"), ir.DoubleType())
    return bits if f.element.bytes == 8 else f.block.fptrunc(bits, float_type(f.element))
