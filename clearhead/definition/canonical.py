"""The scalar program that every kernel implements: attention with every rounding specified.

`textbook` defines what attention means; this module defines the order of computation, which makes every tile size,
vector width, thread count, batch and chunking give the same bits. It processes all queries side by side, but queries
never mix: each row is a program over one query and the keys visible to it.
Letters: q k v query, key, value; s score; m running maximum; l running sum; o running Σ p·v; p exp(s − m).
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array
from clearhead.definition.elementary import Functions, exp, log
from clearhead.definition.fma import fma
from clearhead.definition.textbook import share_heads
from clearhead.rules.evaluation import evaluate
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.masks import causal, visible
from clearhead.rules.placement import split_documents
from clearhead.rules.scores import Score, as_rules

Visible = npt.NDArray[np.bool_]
RuleFunction: TypeAlias = Callable[..., Array]

BLOCK = 128  # keys per block; a block shares one maximum
SEGMENT = 2048  # keys per segment; each segment starts new running sums


class State(NamedTuple):
    """The running state of each row."""

    m: Array  # (n,)      largest score
    l: Array  # (n,)      Σ exp(s − m)
    o: Array  # (n, dv)   Σ exp(s − m) · v


def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Mask | None = None,
    score: Any = (),
    sink: Any = None,
    scale: float | None = None,
) -> tuple[Array, Array]:
    """Output and log-sum-exp with the bits of the kernels; shapes and defaults as in `textbook.attention`.

    16-bit operands are first converted to float32, and the output is rounded back at the end.

    >>> y, lse = attention(np.ones((2, 1)), np.zeros((2, 1)), np.array([[1.0], [3.0]]))
    >>> y.ravel().tolist(), lse.round(3).tolist()
    ([1.0, 2.0], [0.0, 0.693])
    """
    if q.dtype.itemsize == 2:
        y, lse = attention(*(x.astype(np.float32) for x in (q, k, v)), mask=mask, score=score, sink=sink, scale=scale)
        return y.astype(q.dtype), lse
    k, v = share_heads(k, q), share_heads(v, q)
    lead = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    q, k, v = (np.broadcast_to(x, lead + x.shape[-2:]) for x in (q, k, v))
    sinks = None if sink is None else np.broadcast_to(np.asarray(sink, q.dtype), lead)
    y, lse = np.zeros((*q.shape[:-1], v.shape[-1]), q.dtype), np.full(q.shape[:-1], -np.inf, q.dtype)
    with np.errstate(all="ignore"):
        for head, rows, keys, part in parts(q, k, mask, score, scale):
            sink_of_head = None if sinks is None else sinks[head]
            y[head][rows], lse[head][rows] = one_head(part, v[head][keys], sink_of_head)
    return y, lse


def scores(q: Array, k: Array, *, mask: Mask | None = None, score: Any = (), scale: float | None = None) -> Array:
    """Scores with the bits of the kernels, −∞ for hidden pairs; shapes and defaults as in `textbook.attention`.

    >>> scores(np.array([[1.0], [2.0]]), np.array([[3.0], [4.0]]))
    array([[  3., -inf],
           [  6.,   8.]])
    """
    if q.dtype.itemsize == 2:
        return scores(*(x.astype(np.float32) for x in (q, k)), mask=mask, score=score, scale=scale)
    k = share_heads(k, q)
    lead = np.broadcast_shapes(q.shape[:-2], k.shape[:-2])
    q, k = (np.broadcast_to(x, lead + x.shape[-2:]) for x in (q, k))
    s = np.full((*q.shape[:-1], k.shape[-2]), -np.inf, q.dtype)
    with np.errstate(all="ignore"):
        for head, rows, keys, part in parts(q, k, mask, score, scale):
            s[head][rows, keys] = block_scores(part.q, part.k, part.seen, partial(part.rule, first_key=0))
    return s


class Part(NamedTuple):
    """One head and document: what scores are computed from."""

    q: Array  # times the scale
    k: Array
    seen: Visible
    rule: RuleFunction


def parts(
    q: Array, k: Array, mask: Mask | None, score: Any, scale: float | None
) -> Iterator[tuple[tuple[int, ...], slice, slice, Part]]:
    """Each head, and the queries and keys of each document. Blocks start anew there, so it has the bits as alone."""
    lead = q.shape[:-2]
    mask, rules = causal() if mask is None else mask, as_rules(score)
    seen = np.broadcast_to(visible(mask, q.shape[-2], k.shape[-2], lead=lead), (*q.shape[:-1], k.shape[-2]))
    factor = q.dtype.type(q.shape[-1] ** -0.5 if scale is None else scale)
    heads = lead[-1] if lead else 1
    for number, head in enumerate(np.ndindex(lead)):
        for span in split_documents(mask, q.shape[-2], k.shape[-2])[0]:
            rows = slice(span.first_query, span.first_query + span.queries)
            keys = slice(span.first_key, span.first_key + span.keys)
            place = Place(number // heads, number % heads, span.first_query, span.first_key, span.offset, span.row)
            rule = partial(apply_rules, rules, place)
            yield head, rows, keys, Part(q[head][rows] * factor, k[head][keys], seen[head][rows, keys], rule)


class Place(NamedTuple):
    """The position of a span, for rules that read it."""

    batch: int
    head: int
    row: int
    key: int
    offset: int
    table_row: int  # a query's row in tables of pairs is its index plus this


def apply_rules(rules: tuple[Score, ...], place: Place, s: Array, first_key: int) -> Array:
    """The score rules in order, on scores (n, b) of keys from `first_key` of the span on."""
    rows = place.row + np.arange(s.shape[0])[:, None]
    for rule in rules:
        leaves = {
            "score": s, "batch": place.batch, "head": place.head, "row": rows + place.table_row,
            "query": rows + place.offset,
            "key": place.key + first_key + np.arange(s.shape[1]),
        }  # fmt: skip
        s = np.broadcast_to(evaluate(rule.formula, leaves, Functions, s.dtype), s.shape)
    return s


def one_head(operands: Part, v: Array, sink: Any = None) -> tuple[Array, Array]:
    """Add all keys in segments of blocks, then divide by the sum, to which a sink adds like a key without a value."""
    total = empty_state(operands.q, v)
    for start in range(0, len(operands.k), SEGMENT):
        part = segment(operands, v, start)
        total = part if start == 0 else merge(total, part)
    return divided(total, sink)


def segment(operands: Part, v: Array, start: int) -> State:
    """The state of the keys of one segment alone."""
    q, k, seen, rule = operands
    part = empty_state(q, v)
    for b in range(start, min(start + SEGMENT, len(k)), BLOCK):
        block = slice(b, min(b + BLOCK, start + SEGMENT))
        part = add_block(part, q, k[block], v[block], seen[:, block], partial(rule, first_key=b))
    return part


def divided(total: State, sink: Any = None) -> tuple[Array, Array]:
    """Output and log-sum-exp of all keys; a sink joins the sum first."""
    m, l, a = total.m, total.l, None
    if sink is not None:
        m = np.where(sink > m, sink, m)
        a = exp(total.m - m)
        l = fma(l, a, exp(sink - m))
    inverse = np.where(l == 0, 0, 1 / l).astype(l.dtype)
    inverse = inverse if a is None else a * inverse
    y = fma(total.o, inverse[:, None], zeros(total.o))  # + 0 turns −0 into +0, for any order of terms
    return y, m + log(l)


def empty_state(q: Array, v: Array) -> State:
    """The state before any key. Its maximum is finite, so a score of −∞ weighs 0 and ∞ − ∞ cannot occur."""
    m = np.full(len(q), np.finfo(q.dtype).min, q.dtype)
    return State(m, zeros(m), np.zeros((len(q), v.shape[-1]), q.dtype))


def add_block(state: State, q: Array, k: Array, v: Array, seen: Visible, rule: Callable[[Array], Array]) -> State:
    """Add one block of keys: scores, their maximum, exponentials, sums from zero, and one merge into the state."""
    s = block_scores(q, k, seen, rule)  # (n, b)
    m = np.fmax(state.m, np.fmax.reduce(s, axis=1, initial=-np.inf)).astype(q.dtype)  # (n,)
    p = exp(s - m[:, None])  # (n, b)
    l, o = zeros(state.l), zeros(state.o)
    for j in range(len(k)):  # ascending keys, one chain; hidden values are not used, not even times 0
        l = l + p[:, j]
        o = np.where(seen[:, j, None], fma(v[None, j], p[:, j, None], o), o)
    alpha = exp(state.m - m)
    return State(m, fma(state.l, alpha, l), fma(state.o, alpha[:, None], o))


def block_scores(q: Array, k: Array, seen: Visible, rule: Callable[[Array], Array]) -> Array:
    """The scores of a block of keys after their rules, −∞ where hidden."""
    chains = np.zeros((2, len(q), len(k)), q.dtype)  # (2, n, b): over even dims and over odd dims, ascending
    for d in range(q.shape[-1]):
        chains[d % 2] = fma(k[None, :, d], q[:, None, d], chains[d % 2])
    s: Array = np.where(seen, rule(chains[0] + chains[1]), -np.inf).astype(q.dtype)
    return s


def merge(total: State, part: State) -> State:
    """Merge a finished segment into the total."""
    m = np.fmax(total.m, part.m)
    a, b = exp(total.m - m), exp(part.m - m)
    return State(m, fma(total.l, a, part.l * b), fma(total.o, a[:, None], part.o * b[:, None]))


def zeros(like: Array) -> Array:
    """Zeros of a shape and dtype."""
    return np.zeros_like(like)
