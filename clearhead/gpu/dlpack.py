"""What an array in a card's memory says of itself by DLPack, for those without `__cuda_array_interface__`.

Nothing is copied, and the capsule stays its producer's: the memory is the array's own, for as long as its owner keeps
that.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

CUDA, CUDA_MANAGED = 2, 13  # devices whose memory a kernel reaches by its address
VERSION = 1, 0
READ_ONLY = 1  # a flag
DEFAULT_STREAM = 1  # DLPack's number for CUDA's stream 0
KINDS = {0: "i", 1: "u", 2: "f", 5: "c", 6: "b"}  # of the dtypes that numpy has
BFLOAT = 4

is_named = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


class Tensor(ctypes.Structure):
    """DLTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p), ("device", ctypes.c_int32), ("device_number", ctypes.c_int32),
        ("axes", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    )  # fmt: skip


class Versioned(ctypes.Structure):
    """DLManagedTensorVersioned."""

    _fields_ = (
        ("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p), ("flags", ctypes.c_uint64), ("tensor", Tensor),
    )  # fmt: skip


class Exported(NamedTuple):
    """An array as DLPack describes it."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None  # in bytes; None for dense ones
    dtype: np.dtype[Any] | str  # the name of one that numpy does not have
    readonly: bool


def on_card(x: Any) -> bool:
    """Whether an array has DLPack and lies in a card's memory."""
    device: Callable[[], tuple[int, int]] | None = getattr(x, "__dlpack_device__", None)
    return device is not None and hasattr(x, "__dlpack__") and device()[0] in (CUDA, CUDA_MANAGED)


def exported(x: Any, stream: int) -> Exported:
    """Describe an array, which is ready for what `stream` does from now on; raises what its library raises.

    Before version 1.0, DLPack could not say that an array may be written to: such an array counts as read-only.
    """
    stream = stream or DEFAULT_STREAM
    try:
        capsule = x.__dlpack__(stream=stream, max_version=VERSION, copy=False)
    except TypeError:  # from before version 1.0
        capsule = x.__dlpack__(stream=stream)
    if not is_named(capsule, b"dltensor_versioned"):
        return described(Tensor.from_address(pointer_of(capsule, b"dltensor")), readonly=True)
    managed = Versioned.from_address(pointer_of(capsule, b"dltensor_versioned"))
    if managed.major > VERSION[0]:
        raise BufferError(f"it has version {managed.major} of DLPack, and {VERSION[0]} was asked for")
    return described(managed.tensor, readonly=bool(managed.flags & READ_ONLY))


def described(x: Tensor, *, readonly: bool) -> Exported:
    """What a DLTensor says."""
    size = x.bits * x.lanes // 8
    shape = tuple(x.shape[axis] for axis in range(x.axes))
    strides = tuple(x.strides[axis] * size for axis in range(x.axes)) if x.axes and x.strides else None
    return Exported((x.data or 0) + x.offset, shape, strides, dtype_of(x), readonly)


def dtype_of(x: Tensor) -> np.dtype[Any] | str:
    """The dtype of a DLTensor's elements, or the name of one that numpy does not have."""
    try:
        return np.dtype(f"{KINDS[x.code]}{x.bits // 8}" if x.lanes == 1 and x.bits % 8 == 0 else "")
    except (KeyError, TypeError):
        return f"bfloat{x.bits}" if x.code == BFLOAT else f"{x.lanes} × {x.bits} bits of DLPack's kind {x.code}"
