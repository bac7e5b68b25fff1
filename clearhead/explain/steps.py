"""The worked steps of one position, as data.

Decides which numbers an explanation holds; all are computed by the definition (textbook, float64)
or are a cosine or length of its vectors. How they read is left to the story, how they look to the formats.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.definition import textbook
from clearhead.definition.textbook import Array
from clearhead.errors import DtypeError, InputError, ShapeError
from clearhead.rules.masks import Causal, Mask, causal, split, visible
from clearhead.rules.scores import Score, as_rules

Neighbour = tuple[str, float]
CAUSAL = causal()

LONGEST = 2048  # items: both matrices together are then 64 MiB, and nobody reads more steps than that


@dataclass(frozen=True, eq=False)
class Explanation:
    """Self-attention of n items at one position i, step by step; all arrays are float64 and read-only."""

    tokens: tuple[str, ...]  # n names
    position: int  # i, from 0
    x: Array  # (n, d) what goes in
    mask: Mask
    rules: tuple[Score, ...]
    stages: tuple[Array, ...]  # (n, n) each: x_i · x_j, hidden items included, then what every rule made of it
    seen: npt.NDArray[np.bool_]  # (n, n)
    weight_matrix: Array  # (n, n) each row adds up to 1, 0 where hidden
    exponentials: Array  # (reach,) exp(score − shift), 0 where hidden
    shift: float  # 0, or the largest score where exp(score) is too large for a float64
    output: Array  # (d,) y_i
    before: tuple[Neighbour, ...]  # the words nearest to x_i; empty without a vocabulary
    after: tuple[Neighbour, ...]  # the words nearest to y_i
    notes: tuple[str, ...]  # what a reader must know of the input, one sentence each

    @property
    def token(self) -> str:
        """The name of the item at the position."""
        return self.tokens[self.position]

    @property
    def masked(self) -> bool:
        """Whether another mask than causal decides what is seen."""
        return not isinstance(self.mask, Causal)

    @property
    def items(self) -> tuple[int, ...]:
        """The items that are seen: every j ≤ i, unless a mask says otherwise."""
        return tuple(int(j) for j in np.flatnonzero(self.seen[self.position]))

    @property
    def reach(self) -> int:
        """How many items there are up to the last that is seen, the item itself included: i + 1 in causal attention."""
        return max((self.position, *self.items)) + 1

    @property
    def score_matrix(self) -> Array:
        """(n, n) what softmax takes: x_i · x_j after the rules, hidden items included."""
        return self.stages[-1]

    @property
    def scores(self) -> Array:
        """The scores of every j up to the last that is seen: (reach,)."""
        row: Array = self.score_matrix[self.position, : self.reach]
        return row

    @property
    def weights(self) -> Array:
        """Their weights α_ij, which add up to 1: (reach,)."""
        row: Array = self.weight_matrix[self.position, : self.reach]
        return row

    @property
    def sum(self) -> float:
        """The sum of the exponentials."""
        return float(self.exponentials.sum())

    @property
    def zeros(self) -> tuple[int, ...]:
        """The items whose score is exactly 0, and which have weight all the same."""
        return tuple(j for j in self.items if self.scores[j] == 0)

    @property
    def lengths(self) -> tuple[float, float]:
        """The lengths of x_i and of y_i."""
        return float(np.linalg.norm(self.x[self.position])), float(np.linalg.norm(self.output))

    @property
    def similarity(self) -> float | None:
        """The cosine between x_i and y_i; None where one of them is the zero vector."""
        before, after = self.lengths
        return float((self.x[self.position] / before) @ (self.output / after)) if before and after else None


def explain(
    x: npt.ArrayLike,
    tokens: Sequence[str] | None = None,
    position: int | str = -1,
    *,
    mask: Mask = CAUSAL,
    score: Any = (),
    nearest: Callable[[Array], Sequence[Neighbour]] | None = None,
    notes: Sequence[str] = (),
) -> Explanation:
    """Work out self-attention at one position, keeping every number on the way.

    `x` (n, d) holds one vector per item, `tokens` their n names. `position` counts from 0, negative from the
    end, or is a token (its last occurrence). `mask` and `score` are attention's own rules. `nearest` gives the
    (word, cosine) pairs nearest to a vector.
    Raises ShapeError, DtypeError or InputError for what cannot be explained: no items, over 2048, NaN.

    >>> e = explain([[1, 0], [0, 2], [1, 1]], position=1)
    >>> e.scores, e.exponentials.round(2), e.zeros  # the first item is at right angles to the second ...
    (array([0., 4.]), array([ 1. , 54.6]), (0,))
    >>> e.weights.round(3), e.output.round(3)       # ... and has weight all the same
    (array([0.018, 0.982]), array([0.018, 1.964]))
    """
    x = checked(x)
    n = len(x)
    names = tuple(f"x{j}" for j in range(n)) if tokens is None else tuple(tokens)
    if len(names) != n:
        raise ShapeError(f"{len(names)} tokens for {n} vectors: give each vector one token.")
    i = index(position, names)

    rules, seen = as_rules(score), visible(mask, n, n, lead=(1,)).reshape(n, n)
    stages = [textbook.scores(x, x)]
    spans = split(mask, n, n)[0]
    for rule in rules:
        stages.append(textbook.ruled(stages[-1], np.arange(n), spans, (rule,)))
    s = stages[-1]
    if not np.isfinite(stages[0]).all():
        raise InputError("The vectors are so long that their dot products exceed a float64: scale them down.")
    a = textbook.softmax(s, seen)
    y = textbook.weighted_sum(a[i : i + 1], x, seen[i : i + 1])[0]
    check_ruled(s, seen, rules)
    e, shift = exponentials(s, seen, i)
    for array in (x, *stages, seen, a, e, y):
        array.flags.writeable = False
    before, after = (tuple(nearest(v)) if nearest and v.any() else () for v in (x[i], y))
    return Explanation(names, i, x, mask, rules, tuple(stages), seen, a, e, shift, y, before, after, tuple(notes))


def check_ruled(s: Array, seen: npt.NDArray[np.bool_], rules: tuple[Score, ...]) -> None:
    """Rules may hide by −∞, but a seen score that is not a number has no softmax."""
    wrong = np.argwhere(seen & (np.isnan(s) | np.isposinf(s)))
    if len(wrong):
        i, j = wrong[0]
        raise InputError(f"{list(rules)!r} make {s[i, j]} of the score of items {i} and {j}: no softmax has that.")


def exponentials(s: Array, seen: npt.NDArray[np.bool_], i: int) -> tuple[Array, float]:
    """Row i's plain exp(score) and 0; where their sum overflows, exp(score − largest) and the largest."""
    reach = max((i, *np.flatnonzero(seen[i]).tolist())) + 1
    row = np.where(seen[i, :reach], s[i, :reach], -np.inf)
    with np.errstate(over="ignore"):
        plain: Array = np.exp(row)
        if np.isfinite(plain.sum()):
            return plain, 0.0
    return textbook.exponentials(s, seen)[i, :reach].copy(), float(row.max())


