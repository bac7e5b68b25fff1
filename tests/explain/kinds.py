"""Random vectors of fourteen kinds: as people write them, orthogonal, tiny, huge, at the edges of a float64."""

from collections.abc import Sequence
from typing import Any

import numpy as np


class Draw:
    """A generator with words for what is asked of it."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([20, seed])

    def one_of(self, options: Sequence[Any]) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def whole(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))


def vectors(draw: Draw, page: str) -> np.ndarray:
    """Vectors (n, d) of some kind, some of them made equal, zero or orthogonal."""
    n = draw.one_of([1, 2, 2, 3, 3, 4, 5, 6, 8, 12])
    if draw.chance(0.08) and page != "matrix":
        n = draw.one_of([32, 33, 40, 60])
    if draw.chance(0.015) and page != "matrix":
        n = draw.one_of([200, 201, 230, 260])
    d = draw.one_of([1, 1, 2, 2, 3, 3, 4, 5, 8, 64])
    x = draw.one_of(KINDS)(draw, n, d).astype(np.float64)
    for _ in range(draw.one_of([0, 0, 0, 1, 2])):
        x[draw.whole(0, n - 1)] = x[draw.whole(0, n - 1)]
    for _ in range(draw.one_of([0, 0, 0, 1, 2])):
        x[draw.whole(0, n - 1)] = 0
    return np.ascontiguousarray(x)


def usual(draw: Draw, n: int, d: int) -> np.ndarray:
    return draw.rng.normal(size=(n, d)) * draw.one_of([0.3, 1, 3])


def decimals(draw: Draw, n: int, d: int) -> np.ndarray:
    """Numbers as people write them."""
    return draw.rng.normal(size=(n, d)).round(draw.one_of([0, 1, 2]))


def orthogonal(draw: Draw, n: int, d: int) -> np.ndarray:
    """Pairs at right angles, up to the rounding of their decimals: (a, b) and (−b, a) times a factor."""
    x = decimals(draw, n, d) * draw.one_of([0.1, 1, 7, 1e-3])
    if d > 1:
        for j in range(1, n, 2):
            k = draw.whole(0, d - 2)
            x[j] = 0
            x[j, k], x[j, k + 1] = -0.3 * x[j - 1, k + 1], 0.3 * x[j - 1, k]
    return x


def axes(draw: Draw, n: int, d: int) -> np.ndarray:
    return np.eye(max(n, d))[draw.rng.integers(0, d, n), :d] * draw.one_of([1, 2, -1, 0.1, 26.0, 27.5])


def tiny(draw: Draw, n: int, d: int) -> np.ndarray:
    return draw.rng.normal(size=(n, d)) * draw.one_of([1e-300, 1e-160, 1e-154, 1e-20, 1e-5, 5e-324])


def huge(draw: Draw, n: int, d: int) -> np.ndarray:
    return draw.rng.normal(size=(n, d)) * draw.one_of([1e150, 1e153, 1e154, 1e100, 1e20, 1e8])


def steep(draw: Draw, n: int, d: int) -> np.ndarray:
    """Scores that overflow exp, or underflow it, or their sum does."""
    x = draw.rng.normal(size=(n, d)) * draw.one_of([10, 20, 30, 60])
    return x.round(1) if draw.chance(0.5) else x


def at_the_edge(draw: Draw, n: int, d: int) -> np.ndarray:
    """Scores about the largest and the smallest exponent of a float64."""
    x = np.zeros((n, d))
    x[:, 0] = draw.one_of([709.7, 709.78, 709.79, 710, 708, 700, -700, -680, -600, -708.3, -745, -746, -760, -40])
    x[:, 0] += draw.rng.integers(-1, 2, n) * draw.one_of([0, 0.05, 20, 100])
    x[draw.whole(0, n - 1)] = np.eye(d)[0]
    return x


def mixed(draw: Draw, n: int, d: int) -> np.ndarray:
    """Numbers of all sizes."""
    return draw.rng.normal(size=(n, d)) * 10.0 ** draw.rng.integers(-8, 4, (n, d))


KINDS = [
    usual, usual, usual, decimals, decimals, orthogonal, orthogonal, axes, tiny, huge, steep, at_the_edge, at_the_edge,
    mixed,
]  # fmt: skip
