"""Where an array's first element lies, asked four times in every call and so worth asking cheaply.

numpy's C interface (`PyArrayObject_fields`) fixes that the data pointer stands right behind the object's head. Reading
it there takes a ninth of the time of the documented attribute, which is used wherever a probe does not find it so.
"""

import platform
from collections.abc import Callable
from ctypes import c_size_t
from typing import Any

import numpy as np
import numpy.typing as npt

HEAD = object.__basicsize__


def in_the_object(array: npt.NDArray[Any]) -> int:
    """Read the pointer in the array object itself."""
    return c_size_t.from_address(id(array) + HEAD).value


def by_interface(array: npt.NDArray[Any]) -> int:
    """Ask numpy."""
    where: int = array.__array_interface__["data"][0]
    return where


def quickest() -> Callable[[npt.NDArray[Any]], int]:
    """The quick way if it tells the truth here, else the documented one."""
    probes = (np.empty(3), np.empty((2, 3))[:, 1:], np.empty(0))
    cpython = platform.python_implementation() == "CPython"
    return in_the_object if cpython and all(in_the_object(p) == by_interface(p) for p in probes) else by_interface


address = quickest()