def checked(x: npt.ArrayLike) -> Array:
    """`x` as a new float64 array of shape (n, d), or the error that says why it cannot be one."""
    x = np.asarray(x)
    if x.ndim != 2 or 0 in x.shape:
        raise ShapeError(
            f"Vectors of shape {x.shape} cannot be explained: give n ≥ 1 vectors of d ≥ 1 numbers, (n, d)."
        )
    if len(x) > LONGEST:
        raise InputError(f"{len(x)} items are too many to read step by step: give at most {LONGEST}.")
    if x.dtype.kind not in "fiu":
        raise DtypeError(f"Vectors of {x.dtype} cannot be explained: give real numbers.")
    x = x.astype(np.float64)
    wrong = np.argwhere(~np.isfinite(x))
    if len(wrong):
        row, column = wrong[0]
        raise InputError(f"Vector {row} holds {x[row, column]} at dim {column}: replace it by a finite number.")
    return x


def index(position: int | str, tokens: Sequence[str]) -> int:
    """The position as a number from 0 to n − 1; a token stands for its last occurrence, in any case.

    >>> index(-1, "a rose is a rose".split()), index("A", "a rose is a rose".split())
    (4, 3)
    """
    n = len(tokens)
    if isinstance(position, str):
        names = [token.casefold() for token in tokens]
        if position.casefold() not in names:
            raise InputError(f"Position {position!r} is not one of the {n} items: give one of them, or 0 to {n - 1}.")
        return n - 1 - names[::-1].index(position.casefold())
    if not -n <= position < n:
        raise InputError(
            f"Position {position} is outside the {n} items: give 0 to {n - 1}, or -1 to {-n} from the end."
        )
    return position % n
