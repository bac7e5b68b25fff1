"""An encoder-decoder's attention as a page (bertviz): encoder, decoder and cross attention of every head."""

import torch
from bertviz import model_view

from bench.research.models import eager_bart, run
from bench.research.prompts import pair


def answer(model, length):
    """The page that a notebook shows, as a string, and the numbers that are read from it."""
    source, target = pair(length)
    with torch.no_grad():
        outputs = model(input_ids=source, decoder_input_ids=target, output_attentions=True)
    page = model_view(
        encoder_attention=outputs.encoder_attentions, decoder_attention=outputs.decoder_attentions,
        cross_attention=outputs.cross_attentions, encoder_tokens=[str(int(n)) for n in source[0]],
        decoder_tokens=[str(int(n)) for n in target[0]], html_action="return",
    )  # fmt: skip
    cross = torch.stack(outputs.cross_attentions)[:, 0]
    return {"received": cross.mean(-2), "last": cross[..., -1, :], "bytes": len(page.data)}


if __name__ == "__main__":
    run(eager_bart, answer, 32)
