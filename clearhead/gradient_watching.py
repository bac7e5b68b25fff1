"""`clearhead.output_gradients`: record a loss's gradients by a model's attention while it runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clearhead.observing import observing


@contextmanager
def output_gradients(model: Any) -> Iterator[Any]:
    """Record a loss's gradients by the outputs of a PyTorch model's attention layers, inside the block.

    `by_weights(seen)` of what is recorded gives the gradients by the weights of a watch of the same pass, lazily. The
    model computes as always; kept are its layers' latest outputs and their gradients, O(n). Raises InputError for a
    model whose attention cannot be seen, as `watch` does.

        with clearhead.watch(model) as seen, clearhead.output_gradients(model) as recorded:
            model(**tokens).logits[0, -1, paris].backward()
        clearhead.relevance(seen, recorded.by_weights(seen), queries=-1)  # of each token
    """
    from clearhead.adapters.torch.attention_layers import known_layers
    from clearhead.adapters.torch.loss_gradients import OutputGradients

    recorded = OutputGradients(known_layers(model))
    with observing(model, recorded):
        yield recorded
