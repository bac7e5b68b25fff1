"""A row of the table of kinds: a model, what it runs, and the judge of what a watch shows of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

import clearhead
from clearhead.errors import ClearheadError
from tests.own_weights import apart, own_weights

TOLERANCE = 2e-5  # of a weight, float32


@dataclass
class Row:
    """One configuration. `make` gives a model and its inputs; `run` runs it, and `again` runs what weights are judged by."""

    group: str
    name: str
    make: Callable[[], tuple[torch.nn.Module, dict[str, Any]]]
    run: Callable[..., Any] = lambda model, given: model(**given)
    again: Callable[..., Any] | None = None
    pads: Callable[[dict[str, Any]], dict[str, Any]] = lambda given: pads_of(given)
    tolerance: float = TOLERANCE
    judge: Callable[..., float] | None = None
    watch: dict[str, Any] = field(default_factory=dict)
    grad: bool = False
    layers: Callable[..., Any] = lambda model: None  # where the model's code does not tell them


def pads_of(given: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The mask of padding among a model's inputs, for all parts."""
    mask = given.get("attention_mask")
    return {"": mask} if mask is not None and mask.dim() == 2 else {}


def outcome(row: Row) -> tuple[str, str]:
    """`right`, `refused`, `wrong` or `fails`, and the difference or the reason."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, given = row.make()
        torch.manual_seed(0)
        with torch.set_grad_enabled(row.grad):
            want = row.run(model, given)
            torch.manual_seed(0)
            try:
                with clearhead.watch(model, **row.watch) as seen:
                    found = row.run(model, given)
                same = all(torch.equal(a, b) or same_numbers(a, b) for a, b in zip(tensors(want), tensors(found), strict=True))
                if not same:
                    return "wrong", "the model's answer changed"
                difference = row.judge(model, given, seen) if row.judge else judged(row, model, given, seen, want)
            except ClearheadError as error:
                return "refused", " ".join(str(error).split())
            except AssertionError as error:
                return "wrong", " ".join(str(error).split())
    shown = ", ".join(f"{part}: {len(numbers)}" for part, numbers in seen.parts().items())
    return ("right" if difference <= row.tolerance else "wrong"), f"{difference:.0e} ({shown})"


def judged(row: Row, model: torch.nn.Module, given: dict[str, Any], seen: Any, want: Any) -> float:
    """How far shown weights are from those that the model gives on eager attention.

    Where eager attention computes something else, torch's formula in the model's own attention is the judge.
    """
    run = row.again or row.run
    own = getattr(getattr(model, "config", None), "_attn_implementation", None)
    if own is not None:
        model.set_attn_implementation("eager")
        if own == "sdpa" and not all(close(a, b) for a, b in zip(tensors(run(model, given)), tensors(want), strict=False)):
            model.set_attn_implementation(own)
    with own_weights(model, row.layers(model)) as expected:
        run(model, given)
    return apart(seen, expected, row.pads(given))


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors agree but for roundings."""
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-3, atol=1e-3, equal_nan=True)


def same_numbers(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors have the same numbers, or none in the same places."""
    return a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num()) and torch.equal(a.isnan(), b.isnan())


def tensors(output: Any) -> Iterator[torch.Tensor]:
    """All tensors of an output."""
    if isinstance(output, torch.Tensor):
        yield output.to_padded_tensor(0.0) if output.is_nested else output
    elif isinstance(output, dict):
        for part in output.values():
            yield from tensors(part)
    elif isinstance(output, tuple | list):
        for part in output:
            yield from tensors(part)
