"""Self-attention at one position, worked out from the vectors alone, each number with the room that rounding leaves it.

Dot products are added up in long doubles; a float64 may differ from them by the rounding of its products and sums,
`spread`, and all that follows is worked out for both ends.
"""

from fractions import Fraction
from functools import cached_property

import numpy as np

from tests.explain.judge.ranges import DENORMAL, Range
from tests.explain.judge.rules import Rule, sees

EPS = float(np.finfo(np.float64).eps)
LARGEST = float(np.finfo(np.float64).max)
SURE = 1e-12  # a dot product of 0 is told from rounding up to this
FINE = 1e-14  # relative, what a few operations may lose
FINER = 1e-12  # and a logarithm as large as 745, once it is an exponent

Ends = tuple[np.ndarray, np.ndarray]


class Truth:
    """The numbers of one row: items compared as they are, or queries x with keys and values, and scores scaled."""

    def __init__(
        self,
        x: np.ndarray,
        position: int,
        mask: tuple,
        rules: tuple[Rule, ...] = (),
        *,
        keys: np.ndarray | None = None,
        values: np.ndarray | None = None,
        scale: float = 1.0,
    ) -> None:
        self.x, self.i, self.rules, self.scale = x, position, rules, scale
        self.keys = x if keys is None else keys
        self.values = x if values is None else values
        self.n, self.d = x.shape
        self.seen = sees(mask, position, self.n)
        self.items = np.flatnonzero(self.seen).tolist()
        self.reach = max([position, *self.items]) + 1

    @cached_property
    def dots(self) -> Ends:
        """The dot products with every item, (n,) each end."""
        own, wide = self.x[self.i].astype(np.longdouble), self.keys.astype(np.longdouble)
        with np.errstate(all="ignore"):
            products = wide * own
            middle, size = products.sum(axis=1), np.abs(products).sum(axis=1)
            spread = (self.d + 4) * EPS * size + self.d * DENORMAL
            return (middle - spread).astype(np.float64), (middle + spread).astype(np.float64)

    @cached_property
    def scaled(self) -> Ends:
        """The scores before any rule: dot products, times the scale."""
        if self.scale == 1:
            return self.dots
        with np.errstate(all="ignore"):
            low, high = (end * self.scale for end in self.dots)
        slack = 4 * EPS * np.maximum(np.abs(low), np.abs(high))
        return low - slack, high + slack

    def dot(self, j: int) -> Range:
        """A dot product, before it is scaled."""
        return Range(float(self.dots[0][j]), float(self.dots[1][j]))

    @cached_property
    def stages(self) -> list[Ends]:
        """The dot products and what every rule made of them."""
        made, j = [self.scaled], np.arange(self.n)
        with np.errstate(all="ignore"):
            for rule in self.rules:
                low, high = made[-1]
                ends = np.stack([np.asarray(rule.after(s, self.i, j), np.float64) for s in (low, high)])
                slack = FINE * (np.abs(ends) + np.maximum(np.abs(low), np.abs(high)) + self.n).max(axis=0)
                slack = np.where(np.isfinite(slack), slack, 0)
                made.append((ends.min(axis=0) - slack, ends.max(axis=0) + slack))
        return made

    @cached_property
    def scores(self) -> Ends:
        """What softmax takes, of every item."""
        return self.stages[-1]

    @cached_property
    def in_softmax(self) -> np.ndarray:
        """The items that are seen and whose score is not −∞."""
        return self.seen & (self.scores[1] > -np.inf)

    @cached_property
    def too_large(self) -> bool:
        """Whether a seen score of any stage may exceed a float64, or a sum of its products on the way."""
        with np.errstate(all="ignore"):
            sizes = (np.abs(self.keys).astype(np.longdouble) * np.abs(self.x[self.i])).sum(axis=1)
        ends = [end[self.seen] for stage in self.stages for end in stage]
        broken = any(bool((~np.isfinite(end) & (end != -np.inf)).any()) for end in ends)
        return broken or bool((sizes[self.seen] > LARGEST).any())

    def score(self, j: int, stage: int = -1) -> Range:
        """A score after so many rules; of items at right angles, 0 is among them."""
        low, high = self.stages[stage]
        return Range(float(low[j]), float(high[j]))

    @cached_property
    def top(self) -> Range:
        """The largest score."""
        low, high = (end[self.in_softmax] for end in self.scores)
        return Range(float(low.max()), float(high.max()))

    @cached_property
    def log_sum(self) -> Range:
        """The logarithm of the sum of exp(score)."""
        low, high = (end[self.in_softmax] for end in self.scores)
        ends = []
        for s in (low, high):
            top = float(s.max())
            with np.errstate(over="ignore"):
                ends.append(top + float(np.log(np.exp(s - top).sum())))
        return Range(*ends)

    def exponentials(self, shift: float) -> Ends:
        """exp(score − shift), (n,) each end, 0 where nothing is seen; no more than 1 if the shift is the largest."""
        with np.errstate(all="ignore"):
            low, high = (np.where(self.in_softmax, np.exp(end - shift), 0) for end in self.scores)
        if shift:
            high = np.minimum(high, 1)
        return low * (1 - FINE), high * (1 + FINE)

    @cached_property
    def weights(self) -> Ends:
        """The weights, (n,) each end."""
        ends = np.zeros((2, self.n))
        at = np.flatnonzero(self.in_softmax)
        low, high = (end[at] for end in self.scores)
        with np.errstate(all="ignore"):
            for row, (own, other) in enumerate([(low, high), (high, low)]):
                others = other[None, :] - own[:, None]
                np.fill_diagonal(others, 0)
                ends[row, at] = np.exp(-np.logaddexp.reduce(others, axis=1))
        return ends[0] * (1 - FINER), np.minimum(ends[1] * (1 + FINER), 1)

    @cached_property
    def log_weights(self) -> Ends:
        """Their logarithms, which do not underflow."""
        low, high = self.scores
        with np.errstate(invalid="ignore", over="ignore"):
            return low - self.log_sum.hi, high - self.log_sum.lo

    def weight(self, j: int) -> Range:
        """One weight."""
        return Range(float(self.weights[0][j]), float(self.weights[1][j]))

    def parts(self, items: list[int] | None = None) -> Ends:
        """Weight times vector, (items, d) each end."""
        at = slice(None) if items is None else items
        ends = [weights[at, None] * self.values[at] for weights in self.weights]
        return np.minimum(*ends), np.maximum(*ends)

    @cached_property
    def output(self) -> Ends:
        """y, (d,) each end."""
        low, high = (ends[self.seen].sum(axis=0) for ends in self.parts())
        slack = self.n * FINE * np.abs(self.parts()[1][self.seen]).sum(axis=0) + self.n * DENORMAL
        return low - slack, high + slack

    @cached_property
    def lengths(self) -> tuple[Range, Range]:
        """The lengths of x and of y."""
        low, high = (end.astype(np.longdouble) for end in self.output)
        middle, radius = float(norm((low + high) / 2)), float(norm(high - low))
        own = float(norm(self.x[self.i].astype(np.longdouble)))
        return Range(own * (1 - FINE), own * (1 + FINE)), Range(max(0.0, middle - radius), middle + radius)

    @cached_property
    def cosine(self) -> Range:
        """The cosine between x and y."""
        low, high = (end.astype(np.longdouble) for end in self.output)
        own, out = self.x[self.i].astype(np.longdouble), (low + high) / 2
        if not norm(out) > 2 * norm(high - low) or not norm(own):
            return Range(-1, 1)
        middle = float((own / norm(own)) @ (out / norm(out)))
        radius = float(2 * norm(high - low) / norm(out)) + FINE
        return Range(max(-1.0, middle - radius), min(1.0, middle + radius))

    def right_angle(self, j: int) -> bool | None:
        """Whether two items are at right angles, up to the rounding of their decimals; None where that is open."""
        own, other = self.x[self.i], self.keys[j]
        if not own.any() or not other.any():
            return False
        with np.errstate(all="ignore"):
            a, b = own / np.abs(own).max(), other / np.abs(other).max()
        size = float(np.abs(a) @ np.abs(b))
        if abs(float(a @ b)) > 4 * (self.d + 1) * EPS * size:
            return False
        products = [Fraction(p) * Fraction(q) for p, q in zip(own.tolist(), other.tolist(), strict=True)]
        dot, size = abs(sum(products)), sum(map(abs, products))
        if dot > 2 * self.d * Fraction(EPS) * size:
            return False
        held = size * self.d * Fraction(EPS) <= Fraction(SURE)  # a larger rounding error is a score like any other
        return True if dot <= Fraction(EPS) * size and held else None

    @cached_property
    def angles(self) -> dict[int, bool | None]:
        """The seen items that are, or may be, at right angles."""
        return {j: told for j in self.items if (told := self.right_angle(j)) is not False}

    @cached_property
    def blank(self) -> list[int]:
        """The seen items that are zero vectors."""
        return [j for j in self.items if not self.keys[j].any()]

    @property
    def zero(self) -> bool:
        """Whether the item itself is the zero vector."""
        return not self.x[self.i].any()


def norm(x: np.ndarray) -> np.longdouble:
    """The length of a vector of long doubles."""
    largest = np.abs(x).max() or np.longdouble(1)
    return largest * np.sqrt(((x / largest) ** 2).sum())


def total(ends: Ends, items: list[int]) -> Range:
    """The sum of some entries."""
    with np.errstate(over="ignore"):
        low, high = (float(end[items].sum()) for end in ends)
    slack = len(items) * FINE * max(abs(low), abs(high))
    return Range(low - slack, high + slack)
