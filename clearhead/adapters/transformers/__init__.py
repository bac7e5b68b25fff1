"""transformers models on clearhead's kernels: importing this registers `attn_implementation="clearhead"`."""

import inspect
from functools import wraps
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from clearhead.adapters.torch.dispatch import is_exporting
from clearhead.adapters.transformers.attention import NAME, attention_forward
from clearhead.adapters.transformers.attribution import Attribution, logit_attribution
from clearhead.adapters.transformers.mask import mask_forward
from clearhead.adapters.transformers.projections import output_matrices
from clearhead.adapters.transformers.shipped import small_model

__all__ = [
    "NAME",
    "Attribution",
    "attention_forward",
    "logit_attribution",
    "mask_forward",
    "output_matrices",
    "small_model",
]


def outside_compile(function: Any) -> Any:
    """Wrap a function so that torch.compile breaks the graph around it; torch.export traces through it instead."""
    options = {"reason": "clearhead reads a model's mask outside the graph: compile without fullgraph=True"}
    takes_reason = "reason" in inspect.signature(torch.compiler.disable).parameters  # since torch 2.7
    outside = torch.compiler.disable(function, **(options if takes_reason else {}))

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        return (function if is_exporting() else outside)(*args, **options)

    return call


AttentionInterface.register(NAME, outside_compile(attention_forward))
AttentionMaskInterface.register(NAME, outside_compile(mask_forward))
