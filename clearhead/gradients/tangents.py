"""Forward-mode and second derivatives: directional derivatives of the output, log-sum-exp and gradients.

Responsible for computing the sums of `definition.tangent` in O(n) memory. A tile of heads and queries walks its visible
keys in blocks, and numpy multiplies. `definition.tangent` defines meaning and letters; t_x stands for ẋ.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array
from clearhead.definition import textbook
from clearhead.definition.gradient import Gradients, add_at, is_float, reduced, sink_weights
from clearhead.definition.tangent import Direction, Second, moving_arrays, step_of
from clearhead.engine.problem import as_array
from clearhead.errors import DtypeError, InputError, ShapeError
from clearhead.gradients.backward import GIVE_D_OUT, sees_nothing
from clearhead.gradients.residuals import Residuals
from clearhead.once import cached_property
from clearhead.rules.derivatives import by_loads, by_score
from clearhead.rules.evaluation import evaluate
from clearhead.rules.expression import Expression, Formula
from clearhead.rules.scores import as_rules
from clearhead.rules.spans import Span

BLOCK_ROWS, BLOCK_COLUMNS = 128, 256  # queries and keys of one block
Visibility = npt.NDArray[np.bool_] | None  # None: all pairs are visible


@dataclass(frozen=True)
class Heads:
    """An operand as a list of (length, dim) matrices, and the matrix that each head of the result reads."""

    matrices: Array
    index: npt.NDArray[np.intp]

    def part(self, heads: slice, rows: slice, dtype: str) -> Array:
        """Some rows of some heads, (heads, rows, dim), converted to `dtype`."""
        index = self.index[heads]
        part = self.matrices[index[0] : index[0] + 1, rows] if len(index) == 1 else self.matrices[index, rows]
        return part.astype(dtype, copy=False)

    def add(self, heads: slice, rows: slice, parts: Array) -> None:
        """Add to some rows of the matrices; heads may share a matrix."""
        for index, part in zip(self.index[heads], parts, strict=True):
            self.matrices[index, rows] += part


def heads_of(x: Array, lead: tuple[int, ...]) -> Heads:
    """An operand for all heads of the result. Broadcast axes and shared heads are not copied."""
    count = math.prod(x.shape[:-2])
    index: Array = np.arange(count).reshape(x.shape[:-2])
    if index.ndim and lead and 1 < index.shape[-1] < lead[-1]:
        index = np.repeat(index, lead[-1] // index.shape[-1], -1)
    return Heads(x.reshape(count, *x.shape[-2:]), np.broadcast_to(index, lead).reshape(-1))


@dataclass(frozen=True)
class PairBlock:
    """Some pairs of some heads: their leaves, visibility and weights, and the tangents of their scores."""

    heads: slice
    rows: slice
    keys: slice
    leaves: dict[str, Any]
    seen: Visibility
    p: Array  # (heads, rows, keys)
    t_s0: Array
    t_s: Array


class Walk:
    """Walks one call block by block along a direction."""

    def __init__(self, residuals: Residuals, lse: Array, along: Direction) -> None:
        if not isinstance(along, Direction):
            raise InputError(f"along is a {type(along).__name__}: give a Direction, as in Direction(q=t_q, v=t_v).")
        problem = self.problem = residuals.problem
        self.dtype, lead = problem.computed, problem.lead
        self.count = math.prod(lead)
        self.q, self.k, self.v = (heads_of(x, lead) for x in residuals.operands[:3])
        self.t_q, self.t_k, self.t_v = (
            None if t is None else heads_of(checked_direction(t, x, name), lead)
            for name, x, t in zip("qkv", residuals.operands[:3], (along.q, along.k, along.v), strict=True)
        )
        self.output = residuals.output.reshape(self.count, problem.queries, problem.value_dim)
        self.lse = lse.reshape(self.count, problem.queries)
        self.sink = residuals.rules.sink
        self.t_sink = None if along.sink is None else checked_direction(along.sink, residuals.rules.sink, "the sink")
        self.rules = as_rules(residuals.rules.score)
        self.moving = along.rules
        if along.rules:
            check_directions(along.rules, [[x for x in rule.formula.arrays if is_float(x)] for rule in self.rules])

    def spread(self, x: Array | None) -> Array:
        """A per-head array broadcast to all heads, (heads, 1)."""
        numbers = np.zeros((), self.dtype) if x is None else x.astype(self.dtype)
        return np.broadcast_to(numbers, self.problem.lead).reshape(self.count, 1)

    @cached_property
    def p_sink(self) -> Array:
        """The sink's weight in each row, (heads, n)."""
        if self.sink is None:
            return np.zeros((self.count, 1), self.dtype)
        return sink_weights(self.spread(self.sink), self.lse)

    @cached_property
    def changes(self) -> "Changes | None":
        """The score rules and their derivatives."""
        formula = self.problem.rules.score
        return None if formula is None else Changes(formula, moving_arrays(formula.arrays, self.moving))

    def tiles(self) -> Iterator[tuple[slice, slice, Span]]:
        """Tiles of heads and rows, with more heads per tile where sequences are short."""
        problem = self.problem
        cells = min(BLOCK_ROWS, max(1, problem.queries)) * min(BLOCK_COLUMNS, max(1, problem.keys))
        together = max(1, BLOCK_ROWS * BLOCK_COLUMNS // cells)
        for head in range(0, self.count, together):
            for span in problem.rules.spans:
                stop = span.first_query + span.queries
                for row in range(span.first_query, stop, BLOCK_ROWS):
                    yield slice(head, min(head + together, self.count)), slice(row, min(row + BLOCK_ROWS, stop)), span

    def blocks(self, heads: slice, rows: slice, span: Span) -> Iterator[PairBlock]:
        """The blocks of keys with at least one pair visible to a tile."""
        rules = self.problem.rules
        first, stop = span.first_key, span.first_key + span.keys
        if rules.low is not None:
            first = max(first, rows.start + span.offset + rules.low)
        if rules.high is not None:
            stop = min(stop, rows.stop + span.offset + rules.high)
        for key in range(first, stop, BLOCK_COLUMNS):
            keys = slice(key, min(key + BLOCK_COLUMNS, stop))
            leaves = self.leaves(heads, rows, keys, span.offset)
            seen = self.seen(leaves)
            if seen is None or seen.any():
                yield self.block(heads, rows, keys, leaves, seen)

    def leaves(self, heads: slice, rows: slice, keys: slice, offset: int) -> dict[str, Any]:
        """The values of an expression's leaves, except the score."""
        flat = np.arange(heads.start, heads.stop)[:, None, None]
        row, lead = np.arange(rows.start, rows.stop)[:, None], self.problem.lead
        heads_per_batch = lead[-1] if lead else 1
        return {
            "batch": flat // heads_per_batch, "head": flat % heads_per_batch, "row": row, "query": row + offset,
            "key": np.arange(keys.start, keys.stop),
        }  # fmt: skip

    def seen(self, leaves: dict[str, Any]) -> Visibility:
        """Which pairs of a block are visible, broadcastable to (heads, rows, keys)."""
        rules, (query, key) = self.problem.rules, (leaves["query"], leaves["key"])
        seen = np.ones((1, len(query), len(key)), bool)
        if rules.low is not None:
            seen &= key >= query + rules.low
        if rules.high is not None:
            seen &= key <= query + rules.high
        if rules.mask is not None:
            seen = seen & evaluate(rules.mask, leaves)
        return None if seen.all() else seen

    def block(self, heads: slice, rows: slice, keys: slice, leaves: dict[str, Any], seen: Visibility) -> PairBlock:
        """A block's weights, from the log-sum-exp, and the tangents of its scores."""
        dtype, scale = self.dtype, np.dtype(self.dtype).type(self.problem.scale)
        q, k = self.q.part(heads, rows, dtype), self.k.part(heads, keys, dtype)
        s0 = (q @ k.swapaxes(-1, -2)) * scale
        t_s0 = np.zeros_like(s0)
        if self.t_q is not None:
            t_s0 += self.t_q.part(heads, rows, dtype) @ k.swapaxes(-1, -2)
        if self.t_k is not None:
            t_s0 += q @ self.t_k.part(heads, keys, dtype).swapaxes(-1, -2)
        t_s0 *= scale
        leaves = leaves | {"score": s0}
        s, t_s = (s0, t_s0) if self.changes is None else self.changes.moved(leaves, t_s0)
        lse = self.lse[heads, rows, None]
        p = np.exp(s - np.where(np.isneginf(lse), np.inf, lse))
        return PairBlock(heads, rows, keys, leaves, seen, zero_hidden(seen, p), t_s0, zero_hidden(seen, t_s))

    def forward(self) -> tuple[Array, Array]:
        """Ȯ (heads, n, dv) and L̇ (heads, n)."""
        t_output, t_lse = np.zeros(self.output.shape, self.dtype), np.zeros(self.lse.shape, self.dtype)
        for heads, rows, span in self.tiles():
            sums, total = t_output[heads, rows], t_lse[heads, rows]
            for block in self.blocks(heads, rows, span):
                weights = block.p * block.t_s
                total += weights.sum(-1)
                sums += weighted(weights, self.v.part(heads, block.keys, self.dtype), block.seen)
                if self.t_v is not None:
                    sums += weighted(block.p, self.t_v.part(heads, block.keys, self.dtype), block.seen)
        t_lse += self.p_sink * self.spread(self.t_sink)
        t_output -= t_lse[..., None] * self.output
        return t_output, t_lse


@dataclass(frozen=True)
class Changes:
    """Derivatives of the score rules, and tangents of both along the score and the arrays that rules read."""

    formula: Formula
    moving: tuple[Array, ...]

    @cached_property
    def slope(self) -> Expression:
        """∂rules/∂score."""
        return by_score(self.formula.expression)

    @cached_property
    def loads(self) -> tuple[tuple[Expression, Expression], ...]:
        """Each array element that is read, with ∂rules/∂a."""
        return by_loads(self.formula.expression)

    def value(self, e: Expression, leaves: dict[str, Any]) -> Array:
        """Evaluate an expression."""
        return evaluate(Formula(e, self.formula.arrays), leaves)

    def along(self, e: Expression, leaves: dict[str, Any], t_s0: Array) -> Array:
        """The tangent of an expression's value."""
        total: Array = self.value(by_score(e), leaves) * t_s0
        for load, coefficient in by_loads(e):
            if self.moving[load.array or 0].any():
                step = evaluate(step_of(load, self.formula.arrays, self.moving), leaves)
                total = total + self.value(coefficient, leaves) * step
        return total

    def moved(self, leaves: dict[str, Any], t_s0: Array) -> tuple[Array, Array]:
        """Scores after the rules, and their tangents."""
        e, shape = self.formula.expression, t_s0.shape
        return np.broadcast_to(self.value(e, leaves), shape), np.broadcast_to(self.along(e, leaves, t_s0), shape)


def jvp(residuals: Residuals, lse: Array, along: Direction) -> tuple[Array, Array]:
    """Tangents of output and log-sum-exp, in the computation's dtype."""
    walk = Walk(residuals, lse, along)
    with np.errstate(all="ignore"):
        t_output, t_lse = walk.forward()
    return t_output.reshape(residuals.output.shape), t_lse.reshape(lse.shape)


def second(
    residuals: Residuals, lse: Array, d_out: npt.ArrayLike, d_lse: npt.ArrayLike | None, along: Direction
) -> Second:
    """Tangents of output, log-sum-exp and gradients, in the computation's dtype."""
    walk = Walk(residuals, lse, along)
    d_output, d_sums = as_array(d_out, "d_out", GIVE_D_OUT), None
    check_like(d_output, residuals.output, "d_out", "the output")
    if d_lse is not None:
        d_sums = as_array(d_lse, "d_lse")
        check_like(d_sums, lse, "d_lse", "the log-sum-exp")
    with np.errstate(all="ignore"):
        return moved_gradients(residuals, lse, d_output, d_sums, walk)


def moved_gradients(residuals: Residuals, lse: Array, d_output: Array, d_lse: Array | None, walk: Walk) -> Second:
    """`second` for arguments that are checked."""
    problem, dtype = walk.problem, walk.dtype
    t_output, t_lse = walk.forward()
    d_out = heads_of(d_output, problem.lead)
    per_query = (walk.count, problem.queries)
    blind = sees_nothing(residuals.rules.sink, residuals.output, lse).reshape(per_query)
    delta = np.einsum("...d,...d->...", d_output.astype(dtype, copy=False), residuals.output).reshape(per_query)
    delta[blind] = 0
    if d_lse is not None:
        delta = delta - d_lse.reshape(per_query)
    t_q = np.zeros((*per_query, problem.query_dim), dtype)
    t_k, t_v = (Heads(np.zeros(x.matrices.shape, dtype), x.index) for x in (walk.k, walk.v))
    arrays = problem.rules.score.arrays if problem.rules.score else ()
    sums = [np.zeros(x.shape, dtype) for x in arrays]
    t_delta = np.zeros(per_query, dtype)
    for heads, rows, span in walk.tiles():
        do = d_out.part(heads, rows, dtype)
        t_delta[heads, rows] = np.einsum("...d,...d->...", do, t_output[heads, rows])
        state = (delta[heads, rows, None], t_delta[heads, rows, None], t_lse[heads, rows, None])
        for block in walk.blocks(heads, rows, span):
            d_s, t_d_s, t_p = moved_scores(walk, block, do, *state)
            t_v.add(heads, block.keys, weighted(t_p.swapaxes(-1, -2), do, keys_first(block.seen)))
            if walk.changes:
                add_shares(sums, walk.changes, block, d_s, t_d_s)
                d_s, t_d_s = through(walk.changes, block, d_s, t_d_s)
            add_operands(walk, block, d_s, t_d_s, t_q, t_k)
    t_delta[blind] = 0
    t_sink = None
    if walk.sink is not None:
        share = walk.p_sink * ((walk.spread(walk.t_sink) - t_lse) * delta + t_delta)
        t_sink = reduced(-share.sum(-1).reshape(problem.lead), walk.sink.shape)
    t_q *= problem.scale
    t_k.matrices[...] *= problem.scale
    gradients = Gradients(
        reduced(t_q.reshape(*problem.lead, *t_q.shape[1:]), residuals.operands.q.shape),
        t_k.matrices.reshape(residuals.operands.k.shape),
        t_v.matrices.reshape(residuals.operands.v.shape),
        t_sink,
        tangents_by_rule(walk, sums),
    )
    return Second(t_output.reshape(residuals.output.shape), t_lse.reshape(lse.shape), gradients)


def moved_scores(
    walk: Walk, block: PairBlock, do: Array, delta: Array, t_delta: Array, t_lse: Array
) -> tuple[Array, Array, Array]:
    """dS after the rules, (dS)˙, and Ṗ."""
    dtype, p = walk.dtype, block.p
    gap = zero_hidden(block.seen, do @ walk.v.part(block.heads, block.keys, dtype).swapaxes(-1, -2) - delta)
    t_gap = -t_delta
    if walk.t_v is not None:
        t_gap = zero_hidden(block.seen, do @ walk.t_v.part(block.heads, block.keys, dtype).swapaxes(-1, -2) - t_delta)
    t_p = zero_hidden(block.seen, p * (block.t_s - t_lse))
    return p * gap, t_p * gap + p * t_gap, t_p


def through(changes: Changes, block: PairBlock, d_s: Array, t_d_s: Array) -> tuple[Array, Array]:
    """Take dS and (dS)˙ from after the rules to before them."""
    slope = changes.value(changes.slope, block.leaves)
    t_slope = changes.along(changes.slope, block.leaves, block.t_s0)
    return zero_hidden(block.seen, d_s * slope), zero_hidden(block.seen, t_d_s * slope + d_s * t_slope)


def add_shares(sums: list[Array], changes: Changes, block: PairBlock, d_s: Array, t_d_s: Array) -> None:
    """Add each pair's contribution to the gradients of the array elements that rules read."""
    for load, coefficient in changes.loads:
        value = changes.value(coefficient, block.leaves)
        share = t_d_s * value + d_s * changes.along(coefficient, block.leaves, block.t_s0)
        index = [changes.value(i, block.leaves) for i in load.args]
        add_at(sums[load.array or 0], index, zero_hidden(block.seen, share))


def add_operands(walk: Walk, block: PairBlock, d_s: Array, t_d_s: Array, t_q: Array, t_k: Heads) -> None:
    """Add to (dQ)˙ and (dK)˙, without the scale."""
    heads, rows, keys, dtype = block.heads, block.rows, block.keys, walk.dtype
    t_q[heads, rows] += weighted(t_d_s, walk.k.part(heads, keys, dtype), block.seen)
    if walk.t_k is not None:
        t_q[heads, rows] += weighted(d_s, walk.t_k.part(heads, keys, dtype), block.seen)
    t_k.add(heads, keys, weighted(t_d_s.swapaxes(-1, -2), walk.q.part(heads, rows, dtype), keys_first(block.seen)))
    if walk.t_q is not None:
        t_k.add(heads, keys, weighted(d_s.swapaxes(-1, -2), walk.t_q.part(heads, rows, dtype), keys_first(block.seen)))


def tangents_by_rule(walk: Walk, sums: list[Array]) -> tuple[tuple[Array, ...], ...]:
    """The sums of float arrays, grouped by rule."""
    remaining, result = iter(sums), []
    for rule in walk.rules:
        pairs = [(x, next(remaining)) for x in rule.formula.arrays]
        result.append(tuple(total for x, total in pairs if is_float(x)))
    return tuple(result)


def zero_hidden(seen: Visibility, x: Array) -> Array:
    """Set hidden pairs to 0."""
    return x if seen is None else np.where(seen, x, x.dtype.type(0))


def keys_first(seen: Visibility) -> Visibility:
    """The same pairs with keys before queries."""
    return None if seen is None else seen.swapaxes(-1, -2)


def weighted(a: Array, x: Array, seen: Visibility) -> Array:
    """a · x, where rows of x that are not finite only reach queries that see them."""
    if seen is None or np.isfinite(x).all():
        product: Array = np.matmul(a, x)
        return product
    return textbook.weighted_sum(a, x, seen)


def check_directions(directions: Sequence[Sequence[Array]], arrays: Sequence[Sequence[Array]]) -> None:
    """Check that there is a direction for each float array of each rule, in the order of gradients."""
    if [len(of_rule) for of_rule in directions] != [len(of_rule) for of_rule in arrays]:
        raise ShapeError(
            f"directions for rules with {[len(of_rule) for of_rule in directions]} arrays do not fit rules with "
            f"{[len(of_rule) for of_rule in arrays]} arrays of floats: give them as `backward(...).rules` does."
        )
    for n, (of_rule, held) in enumerate(zip(directions, arrays, strict=True)):
        for t, x in zip(of_rule, held, strict=True):
            checked_direction(t, x, f"an array of rule {n}")


def checked_direction(t: npt.ArrayLike, x: Array | None, name: str) -> Array:
    """Check that a direction has the shape of its array."""
    if x is None:
        raise InputError(f"a direction for {name} was given, but the call had none: leave it out.")
    array = as_array(t, f"the direction for {name}")
    check_like(array, x, f"the direction for {name}", name)
    return array


def check_like(t: Array, x: Array, name: str, what: str) -> None:
    """Check that an array of floats has the shape of another."""
    if t.shape != x.shape:
        raise ShapeError(f"{name} has shape {t.shape}, and {what} {x.shape}: give equal shapes.")
    if "float" not in t.dtype.name:
        raise DtypeError(f"{name} has dtype {t.dtype}: give floats, such as {x.dtype}.")
