"""Score rules: changes to a score before softmax, as formulas over score and positions.

Decides what each rule means and the order of several; the kernels decide how to fuse them. Positions are those of
`rules.spans`; each operation rounds once, in the computation's dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from clearhead.arrays import is_integer
from clearhead.errors import InputError, TraceError
from clearhead.once import cached_property
from clearhead.rules import functions
from clearhead.rules.expression import Expression, Formula, immutable_copy
from clearhead.rules.rule_tables import broadcast_index, plain_array
from clearhead.rules.simplification import simplify
from clearhead.rules.trace import function_description, trace
from clearhead.rules.uncalled import check_called

SCORE_PARAMETERS = ("score", "batch", "head", "query", "key")
MOST_HEADS, MOST_DISTANCE = 1 << 20, 1 << 24  # limits for generated tables


class Score:
    """A score rule: it has a formula."""

    @property
    def formula(self) -> Formula:
        """The new score of (score, batch, head, query, key)."""
        raise NotImplementedError


ScoreLike: TypeAlias = "Score | Callable[..., Any] | Sequence[Score | Callable[..., Any]]"


@dataclass(frozen=True)
class Scale(Score):
    """score · factor; `scale(factor)` makes one."""

    factor: float

    @cached_property
    def formula(self) -> Formula:
        """score · factor."""
        factor = self.factor
        return trace(lambda score, batch, head, query, key: score * factor, SCORE_PARAMETERS)

    def __repr__(self) -> str:
        return f"scale({self.factor!r})"


@dataclass(frozen=True)
class Softcap(Score):
    """cap · tanh(score / cap); `softcap(cap)` makes one."""

    cap: float

    @cached_property
    def formula(self) -> Formula:
        """cap · tanh(score · (1/cap))."""
        cap, inverse = self.cap, 1 / self.cap
        return trace(lambda score, batch, head, query, key: cap * functions.tanh(score * inverse), SCORE_PARAMETERS)

    def __repr__(self) -> str:
        return f"softcap({self.cap!r})"


@dataclass(frozen=True, eq=False)
class Alibi(Score):
    """score − slope · distance; `alibi(slopes)` makes one."""

    slopes: npt.NDArray[Any] = field(repr=False)

    @cached_property
    def formula(self) -> Formula:
        """score + slopes[head] · −|query − key|."""
        slopes = self.slopes
        return trace(lambda score, batch, head, query, key: score - slopes[head] * abs(query - key), SCORE_PARAMETERS)

    def __repr__(self) -> str:
        return f"alibi(slopes{self.slopes.shape})"


@dataclass(frozen=True, eq=False)
class Bias(Score):
    """score + array[batch, head, query, key], read in place; `bias(array)` makes one."""

    array: npt.NDArray[Any] = field(repr=False)

    @cached_property
    def formula(self) -> Formula:
        """score + array[…], axes of size 1 broadcast; queries are indexed by row."""
        index = broadcast_index(self.array.shape, ("batch", "head", "row", "key"))
        loaded = Expression("load", "float", index, array=0)
        return Formula(Expression("add", "float", (Expression("score", "float"), loaded)), (self.array,))

    def __repr__(self) -> str:
        return f"bias(array{self.array.shape})"


@dataclass(frozen=True, eq=False)
class Relative(Score):
    """score + table[head, bucket of key − query]; `relative(table, max_distance)` makes one."""

    table: npt.NDArray[Any] = field(repr=False)
    max_distance: int
    bidirectional: bool | None  # None: clipped distances rather than T5's buckets

    @cached_property
    def formula(self) -> Formula:
        """Adds the table's number for the distance: by T5's buckets, or clipped to ±max_distance."""
        table, farthest = self.table, self.max_distance
        if self.bidirectional is None:
            return trace(
                lambda score, batch, head, query, key: (
                    score + table[head, np.minimum(np.maximum(key - query, -farthest), farthest) + farthest]
                ),
                SCORE_PARAMETERS,
            )
        bucket = immutable_copy(t5_buckets(table.shape[1], farthest, self.bidirectional))
        reach = (len(bucket) - 1) // 2
        return trace(
            lambda score, batch, head, query, key: (
                score + table[head, bucket[np.minimum(np.maximum(key - query, -reach), reach) + reach]]
            ),
            SCORE_PARAMETERS,
        )

    def __repr__(self) -> str:
        kind = {None: "", True: ", bidirectional=True", False: ", bidirectional=False"}[self.bidirectional]
        return f"relative(table{self.table.shape}, {self.max_distance}{kind})"


@dataclass(frozen=True)
class Function(Score):
    """A traced Python function of (score, batch, head, query, key); `score=function` makes one.

    Two are equal if their formulas are, whichever functions they come from.
    """

    function: Callable[..., Any] = field(compare=False)
    traced: Formula

    @property
    def formula(self) -> Formula:
        """The traced function."""
        return self.traced

    def __repr__(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))


@dataclass(frozen=True, eq=False)
class Given(Score):
    """A score rule given as a formula."""

    given: Formula

    @property
    def formula(self) -> Formula:
        """The given formula."""
        return self.given

    def __repr__(self) -> str:
        return repr(self.given.expression)


def scale(factor: float) -> Scale:
    """Multiply each score by a factor; rules apply in order.

    >>> scale(0.5)
    scale(0.5)
    """
    return Scale(finite_number(factor, "scale"))


def softcap(cap: float) -> Softcap:
    """Keep each score between −cap and cap, smoothly: cap · tanh(score / cap), as in Gemma 2.

    >>> softcap(50)
    softcap(50.0)
    """
    if finite_number(cap, "softcap") <= 0:
        raise InputError(f"softcap({cap!r}) has no positive cap: use a number above 0.")
    return Softcap(float(cap))


def alibi(slopes: npt.ArrayLike | int) -> Alibi:
    """Lower each score in proportion to its distance: slope of the head · |query − key| (Press et al. 2022).

    `slopes` has one number per head, or is the number of heads, for the paper's slopes.

    >>> alibi(8).slopes.tolist()[:3]
    [0.5, 0.25, 0.125]
    """
    if is_integer(slopes):
        if not 0 < slopes <= MOST_HEADS:  # type: ignore[operator]
            raise InputError(f"alibi({slopes!r}) is not a number of heads: use 1, 2, 3 … or one slope for each head.")
        slopes = paper_slopes(int(slopes))  # type: ignore[arg-type]
    return Alibi(float_table(slopes, "alibi's slopes", 1).copy())


def bias(array: npt.ArrayLike) -> Bias:
    """Add a table to the scores: (queries, keys), optionally after batches and heads; axes of size 1 broadcast.

    The table is read in place, with any strides, and never expanded.

    >>> bias(np.zeros((8, 1, 1)))
    bias(array(8, 1, 1))
    """
    return Bias(float_table(array, "bias()", 2))


def relative(table: npt.ArrayLike, max_distance: int, *, bidirectional: bool | None = None) -> Relative:
    """Add a learned number for each distance between query and key: table[head, bucket].

    Without `bidirectional`, distances key − query are clipped to ±max_distance (Shaw et al. 2018) and the table is
    (heads, 2·max_distance + 1). With it, distances share T5's logarithmic buckets (Raffel et al. 2020) and the table is
    (heads, buckets).

    >>> relative(np.zeros((8, 33)), 16)
    relative(table(8, 33), 16)
    """
    numbers_table = float_table(table, "relative()'s table", 2)
    if not is_integer(max_distance) or not 1 <= max_distance <= MOST_DISTANCE:
        raise InputError(
            f"relative()'s max_distance={max_distance!r} is invalid: use a whole number from 1 to {MOST_DISTANCE}."
        )
    if bidirectional is None and numbers_table.shape[1] != 2 * max_distance + 1:
        raise InputError(
            f"relative()'s table has {numbers_table.shape[1]} columns, but distances from −{max_distance} to "
            f"{max_distance} need {2 * max_distance + 1}: give those, or say bidirectional=… for T5's buckets."
        )
    if bidirectional is not None:
        exact = numbers_table.shape[1] // (4 if bidirectional else 2)
        if not 0 < exact < max_distance:
            raise InputError(
                f"relative()'s table has {numbers_table.shape[1]} columns, T5's first {exact} buckets for a distance "
                f"each: give {4 if bidirectional else 2} columns or more, and a max_distance above {max(1, exact)}."
            )
    return Relative(numbers_table, int(max_distance), bidirectional)


def paper_slopes(heads: int) -> list[float]:
    """The ALiBi paper's slopes: powers of 2^(−8/heads) for a power of two; other counts interleave the next power's.

    >>> paper_slopes(3)
    [0.0625, 0.00390625, 0.25]
    """
    power = 1 << (heads.bit_length() - 1)
    slopes: list[float] = [2.0 ** (-8 * (i + 1) / power) for i in range(power)]
    return slopes + [2.0 ** (-4 * (2 * i + 1) / power) for i in range(heads - power)]


def t5_buckets(buckets: int, max_distance: int, bidirectional: bool) -> npt.NDArray[np.int64]:
    """The bucket of each distance key − query from −max_distance to max_distance.

    >>> t5_buckets(8, 16, False).tolist()
    [7, 7, 7, 7, 7, 6, 6, 6, 6, 5, 5, 4, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    """
    distance = np.arange(-max_distance, max_distance + 1)
    shift = np.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        shift = np.where(distance > 0, buckets, 0)
    back = np.abs(distance) if bidirectional else np.maximum(-distance, 0)
    exact = buckets // 2
    far = np.log(np.maximum(back, 1) / exact) / np.log(max_distance / exact) * (buckets - exact)
    return shift + np.where(back < exact, back, np.minimum(exact + far.astype(np.int64), buckets - 1))


def as_rules(score: Any) -> tuple[Score, ...]:
    """The rules of a `score` argument: a rule, a function, or a (possibly empty) list of them in order."""
    return tuple(as_rule(part) for part in flattened_rules(score))


def flattened_rules(score: Any) -> tuple[Any, ...]:
    """The items of nested lists, in order."""
    return (
        tuple(rule for part in score for rule in flattened_rules(part)) if isinstance(score, list | tuple) else (score,)
    )


def as_rule(part: Any) -> Score:
    """A rule, or a function traced to one; else InputError."""
    if isinstance(part, Score):
        return part
    check_called(part, "score")
    if callable(part):
        return Function(part, as_score(trace(part, SCORE_PARAMETERS), part))
    raise InputError(
        f"score is {part!r}, which is not a rule: use softcap(…), alibi(…), bias(…), relative(…), a function of "
        "(score, batch, head, query, key), or several of them in a list."
    )


def as_score(traced: Formula, function: object) -> Formula:
    """A traced function's formula as a score: integers become floats, booleans raise TraceError."""
    if traced.expression.kind == "bool":
        raise TraceError(
            f"{function_description(function)} gives a condition, not a score: use np.where(condition, score, -np.inf)."
        )
    if traced.expression.kind == "int":
        return Formula(simplify(Expression("float", "float", (traced.expression,))), traced.arrays)
    return traced


def finite_number(x: Any, name: str) -> float:
    """A finite float, or InputError."""
    try:
        number = float(x)
    except (TypeError, ValueError):
        raise InputError(f"{name}({x!r}) is not a number: give one.") from None
    except OverflowError:  # a whole number of hundreds of digits
        number = float("inf")
    if not np.isfinite(number):
        raise InputError(f"{name}({str(x)[:40]}) is not finite: give a finite number.")
    return number


def float_table(array: npt.ArrayLike, name: str, axes: int) -> npt.NDArray[Any]:
    """A float array with the required number of axes, or InputError; integers become float64."""
    table = plain_array(array, name)
    if table.dtype.kind in "iu":
        table = table.astype(np.float64)
    most = axes if axes == 1 else 4
    if table.dtype.name not in ("float16", "bfloat16", "float32", "float64") or not axes <= table.ndim <= most:
        raise InputError(
            f"{name} has shape {table.shape} and dtype {table.dtype}: give floats with {axes} axes or more."
        )
    return table
