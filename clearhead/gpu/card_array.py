"""Arrays in a card's memory, by the `__cuda_array_interface__` of CuPy, Numba, JAX and torch, or else by DLPack.

Responsible for what an array says of itself, and for what a result may not overlap; nothing is read here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from clearhead.arrays import Array
from clearhead.engine.problem import check_apart, dense_strides, shares_memory
from clearhead.errors import DtypeError, InputError, ShapeError, reason
from clearhead.gpu import dlpack

FLOAT32 = np.dtype(np.float32)


class Elsewhere(np.ndarray[Any, Any]):
    """An array whose elements this processor cannot read, not even to show them in a traceback."""

    def __repr__(self) -> str:
        return f"<array of shape {self.shape}, strides {self.strides} and {self.dtype} in a card's memory>"

    __str__ = __repr__


class Layout(NamedTuple):
    """How an array lies in memory, wherever it begins."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in bytes
    dtype: np.dtype[Any]
    readonly: bool = False


@dataclass(frozen=True)
class CardArray:
    """An array in a card's memory."""

    address: int
    layout: Layout
    stream: int | None = None  # in which it is written, if it says so

    def seen_from_here(self) -> Array:
        """The same addresses as a numpy array, for checks that read no element."""
        shape, strides, dtype, readonly = self.layout
        addresses: dict[str, Any] = {"shape": shape, "strides": strides, "typestr": dtype.str, "version": 3}
        holder = type("Holder", (), {"__array_interface__": addresses | {"data": (self.address, readonly)}})()
        return np.asarray(holder).view(Elsewhere)


def card_array(name: str, x: Any, stream: int) -> CardArray:
    """An array by its `__cuda_array_interface__`, or by DLPack for use in `stream`; raises InputError, DtypeError."""
    try:
        interface = getattr(x, "__cuda_array_interface__", None)
        if interface is not None:
            return by_interface(name, interface)
        if dlpack.on_card(x):
            return by_dlpack(name, dlpack.exported(x, stream))
    except (RuntimeError, BufferError) as error:  # torch's, of a tensor that requires a gradient
        step = f"Pass {name}.detach()." if hasattr(x, "detach") else "Pass a copy of it."
        raise InputError(f"{name} hides its memory: {reason(error)} {step}") from None
    raise InputError(
        f"{name} is a {type(x).__name__} without __cuda_array_interface__, and without DLPack in a card's memory: copy "
        "it to the card, or call clearhead.attend."
    )


def by_interface(name: str, interface: dict[str, Any]) -> CardArray:
    """An array by its `__cuda_array_interface__`."""
    if interface.get("mask") is not None:
        raise InputError(f"{name} has a mask of missing numbers, which attention cannot heed: give an array without.")
    dtype, shape = np.dtype(interface["typestr"]), tuple(interface["shape"])
    address, readonly = interface["data"]
    strides = interface.get("strides")
    layout = Layout(shape, dense_strides(shape, dtype) if strides is None else tuple(strides), dtype, bool(readonly))
    return CardArray(address or 0, layout, interface.get("stream"))


def by_dlpack(name: str, x: dlpack.Exported) -> CardArray:
    """An array as DLPack describes it."""
    if isinstance(x.dtype, str):
        raise DtypeError(f"{name} is {x.dtype}: convert it to float32, or move it to the CPU.")
    strides = dense_strides(x.shape, x.dtype) if x.strides is None else x.strides
    return CardArray(x.address, Layout(x.shape, strides, x.dtype, x.readonly))


def check_lse(lse: Layout, shape: tuple[int, ...]) -> None:
    """Check an array that receives the log-sum-exp."""
    check_dense("lse", lse, shape, "the result")
    if lse.readonly:
        raise InputError(f"lse of shape {lse.shape} is read-only: pass a writable array.")


def check_dense(name: str, x: Layout, shape: tuple[int, ...], wanted: str = "the heads") -> None:
    """Check that an array is contiguous, float32 and of a shape."""
    if x.shape != shape or x.dtype != FLOAT32:
        raise ShapeError(
            f"{name} has shape {x.shape} and dtype {x.dtype}, {wanted} {shape} and {FLOAT32}: pass one that fits."
        )
    steps = zip(x.shape, x.strides, dense_strides(x.shape, FLOAT32), strict=True)
    if 0 not in x.shape and any(size > 1 and step != dense for size, step, dense in steps):
        raise ShapeError(f"{name} of shape {x.shape} has strides {x.strides}: give a contiguous array.")


def check_results_apart(operands: dict[str, CardArray], out: CardArray, lse: CardArray) -> None:
    """Check that neither result shares memory with an operand, nor with the other."""
    there = {name: x.seen_from_here() for name, x in operands.items()}
    output, sums = out.seen_from_here(), lse.seen_from_here()
    check_apart(output, there | {"lse": sums})
    for name, x in there.items():
        if shares_memory(sums, x):
            raise ShapeError(f"lse {sums.shape} overlaps {name} {x.shape} in memory: pass a separate array.")
