"""Record a loss's gradients by the outputs of attention, from which those by its weights follow.

Responsible for one forward and backward pass: what each layer's heads gave, and what a loss asks of it. A watch of the
same pass has the values; `clearhead.weight_gradients` computes gradients by weights where they are read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from clearhead.adapters.torch.attention_layers import AttentionLayer
from clearhead.adapters.torch.calls import Answer, AttentionCall
from clearhead.adapters.torch.reading import visible_of
from clearhead.arrays import Array
from clearhead.attention_weights.relevance import WeightGradients, weight_gradients
from clearhead.errors import InputError

TOLERANCE = 5e-2  # of the largest value, by which outputs of one pass may differ in 16 bits


@dataclass(eq=False)
class OutputPass:
    """The latest pass of a layer: the heads' outputs (batch, heads, queries, dv), and a loss's gradient by them."""

    output: torch.Tensor
    tokens: list[Array]  # of each sequence, which queries are not padding
    gradient: torch.Tensor | None = None

    def add(self, gradient: torch.Tensor) -> None:
        """Keep a gradient; those of several losses add up."""
        self.gradient = gradient.detach() if self.gradient is None else self.gradient + gradient.detach()


class OutputGradients:
    """The gradients of a loss by the outputs of each attention layer, recorded inside `clearhead.output_gradients`."""

    def __init__(self, layers: list[AttentionLayer]) -> None:
        self.layers = {layer.module: layer for layer in layers}
        self.passes: dict[tuple[str, int], OutputPass] = {}

    def __repr__(self) -> str:
        have = sum(one.gradient is not None for one in self.passes.values())
        return f"OutputGradients(layers={len(self.layers)}, with a gradient: {have})"

    def wants(self, module: torch.nn.Module) -> bool:
        """Whether a module is one of the model's layers."""
        return module in self.layers

    def answer(self, call: AttentionCall, compute: Callable[[], Answer]) -> Answer:
        """The model's own answer, as a tensor that the gradient passes through."""
        answer, layer = compute(), self.layers[call.module]
        if call.is_empty:
            return answer
        visible, keys = visible_of(call)
        batch, _, queries, _ = answer.output.shape
        tokens = [np.ones(queries, bool)] * batch
        if keys >= queries:
            tokens = [visible.tokens_of(row, keys)[keys - queries :] for row in range(batch)]
        self.passes[layer.part, layer.number] = latest = OutputPass(answer.output.detach(), tokens)
        if not answer.output.requires_grad:
            return answer
        output = answer.output.view_as(answer.output)
        output.register_hook(latest.add)
        return Answer(output, answer.changes)

    def by_weights(
        self, seen: Any, *, sequence: int = 0, run: int = -1, part: str | None = None
    ) -> list[WeightGradients]:
        """The loss's gradients by the weights of each layer of a watch, (heads, queries, keys), in its layers' order.

        `seen` watched the same pass. Raises InputError if there was no loss, or the watch has another pass.
        """
        shown = (seen.layer(n, sequence=sequence, run=run, part=part) for n in seen.layers(run, part=part))
        return [self.of_layer(layer, sequence) for layer in shown]

    def of_layer(self, layer: Any, sequence: int) -> WeightGradients:
        """The gradients by the weights of one watched layer."""
        latest = self.passes.get((layer.part, layer.number))
        if latest is None or latest.gradient is None:
            raise InputError(
                f"layer {layer.number} has no gradient: call backward() on a loss inside the block, of a pass that "
                "records gradients (no torch.no_grad(), and parameters that require them)."
            )
        values = layer.values
        outputs, gradients = (
            numbers(x[sequence])[list(layer.heads)][:, latest.tokens[sequence]]
            for x in (latest.output, latest.gradient)
        )
        same = outputs.shape[1] == layer.weights.shape[-2] and values.shape[1] == layer.weights.shape[-1]
        if same and outputs.shape[1]:
            wide = values.astype(np.promote_types(np.float32, values.dtype))
            expected = np.einsum("hk,hkd->hd", layer.weights.row(-1), wide)
            limit = TOLERANCE * float(np.abs(wide).max(initial=0))
            same = np.allclose(outputs[:, -1], expected, rtol=0, atol=limit)
        if not same:
            raise InputError(
                f"layer {layer.number}: the gradients are of the latest pass, over {outputs.shape[1]} tokens, and the "
                f"watch shows another, over {layer.weights.shape[-2]}: watch one pass over the whole text, together "
                "with its gradients."
            )
        return weight_gradients(gradients, values)


def numbers(x: torch.Tensor) -> Array:
    """A tensor's numbers on the processor, 16-bit ones as float32."""
    wide = torch.promote_types(x.dtype, torch.float32)
    return x.detach().to("cpu", wide).numpy()
