"""Checkers for anyone's tests: against the definition, for leaks from hidden items, and for the same bits.

Each raises AssertionError with the worst place and both numbers, so that a failure can be read. They take the function
to be checked as an argument, called like `clearhead.attention(q, k, v, mask=…, scale=…)`.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead import settings
from clearhead.attention import prepared
from clearhead.definition import canonical, textbook
from clearhead.rules.masks import Mask, causal, visible

Array = npt.NDArray[Any]
Attention = Callable[..., Array]


def check_definition(
    function: Attention, q: Array, k: Array, v: Array, *, mask: Mask | None = None, scale: float | None = None
) -> None:
    """The result is as near to the float64 definition as the definition computed in the inputs' own dtype.

    The bound scales itself: twice that error, and what a block's sums can lose, in units of the largest value seen.

    >>> from clearhead import attention
    >>> x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(6, 4)
    >>> check_definition(attention, x, x, x)
    """
    mask = causal() if mask is None else mask
    got = function(q, k, v, mask=mask, scale=scale)
    plain = textbook.attention(q, k, v, mask=mask, scale=scale)
    exact = textbook.attention(*(x.astype(np.float64) for x in (q, k, v)), mask=mask, scale=scale)
    assert got.shape == exact.shape, f"the result has shape {got.shape}, the definition's {exact.shape}"
    assert got.dtype == q.dtype, f"the result has dtype {got.dtype}, the inputs {q.dtype}"
    lost = np.isnan(exact)
    differs = np.isnan(got) != lost
    assert not differs.any(), (
        f"not a number at {place(differs)}: got {got[differs][0]}, the definition {exact[differs][0]}"
    )
    if lost.all():
        return
    size = np.max(np.abs(v), where=np.isfinite(v), initial=0.0)
    # Scores of size s carry an error of about s units in the last place into the exponent.
    s = textbook.scores(q.astype(float), textbook.share_heads(k, q).astype(float), scale_of(q, scale))
    # A chain over a block's keys loses at most half a unit a step, in the sum and in each value: equal items come near.
    steps = min(k.shape[-2], canonical.BLOCK) + k.shape[-2] // canonical.BLOCK
    units = 8 + steps + 4 * np.max(np.abs(s), where=np.isfinite(s), initial=0.0)
    limits = np.finfo(q.dtype)
    rounding = max(units * float(limits.eps) * float(size), (units + k.shape[-2]) * float(limits.smallest_subnormal))
    bound = 2 * np.max(np.abs(plain - exact), where=~lost, initial=0.0) + rounding
    error = np.where(lost, 0.0, np.abs(got - exact))
    at = np.unravel_index(np.argmax(error), error.shape)
    assert error[at] <= bound, (
        f"error {error[at]:.3g} at {tuple(map(int, at))} exceeds {bound:.3g}: "
        f"got {got[at]!r}, the definition {exact[at]!r}"
    )


def check_hidden(
    function: Attention, q: Array, k: Array, v: Array, *, mask: Mask | None = None, scale: float | None = None
) -> None:
    """What a query may not see changes nothing: NaN, infinities and huge numbers there leave every bit as it was.

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
                f"{poison} in items hidden from query {row} changed its output at {place(difference)}"
            )


def check_same_bits(a: Array, b: Array, what: str = "results") -> None:
    """Two arrays are equal bit for bit, signs of zeros included; every NaN equals every NaN.

    >>> check_same_bits(np.zeros(2), np.zeros(2))
    >>> check_same_bits(np.array([0.0]), np.array([-0.0]))
    Traceback (most recent call last):
    AssertionError: results differ in 1 of 1 places, first at (0,): 0.0 and -0.0
    """
    assert (a.shape, a.dtype) == (b.shape, b.dtype), f"{what}: {a.shape} {a.dtype} and {b.shape} {b.dtype}"
    difference = ~same(a, b)
    if difference.any():
        at = place(difference)
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
    prepared.clear()
    try:
        yield
    finally:
        if before is None:
            del os.environ[settings.ISA.name]
        else:
            os.environ[settings.ISA.name] = before
        prepared.clear()


def same(a: Array, b: Array) -> npt.NDArray[np.bool_]:
    """Where two arrays hold the same bits, or two NaN."""
    kind = np.uint32 if a.dtype == np.float32 else np.uint64
    bits: npt.NDArray[np.bool_] = np.ascontiguousarray(a).view(kind) == np.ascontiguousarray(b).view(kind)
    return bits | (np.isnan(a) & np.isnan(b))


def place(where: npt.NDArray[np.bool_]) -> tuple[int, ...]:
    """The first place that is True."""
    return tuple(int(i) for i in np.argwhere(where)[0])


def scale_of(q: Array, scale: float | None) -> float:
    """The scale in force."""
    return float(q.shape[-1] ** -0.5 if scale is None else scale)
