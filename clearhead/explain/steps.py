"""The worked steps of one position, as data.

Responsible for the numbers of an explanation: results of the definition (textbook, float64), or cosines and lengths of
its vectors. Not for words, which are in `story`, nor for looks, which are in the formats. Only the position's own row
is computed, so a whole book can be explained; the square of all rows is for short inputs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array
from clearhead.definition import textbook
from clearhead.errors import DtypeError, InputError, ShapeError
from clearhead.once import cached_property
from clearhead.rules.mask_kinds import Causal, Full, Mask
from clearhead.rules.masks import CAUSAL, full, visible
from clearhead.rules.placement import split_documents
from clearhead.rules.scores import Score, as_rules

Bools = npt.NDArray[np.bool_]
Neighbour = tuple[str, float]

LARGEST_SQUARE = 2048  # items; both matrices then take 64 MiB, and nobody reads more rows
ZERO_SCORE = 1e-12  # a dot product up to this counts as 0 if rounding of its products can explain it
SMALLEST_NORMAL = float(np.finfo(np.float64).tiny)  # smaller float64 numbers have fewer digits


class Origin(NamedTuple):
    """Where an item's vector comes from: `known`, or how it was made and from which words."""

    how: str = "known"
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Operands:
    """The inputs of attention: queries, keys and values; in the first approach all three are x."""

    queries: Array  # (n, d)
    keys: Array  # (m, d)
    values: Array  # (m, dv)
    scale: float = 1.0

    @property
    def alike(self) -> bool:
        """Whether this is the first approach, in which one vector is query, key and value."""
        return self.queries is self.keys is self.values

    @property
    def letters(self) -> tuple[str, str, str]:
        """The letters of a query, a key and a value in formulas."""
        return ("x", "x", "x") if self.alike else ("q", "k", "v")


class Square(NamedTuple):
    """All rows at once, (n, m) each: scores after the rules, which are visible, and the weights."""

    scores: Array
    seen: Bools
    weights: Array


