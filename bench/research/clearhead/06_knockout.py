"""Where the last token reads the names: its edges to one name cut in five layers at a time."""

import torch

import clearhead
from bench.research.models import run, smollm
from bench.research.prompts import GIVEN, names


@torch.no_grad()
def answer(loaded, length):
    """One pass for each name and five layers."""
    tokenizer, model = loaded
    tokens, _, right, wrong = names(tokenizer, length)

    def difference():
        logits = model(tokens, logits_to_keep=1).logits[0, -1]
        return logits[right] - logits[wrong]

    starts = range(0, model.config.num_hidden_layers, 5)
    differences = torch.zeros(len(GIVEN), len(starts))
    for row, key in enumerate(GIVEN.values()):
        for column, start in enumerate(starts):
            with clearhead.intervene(model) as change:
                change.cut(list(range(start, start + 5)), queries=-1, keys=key)
                differences[row, column] = difference()
    return {"difference": difference(), "differences": differences}


if __name__ == "__main__":
    run(smollm, answer, 64)
