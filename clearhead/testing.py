"""Checks for your tests: agreement with the definition, no leaks from hidden items, and equal bits.

Each raises AssertionError with the worst index and both numbers. They take the function to check as an argument, and
call it like `clearhead.attention(q, k, v, mask=…, scale=…)`.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead import settings
from clearhead.arrays import Array
from clearhead.cache.key_value import KeyValueCache
from clearhead.definition import canonical, textbook
from clearhead.engine.launch_cache import launches
from clearhead.engine.problem import problem
from clearhead.functional import Attended, attend
from clearhead.machine.target import native_isas
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.masks import causal, visible
from clearhead.rules.placement import at_end, placed_at, split_documents

Attention = Callable[..., Array]


def check_definition(
    function: Attention,
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Mask | None = None,
    score: Any = (),
    sink: Any = None,
    scale: float | None = None,
) -> None:
    """Check that a result is as close to the float64 definition as the definition in the inputs' dtype is.

    `function` is called as function(q, k, v, mask=…, scale=…), with `score` and `sink` if they are given; a `scale` of
    None is 1/√d. The bound is twice that error plus the rounding error of a block's sums, in units of the largest
    value. 16-bit inputs are compared with the definition in float32, allowing one more rounding of the result.

    >>> from clearhead import attention
    >>> x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(6, 4)
    >>> check_definition(attention, x, x, x)
    """
    rules: dict[str, Any] = {"mask": causal() if mask is None else mask, "scale": scale}
    if score != () or sink is not None:
        rules |= {"score": score, "sink": sink}
    got = function(q, k, v, **rules)
    computed = np.dtype(np.float32 if q.dtype.itemsize == 2 else q.dtype)
    plain = textbook.attention(*(x.astype(computed) for x in (q, k, v)), **rules)
    exact = textbook.attention(*(x.astype(np.float64) for x in (q, k, v)), **rules)
    assert got.shape == exact.shape, f"the result has shape {got.shape}, the definition's {exact.shape}"
    assert got.dtype == q.dtype, f"the result has dtype {got.dtype}, the inputs {q.dtype}"
    result = got.astype(computed)
    lost = np.isnan(exact)
    differs = np.isnan(result) != lost
    assert not differs.any(), (
        f"not a number at {first_index(differs)}: got {got[differs][0]}, the definition {exact[differs][0]}"
    )
    if lost.all():
        return
    size = np.max(np.abs(v.astype(np.float64)), where=np.isfinite(v.astype(np.float64)), initial=0.0)
    # Scores of magnitude s add an error of about s units in the last place to the exponent.
    operands, lead = (q.astype(float), textbook.share_heads(k, q).astype(float)), textbook.share_heads(v, q).shape[:-2]
    largest = max(
        np.max(np.abs(s), where=np.isfinite(s), initial=0.0)
        for s, _ in (textbook.ruled_scores(*operands, lead, rules["mask"], applied, scale) for applied in ((), score))
    )
    # A chain over a block's keys loses at most half a unit per step in each sum; equal items come close to that.
    steps = min(k.shape[-2], canonical.BLOCK) + k.shape[-2] // canonical.BLOCK
    units = 8 + steps + 4 * largest
    limits = np.finfo(computed)
    rounding = max(units * float(limits.eps) * float(size), (units + k.shape[-2]) * float(limits.smallest_subnormal))
    bound = 2 * np.max(np.abs(plain - exact), where=~lost, initial=0.0) + rounding
    error = np.where(lost, 0.0, np.abs(result - exact))
    if q.dtype.itemsize == 2:  # half a unit for rounding the result
        fraction = 2.0**-11 if q.dtype == np.float16 else 2.0**-8
        error = np.maximum(error - fraction * np.abs(exact) - 2.0**-24 * 0.5, 0)
    at = np.unravel_index(np.argmax(error), error.shape)
    assert error[at] <= bound, (
        f"error {error[at]:.3g} at {tuple(map(int, at))} exceeds {bound:.3g}: "
        f"got {got[at]!r}, the definition {exact[at]!r}"
    )


def check_invariance(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Mask | None = None,
    score: Any = (),
    sink: Any = None,
    scale: float | None = None,
) -> int:
    """Check that a problem gives the same bits with any threads, on every instruction set, in chunks and from a cache.

    Chunks and caches are tested if no query sees a later key and no rule reads the query's row index. Returns the
    number of compared results; raises AssertionError with the first difference. Source: docs/design.md, section 2.

    >>> x = np.random.default_rng(0).standard_normal((2, 40, 16))
    >>> check_invariance(x, x, x, mask=causal()) > 10
    True
    """
    mask = causal() if mask is None else mask
    rules: dict[str, Any] = {"score": score, "sink": sink, "scale": scale}
    full_result = attend(q, k, v, mask=mask, threads=1, **rules)
    compared = 0

    def check(got: Attended, rows: slice, what: str) -> None:
        nonlocal compared
        check_same_bits(got.output, full_result.output[..., rows, :], f"outputs {what}")
        check_same_bits(got.lse, full_result.lse[..., rows], f"log-sum-exps {what}")
        compared += 1

    for threads in (1, 2, 3, 7):
        check(attend(q, k, v, mask=mask, threads=threads, **rules), slice(None), f"with {threads} threads")
    for isa in native_isas():
        with using_isa(isa):
            check(attend(q, k, v, mask=mask, **rules), slice(None), f"on {isa}")
    n, m = q.shape[-2], k.shape[-2]
    spans, _ = split_documents(mask, n, m)
    sees_ahead = np.any(visible(mask, n, m, lead=full_result.lse.shape[:-1]) & ~np.tri(n, m, m - n, dtype=bool))
    posed = problem(q, k, v, mask=mask, **rules)
    if n != m or sees_ahead or len(spans) != 1 or "row" in posed.rules.leaves or placed_at(mask) is not None:
        return compared
    later = at_end(mask)
    for step in (1, 5, 64, 100):
        for start in range(0, n, step):
            stop = min(start + step, n)
            part = attend(q[..., start:stop, :], k[..., :stop, :], v[..., :stop, :], mask=later, **rules)
            check(part, slice(start, stop), f"of a chunk from {start} to {stop}")
    if q.dtype.itemsize == 2 or k.ndim not in (3, 4) or q.ndim != k.ndim or k.shape[:-1] != v.shape[:-1]:
        return compared
    for step in (1, 7, 130):
        cache = KeyValueCache()
        for start in range(0, n, step):
            rows = np.s_[..., start : start + step, :]
            cache.append(k[rows], v[rows])
            got = attend(q[rows], cache, mask=mask, **rules)
            check(got, slice(start, start + step), f"from a cache, {step} at a time, from {start}")
    return compared


def check_hidden(
    function: Attention, q: Array, k: Array, v: Array, *, mask: Mask | None = None, scale: float | None = None
) -> None:
    """Check that hidden items change nothing: NaN, infinities and huge numbers there leave every bit unchanged.

    >>> from clearhead import attention
    >>> check_hidden(attention, *np.ones((3, 5, 2)))
    """
    mask = causal() if mask is None else mask
    before = function(q, k, v, mask=mask, scale=scale)
    for row, seen in enumerate(visible(mask, q.shape[-2], k.shape[-2])):
        for poison in (np.nan, np.inf, -np.inf, np.finfo(q.dtype).max):
            poisoned = [np.where(seen[:, None], x, x.dtype.type(poison)) for x in (k, v)]
            after = function(q, *poisoned, mask=mask, scale=scale)
            difference = ~same(before[..., row, :], after[..., row, :])
            assert not difference.any(), (
                f"{poison} in items hidden from query {row} changed its output at {first_index(difference)}"
            )


def check_same_bits(a: Array, b: Array, what: str = "results") -> None:
    """Check that two arrays are equal bit for bit, including signs of zeros; any NaN equals any other.

    >>> check_same_bits(np.zeros(2), np.zeros(2))
    >>> check_same_bits(np.array([0.0]), np.array([-0.0]))
    Traceback (most recent call last):
    AssertionError: results differ in 1 of 1 places, first at (0,): 0.0 and -0.0
    """
    assert (a.shape, a.dtype) == (b.shape, b.dtype), f"{what}: {a.shape} {a.dtype} and {b.shape} {b.dtype}"
    difference = ~same(a, b)
    if difference.any():
        at = first_index(difference)
        raise AssertionError(
            f"{what} differ in {difference.sum()} of {a.size} places, "
            f"first at {at}: {float(a[at])!r} and {float(b[at])!r}"
        )


@contextmanager
def using_isa(isa: str) -> Iterator[None]:
    """Run the calls of a `with` block on a narrower instruction set, as CLEARHEAD_ISA does for a process.

    >>> from clearhead import attention
    >>> with using_isa("generic"):
    ...     narrow = attention(np.eye(3), np.eye(3), np.eye(3))
    >>> check_same_bits(narrow, attention(np.eye(3), np.eye(3), np.eye(3)))
    """
    before = os.environ.get(settings.ISA.name)
    os.environ[settings.ISA.name] = isa
    launches.clear()
    try:
        yield
    finally:
        if before is None:
            del os.environ[settings.ISA.name]
        else:
            os.environ[settings.ISA.name] = before
        launches.clear()


def same(a: Array, b: Array) -> npt.NDArray[np.bool_]:
    """Where two arrays have the same bits, or both NaN."""
    kind = np.dtype(f"u{a.dtype.itemsize}")
    bits: npt.NDArray[np.bool_] = np.ascontiguousarray(a).view(kind) == np.ascontiguousarray(b).view(kind)
    return bits | (np.isnan(a) & np.isnan(b))


def first_index(where: npt.NDArray[np.bool_]) -> tuple[int, ...]:
    """The index of the first True."""
    return tuple(int(i) for i in np.argwhere(where)[0])


def effective_scale(q: Array, scale: float | None) -> float:
    """The scale as a float; 1/√d by default."""
    return float(q.shape[-1] ** -0.5 if scale is None else scale)