@dataclass(frozen=True, eq=False)
class Explanation:
    """Attention of item i of n over m items, step by step; all arrays are float64 and read-only.

    In self-attention queries and keys belong to the same items, so n = m.
    """

    tokens: tuple[str, ...]  # m names of the keys' items
    asking: tuple[str, ...]  # n names of the queries' items
    position: int  # i, from 0
    operands: Operands
    mask: Mask
    rules: tuple[Score, ...]
    stages: tuple[
        Array, ...
    ]  # (m,) each: scale · q_i · k_j for all j, hidden ones too, then the scores after each rule
    seen: Bools  # (m,)
    row: Array  # (m,) the weights α_ij, 0 where hidden
    exponentials: Array  # (reach,) exp(score − shift), 0 where hidden
    shift: float  # 0, or the largest score where a float64 cannot hold every exp(score) or their sum
    output: Array  # (dv,) y_i
    before: tuple[Neighbour, ...] = ()  # the words nearest to x_i; empty without a vocabulary
    after: tuple[Neighbour, ...] = ()  # the words nearest to y_i
    notes: tuple[str, ...] = ()  # what a reader must know about the input, one sentence each
    origins: tuple[Origin, ...] = ()  # of each item, if the vectors come from a vocabulary

    @property
    def token(self) -> str:
        """The name of the item at the position."""
        return self.asking[self.position]

    @property
    def itself(self) -> int | None:
        """The index of the query's item among the keys; None in cross-attention."""
        return self.position if self.asking is self.tokens else None

    @property
    def x(self) -> Array:
        """The vectors (n, d) of the first approach, or the queries."""
        return self.operands.queries

    @property
    def query(self) -> Array:
        """The item's query (d,); in the first approach its vector."""
        query: Array = self.operands.queries[self.position]
        return query

    @property
    def masked(self) -> bool:
        """Whether the mask differs from the default: causal, or full in cross-attention."""
        return not isinstance(self.mask, Causal if self.itself is not None else Full)

    @cached_property
    def items(self) -> tuple[int, ...]:
        """The visible items: every j ≤ i, unless a mask says otherwise."""
        return tuple(np.flatnonzero(self.seen).tolist())

    @property
    def reach(self) -> int:
        """The number of items up to the last visible one and the item itself: i + 1 in causal attention."""
        return len(self.exponentials)

    @property
    def scores(self) -> Array:
        """The scores that softmax takes, (reach,)."""
        return self.stages[-1][: self.reach]

    @property
    def weights(self) -> Array:
        """The weights α_ij, (reach,), which add up to 1."""
        return self.row[: self.reach]

    @property
    def sum(self) -> float:
        """The sum of the exponentials."""
        return float(self.exponentials.sum())

    @cached_property
    def angles(self) -> tuple[int, ...]:
        """The visible items at right angles to the item: their dot product is 0, though neither vector is."""
        orthogonal = right_angles(self.query, self.operands.keys, self.stages[0]) & self.seen
        return tuple(np.flatnonzero(orthogonal).tolist())

    @cached_property
    def blank(self) -> tuple[int, ...]:
        """The visible items whose vector is zero: their dot product with anything is 0."""
        return tuple(j for j in self.items if not self.operands.keys[j].any())

    @property
    def zeros(self) -> tuple[int, ...]:
        """The visible items whose dot product is 0 and which nevertheless have weight."""
        if not self.query.any():
            return self.items
        return tuple(sorted({*self.angles, *self.blank}))

    @cached_property
    def lengths(self) -> tuple[float, float]:
        """The lengths of x_i (or q_i) and of y_i."""
        return vector_length(self.query), vector_length(self.output)

    @cached_property
    def similarity(self) -> float | None:
        """The cosine between x_i and y_i; None where one is the zero vector, or where they are not in one space."""
        if not (self.operands.alike and self.query.any() and self.output.any()):
            return None
        return float(unit_vector(self.query) @ unit_vector(self.output))

    @cached_property
    def square(self) -> Square:
        """All rows at once; raises InputError for more than 2048 items."""
        of, n, m = self.operands, len(self.operands.queries), len(self.operands.keys)
        if max(n, m) > LARGEST_SQUARE:
            raise InputError(
                f"{n} rows of {m} weights are too many to print: give at most {LARGEST_SQUARE} items, or look at them "
                "with clearhead inspect."
            )
        s = textbook.scores(of.queries, of.keys, of.scale)
        seen = visible(self.mask, n, m, lead=(1,)).reshape(n, m)
        check_finite(s, seen)
        s = textbook.ruled(s, np.arange(n), split_documents(self.mask, n, m)[0], self.rules)
        check_ruled(s, np.arange(n), seen, self.rules)
        return Square(s, seen, textbook.softmax(s, seen))


