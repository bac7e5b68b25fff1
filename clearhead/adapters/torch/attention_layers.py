"""The attention layers of a PyTorch model: which modules compute attention where it can be seen, and their names.

Responsible for parts and numbers: modules of a part have the same path but for numbers, as `model.layers.*.self_attn`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

import torch

from clearhead.adapters.torch.intercept import SDPA, original_of
from clearhead.adapters.torch.multihead import MULTIHEAD
from clearhead.errors import InputError

VISIBLE = (SDPA, "flex_attention", "ALL_ATTENTION_FUNCTIONS", *MULTIHEAD)  # functions whose calls can be seen
LIBRARIES = (
    "torch.",
    "builtins.",
    "transformers.modeling_utils.",
    "transformers.utils.",
    "transformers.masking_utils.",
)
LABELS = {  # a part's name, and the words in its path that give it; the first one counts
    "cross": ("cross", "encoder_attn", "encdecattention", "multihead_attn", "encoder_attention"),
    "vision": ("vision", "visual", "image", "vit"),
    "audio": ("audio", "speech", "wav"),
    "text": ("language", "text"),
    "decoder": ("decoder",),
    "encoder": ("encoder",),
}
INPUTS = {"pixel_values": "vision", "pixel_values_videos": "vision", "input_values": "audio", "input_features": "audio"}


@dataclass(frozen=True, eq=False)
class AttentionLayer:
    """One module that computes attention."""

    module: torch.nn.Module
    path: str  # in the model, as `model.layers.3.self_attn`
    part: str
    number: int  # in the part


def attention_layers(model: torch.nn.Module) -> list[AttentionLayer]:
    """All layers of a model whose own code calls attention that can be seen.

    Empty where it may be called by what they hold, as by a diffusion model's processors: `layers_like` names those as
    they run. Raises InputError if nothing in the model's files calls any.
    """
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"{type(model).__name__} is not a model: give a torch.nn.Module.")
    found = {path: module for path, module in model.named_modules() if computes_visibly(module)}
    if not found and not any(may_compute(module) for module in model.modules()):
        raise InputError(
            f"{type(model).__name__} computes attention by code of its own: only attention by {SDPA}, flex_attention, "
            "nn.MultiheadAttention or transformers' attention interface can be seen. Let its layers call one of them."
        )
    return named(found, model, [])


def known_layers(model: torch.nn.Module) -> list[AttentionLayer]:
    """`attention_layers`, for those who need them before the model runs; raises InputError if none is known by then."""
    layers = attention_layers(model)
    if not layers:
        raise InputError(
            f"{type(model).__name__} calls attention by what its modules hold, so its layers are known only as they "
            "run and cannot be changed or attributed: look at them with clearhead.watch(model)."
        )
    return layers


def layers_like(model: torch.nn.Module, module: torch.nn.Module, known: list[AttentionLayer]) -> list[AttentionLayer]:
    """A module of a model that calls attention unexpectedly, and those in the same place of other blocks."""
    paths = {other: path for path, other in model.named_modules()}
    place = pattern_of(paths[module])
    found = {path: m for m, path in paths.items() if type(m) is type(module) and pattern_of(path) == place}
    return named(found, model, known)


def named(
    found: dict[str, torch.nn.Module], model: torch.nn.Module, known: list[AttentionLayer]
) -> list[AttentionLayer]:
    """Modules with names of parts and numbers that no known layer has."""
    patterns: dict[str, list[str]] = {}
    for path in found:
        patterns.setdefault(pattern_of(path), []).append(path)
    owners = {path: owner for path, owner in model.named_modules() if hasattr(owner, "main_input_name")}
    parts = labels({pattern: found[paths[0]] for pattern, paths in patterns.items()}, owners)
    layers: list[AttentionLayer] = []
    for pattern, paths in patterns.items():
        numbers = layer_numbers(paths, [found[path] for path in paths])
        part = parts[pattern]
        if any(other.part == part and other.number in numbers for other in (*known, *layers)):
            part = pattern
        layers += [AttentionLayer(found[path], path, part, n) for path, n in zip(paths, numbers, strict=True)]
    return layers


NUMBER = r"(?:(?<![^.])|(?<=_))\d+(?![^.])"  # in a path, as in layers.3.attention or layer_3.attention


def pattern_of(path: str) -> str:
    """A path without its numbers."""
    return re.sub(NUMBER, "*", path)


def refuse_missing(
    model: torch.nn.Module,
    layers: list[AttentionLayer],
    chosen: tuple[int, ...] | None,
    only: tuple[str, ...] | None,
) -> None:
    """Raise InputError for numbers of layers and names of parts that a model has not."""
    if not layers:  # they are found as the model runs, and missing ones told at the end
        return
    name, parts = type(model).__name__, list(dict.fromkeys(layer.part for layer in layers))
    unknown = [part for part in only or () if part not in parts]
    if unknown:
        raise InputError(f"{name} has no part {', '.join(unknown)}: choose from {', '.join(parts)}.")
    numbers = {layer.number for layer in layers if only is None or layer.part in only}
    repeated = getattr(getattr(model, "config", None), "num_hidden_layers", 0)  # layers that run several times
    missing = [n for n in chosen or () if n not in numbers and not 0 <= n < repeated]
    if missing:
        raise InputError(f"{name} has no layers {missing} to watch: choose from {spans(sorted(numbers))}.")


def labels(patterns: dict[str, torch.nn.Module], owners: dict[str, torch.nn.Module]) -> dict[str, str]:
    """The name of each part, from the words in its path, and from what the transformers model that it is in takes."""
    names = {pattern: label(pattern, module) for pattern, module in patterns.items()}
    inside = {
        pattern: max(
            (path for path in owners if not path or f"{pattern}.".startswith(f"{path}.")), key=len, default=None
        )
        for pattern in patterns
    }
    for pattern, path in inside.items():
        if path is None:
            continue
        both = bool(getattr(getattr(owners[path], "config", None), "is_encoder_decoder", False))
        beside = {names[other] for other, its in inside.items() if its == path}
        taken = INPUTS.get(getattr(owners[path], "main_input_name", ""))
        if both and names[pattern] in ("text", "audio"):
            names[pattern] = next((name for name in ("decoder", "encoder") if name in pattern), names[pattern])
        elif taken is not None and not both and beside <= {"self", "encoder", taken}:
            names[pattern] = taken
    return names


def label(pattern: str, module: torch.nn.Module) -> str:
    """The name of a part, from the words in its path."""
    if getattr(module, "is_cross_attention", False) is True:
        return "cross"
    words = pattern.lower()
    usual = "decoder" if getattr(module, "is_causal", False) is True else "self"
    return next((name for name, parts in LABELS.items() if any(part in words for part in parts)), usual)


def layer_numbers(paths: list[str], modules: list[torch.nn.Module]) -> list[int]:
    """The layers' own numbers (layer_idx), the first numbers of their paths, or their order, whichever are distinct."""
    own = [getattr(module, "layer_idx", None) for module in modules]
    first = [int(numbers[0]) if (numbers := re.findall(NUMBER, path)) else None for path in paths]
    for numbers in (own, first):
        if len(set(numbers)) == len(paths) and all(isinstance(n, int) for n in numbers):
            return [int(n) for n in numbers if n is not None]
    return list(range(len(paths)))


