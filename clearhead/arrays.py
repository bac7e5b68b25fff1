"""Array types, and whole numbers: which values are some, and division that rounds up."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Integers: TypeAlias = npt.NDArray[np.int64]


def ceil_div(length: int, block: int) -> int:
    """The number of blocks that cover a length.

    >>> ceil_div(129, 128), ceil_div(128, 128), ceil_div(0, 128)
    (2, 1, 0)
    """
    return -(-length // block)


def is_integer(x: object) -> bool:
    """Whether x is an integer and not a bool."""
    return isinstance(x, int | np.integer) and not isinstance(x, bool)
