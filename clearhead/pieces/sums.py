"""Gradients as they stand after some stretches: sums, what they are of, and where they ended."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from clearhead.arrays import Array
from clearhead.displayed import Brief
from clearhead.gradients.backward import (
    gradient_of,
)
from clearhead.pieces.origin import Origin


@dataclass(frozen=True, repr=False)
class QueryGradient(Brief):
    """The gradient of some queries over the keys before `stop`; `q` rounds it to their shape and dtype.

    Pass it as `before=` with the keys from `stop` on. It pickles.
    """

    sums: Array  # (..., n, d), not rounded: float32 for 16-bit operands
    stop: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    origin: Origin
    isa: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "sums", np.ascontiguousarray(self.sums))

    @property
    def q(self) -> Array:
        """dQ, if these were all keys."""
        return gradient_of(self.sums, self.shape, self.dtype)


@dataclass(frozen=True, repr=False)
class KeyGradients(Brief):
    """The gradients of some keys and values over queries before `stop`; `k` and `v` round them to shape and dtype.

    Pass it as `before=` with the queries from `stop` on, or with those of each group's next head. It pickles.
    """

    key_sums: Array  # (..., m, padded d), not rounded
    value_sums: Array
    head: tuple[int, int]  # which query head of each group was added last, and how many share a key head
    first: int  # where the queries of each head begin
    stop: int
    end: int | None  # where those of the first head ended, once another one began
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    dtype: np.dtype[Any]
    first_key: int
    first_query: int
    rules: str  # their digest
    isa: str

    def __post_init__(self) -> None:
        for name in ("key_sums", "value_sums"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name)))

    @property
    def k(self) -> Array:
        """dK, if these were all queries of all heads."""
        return gradient_of(self.key_sums, self.shapes[0], self.dtype)

    @property
    def v(self) -> Array:
        """dV, if these were all queries of all heads."""
        return gradient_of(self.value_sums, self.shapes[1], self.dtype)
