"""Find the output projection W_O of each attention layer of a model, and read it as one matrix for each head."""

from typing import Any

import numpy as np
import torch
from transformers.pytorch_utils import Conv1D

from clearhead.adapters.transformers.layers import watchable
from clearhead.arrays import Array
from clearhead.errors import InputError

NAMES = ("o_proj", "c_proj", "out_proj", "dense", "wo", "Wo")  # what families call it


def output_matrices(model: torch.nn.Module) -> dict[int, Array]:
    """The output matrix W_O of each attention layer of a transformers model, by its number: (heads, dv, model dim).

    A head writes y W_O for its weighted values y, as `clearhead.head_outputs` computes it, and the layer adds the
    projection's bias. The matrices are copies, of float32 or float64. Raises InputError for a model without causal
    attention layers that have numbers, or with output projections that are not linear.

        W_O = output_matrices(model)
        clearhead.head_outputs(seen.layer(5), seen.layer(5).values, W_O[5], queries=-1)
    """
    return {number: heads_of(module) for module, number in watchable(model, None).items()}


def projection(module: torch.nn.Module) -> tuple[str, torch.nn.Module]:
    """The output projection of an attention layer, and its name there."""
    for name in NAMES:
        if isinstance(child := getattr(module, name, None), torch.nn.Linear | Conv1D):
            return name, child
    children = ", ".join(f"{name} ({type(child).__name__})" for name, child in module.named_children())
    raise InputError(
        f"{type(module).__name__} has no linear output projection called {', '.join(NAMES)}, only {children}: give its "
        "matrix to clearhead.head_outputs yourself, as W_O of shape (heads, dv, model dim)."
    )


def heads_of(module: torch.nn.Module) -> Array:
    """The output matrix of an attention layer, one for each head: (heads, dv, model dim)."""
    name, linear = projection(module)
    weight: Any = linear.weight
    matrix = weight.detach() if isinstance(linear, Conv1D) else weight.detach().T
    count = head_count(module)
    if len(matrix) % count:
        raise InputError(
            f"{type(module).__name__}.{name} takes {len(matrix)} numbers, which {count} heads do not share evenly: its "
            "heads' outputs cannot be told apart."
        )
    return np.ascontiguousarray(numbers(matrix).reshape(count, -1, matrix.shape[1]))


def head_count(module: Any) -> int:
    """How many query heads an attention layer has."""
    own = getattr(module, "num_heads", None)
    return own if isinstance(own, int) else int(module.config.num_attention_heads)


def numbers(x: torch.Tensor) -> Array:
    """A tensor's numbers on the processor, 16-bit ones as float32."""
    wide = torch.promote_types(x.dtype, torch.float32)
    return x.detach().to("cpu", wide).numpy()
