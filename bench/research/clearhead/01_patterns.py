"""What all heads look at: entropy, the first token's share and the last token's row of each."""

import torch

import clearhead
from bench.research.models import run, smollm
from bench.research.prompts import book


def answer(loaded, length):
    """Watch the pass, and ask the watch."""
    tokenizer, model = loaded
    with torch.no_grad(), clearhead.watch(model) as seen:
        model(book(tokenizer, length), logits_to_keep=1, use_cache=False)
    asked = seen.summary("entropy", "first")
    return {"entropy": asked.entropy.mean(-1), "first": asked.first.mean(-1), "last": [x.weights.row(-1) for x in seen]}


if __name__ == "__main__":
    run(smollm, answer, 256)
