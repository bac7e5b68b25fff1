"""Which of a model's layers can be watched, and whose attention a layer computes by.

Decides what is a layer of a decoder, and which attention checks what was recorded of it. Whether a layer comes to
clearhead at all is `families`' to say.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from transformers import AttentionInterface

from clearhead.adapters.transformers.attention import NAME
from clearhead.adapters.transformers.families import asking
from clearhead.errors import InputError

INSTEAD = "look at its attention by output_attentions=True with attn_implementation='eager'"


def watchable(model: torch.nn.Module, chosen: tuple[int, ...] | None) -> dict[torch.nn.Module, int]:
    """The layers to watch and their numbers: decoder layers, of which each number has one; raises InputError."""
    name = type(model).__name__
    if not hasattr(getattr(model, "config", None), "_attn_implementation"):
        raise InputError(f"{name} is no model of transformers: give one that has a config, as AutoModel makes it.")
    every = [module for module in model.modules() if asking(module)]
    if not every:
        raise InputError(
            f"{name} computes attention by code of its own, not by transformers' attention interface, so there is "
            f"nothing to watch: {INSTEAD}."
        )
    found: dict[int, torch.nn.Module] = {}
    for module in every:
        number = getattr(module, "layer_idx", None)
        if not isinstance(number, int) or not getattr(module, "is_causal", True):
            continue
        if number in found:
            kinds = f"{type(found[number]).__name__} and {type(module).__name__}"
            raise InputError(
                f"{name} has two layers {number}, {kinds}: watch a part of it that has one, as model.get_decoder(), or "
                "look at their attention by output_attentions=True with attn_implementation='clearhead'."
            )
        found[number] = module
    if not found:
        kinds = ", ".join(sorted({type(module).__name__ for module in every}))
        raise InputError(
            f"{name} has no causal layers with numbers (layer_idx) to watch, only {kinds}: look at their attention by "
            "output_attentions=True with attn_implementation='clearhead'."
        )
    missing = [] if chosen is None else [number for number in chosen if number not in found]
    if missing:
        raise InputError(f"{name} has no layers {missing} to watch: choose from {spans(sorted(found))}.")
    return {found[number]: number for number in sorted(found) if chosen is None or number in chosen}


def spans(numbers: list[int]) -> str:
    """Numbers in few words.

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
    """Every config that says by what attention some part of a model computes."""
    waiting, seen = [getattr(module, "config", None) for module in model.modules()], set()
    while waiting:
        config = waiting.pop()
        if config is None or id(config) in seen or not hasattr(config, "_attn_implementation_internal"):
            continue
        seen.add(id(config))
        yield config
        waiting += [getattr(config, name, None) for name in config.sub_configs]


def own_attention(module: torch.nn.Module, before: str | None) -> tuple[str, Callable[..., Any]]:
    """The attention that a layer had before, by name and as a function; eager where that cannot take some rows."""
    if before is not None and before != NAME and not before.startswith(("eager", "flash", "flex", "paged")):
        return before, AttentionInterface()[before]
    function = asking(module)
    names = () if function is None else function.__code__.co_names
    for name in names:  # each family has its own, under this name or a longer one
        if name.endswith("eager_attention_forward") and function is not None:
            return "eager", function.__globals__[name]
    return "eager", sys.modules[type(module).__module__].eager_attention_forward


def computed_in(own: str, function: Callable[..., Any], dtype: str) -> str:
    """The dtype that an attention function's output is right to: eager ones take the softmax in float32."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    narrow = dtype == "float64" and own == "eager" and code is not None and "float32" in code.co_names
    return "float32" if narrow else dtype
