"""What each generated token was read from: attention of the position before it, by head and on average."""

import numpy as np
import torch

import clearhead
from bench.research.models import run, smollm
from bench.research.prompts import GENERATED, HEAD, opening, tokens_of


def answer(loaded, length):
    """Watch the model while it generates."""
    tokenizer, model = loaded
    prompt = tokens_of(tokenizer, opening(tokenizer, length))
    with torch.no_grad(), clearhead.watch(model) as seen:
        tokens = model.generate(prompt, **GENERATED)
    rows = slice(prompt.shape[1] - 1, None)
    weights = np.stack([seen.layer(number).weights[:, rows] for number in seen.layers()])
    weights = np.pad(weights, ((0, 0), (0, 0), (0, 0), (0, 1)))  # the last token is read by no one
    return {"mean": weights.mean((0, 1)), "head": weights[HEAD], "tokens": tokens[0]}


if __name__ == "__main__":
    run(smollm, answer, 128)
