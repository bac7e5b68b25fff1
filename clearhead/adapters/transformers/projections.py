"""Find the output projection W_O of each attention layer of a model, and read it as one matrix for each head."""

from typing import Any

import numpy as np
import torch
from transformers.pytorch_utils import Conv1D

from clearhead.adapters.torch.attention_layers import known_layers
from clearhead.adapters.torch.loss_gradients import numbers
from clearhead.arrays import Array
from clearhead.errors import InputError
from clearhead.watched.run import usual_part

NAMES = ("o_proj", "c_proj", "out_proj", "dense", "wo", "Wo")  # what families call it


def output_matrices(model: torch.nn.Module) -> dict[int, Array]:
    """The output matrix W_O of each attention layer of a model, by its number in a watch: (heads, dv, model dim).

    A head writes y W_O for its weighted values y, as `clearhead.head_outputs` computes it, and the layer adds the
    projection's bias. The layers are those that a watch shows without `part=`; the matrices are copies, of float32 or
    float64. Raises InputError for a model whose attention cannot be seen, or whose output projections are not linear.

        W_O = output_matrices(model)
        clearhead.head_outputs(seen.layer(5), seen.layer(5).values, W_O[5], queries=-1)
    """
    parents = {child: parent for parent in model.modules() for child in parent.children()}
    found = {}
    for module, number in usual_layers(model).items():
        beside = getattr(getattr(parents.get(module), "output", None), "dense", None)  # as BERT and its kin have it
        linear = beside if isinstance(beside, torch.nn.Linear) else projection(module)[1]
        found[number] = heads_of(module, linear)
    return found


def usual_layers(model: torch.nn.Module) -> dict[torch.nn.Module, int]:
    """The attention layers that a watch of the model shows if no part is named, with their numbers."""
    layers = known_layers(model)
    part = usual_part(layer.part for layer in layers)
    return {layer.module: layer.number for layer in sorted(layers, key=lambda x: x.number) if layer.part == part}


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


def heads_of(module: torch.nn.Module, linear: torch.nn.Module) -> Array:
    """The matrix of an attention layer's output projection, one for each head: (heads, dv, model dim)."""
    weight: Any = linear.weight
    matrix = weight.detach() if isinstance(linear, Conv1D) else weight.detach().T
    count = head_count(module)
    if len(matrix) % count:
        raise InputError(
            f"the output projection of {type(module).__name__} takes {len(matrix)} numbers, which {count} heads do not "
            "share evenly: its heads' outputs cannot be told apart."
        )
    return np.ascontiguousarray(numbers(matrix).reshape(count, -1, matrix.shape[1]))


def head_count(module: Any) -> int:
    """How many query heads an attention layer has."""
    own = getattr(module, "num_heads", getattr(module, "num_attention_heads", None))
    return own if isinstance(own, int) else int(module.config.num_attention_heads)
