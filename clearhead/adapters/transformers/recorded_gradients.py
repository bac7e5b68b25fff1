"""Record a loss's gradients by the outputs of a model's heads, from which those by its weights follow.

Responsible for listening to output projections during one forward and backward pass, and for checking that what they
take is what a watch recorded. `clearhead.weight_gradients` computes gradients by weights where they are read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from clearhead.adapters.transformers.layers import watchable
from clearhead.adapters.transformers.projections import head_count, numbers, projection
from clearhead.arrays import Array
from clearhead.attention_weights.relevance import WeightGradients, weight_gradients
from clearhead.errors import InputError, TrustError

TOLERANCE = 1e-3  # of the largest output; a model's own attention may have rounded it to 16 bits


@contextmanager
def output_gradients(model: torch.nn.Module) -> Iterator["OutputGradients"]:
    """Record a loss's gradients by the heads' outputs, while the model runs and the loss goes backward in the block.

    Needs as much memory as the heads' outputs of one pass, O(n). Raises InputError for a model without causal attention
    layers that have numbers.

        with clearhead.watch(model) as seen, output_gradients(model) as recorded:
            model(**tokens).logits[0, -1, paris].backward()
        clearhead.relevance(seen, recorded.by_weights(seen), queries=-1)  # of each token
    """
    recorded, hooks = OutputGradients(), []
    try:
        for module, number in watchable(model, None).items():
            linear = projection(module)[1]
            hooks.append(linear.register_forward_pre_hook(recorded.listen(number, head_count(module))))
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(eq=False)
class OutputGradients:
    """The heads' outputs of the latest pass, each (batch, tokens, heads, dv), and a loss's gradients by them."""

    outputs: dict[int, torch.Tensor] = field(default_factory=dict)  # by the layers' numbers
    gradients: dict[int, torch.Tensor] = field(default_factory=dict)

    def listen(self, number: int, heads: int) -> Any:
        """Hook before a layer's output projection."""

        def hook(_: Any, args: tuple[torch.Tensor, ...]) -> None:
            x = args[0]
            self.gradients.pop(number, None)
            self.outputs[number] = x.detach().reshape(*x.shape[:2], heads, -1)
            if x.requires_grad:
                x.register_hook(keep)

        def keep(gradient: torch.Tensor) -> None:
            own = gradient.detach().reshape(self.outputs[number].shape)
            self.gradients[number] = own + self.gradients.get(number, 0)

        return hook

    def by_weights(self, seen: Any, *, sequence: int = 0, run: int = -1) -> list[WeightGradients]:
        """The loss's gradients by the weights of each layer of a watch, (heads, queries, keys), in its layers' order.

        `seen` watched the same pass. Raises InputError without a loss's gradient, or if a layer saw more than one pass;
        TrustError where the projection takes something else than weights times values, as with a gate between.
        """
        return [
            self.of_layer(seen.layer(number, sequence=sequence, run=run), number, sequence)
            for number in seen.layers(run)
        ]

    def of_layer(self, layer: Any, number: int, sequence: int) -> WeightGradients:
        """The gradients by the weights of one watched layer."""
        queries, values = layer.weights.shape[-2], layer.values
        if number not in self.gradients:
            raise InputError(
                f"layer {number} has no gradient: call backward() on a loss inside the block, of a pass that records "
                "gradients (no torch.no_grad(), and parameters that require them)."
            )
        if self.gradients[number].shape[1] < queries:
            raise InputError(
                f"layer {number} has gradients of {self.gradients[number].shape[1]} tokens and weights of {queries}: "
                "watch one pass over the whole text."
            )
        heads = list(layer.heads)
        outputs, gradients = (of_sequence(x[number][sequence], queries, heads) for x in (self.outputs, self.gradients))
        expected = np.einsum("hk,hkd->hd", layer.weights.row(-1), values)
        if not np.allclose(outputs[:, -1], expected, rtol=0, atol=TOLERANCE * float(np.abs(values).max(initial=0))):
            raise TrustError(
                f"layer {number}: its output projection does not take weights times values, so gradients by weights do "
                "not follow from those by what it takes. Use attn_implementation='eager', output_attentions=True and "
                "retain_grad() for this model."
            )
        return weight_gradients(gradients, values)


def of_sequence(x: torch.Tensor, queries: int, heads: list[int]) -> Array:
    """The last tokens of a sequence, whose padding is on the left, and some of the heads: (heads, queries, dv)."""
    return np.ascontiguousarray(numbers(x[len(x) - queries :, heads]).swapaxes(0, 1))
