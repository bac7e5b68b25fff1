"""The textbook's gradients, line by line: how a loss changes with each operand of attention.

    P = softmax's weights, dO and dLSE the gradients of the loss by output and log-sum-exp
    dV  = Pᵀ dO
    dP  = dO Vᵀ
    δ   = rowsum(dO ∘ O) − dLSE
    dS  = P ∘ (dP − δ)                         for the scores after their rules
    dS₀ = dS ∘ ∂rules/∂score,  da = Σ dS ∘ ∂rules/∂a     before the rules, and for an array a that they read
    dQ  = scale · dS₀ K,  dK = scale · dS₀ᵀ Q
    dsink = −Σ exp(sink − LSE) · δ

As in `definition.textbook`, every matrix is built in full, and hidden pairs are never used, not even times 0. A
gradient has its operand's shape: it is summed over broadcast axes. Source: Dao et al. 2022, appendix B.2; letters as
there.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array
from clearhead.definition import textbook
from clearhead.displayed import Brief
from clearhead.rules.derivatives import by_loads, by_score
from clearhead.rules.evaluation import evaluate
from clearhead.rules.expression import Expression, Formula
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.masks import causal
from clearhead.rules.placement import split_documents
from clearhead.rules.scores import Score, as_rules
from clearhead.rules.spans import Span


@dataclass(frozen=True, repr=False)
class Gradients(Brief):
    """Gradients of the loss by q, k, v, the sink, and the float arrays of each score rule in order."""

    q: Array
    k: Array
    v: Array
    sink: Array | None
    rules: tuple[tuple[Array, ...], ...]


def gradients(
    q: Array,
    k: Array,
    v: Array,
    d_out: Array,
    d_lse: Array | None = None,
    *,
    mask: Mask | None = None,
    score: Any = (),
    sink: Any = None,
    scale: float | None = None,
) -> Gradients:
    """Gradients of Σ d_out ∘ output + Σ d_lse ∘ lse; arguments as those of `textbook.attention`.

    >>> x = np.zeros((2, 1))
    >>> gradients(x, x, x, np.ones((2, 1))).v.tolist()
    [[1.5], [0.5]]
    """
    mask, rules = causal() if mask is None else mask, as_rules(score)
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    shapes = q.shape, k.shape, v.shape
    k, v = textbook.share_heads(k, q), textbook.share_heads(v, q)  # (..., heads, m, d), (..., heads, m, dv)
    s, seen = textbook.ruled_scores(q, k, v.shape[:-2], mask, score, scale)  # (..., n, m)
    sinks = textbook.sinks(sink, s)
    p = textbook.softmax(s, seen, sinks)  # (..., n, m)
    out = textbook.weighted_sum(p, v, seen)  # (..., n, dv)
    lead = out.shape[:-2]
    p, seen = np.broadcast_to(p, lead + p.shape[-2:]), np.broadcast_to(seen, lead + p.shape[-2:])
    q, k, v = (np.broadcast_to(x, lead + x.shape[-2:]) for x in (q, k, v))
    d_v = textbook.weighted_sum(p.swapaxes(-1, -2), d_out, seen.swapaxes(-1, -2))  # (..., m, dv)
    d_p = products(d_out, v, seen)  # (..., n, m)
    delta = row_products(d_out, out, seen) - (0 if d_lse is None else d_lse)  # (..., n)
    with np.errstate(invalid="ignore", over="ignore"):
        d_s = np.where(seen, p * (d_p - delta[..., None]), 0)  # (..., n, m)
    plain = np.broadcast_to(textbook.scores(q, k, factor), p.shape)
    d_s, d_arrays = through_rules(d_s, plain, seen, split_documents(mask, *p.shape[-2:])[0], rules)
    d_q = textbook.weighted_sum(d_s, k, seen) * factor  # (..., n, d)
    d_k = textbook.weighted_sum(d_s.swapaxes(-1, -2), q, seen.swapaxes(-1, -2)) * factor  # (..., m, d)
    d_sink = None
    if sinks is not None:
        both = np.concatenate(
            [np.where(seen, s, -np.inf), np.broadcast_to(sinks[..., None, :], (*lead, s.shape[-2], 1))], -1
        )
        lse = textbook.log_sum_exp(both, textbook.with_sink(seen))  # (..., n)
        d_sink = reduced(-(sink_weights(sinks, lse) * delta).sum(-1), np.shape(sink))
    d_q, d_k, d_v = (reduced(x, shape) for x, shape in zip((d_q, d_k, d_v), shapes, strict=True))
    return Gradients(d_q, d_k, d_v, d_sink, d_arrays)


def products(a: Array, b: Array, seen: npt.NDArray[np.bool_]) -> Array:
    """a · b for visible pairs, 0 for others."""
    with np.errstate(invalid="ignore", over="ignore"):
        full: Array = a @ np.swapaxes(b, -1, -2)
    return np.where(seen, full, 0)


def row_products(a: Array, b: Array, seen: npt.NDArray[np.bool_]) -> Array:
    """The dot product of each row of a and b; 0 for a query that sees nothing."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(seen.any(-1), (a * b).sum(-1), 0)


