"""Directional derivatives of the textbook's attention and of its gradients.

A direction moves Q, K, V, the sink and the arrays a of the rules together; a dot marks a derivative along it:

    Ṡ₀ = scale (Q̇ Kᵀ + Q K̇ᵀ)                 scores before the rules
    Ṡ  = Ṡ₀ ∘ ∂rules/∂score + Σ ȧ ∘ ∂rules/∂a   scores after the rules
    L̇  = rowsum(P ∘ Ṡ) + exp(sink − LSE) · (sink)˙
    Ṗ  = P ∘ (Ṡ − L̇)
    Ȯ  = Ṗ V + P V̇

This is forward-mode differentiation. The gradients of `definition.gradient` have derivatives too, for constant dO and
dLSE:

    (dV)˙  = Ṗᵀ dO
    δ˙     = rowsum(dO ∘ Ȯ)
    (dS)˙  = Ṗ ∘ (dP − δ) + P ∘ (dO V̇ᵀ − δ˙)
    (dS₀)˙ = (dS)˙ ∘ ∂rules/∂score + dS ∘ (∂rules/∂score)˙      likewise for ∂rules/∂a
    (dQ)˙  = scale ((dS₀)˙ K + dS₀ K̇),  (dK)˙ = scale ((dS₀)˙ᵀ Q + dS₀ᵀ Q̇)
    (dsink)˙ = −Σ exp(sink − LSE) (((sink)˙ − L̇) δ + δ˙)

Read backwards, these are second derivatives: the gradients of Σ (gradient ∘ direction) by the operands, and Ȯ and L̇
its gradients by dO and dLSE. Every matrix is built in full. Letters as in `definition.gradient`; t_x is ẋ.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from clearhead.arrays import Array
from clearhead.definition import textbook
from clearhead.definition.gradient import Gradients, add_at, is_float, products, reduced, row_products, sink_weights
from clearhead.displayed import Brief
from clearhead.rules.derivatives import by_loads, by_score
from clearhead.rules.evaluation import evaluate
from clearhead.rules.expression import Expression, Formula
from clearhead.rules.fused import fuse
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.masks import causal
from clearhead.rules.scores import Score, as_rules


@dataclass(frozen=True, repr=False)
class Direction(Brief):
    """A direction of q, k, v, the sink and each rule's float arrays; None stands for 0."""

    q: Array | None = None
    k: Array | None = None
    v: Array | None = None
    sink: Array | None = None
    rules: tuple[tuple[Array, ...], ...] = ()


@dataclass(frozen=True, repr=False)
class Second(Brief):
    """Derivatives of output, log-sum-exp and the gradients along a direction."""

    output: Array
    lse: Array
    gradients: Gradients


def second(
    q: Array,
    k: Array,
    v: Array,
    d_out: Array,
    d_lse: Array,
    along: Direction,
    *,
    mask: Mask | None = None,
    score: Any = (),
    sink: Any = None,
    scale: float | None = None,
) -> Second:
    """Derivatives of output, log-sum-exp and gradients along a direction; other arguments as in `gradient.gradients`.

    >>> x = np.zeros((2, 1))
    >>> moved = second(x, x, x, x, x[:, 0], Direction(v=np.array([[2.0], [4.0]])))
    >>> moved.output.tolist()   # the second item weighs both equally
    [[2.0], [3.0]]
    """
    mask, rules = causal() if mask is None else mask, as_rules(score)
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    shapes = q.shape, k.shape, v.shape
    t_q, t_k, t_v = (np.zeros_like(x) if t is None else t for x, t in ((q, along.q), (k, along.k), (v, along.v)))
    k, v, t_k, t_v = (textbook.share_heads(x, q) for x in (k, v, t_k, t_v))
    s, seen = textbook.ruled_scores(q, k, v.shape[:-2], mask, score, scale)  # (..., n, m)
    sinks = textbook.sinks(sink, s)
    p = textbook.softmax(s, seen, sinks)  # (..., n, m)
    lead, (n, m) = np.broadcast_shapes(p.shape[:-2], v.shape[:-2]), s.shape[-2:]
    p, seen = np.broadcast_to(p, (*lead, n, m)), np.broadcast_to(seen, (*lead, n, m))
    q, k, v, t_q, t_k, t_v = (np.broadcast_to(x, lead + x.shape[-2:]) for x in (q, k, v, t_q, t_k, t_v))
    every = np.broadcast_to(np.where(seen, s, -np.inf), p.shape)
    lone = np.zeros((*lead, n, 0)) if sinks is None else np.broadcast_to(sinks[..., None], (*lead, n, 1))
    lse = textbook.log_sum_exp(np.concatenate([every, lone], -1), np.concatenate([seen, lone == lone], -1))  # (..., n)
    p_sink = sink_weights(lone, lse[..., None])  # (..., n, 0 or 1)
    t_sink = np.zeros((*lead, 1)) if along.sink is None else np.broadcast_to(along.sink, lead)[..., None]

    s0 = np.broadcast_to(textbook.scores(q, k, factor), p.shape)
    t_s0 = textbook.scores(t_q, k, factor) + textbook.scores(q, t_k, factor)
    slope, t_slope, t_rules, loads = rule_changes(s0, t_s0, mask, rules, along.rules)
    t_s = np.where(seen, t_s0 * slope + t_rules, 0)
    t_lse = (p * t_s).sum(-1) + p_sink.sum(-1) * t_sink
    t_p = np.where(seen, p * (t_s - t_lse[..., None]), 0)
    out = textbook.weighted_sum(p, v, seen)
    t_out = textbook.weighted_sum(t_p, v, seen) + textbook.weighted_sum(p, t_v, seen)

    delta, t_delta = row_products(d_out, out, seen) - d_lse, row_products(d_out, t_out, seen)  # (..., n)
    d_p, t_d_p = products(d_out, v, seen), products(d_out, t_v, seen)
    gap = np.where(seen, d_p - delta[..., None], 0)
    d_s, t_d_s = p * gap, t_p * gap + np.where(seen, p * (t_d_p - t_delta[..., None]), 0)
    d_s0, t_d_s0 = np.where(seen, d_s * slope, 0), np.where(seen, t_d_s * slope + d_s * t_slope, 0)
    keys_first = seen.swapaxes(-1, -2)
    t_d_q = textbook.weighted_sum(t_d_s0, k, seen) + textbook.weighted_sum(d_s0, t_k, seen)
    t_d_k = textbook.weighted_sum(t_d_s0.swapaxes(-1, -2), q, keys_first)
    t_d_k = t_d_k + textbook.weighted_sum(d_s0.swapaxes(-1, -2), t_q, keys_first)
    t_d_v = textbook.weighted_sum(t_p.swapaxes(-1, -2), d_out, keys_first)
    t_d_sink = None
    if sinks is not None:
        share = p_sink[..., 0] * ((t_sink - t_lse) * delta + t_delta)
        t_d_sink = reduced(-share.sum(-1), np.shape(sink))
    t_arrays = sums_by_rule(
        rules, [(load, np.where(seen, t_d_s * c + d_s * t_c, 0)) for load, c, t_c in loads], s0, mask
    )
    moved = zip((t_d_q * factor, t_d_k * factor, t_d_v), shapes, strict=True)
    t_d_q, t_d_k, t_d_v = (reduced(x, shape) for x, shape in moved)
    return Second(t_out, t_lse, Gradients(t_d_q, t_d_k, t_d_v, t_d_sink, t_arrays))


