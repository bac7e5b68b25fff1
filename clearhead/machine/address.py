"""The address of an array's first element, which every call needs four times.

In numpy's C interface (`PyArrayObject_fields`), the data pointer directly follows the object header. Reading it there
takes a ninth of the time of the documented attribute, which is the fallback if a probe finds another layout.
"""

import platform
from collections.abc import Callable
from ctypes import c_size_t
from typing import Any

import numpy as np
import numpy.typing as npt

OBJECT_HEADER = object.__basicsize__


def in_the_object(array: npt.NDArray[Any]) -> int:
    """Read the pointer from the array object."""
    return c_size_t.from_address(id(array) + OBJECT_HEADER).value


def by_interface(array: npt.NDArray[Any]) -> int:
    """Read the pointer from the documented attribute."""
    pointer: int = array.__array_interface__["data"][0]
    return pointer


def quickest() -> Callable[[npt.NDArray[Any]], int]:
    """The fast way if it gives right addresses in this interpreter, else the documented one."""
    probes = (np.empty(3), np.empty((2, 3))[:, 1:], np.empty(0))
    cpython = platform.python_implementation() == "CPython"
    return in_the_object if cpython and all(in_the_object(p) == by_interface(p) for p in probes) else by_interface


address = quickest()