def sink_weights(sink: Array, lse: Array) -> Array:
    """exp(sink − LSE); 0 where LSE is −∞ because the sink is −∞, too, and the sum is empty."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isneginf(lse), 0, np.exp(sink - lse))


def through_rules(
    d_s: Array, s: Array, seen: npt.NDArray[np.bool_], spans: tuple[Span, ...], rules: tuple[Score, ...]
) -> tuple[Array, tuple[tuple[Array, ...], ...]]:
    """Take the gradient of scores back through their rules, and compute those of the rules' arrays."""
    before = []
    for rule in rules:
        before.append(s)
        s = textbook.ruled(s, np.arange(s.shape[-2]), spans, (rule,))
    arrays: list[tuple[Array, ...]] = []
    for rule, s in zip(reversed(rules), reversed(before), strict=True):
        formula = rule.formula
        sums = [np.zeros(a.shape, d_s.dtype) for a in formula.arrays]
        next_d = np.zeros_like(d_s)
        for span in spans:
            at = np.s_[..., span.first_query : span.first_query + span.queries, :]
            rows = np.arange(span.first_query, span.first_query + span.queries)
            leaves = textbook.formula_leaves(s[at], rows, span)
            for load, coefficient in by_loads(formula.expression):
                share = weighed(d_s[at], coefficient, formula, leaves, seen[at])
                index = [evaluate(Formula(i, formula.arrays), leaves, dtype=s.dtype) for i in load.args]
                add_at(sums[load.array or 0], index, share)
            next_d[at] = weighed(d_s[at], by_score(formula.expression), formula, leaves, seen[at])
        arrays.insert(0, tuple(x for x, a in zip(sums, formula.arrays, strict=True) if is_float(a)))
        d_s = next_d
    return d_s, tuple(arrays)


def weighed(
    d_s: Array, coefficient: Expression, formula: Formula, leaves: dict[str, Any], seen: npt.NDArray[np.bool_]
) -> Array:
    """A gradient times a derivative for visible pairs, 0 for others."""
    with np.errstate(all="ignore"):
        return np.where(seen, d_s * evaluate(Formula(coefficient, formula.arrays), leaves, dtype=d_s.dtype), 0)


def add_at(sums: Array, index: list[Array], share: Array) -> None:
    """Add each pair's contribution to the element that it read; negative indices count from the end."""
    positions = [np.clip(np.where(i < 0, i + n, i), 0, n - 1) for i, n in zip(index, sums.shape, strict=True)]
    one = np.zeros((), int)  # an extra axis, for arrays without axes
    np.add.at(sums[None], tuple(np.broadcast_to(i, share.shape) for i in (one, *positions)), share)


def is_float(array: Array) -> bool:
    """Whether an array can have a gradient."""
    return "float" in array.dtype.name


def reduced(x: Array, shape: tuple[int, ...]) -> Array:
    """Sum a gradient to its operand's shape: over added axes, axes of size 1, and heads that share one."""
    if x.ndim > len(shape):
        x = x.sum(tuple(range(x.ndim - len(shape))))
    for axis, size in enumerate(shape):
        if x.shape[axis] != size:
            grouped = (*x.shape[:axis], size, x.shape[axis] // size, *x.shape[axis + 1 :])
            x = x.reshape(grouped).sum(axis + 1)
    return x