def rule_changes(
    s0: Array, t_s0: Array, mask: Mask, rules: tuple[Score, ...], moving: Sequence[Sequence[Array]]
) -> tuple[Array, Array, Array, list[tuple[Expression, Array, Array]]]:
    """∂rules/∂score and its derivative, Σ ȧ ∘ ∂rules/∂a, and for each load ∂rules/∂a and its derivative."""
    formula = fuse(mask, rules, *s0.shape[-2:]).score
    if formula is None:
        return np.ones_like(s0), np.zeros_like(s0), np.zeros_like(s0), []
    directions = moving_arrays(formula.arrays, moving)

    def value(e: Expression) -> Array:
        return over_spans(Formula(e, formula.arrays), s0, mask)

    def along(e: Expression) -> Array:
        """The derivative of an expression along the direction."""
        total: Array = value(by_score(e)) * t_s0
        for load, coefficient in by_loads(e):
            total = total + value(coefficient) * over_spans(step_of(load, formula.arrays, directions), s0, mask)
        return total

    e = formula.expression
    slope, loads = by_score(e), by_loads(e)
    with np.errstate(all="ignore"):
        t_rules = along(e) - value(slope) * t_s0
        return value(slope), along(slope), t_rules, [(load, value(c), along(c)) for load, c in loads]


def moving_arrays(arrays: tuple[Array, ...], moving: Sequence[Sequence[Array]]) -> tuple[Array, ...]:
    """The direction of each array that the rules read: zeros if not given, and for arrays without gradients."""
    directions = iter([x for rule in moving for x in rule])
    return tuple(
        np.zeros(x.shape) if not is_float(x) else np.asarray(next(directions, np.zeros(x.shape))).reshape(x.shape)
        for x in arrays
    )


def step_of(load: Expression, arrays: tuple[Array, ...], directions: tuple[Array, ...]) -> Formula:
    """The derivative of a loaded element: the element of the `directions` at the same index."""
    return Formula(replace(load, array=len(arrays) + (load.array or 0)), (*arrays, *directions))


def over_spans(formula: Formula, s: Array, mask: Mask) -> Array:
    """A formula's value for each pair, document by document."""
    result = np.zeros(s.shape)
    for span in fuse(mask, (), *s.shape[-2:]).spans:
        rows = np.arange(span.first_query, span.first_query + span.queries)
        result[..., rows, :] = evaluate(formula, textbook.formula_leaves(s[..., rows, :], rows, span), dtype=s.dtype)
    return result


def sums_by_rule(
    rules: tuple[Score, ...], shares: list[tuple[Expression, Array]], s0: Array, mask: Mask
) -> tuple[tuple[Array, ...], ...]:
    """Add each pair's contribution to the element that it read; the sums, grouped by rule."""
    arrays = [x for rule in rules for x in rule.formula.arrays]
    sums = [np.zeros(x.shape, s0.dtype) for x in arrays]
    for load, share in shares:
        index = [over_spans(Formula(i, tuple(arrays)), s0, mask).astype(np.int64) for i in load.args]
        add_at(sums[load.array or 0], index, share)
    remaining, result = iter(zip(arrays, sums, strict=True)), []
    for rule in rules:
        pairs = [next(remaining) for _ in rule.formula.arrays]
        result.append(tuple(x for a, x in pairs if is_float(a)))
    return tuple(result)
