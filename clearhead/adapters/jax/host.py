"""What a compiled graph calls: numpy arrays in JAX's layout go through clearhead's kernels, in place.

Decides how axes that vmap puts in front become one batch, and how tables become rules: formulas that are traced once
for each shape of tables, and read them where they lie.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from clearhead.adapters.jax.arguments import Options
from clearhead.adapters.jax.ffi import called
from clearhead.arrays import Array
from clearhead.engine.inputs import Operands, Rules
from clearhead.functional import attend
from clearhead.functional import attention as compute
from clearhead.gradients.backward import backward
from clearhead.gradients.residuals import Residuals
from clearhead.rules import scores
from clearhead.rules.expression import Expression, Formula
from clearhead.rules.masks import Where, dense, where


@called
def attended(options: dict[str, Any], operands: list[Array], results: list[Array]) -> None:
    """Write output, and if they are asked for log-sum-exp and the output before it was rounded."""
    q, k, v, rules = arranged(options, operands)
    output = turned(results[0])
    if len(results) == 1:
        compute(q, k, v, out=output, **rules)
        return
    done = attend(q, k, v, out=output, **rules)
    results[1].reshape(done.lse.shape)[...] = done.lse
    if len(results) > 2 and done.residuals is not None:
        turned(results[2])[...] = done.residuals.output


@called
def gradients(options: dict[str, Any], operands: list[Array], results: list[Array]) -> None:
    """Write the gradients of query, key and value, and of the bias if there is one."""
    kept_from = -4 if options["residual"] else -3
    unrounded, lse, d_output, *d_lse = operands[kept_from:]
    q, k, v, rules = arranged(options, operands[:kept_from])
    given = Rules(rules["mask"], rules["score"], scale=rules["scale"])
    residuals = Residuals(Operands(q, k, v), given, None, turned(unrounded))
    lse, *d_lse = (x.reshape(residuals.output.shape[:-1]) for x in (lse, *d_lse))
    found = backward(residuals, lse, turned(d_output), d_lse[0] if d_lse else None, rules=len(results) > 3)
    for gradient, result in zip((found.q, found.k, found.v), results, strict=False):
        turned(result)[...] = gradient
    for (gradient,), result in zip(found.rules, results[3:], strict=True):
        result[...] = summed(gradient, result.shape, operands[0].shape[:-3])


def summed(gradient: Array, shape: tuple[int, ...], lead: tuple[int, ...]) -> Array:
    """A gradient with one batch axis in the bias's shape: over axes that stand for all it is summed."""
    lead = lead if len(gradient) == math.prod(lead) else (1,) * len(lead)
    gradient = gradient.reshape(*lead, *gradient.shape[1:])
    axes = tuple(n for n, size in enumerate(shape) if size == 1 and gradient.shape[n] != 1)
    result: Array = gradient.sum(axes, keepdims=True)
    return result


def arranged(options: dict[str, Any], operands: list[Array]) -> tuple[Array, Array, Array, dict[str, Any]]:
    """Operands in clearhead's layout with batches on one axis, and the call's rules."""
    query, key, value, *given = operands
    left, lead = iter(given), query.shape[:-3]
    bias, seen, query_lengths, key_lengths = (next(left) if there else None for there in options["tables"])
    sides = options["window"]
    mask = Options(options["scale"], options["causal"], sides and tuple(sides), options["residual"]).mask
    if seen is not None:
        table = joined(seen, lead)
        mask &= Where(hiding, Formula(hiding(ones(table)), (table,)))
    for lengths, before in ((query_lengths, row_before), (key_lengths, key_before)):
        if lengths is not None:
            mask &= Where(before, Formula(before(), (lengths.reshape(math.prod(lead)).astype(np.int64),)))
    score: tuple[scores.Given, ...] = ()
    if bias is not None:
        table = joined(bias, lead)
        score = (scores.Given(Formula(adding(ones(table)), (table,))),)
    return turned(query), turned(key), turned(value), {"mask": mask, "score": score, "scale": options["scale"]}


def turned(x: Array) -> Array:
    """(…, length, heads, dim) as (batch, heads, length, dim), in place."""
    return x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:]).swapaxes(-2, -3)


def joined(x: Array, lead: tuple[int, ...]) -> Array:
    """A bias or mask (…, heads, T, S) with one batch axis, of 1 if it is the same for all."""
    if any(n != 1 for n in x.shape[:-3]):
        x = np.broadcast_to(x, (*lead, *x.shape[-3:]))
    return x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:])


def ones(table: Array) -> tuple[bool, ...]:
    """Which axes of a table stand for all."""
    return tuple(n == 1 for n in table.shape)


@cache
def adding(one: tuple[bool, ...]) -> Expression:
    """score + table[batch, head, row, key]."""
    return scores.bias(np.zeros([1 if n else 2 for n in one])).formula.expression


@cache
def hiding(one: tuple[bool, ...]) -> Expression:
    """table[batch, head, row, key]."""
    return dense(np.zeros([1 if n else 2 for n in one], bool)).formula.expression


@cache
def row_before() -> Expression:
    """row < lengths[batch]; queries and keys begin together, so that a query's position is its row."""
    lengths = np.zeros(1, np.int64)
    return where(lambda batch, head, query, key: query < lengths[batch]).formula.expression


@cache
def key_before() -> Expression:
    """key < lengths[batch]."""
    lengths = np.zeros(1, np.int64)
    return where(lambda batch, head, query, key: key < lengths[batch]).formula.expression
