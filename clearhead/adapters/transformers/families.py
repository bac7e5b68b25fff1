"""Which code asks transformers' attention interface, and so comes to clearhead at all.

Decides by what a class or a file names: models whose attention is written out in classes of their own never call an
attention implementation, whatever their config says, and would take a mask of truths for one of numbers.
"""

import inspect
import sys
from types import FunctionType
from typing import Any

from transformers import MODEL_MAPPING

from clearhead.errors import InputError

INTERFACE = "ALL_ATTENTION_FUNCTIONS"  # what transformers' models call it
OTHERS = ("torch", "clearhead", "transformers.modeling_utils", "transformers.masking_utils", "transformers.utils")


def asking(module: Any) -> FunctionType | None:
    """The method of a layer that asks for an attention implementation."""
    for base in type(module).__mro__:
        if base.__module__.startswith(OTHERS):
            continue
        for method in vars(base).values():
            function = inspect.unwrap(method) if callable(method) else None
            if isinstance(function, FunctionType) and INTERFACE in function.__code__.co_names:
                return function
    return None


def takes_truths(config: Any) -> bool:
    """Whether a model works on masks of truths, as sdpa takes them, or on numbers that are added, for want of sdpa."""
    model = MODEL_MAPPING.get(type(config), None)
    kinds = model if isinstance(model, tuple | list) else (model,)
    return all(kind is None or getattr(kind, "_supports_sdpa", True) for kind in kinds)


def refuse_strangers() -> None:
    """Raise InputError if what is running now is a model that computes attention by itself."""
    frame = sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith(OTHERS):
        frame = frame.f_back
    name = str(frame.f_globals.get("__name__", ""))
    if name not in known:
        known[name] = own_attention_of(name, frame.f_globals)
    if known[name]:
        raise InputError(
            f"{known[name]} computes attention by code of its own, not by transformers' attention interface, so "
            "clearhead cannot stand in for it: use attn_implementation='eager' for this model."
        )


known: dict[str, str] = {}


def own_attention_of(name: str, names: dict[str, Any]) -> str:
    """The class that computes attention in a model's file which does not ask the interface; empty if there is none."""
    if "modeling" not in name or INTERFACE in names:
        return ""
    own = (x.__name__ for x in names.values() if isinstance(x, type) and x.__module__ == name)
    return next((x for x in sorted(own) if "Attention" in x), "")