def explain_vectors(
    x: npt.ArrayLike,
    tokens: Sequence[str] | None = None,
    position: int | str = -1,
    *,
    keys: npt.ArrayLike | None = None,
    values: npt.ArrayLike | None = None,
    key_tokens: Sequence[str] | None = None,
    scale: float | None = None,
    mask: Mask | None = None,
    score: Any = (),
    nearest: Callable[[Array], Sequence[Neighbour]] | None = None,
    notes: Sequence[str] = (),
    origins: Sequence[Origin] = (),
) -> Explanation:
    """Work out attention at one position, keeping every number on the way.

    `x` (n, d) holds one vector per item, `tokens` their n names. `position` counts from 0, or from the end if negative,
    or is a token (its last occurrence). With `keys` (m, d) and `values` (m, dv), x holds queries: the transformer's
    form, with scale 1/√d. Where the keys are other items than the queries (cross-attention), `key_tokens` names them,
    and the mask defaults to full(). `mask` and `score` are those of `attention`. `nearest` returns the (word, cosine)
    pairs nearest to a vector. Raises ShapeError, DtypeError or InputError for input that cannot be explained, such as
    no items or NaN.

    >>> e = explain_vectors([[1, 0], [0, 2], [1, 1]], position=1)
    >>> e.scores, e.exponentials.round(2), e.angles  # the first item is at right angles to the second ...
    (array([0., 4.]), array([ 1. , 54.6]), (0,))
    >>> e.weights.round(3), e.output.round(3)       # ... and has weight all the same
    (array([0.018, 0.982]), array([0.018, 1.964]))
    >>> explain_vectors(np.eye(2), keys=np.eye(2), values=[[1.0], [3.0]], scale=1.0).output.round(3)
    array([2.462])
    """
    operands = as_operands(x, keys, values, scale)
    n, m = len(operands.queries), len(operands.keys)
    asking = item_names(tokens, n, "x" if operands.alike else "q")
    looked_at = asking if key_tokens is None and n == m else item_names(key_tokens, m, "k")
    at, rules = np.array([position_index(position, asking)]), as_rules(score)
    mask = mask or (CAUSAL if looked_at is asking else full())
    spans = split_documents(mask, n, m)[0]
    seen = visible(mask, n, m, at, lead=(1,)).reshape(1, m)
    stages = [textbook.scores(operands.queries[at], operands.keys, operands.scale)]
    check_finite(stages[0], seen)
    stages[0][seen & right_angles(operands.queries[at[0]], operands.keys, stages[0][0])] = 0
    for rule in rules:
        stages.append(textbook.ruled(stages[-1], at, spans, (rule,)))
    check_ruled(stages[-1], at, seen, rules)
    a = textbook.softmax(stages[-1], seen)
    y = textbook.weighted_sum(a, operands.values, seen)[0]
    e, shift = row_exponentials(stages[-1], seen, a, int(at[0]) if looked_at is asking else 0)
    rows = [stage[0] for stage in stages]
    for array in (operands.queries, operands.keys, operands.values, *rows, seen, a, e, y):
        array.flags.writeable = False
    before, after = (tuple(nearest(v)) if nearest and v.any() else () for v in (operands.queries[at[0]], y))
    return Explanation(
        looked_at, asking, int(at[0]), operands, mask, rules, tuple(rows), seen[0], a[0], e, shift, y, before, after,
        tuple(notes), tuple(origins),
    )  # fmt: skip


def as_operands(
    x: npt.ArrayLike, keys: npt.ArrayLike | None, values: npt.ArrayLike | None, scale: float | None
) -> Operands:
    """Queries, keys and values that fit together; x is all three where keys and values are missing."""
    queries = vector_array(x)
    if keys is None and values is None:
        return Operands(queries, queries, queries, 1.0 if scale is None else float(scale))
    if keys is None or values is None:
        raise InputError(f"{'keys' if keys is None else 'values'} are missing: give keys and values, or neither.")
    k = vector_array(keys, "Keys")
    v = k if values is keys else vector_array(values, "Values")
    if queries.shape[1] != k.shape[1] or len(k) != len(v):
        raise ShapeError(
            f"Queries {queries.shape}, keys {k.shape} and values {v.shape} do not fit: a query and a key need as many "
            "dims, and each key needs one value."
        )
    return Operands(queries, k, v, k.shape[1] ** -0.5 if scale is None else float(scale))


def item_names(tokens: Sequence[str] | None, count: int, letter: str) -> tuple[str, ...]:
    """A name for each item: its token, or the letter and its index."""
    names = tuple(f"{letter}{j}" for j in range(count)) if tokens is None else tuple(tokens)
    if len(names) != count:
        raise ShapeError(f"{len(names)} tokens for {count} vectors: give each vector one token.")
    return names


def check_finite(s: Array, seen: Bools) -> None:
    """Raise InputError where a dot product overflows, because it has no softmax."""
    if not np.isfinite(s[seen]).all():
        raise InputError("The vectors are so long that their dot products exceed a float64: scale them down.")


