"""Find out whether a model uses transformers' attention interface, through which it reaches clearhead.

Judges by the names that a class or file uses. Models with attention code of their own never call an attention
implementation, whatever their config says, and would misread a boolean mask as numbers to add.
"""

import inspect
import sys
from types import FunctionType
from typing import Any

from transformers import MODEL_MAPPING

from clearhead.errors import InputError

INTERFACE = "ALL_ATTENTION_FUNCTIONS"  # its name in transformers' models
LIBRARY_MODULES = (
    "torch",
    "clearhead",
    "transformers.modeling_utils",
    "transformers.masking_utils",
    "transformers.utils",
)


def interface_method(module: Any) -> FunctionType | None:
    """The method of a layer that looks up an attention implementation."""
    for base in type(module).__mro__:
        if base.__module__.startswith(LIBRARY_MODULES):
            continue
        for method in vars(base).values():
            function = inspect.unwrap(method) if callable(method) else None
            if isinstance(function, FunctionType) and INTERFACE in function.__code__.co_names:
                return function
    return None


def takes_boolean_masks(config: Any) -> bool:
    """Whether a model takes boolean masks, as sdpa does, or (without sdpa support) numbers to add."""
    model = MODEL_MAPPING.get(type(config), None)
    kinds = model if isinstance(model, tuple | list) else (model,)
    return all(kind is None or getattr(kind, "_supports_sdpa", True) for kind in kinds)


def refuse_unsupported_model() -> None:
    """Raise InputError if the running model computes attention by code of its own."""
    frame = sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith(LIBRARY_MODULES):
        frame = frame.f_back
    name = str(frame.f_globals.get("__name__", ""))
    if name not in attention_classes:
        attention_classes[name] = own_attention_of(name, frame.f_globals)
    if owner := attention_classes[name]:
        raise InputError(
            f"{owner} computes attention by code of its own, not by transformers' attention interface, so "
            "clearhead cannot replace it: use attn_implementation='eager' for this model."
        )


attention_classes: dict[str, str] = {}


def own_attention_of(name: str, names: dict[str, Any]) -> str:
    """The attention class in a model file that does not use the interface; empty if there is none."""
    if "modeling" not in name or INTERFACE in names:
        return ""
    classes = (x.__name__ for x in names.values() if isinstance(x, type) and x.__module__ == name)
    return next((x for x in sorted(classes) if "Attention" in x), "")