def computes_visibly(module: torch.nn.Module) -> bool:
    """Whether a module's own code names a function whose calls can be seen, or is torch's attention layer."""
    if isinstance(module, torch.nn.MultiheadAttention):
        return True
    return any(names_attention(f.__code__, f.__globals__) for f in methods_of(type(module)) if f.__name__ != "__init__")


def may_compute(module: torch.nn.Module) -> bool:
    """Whether what a module holds, or is made with, names such a function."""
    held = [x for x in vars(module).values() if callable(x) and not isinstance(x, torch.nn.Module | torch.Tensor)]
    functions = [f for x in held for f in ([x] if isinstance(x, FunctionType) else methods_of(type(x)))]
    functions += [f for f in methods_of(type(module)) if f.__name__ == "__init__"]
    return any(names_attention(f.__code__, f.__globals__) for f in functions)


def methods_of(kind: type) -> Iterator[FunctionType]:
    """The functions of a class, without those of libraries."""
    for base in kind.__mro__:
        if not f"{base.__module__}.".startswith(LIBRARIES):
            for method in vars(base).values():
                function = inspect.unwrap(method) if callable(method) else None
                if isinstance(function, FunctionType):
                    yield function


def names_attention(code: CodeType, names: dict[str, Any], depth: int = 2) -> bool:
    """Whether code, or a function of the same file that it calls, names a function whose calls can be seen."""
    for name in code.co_names:
        value = names.get(name)
        if name in VISIBLE or (callable(value) and getattr(original_of(value), "__name__", "") in VISIBLE):
            return True
        if (
            depth
            and isinstance(value, FunctionType)
            and value.__globals__ is names
            and names_attention(value.__code__, names, depth - 1)
        ):
            return True
    return any(isinstance(part, CodeType) and names_attention(part, names, depth) for part in code.co_consts)


def spans(numbers: Iterable[int]) -> str:
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