def check_ruled(s: Array, rows: npt.NDArray[np.intp], seen: Bools, rules: tuple[Score, ...]) -> None:
    """Raise InputError where rules make a visible score NaN or +∞; −∞ hides the item."""
    wrong = np.argwhere(seen & (np.isnan(s) | np.isposinf(s)))
    if len(wrong):
        i, j = wrong[0]
        raise InputError(
            f"{list(rules)!r} make the score of items {rows[i]} and {j} {s[i, j]}, which has no softmax: let the "
            "rules keep scores finite, or −∞ to hide an item."
        )


def row_exponentials(s: Array, seen: Bools, a: Array, i: int) -> tuple[Array, float]:
    """A row's exp(score) and shift 0; where a float64 cannot hold them or their sum, exp(score − max) and the max."""
    reach = max((i, *np.flatnonzero(seen[0]).tolist())) + 1
    row = np.where(seen[0, :reach], s[0, :reach], -np.inf)
    with np.errstate(over="ignore"):
        plain: Array = np.exp(row)
        if plain.sum() < np.inf and not underflowed(plain, a[0, :reach]).any():
            return plain, 0.0
    return textbook.exponentials(s, seen)[0, :reach].copy(), float(row.max())


def underflowed(plain: Array, a: Array) -> Bools:
    """Which exponentials lose digits or vanish in a float64 although their weights do not."""
    lost: Bools = ((plain < SMALLEST_NORMAL) & (a >= SMALLEST_NORMAL)) | ((plain == 0) & (a > 0))
    return lost


def right_angles(query: Array, keys: Array, scores: Array) -> Bools:
    """Which keys (m, d) are at right angles to a query (d,): their dot products are 0 up to rounding."""
    q, k = over_largest(query), over_largest(keys)
    rounding = len(q) * np.finfo(np.float64).eps * (np.abs(k) @ np.abs(q))
    orthogonal: Bools = (np.abs(k @ q) <= rounding) & (np.abs(scores) <= ZERO_SCORE) & k.any(axis=-1) & q.any()
    return orthogonal


def over_largest(x: Array) -> Array:
    """Vectors (..., d) divided by their largest number, so that no square overflows or underflows."""
    largest = np.abs(x).max(axis=-1, keepdims=True)
    bounded: Array = x / np.where(largest == 0, 1, largest)
    return bounded


def unit_vector(x: Array) -> Array:
    """Vectors (..., d) scaled to length 1, however long or short; a zero vector stays zero."""
    x = over_largest(x)
    norm = np.linalg.norm(x, axis=-1, keepdims=True)
    unit: Array = x / np.where(norm == 0, 1, norm)
    return unit


def vector_length(x: Array) -> float:
    """The length of a vector, even where its square would overflow or underflow."""
    return float(np.abs(x).max()) * float(np.linalg.norm(over_largest(x)))


def vector_array(x: npt.ArrayLike, what: str = "Vectors") -> Array:
    """`x` as a new float64 array of shape (n, d); raises ShapeError, DtypeError or InputError."""
    try:
        x = np.asarray(x)
    except ValueError:
        raise ShapeError(f"{what} of different lengths cannot be explained: give each as many numbers.") from None
    if x.ndim != 2 or 0 in x.shape:
        raise ShapeError(f"{what} of shape {x.shape} cannot be explained: give n ≥ 1 vectors of d ≥ 1 numbers, (n, d).")
    if x.dtype.kind not in "fiu":
        raise DtypeError(f"{what} of {x.dtype} cannot be explained: give real numbers.")
    x = x.astype(np.float64)
    wrong = np.argwhere(~np.isfinite(x))
    if len(wrong):
        row, column = wrong[0]
        raise InputError(
            f"{what.removesuffix('s')} {row} holds {x[row, column]} at dim {column}: replace it by a finite number."
        )
    return x


def position_index(position: int | str, tokens: Sequence[str]) -> int:
    """The position as an index from 0 to n − 1; a token means its last occurrence, ignoring case.

    >>> position_index(-1, "a rose is a rose".split()), position_index("A", "a rose is a rose".split())
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
