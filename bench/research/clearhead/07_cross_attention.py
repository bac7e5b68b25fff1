"""An encoder-decoder's cross attention: what each source token receives from each head, and the last row."""

import numpy as np
import torch

import clearhead.adapters.transformers  # noqa: F401
from bench.research.models import bart, run
from bench.research.prompts import pair


def answer(model, length):
    """Ask the model's own tuple of attentions, which is lazy."""
    source, target = pair(length)
    model.set_attn_implementation("clearhead")
    with torch.no_grad():
        outputs = model(input_ids=source, decoder_input_ids=target, output_attentions=True)
    cross = [attention.weights[0] for attention in outputs.cross_attentions]
    return {
        "received": np.stack([weights.summary("received_mean").received_mean for weights in cross]),
        "last": np.stack([weights.row(-1) for weights in cross]),
    }


if __name__ == "__main__":
    run(bart, answer, 32)
