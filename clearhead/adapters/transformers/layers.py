"""Find the layers of a model that can be watched, and the attention that each layer used before.

Responsible for recognising decoder layers and for choosing the attention function that checks a recording. `families`
finds out whether a layer reaches clearhead at all.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from transformers import AttentionInterface

from clearhead.adapters.transformers.attention import NAME
from clearhead.adapters.transformers.families import interface_method
from clearhead.errors import InputError

ALTERNATIVE = "read its attention from output_attentions=True with attn_implementation='eager'"


def watchable(model: torch.nn.Module, chosen: tuple[int, ...] | None) -> dict[torch.nn.Module, int]:
    """The decoder layers to watch, with their unique numbers; raises InputError."""
    name = type(model).__name__
    if not hasattr(getattr(model, "config", None), "_attn_implementation"):
        raise InputError(f"{name} is not a transformers model: give one with a config, such as AutoModel creates.")
    every = [module for module in model.modules() if interface_method(module)]
    if not every:
        raise InputError(
            f"{name} computes attention by code of its own, not by transformers' attention interface, so there is "
            f"nothing to watch: {ALTERNATIVE}."
        )
    by_number: dict[int, torch.nn.Module] = {}
    for module in every:
        number = getattr(module, "layer_idx", None)
        if not isinstance(number, int) or not getattr(module, "is_causal", True):
            continue
        if number in by_number:
            kinds = f"{type(by_number[number]).__name__} and {type(module).__name__}"
            raise InputError(
                f"{name} has two layers {number}, {kinds}: watch a part with only one, such as model.get_decoder(), or "
                "read their attention from output_attentions=True with attn_implementation='clearhead'."
            )
        by_number[number] = module
    if not by_number:
        kinds = ", ".join(sorted({type(module).__name__ for module in every}))
        raise InputError(
            f"{name} has no causal layers with numbers (layer_idx) to watch, only {kinds}: read their attention from "
            "output_attentions=True with attn_implementation='clearhead'."
        )
    missing = [] if chosen is None else [number for number in chosen if number not in by_number]
    if missing:
        raise InputError(f"{name} has no layers {missing} to watch: choose from {spans(sorted(by_number))}.")
    return {by_number[number]: number for number in sorted(by_number) if chosen is None or number in chosen}


def spans(numbers: list[int]) -> str:
    """A list of numbers, with ranges shortened.

    >>> spans([0, 1, 2, 5, 7, 8])
    '0 to 2, 5, 7 to 8'
    """
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]} to {part[-1]}" for part in parts)


def configs_of(model: torch.nn.Module) -> Iterator[Any]:
    """All configs of a model that name an attention implementation."""
    waiting, seen = [getattr(module, "config", None) for module in model.modules()], set()
    while waiting:
        config = waiting.pop()
        if config is None or id(config) in seen or not hasattr(config, "_attn_implementation_internal"):
            continue
        seen.add(id(config))
        yield config
        waiting += [getattr(config, name, None) for name in config.sub_configs]


def own_attention(module: torch.nn.Module, before: str | None) -> tuple[str, Callable[..., Any]]:
    """The layer's previous attention, as name and function; eager if that one cannot compute single rows."""
    if before is not None and before != NAME and not before.startswith(("eager", "flash", "flex", "paged")):
        return before, AttentionInterface()[before]
    function = interface_method(module)
    names = () if function is None else function.__code__.co_names
    for name in names:  # each family has one, with this name or a longer one
        if name.endswith("eager_attention_forward") and function is not None:
            return "eager", function.__globals__[name]
    return "eager", sys.modules[type(module).__module__].eager_attention_forward


def computed_in(name: str, function: Callable[..., Any], dtype: str) -> str:
    """The effective precision of an attention function; eager ones compute softmax in float32."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    narrow = dtype == "float64" and name == "eager" and code is not None and "float32" in code.co_names
    return "float32" if narrow else dtype
