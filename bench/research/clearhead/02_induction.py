"""Induction scores on random tokens that come twice: how much each head looks one behind the same token."""

import numpy as np
import torch

import clearhead
from bench.research.models import run, smollm
from bench.research.prompts import repeated


def answer(loaded, length):
    """Watch the pass, and read a diagonal of each head's weights."""
    _, model = loaded
    with torch.no_grad(), clearhead.watch(model) as seen:
        model(repeated(length), logits_to_keep=1, use_cache=False)
    later = np.arange(length // 2 - 1, length)
    diagonals = [seen.layer(number).weights[:, later, later - length // 2 + 1] for number in seen.layers()]
    return {"scores": np.mean(diagonals, axis=-1)}


if __name__ == "__main__":
    run(smollm, answer, 200)
