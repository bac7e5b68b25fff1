"""transformers models on clearhead's kernels: importing this registers `attn_implementation="clearhead"`."""

import inspect
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from clearhead.adapters.transformers.attention import NAME, attention_forward
from clearhead.adapters.transformers.mask import mask_forward

__all__ = ["NAME", "attention_forward", "mask_forward"]


def around(function: Any) -> Any:
    """The function, around which torch.compile goes; torch.export, which cannot, goes through it."""
    options = {"reason": "clearhead reads a model's mask outside of the graph: compile without fullgraph=True"}
    told = "reason" in inspect.signature(torch.compiler.disable).parameters  # since torch 2.7
    outside = torch.compiler.disable(function, **(options if told else {}))

    def call(*args: Any, **options: Any) -> Any:
        return (function if torch.compiler.is_exporting() else outside)(*args, **options)

    return call


AttentionInterface.register(NAME, around(attention_forward))
AttentionMaskInterface.register(NAME, around(mask_forward))
