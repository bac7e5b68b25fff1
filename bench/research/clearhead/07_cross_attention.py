"""An encoder-decoder's attention as figures: a sheet of all heads for every encoder, decoder and cross layer."""

import torch

import clearhead
from bench.research.models import bart, run
from bench.research.prompts import pair
from clearhead import plot


def answer(model, length):
    """Watch the pass, draw its layers, and ask the cross attention."""
    source, target = pair(length)
    with torch.no_grad(), clearhead.watch(model) as seen:
        model(input_ids=source, decoder_input_ids=target)
    sheets = [plot.heads(seen.layer(n, part=part)) for part, layers in seen.parts().items() for n in layers]
    last = [seen.layer(number, part="cross").weights.row(-1) for number in seen.layers(part="cross")]
    return {"received": seen.summary("received_mean", part="cross").received_mean, "last": last, "sheets": len(sheets)}


if __name__ == "__main__":
    run(bart, answer, 32)
