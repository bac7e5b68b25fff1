"""An encoder-decoder's attention as figures: a sheet of all heads for every encoder, decoder and cross layer."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

import clearhead.adapters.transformers  # noqa: F401
from bench.research.models import bart, run
from bench.research.prompts import pair
from clearhead import plot


def answer(model, length):
    """Draw the model's own attentions, which are lazy, and ask them."""
    source, target = pair(length)
    model.set_attn_implementation("clearhead")
    with torch.no_grad():
        outputs = model(input_ids=source, decoder_input_ids=target, output_attentions=True)
    with TemporaryDirectory() as folder:
        for kind in ("encoder_attentions", "decoder_attentions", "cross_attentions"):
            for number, attention in enumerate(outputs[kind]):
                plot.save(plot.heads(attention.weights[0]), Path(folder) / f"{kind}-{number}.png")
    cross = [attention.weights[0] for attention in outputs.cross_attentions]
    return {
        "received": np.stack([weights.summary("received_mean").received_mean for weights in cross]),
        "last": np.stack([weights.row(-1) for weights in cross]),
    }


if __name__ == "__main__":
    run(bart, answer, 32)
