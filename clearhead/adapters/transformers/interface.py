"""Let handlers see the attention calls of transformers models, whichever implementation computes them.

Every layer asks transformers' attention interface for its function. Responsible for wrapping what the interface gives,
and for the meaning of a call's arguments, which differs between implementations.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, update_wrapper
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface

from clearhead.adapters.torch.calls import Answer, AttentionCall, Visibility, interested, own_or_changed
from clearhead.adapters.torch.intercept import autocast, places, split_table, visible_blocks
from clearhead.adapters.transformers.attention import NAME
from clearhead.adapters.transformers.intervals import intervals_of
from clearhead.adapters.transformers.mask import MaskTensor
from clearhead.errors import InputError

OPERANDS = ("query", "key", "value", "attention_mask")  # what every implementation is called with, in this order


@contextmanager
def intercepting_interface() -> Iterator[None]:
    """Let handlers see what transformers' attention interface computes."""
    names = {"get_interface": seen_interface, "__getitem__": seen_item}
    for name, make in names.items():
        places.replace(AttentionInterface, name, make)
    try:
        yield
    finally:
        for name in names:
            places.restore(AttentionInterface, name)


def seen_interface(original: Callable[..., Any]) -> Callable[..., Any]:
    """`AttentionInterface.get_interface`, whose functions handlers see."""

    def get_interface(self: Any, attn_implementation: str, default: Callable[..., Any]) -> Any:
        return seen(original(self, attn_implementation, default), attn_implementation)

    return get_interface


def seen_item(original: Callable[..., Any]) -> Callable[..., Any]:
    """`AttentionInterface.__getitem__`, whose functions handlers see."""

    def item(self: Any, key: str) -> Any:
        return seen(original(self, key), key)

    return item


class SeenFunction:
    """An attention implementation, whose calls handlers see."""

    def __init__(self, original: Callable[..., Any], implementation: str) -> None:
        self.original, self.implementation = original, implementation
        update_wrapper(self, original)

    def __call__(self, module: torch.nn.Module, *args: Any, **options: Any) -> Any:
        """The implementation's result, or what handlers made of it."""
        chain = [] if torch.compiler.is_compiling() else interested(module)
        if not chain:
            return self.original(module, *args, **options)

        def compute() -> Any:
            return self.original(module, *args, **options)

        call = described(self.original, self.implementation, module, args, options)
        result = own_or_changed(call, chain, compute, lambda raw: raw[0].transpose(1, 2))
        if isinstance(result, Answer):
            return result.output.transpose(1, 2).to(call.query.dtype).contiguous(), None
        return result


def seen(function: Any, implementation: str | None) -> Any:
    """An implementation whose calls handlers see."""
    return function if isinstance(function, SeenFunction) else SeenFunction(function, implementation or "eager")


@cache
def parameters_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a function's parameters."""
    return tuple(inspect.signature(function).parameters)


def described(
    function: Callable[..., Any], name: str, module: torch.nn.Module, args: tuple[Any, ...], options: dict[str, Any]
) -> AttentionCall:
    """The call of an implementation. Raises InputError for what cannot be described."""
    names = parameters_of(function)
    given = dict(zip((*OPERANDS, *names[5:]), args, strict=False)) | options
    query, key, value, mask = (given[name] for name in OPERANDS)
    if name.startswith("paged"):
        raise InputError(
            f"{type(module).__name__} attends over a paged cache (continuous batching): call the model or generate."
        )
    query, key, value = autocast(query, key, value)
    visibility, adds, filled = visibility_of(name, module, query, key, mask, given)
    key, value = key[:, :, :filled], value[:, :, :filled]
    if given.get("position_bias") is not None and (name != "eager" or "position_bias" in names):
        adds = (given["position_bias"][..., :filled], *adds)
    scale = given.get("scaling")
    return AttentionCall(
        module,
        query,
        key,
        value,
        query.shape[-1] ** -0.5 if scale is None else float(scale),
        visibility,
        adds,
        cap=None if given.get("softcap") is None or not knows(function, name, "softcap") else float(given["softcap"]),
        sink=given.get("s_aux", given.get("sinks")) if knows(function, name, "s_aux", "sinks") else None,
        dropout=float(given.get("dropout") or 0.0) if module.training or given.get("dropout") else 0.0,
        computed=computed_in(name, function, str(query.dtype).removeprefix("torch.")),
    )


def knows(function: Callable[..., Any], name: str, *words: str) -> bool:
    """Whether an implementation heeds an option; eager ones of most families do not know sinks or caps."""
    if name == "sdpa":
        return False
    if name != "eager":
        return True
    code = getattr(inspect.unwrap(function), "__code__", None)
    return bool(set(words) & {*parameters_of(function), *(() if code is None else code.co_names)})


def computed_in(name: str, function: Callable[..., Any], dtype: str) -> str:
    """The effective precision of an attention function; eager ones compute softmax in float32."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    narrow = dtype == "float64" and name == "eager" and code is not None and "float32" in code.co_names
    return "float32" if narrow else dtype


def visibility_of(
    name: str, module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, mask: Any, given: dict[str, Any]
) -> tuple[Visibility, tuple[torch.Tensor, ...], int]:
    """Which keys are visible, what the mask adds to scores, and how many of the keys are filled."""
    queries, keys = query.shape[2], key.shape[2]
    if isinstance(mask, MaskTensor) and not mask.changed:
        pattern = mask.pattern

        def rows(numbers: torch.Tensor) -> torch.Tensor:
            return pattern.row_seen(np.asarray(numbers.cpu(), np.int64)).to(numbers.device)

        visibility = Visibility(
            rows=rows, source=mask, intervals=lambda: intervals_of(pattern), rule=lambda: pattern.batch_mask
        )
        return visibility, (), pattern.stop
    if isinstance(mask, MaskTensor):
        mask = mask.dense()
    if mask is None:
        return visibility_without_mask(name, module, queries, given), (), keys
    if not isinstance(mask, torch.Tensor):  # a BlockMask
        return visible_blocks(mask, keys), (), keys
    if mask.dim() == 2:
        visible = visibility_without_mask(name, module, queries, given)
        return (
            replace(visible, tokens=mask[:, -keys:].bool(), source=mask),
            (),
            keys,
        )
    table, adds = split_table(mask if mask.shape[-1] == keys else mask[..., :keys])
    return Visibility(table=table, source=mask), adds, keys


def visibility_without_mask(name: str, module: torch.nn.Module, queries: int, given: dict[str, Any]) -> Visibility:
    """What a layer's queries see if the model gives no table."""
    if name in ("eager", "flex_attention"):
        return Visibility()
    causal = given.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    window = given.get("sliding_window")
    if name == "sdpa":
        return Visibility(causal="start" if causal and queries > 1 else None)
    if window is None or (name == NAME and not causal):
        return Visibility(causal="end" if causal and (queries > 1 or name != NAME) else None)
    return Visibility(causal="end", left=window - 1) if causal else Visibility(left=window - 1, right=window - 1)
