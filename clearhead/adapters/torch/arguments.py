"""Check that arguments are tensors, numbers and of the right rank, with errors that name the argument.

Responsible for checks before anything is computed; `Problem` checks which shapes fit together.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch

from clearhead.errors import DtypeError, InputError, ShapeError

COUNTS = ("no", "one", "two", "three", "four", "five")


def check_tensors(**given: Any) -> None:
    """Raise InputError for anything but tensors.

    >>> check_tensors(q=[1.0])
    Traceback (most recent call last):
    clearhead.errors.InputError: q is list: give a tensor, as by torch.as_tensor(q).
    """
    for name, x in given.items():
        if not isinstance(x, torch.Tensor):
            raise InputError(f"{name} is {type(x).__name__}: give a tensor, as by torch.as_tensor({name}).")


def check_axes(layout: str, **given: Any) -> None:
    """Raise ShapeError for tensors without this layout."""
    check_tensors(**given)
    count = layout.count(",") + 1
    for name, x in given.items():
        if x.dim() != count or x.layout is not torch.strided:
            raise ShapeError(f"{name} of shape {tuple(x.shape)} is not {layout}, dense: give {COUNTS[count]} axes.")


def check_number(name: str, x: Any, least: float = -math.inf, most: float = math.inf) -> None:
    """Raise InputError for anything but a number within these bounds."""
    if isinstance(x, Real) and least <= float(x) <= most:
        return
    bounds = f" from {least:g} to {most:g}" if math.isfinite(most) else f" from {least:g} on" * math.isfinite(least)
    shown = f"a tensor of shape {tuple(x.shape)}" if isinstance(x, torch.Tensor) else repr(x)
    raise InputError(f"{name}={shown}: give a Python number{bounds}.")


def check_dtype(name: str, x: torch.Tensor, weight: torch.Tensor) -> None:
    """Raise DtypeError for a tensor whose dtype differs from that of a layer's weights."""
    if x.dtype is not weight.dtype and not torch.is_autocast_enabled("cpu"):
        raise DtypeError(
            f"{name} is {x.dtype}, but the layer {weight.dtype}: convert one, as by {name}.to({weight.dtype}) or "
            f"layer.to({x.dtype if x.is_floating_point() else torch.float32})."
        )


def scale_or_default(query: torch.Tensor, scale: float | None) -> float:
    """1/√dim unless a scale is given."""
    if scale is not None:
        return scale
    try:
        return 1 / math.sqrt(query.shape[-1])
    except (IndexError, ZeroDivisionError):
        raise ShapeError(f"queries of shape {tuple(query.shape)}: give (..., n, dim), dim 1 or more.") from None
