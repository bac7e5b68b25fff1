"""What each head is worth: the loss on tokens that come twice, with one head's output set to 0."""

import torch

import clearhead
from bench.research.models import run, smollm
from bench.research.prompts import LAYERS, repeated


@torch.no_grad()
def answer(loaded, length):
    """One pass for each head of three layers."""
    _, model = loaded
    tokens = repeated(length)
    losses = torch.zeros(len(LAYERS), model.config.num_attention_heads)
    for row, layer in enumerate(LAYERS):
        for head in range(model.config.num_attention_heads):
            with clearhead.intervene(model) as change:
                change.ablate(layer, head)
                losses[row, head] = model(tokens, labels=tokens).loss
    return {"loss": model(tokens, labels=tokens).loss, "losses": losses}


if __name__ == "__main__":
    run(smollm, answer, 200)
