"""Works on a tiny model: watched, changed and trained through clearhead's attention, one at a time."""

import threading
from functools import cache
from typing import Any

import numpy as np
import torch

import clearhead
import clearhead.adapters.torch as adapter
from soaking.works import Draw, Work
from tests.tiny_models import SIZES, model_of

alone = threading.Lock()  # a watch or an intervention sees all that its model does


@cache
def model() -> Any:
    """The model of all works."""
    return model_of("llama")


def ids(draw: Draw) -> torch.Tensor:
    """A text."""
    return torch.randint(2, SIZES["vocab_size"], (1, 20), generator=torch.Generator().manual_seed(draw.seed))


def watched(draw: Draw) -> list[Any]:
    """What a model looks at while it goes on with a text."""
    path = draw.folder / "seen.safetensors"
    with alone, torch.no_grad(), clearhead.watch(model()) as seen:
        model().generate(ids(draw), max_new_tokens=3, do_sample=False, attention_mask=torch.ones(1, 20))
    seen.save(path)
    again = clearhead.load_watch(path)
    path.unlink()
    found = seen.summary("entropy", "first")
    return [again.layer(1).weights.row(3), seen.layer(0).head(2).weights.row(21), *found.answers.values()]


def changed(draw: Draw) -> list[Any]:
    """What it says when a head may not see some keys, another is left out, and one looks evenly."""
    with alone, torch.no_grad(), clearhead.intervene(model()) as change:
        change.cut(0, [1], keys=slice(draw.seed, 8))
        change.ablate(1, [2])
        change.uniform(1, [3])
        return [model()(ids(draw)).logits.numpy()]


def trained(draw: Draw) -> list[Any]:
    """Gradients through PyTorch."""
    made = draw.arrays((2, 4, 40, 16), (2, 2, 40, 16), (2, 2, 40, 16))
    q, k, v = (torch.from_numpy(x).requires_grad_() for x in made)
    out = adapter.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    out.square().sum().backward()
    return [np.asarray(x) for x in (out.detach(), q.grad, k.grad, v.grad)]


WORKS: dict[str, Work] = {work.__name__: work for work in (watched, changed, trained)}
SEEDS = {"watched": 3, "changed": 3, "trained": 3}
