"""What each generated token was read from: attention of the position before it, by head and on average."""

import numpy as np

import clearhead
from bench.research.models import run, smollm
from bench.research.prompts import GENERATED, HEAD, opening, tokens_of


def answer(loaded, length):
    """Watch the model while it generates."""
    tokenizer, model = loaded
    prompt = tokens_of(tokenizer, opening(tokenizer, length))
    with clearhead.watch(model) as seen:
        tokens = model.generate(prompt, **GENERATED)
    weights = np.stack([layer.weights[:, prompt.shape[1] - 1 :] for layer in seen])
    return {"mean": weights.mean((0, 1)), "head": weights[HEAD], "tokens": tokens[0]}


if __name__ == "__main__":
    run(smollm, answer, 128)
