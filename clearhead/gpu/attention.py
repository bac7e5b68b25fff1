"""`attend` for arrays in a card's memory: whatever has `__cuda_array_interface__`, as CuPy, Numba, JAX and torch have.

Shapes, masks and their errors are the CPU's; what the kernel cannot do is an error that says to move to the CPU.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from clearhead.engine.bounded_cache import BoundedCache
from clearhead.engine.inputs import Operands, Rules
from clearhead.engine.problem import Operand, dense_strides, problem_of
from clearhead.errors import InputError, ShapeError
from clearhead.gpu.confirmed import confirmed_kernel
from clearhead.gpu.driver import Card, driver
from clearhead.gpu.launch import Addresses, CardArray, Launch, prepare, run
from clearhead.rules.masks import CAUSAL, Mask

FLOAT32 = np.dtype(np.float32)
launches: BoundedCache[Any, Launch] = BoundedCache(most=1024)


def attend(
    q: Any,
    k: Any,
    v: Any,
    *,
    out: Any,
    lse: Any,
    mask: Mask = CAUSAL,
    scale: float | None = None,
    stream: int = 0,
) -> None:
    """Write attention into `out` and each query's log-sum-exp into `lse`, with the bits of `clearhead.attend`.

    All are arrays of one card with `__cuda_array_interface__`, float32: q (..., n, d), k and v (..., m, d), out as q,
    lse (..., n) contiguous; d is 32, 64, 96 or 128, other strides are multiples of 16 bytes. `mask` is `causal()` or
    `full()`. Runs in `stream` (a CUDA stream's address) without waiting. Raises ShapeError, DtypeError, InputError, or
    MachineError where there is no such card.
    """
    arrays = [card_array(name, x) for name, x in (("q", q), ("k", k), ("v", v), ("out", out), ("lse", lse))]
    card = driver().card_of(arrays[0].address)
    attend_on(card, *arrays, rules=Rules(mask, scale=scale), stream=stream)


def attend_on(
    card: Card,
    q: CardArray,
    k: CardArray,
    v: CardArray,
    out: CardArray,
    lse: CardArray,
    *,
    rules: Rules,
    stream: int,
) -> None:
    """`attend` of arrays whose card is known."""
    layout = tuple((x.shape, x.strides, x.dtype) for x in (q, k, v, out, lse))
    key: Any = (layout, rules)
    try:
        launch = launches.get(key)
    except TypeError:  # unhashable rules, which the problem reports
        key, launch = None, None
    if launch is None:
        launch = prepared(q, k, v, out, lse, rules)
        if key is not None:
            launches.keep(key, launch, 0)
    if launch.parts:
        addresses = Addresses(*(x.address for x in (q, k, v, out, lse)))
        run(confirmed_kernel(card, launch.dim), launch, addresses, stream)


def prepared(q: CardArray, k: CardArray, v: CardArray, out: CardArray, lse: CardArray, rules: Rules) -> Launch:
    """Check a call, then prepare its launch."""
    operands: Any = Operands(q, k, v)  # type: ignore[arg-type]  # a problem reads no numbers
    problem = problem_of(operands, rules)
    check_result("out", out, problem.output_shape, FLOAT32)
    check_result("lse", lse, problem.output_shape[:-1], FLOAT32)
    if lse.strides != dense_strides(lse.shape, FLOAT32) and 0 not in lse.shape:
        raise ShapeError(f"lse of shape {lse.shape} has strides {lse.strides}: give a contiguous array.")
    *steps, row, element = out.strides
    if len(problem.axes) > len(problem.lead):
        steps = [*steps[:-1], steps[-1] * problem.axes[-1], steps[-1]]
    return prepare(replace(problem, output=Operand(tuple(steps), row, element)))


def check_result(name: str, x: CardArray, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Check the shape and dtype of an array that receives a result."""
    if x.shape != shape or x.dtype != dtype:
        raise ShapeError(
            f"{name} has shape {x.shape} and dtype {x.dtype}, the result {shape} and {dtype}: pass one that fits."
        )


def card_array(name: str, x: Any) -> CardArray:
    """An array by its `__cuda_array_interface__`."""
    interface = getattr(x, "__cuda_array_interface__", None)
    if interface is None:
        raise InputError(
            f"{name} is a {type(x).__name__} without __cuda_array_interface__: give an array in a card's "
            "memory, or call clearhead.attend."
        )
    dtype, shape = np.dtype(interface["typestr"]), tuple(interface["shape"])
    strides = interface.get("strides")
    return CardArray(
        interface["data"][0], shape, dense_strides(shape, dtype) if strides is None else tuple(strides), dtype
    )
