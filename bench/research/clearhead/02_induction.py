"""Induction scores on random tokens that come twice: how much each head looks one behind the same token."""

import numpy as np
import torch

import clearhead
from bench.research.models import run, smollm
from bench.research.prompts import repeated


def answer(loaded, length):
    """Watch the pass, and ask for the weight half the text and one token back, from the second half on."""
    _, model = loaded
    with torch.no_grad(), clearhead.watch(model) as seen:
        model(repeated(length), logits_to_keep=1, use_cache=False)
    places, later = np.arange(length), slice(length // 2 - 1, None)
    behind = {"behind": (places - length // 2 + 1, places)}
    return {"scores": seen.summary("matches", matches=behind, queries=later).matches[..., 0].mean(-1)}


if __name__ == "__main__":
    run(smollm, answer, 200)
