"""Which heads carry the name: heads of a clean run put into a corrupted one, outputs and patterns."""

import torch

import clearhead
from bench.research.models import run, smollm
from bench.research.prompts import LAYERS, names


@torch.no_grad()
def answer(loaded, length):
    """Two passes for each head of three layers; 1 is the clean difference of the names' logits, 0 the corrupted one."""
    tokenizer, model = loaded
    clean, corrupted, right, wrong = names(tokenizer, length)

    def difference(tokens):
        logits = model(tokens, logits_to_keep=1).logits[0, -1]
        return logits[right] - logits[wrong]

    with clearhead.watch(model, layers=LAYERS) as seen:
        top = difference(clean)
    bottom = difference(corrupted)
    answers = {way: torch.zeros(len(LAYERS), model.config.num_attention_heads) for way in ("outputs", "patterns")}
    for way, moved in answers.items():
        for row, layer in enumerate(LAYERS):
            for head in range(moved.shape[1]):
                with clearhead.intervene(model) as change:
                    change.patch(layer, head, seen, values=way == "outputs")
                    moved[row, head] = (difference(corrupted) - bottom) / (top - bottom)
    return answers


if __name__ == "__main__":
    run(smollm, answer, 64)
