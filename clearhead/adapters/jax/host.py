"""The functions that a compiled graph calls: numpy arrays in JAX's layout, without copies, through clearhead's kernels.

Responsible for merging the leading axes of vmap into one batch, for turning tables into rules (formulas that are
traced once per table shape and read tables in place), and positions into a band.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, reduce
from itertools import cycle
from operator import and_
from typing import Any

import numpy as np

from clearhead.adapters.jax.ffi import ffi_function
from clearhead.arrays import Array
from clearhead.engine.inputs import Operands, Rules
from clearhead.functional import attend
from clearhead.functional import attention as compute
from clearhead.gradients.backward import backward
from clearhead.gradients.residuals import Residuals
from clearhead.rules import scores
from clearhead.rules.expression import Expression, Formula
from clearhead.rules.mask_kinds import Mask, Where, Window
from clearhead.rules.masks import dense, where


@ffi_function("attended")
def write_attention(options: dict[str, Any], operands: list[Array], results: list[Array]) -> None:
    """Write the output and, if requested, log-sum-exp and unrounded output."""
    q, k, v, rules = clearhead_arguments(options, operands)
    output = clearhead_layout(results[0])
    if len(results) == 1:
        compute(q, k, v, out=output, **rules)
        return
    done = attend(q, k, v, out=output, **rules)
    results[1].reshape(done.lse.shape)[...] = done.lse
    if len(results) > 2 and done.residuals is not None:
        clearhead_layout(results[2])[...] = done.residuals.output


@ffi_function("gradients")
def write_gradients(options: dict[str, Any], operands: list[Array], results: list[Array]) -> None:
    """Write the gradients of query, key and value, and of the bias if there is one."""
    saved_from = -4 if options["residual"] else -3
    unrounded, lse, d_output, *d_lse = operands[saved_from:]
    q, k, v, rules = clearhead_arguments(options, operands[:saved_from])
    call_rules = Rules(rules["mask"], rules["score"], scale=rules["scale"])
    residuals = Residuals(Operands(q, k, v), call_rules, None, clearhead_layout(unrounded))
    lse, *d_lse = (x.reshape(residuals.output.shape[:-1]) for x in (lse, *d_lse))
    gradient_of = backward(
        residuals, lse, clearhead_layout(d_output), d_lse[0] if d_lse else None, rules=len(results) > 3
    )
    for gradient, result in zip((gradient_of.q, gradient_of.k, gradient_of.v), results, strict=False):
        clearhead_layout(result)[...] = gradient
    for (gradient,), result in zip(gradient_of.rules, results[3:], strict=True):
        result[...] = summed(gradient, result.shape, operands[0].shape[:-3])


def summed(gradient: Array, shape: tuple[int, ...], lead: tuple[int, ...]) -> Array:
    """A gradient with one batch axis in the bias's shape, summed over broadcast axes."""
    lead = lead if len(gradient) == math.prod(lead) else (1,) * len(lead)
    gradient = gradient.reshape(*lead, *gradient.shape[1:])
    axes = tuple(n for n, size in enumerate(shape) if size == 1 and gradient.shape[n] != 1)
    result: Array = gradient.sum(axes, keepdims=True)
    return result


def clearhead_arguments(options: dict[str, Any], operands: list[Array]) -> tuple[Array, Array, Array, dict[str, Any]]:
    """Operands in clearhead's layout with one batch axis, and the call's rules."""
    query, key, value, *present = operands
    remaining, lead = iter(present), query.shape[:-3]
    given = [*options["tables"], False][:5]  # programs exported before there was an offset name four
    bias, seen, query_lengths, key_lengths, offset = (next(remaining) if has else None for has in given)
    first = [0] if offset is None else np.broadcast_to(offset, lead).reshape(-1).tolist()
    mask = band(options, first, query.shape[-3], key.shape[-3])
    if seen is not None:
        table = one_batch_axis(seen, lead)
        mask &= Where(hiding, Formula(hiding(ones(table)), (table,)))
    if query_lengths is not None:
        lengths = zip(query_lengths.reshape(-1).tolist(), cycle(first), strict=False)
        mask &= of_items(row_before, [within(length - start, 0, query.shape[-3]) for length, start in lengths])
    if key_lengths is not None:
        mask &= of_items(key_before, key_lengths.reshape(-1).tolist())
    score: tuple[scores.Given, ...] = ()
    if bias is not None:
        table = one_batch_axis(bias, lead)
        score = (scores.Given(Formula(adding(ones(table)), (table,))),)
    return (
        clearhead_layout(query),
        clearhead_layout(key),
        clearhead_layout(value),
        {"mask": mask, "score": score, "scale": options["scale"]},
    )


def band(options: dict[str, Any], first: list[int], queries: int, keys: int) -> Mask:
    """What positions let each item's queries see, the first of which has position first[item].

    A band of keys around each row: a number for both edges, or numbers by item where positions differ. Edges beyond
    all keys are moved to where they begin to mean the same.
    """
    left, right = options["window"] or (None, None)
    right = 0 if options["causal"] else right
    before = None if left is None else [within(left - start, -keys, queries) for start in first]
    behind = None if right is None else [within(right + start, -queries, keys) for start in first]
    if len(set(first)) <= 1:
        return Window(before[0] if before else None, behind[0] if behind else None, align="start")
    edges, rows = ((left_edge, before), (right_edge, behind)), Window(None, None, align="start")
    return reduce(and_, [of_items(edge, numbers) for edge, numbers in edges if numbers], rows)


def within(number: int, least: int, most: int) -> int:
    """The number, or the nearer end of a range."""
    return max(least, min(number, most))


def of_items(condition: Callable[[], Expression], numbers: list[int]) -> Mask:
    """A mask whose condition reads a number for each item of the batch."""
    return Where(condition, Formula(condition(), (np.array(numbers, np.int64),)))


def clearhead_layout(x: Array) -> Array:
    """(…, length, heads, dim) as (batch, heads, length, dim), a view."""
    return x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:]).swapaxes(-2, -3)


def one_batch_axis(x: Array, lead: tuple[int, ...]) -> Array:
    """A bias or mask (…, heads, T, S) with one batch axis, of size 1 if it broadcasts."""
    if any(n != 1 for n in x.shape[:-3]):
        x = np.broadcast_to(x, (*lead, *x.shape[-3:]))
    return x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:])


def ones(table: Array) -> tuple[bool, ...]:
    """Which axes of a table broadcast."""
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
def left_edge() -> Expression:
    """key ≥ row − numbers[batch]; queries and keys are aligned at the start, so `query` is the row."""
    numbers = np.zeros(1, np.int64)
    return where(lambda batch, head, query, key: key >= query - numbers[batch]).formula.expression


@cache
def right_edge() -> Expression:
    """key ≤ row + numbers[batch]."""
    numbers = np.zeros(1, np.int64)
    return where(lambda batch, head, query, key: key <= query + numbers[batch]).formula.expression


@cache
def row_before() -> Expression:
    """row < lengths[batch]."""
    lengths = np.zeros(1, np.int64)
    return where(lambda batch, head, query, key: query < lengths[batch]).formula.expression


@cache
def key_before() -> Expression:
    """key < lengths[batch]."""
    lengths = np.zeros(1, np.int64)
    return where(lambda batch, head, query, key: key < lengths[batch]).formula.expression
