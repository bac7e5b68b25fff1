"""Masks: which keys a query may see.

Decides the meaning of each mask for any pair of lengths; leaves to the kernels how to skip what is hidden.
A mask here is one number, the *reach*: query i sees the keys j ≤ i + reach.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from clearhead.errors import InputError, ShapeError

Align = Literal["start", "end"]


@dataclass(frozen=True)
class Causal:
    """Query i sees the keys that are not later than itself; `causal()` makes one."""

    align: Align | None = None

    def reach(self, queries: int, keys: int) -> int:
        """How many keys beyond its own index a query sees.

        >>> causal(align="end").reach(3, 10)
        7
        """
        if self.align is None and queries != keys:
            raise ShapeError(
                f"causal() is ambiguous for {queries} queries and {keys} keys: say causal(align='end') if the "
                "queries are the last ones (as with a key/value cache) or causal(align='start') if they are the first."
            )
        return keys - queries if self.align == "end" else 0

    def __repr__(self) -> str:
        return "causal()" if self.align is None else f"causal(align={self.align!r})"


@dataclass(frozen=True)
class Full:
    """Every query sees every key; `full()` makes one."""

    def reach(self, queries: int, keys: int) -> int:
        """How many keys beyond its own index a query sees: all of them."""
        return keys

    def __repr__(self) -> str:
        return "full()"


Mask = Causal | Full


def causal(*, align: Align | None = None) -> Causal:
    """Let each item see itself and the items before it.

    `align` is needed when queries and keys differ in number: "end" if the queries are the last items
    (chunked prompts, key/value caches), "start" if they are the first. Raises InputError for other words.

    >>> visible(causal(align="end"), queries=2, keys=4).astype(int)
    array([[1, 1, 1, 0],
           [1, 1, 1, 1]])
    """
    if align not in (None, "start", "end"):
        raise InputError(f"align={align!r} is not an alignment: use 'start' or 'end'.")
    return Causal(align)


def full() -> Full:
    """Let every item see every item.

    >>> visible(full(), queries=1, keys=3).astype(int)
    array([[1, 1, 1]])
    """
    return Full()


def visible(mask: Mask, queries: int, keys: int, rows: npt.NDArray[np.integer] | None = None) -> npt.NDArray[np.bool_]:
    """The mask as a (queries, keys) table of booleans, or only some of its rows: the definition of what it means.

    >>> visible(causal(), queries=3, keys=3).astype(int)
    array([[1, 0, 0],
           [1, 1, 0],
           [1, 1, 1]])
    """
    i, j = (np.arange(queries) if rows is None else rows)[:, None], np.arange(keys)[None, :]
    seen: npt.NDArray[np.bool_] = j <= i + mask.reach(queries, keys)
    return seen
