"""Where the last token reads the names (nnsight): its edges to one name cut in five layers at a time."""

import torch
from nnsight import TransformersModel

from bench.research.models import eager_smollm, run
from bench.research.prompts import GIVEN, names


def answer(loaded, length):
    """One pass for each name and five layers, with -inf in a copy of their mask."""
    tokenizer, model = loaded
    lens = TransformersModel(model, tokenizer=tokenizer, task="text-generation")
    tokens, _, right, wrong = names(tokenizer, length)
    starts = range(0, len(lens.model.layers), 5)
    differences = torch.zeros(len(GIVEN), len(starts))
    for row, key in enumerate(GIVEN.values()):
        for column, start in enumerate(starts):
            with torch.no_grad(), lens.trace(tokens):
                for layer in lens.model.layers[start : start + 5]:
                    call = layer.self_attn.source.attention_interface_1
                    args, kwargs = call.inputs
                    mask = args[4].clone()
                    mask[..., -1, key] = -torch.inf
                    call.inputs = ((*args[:4], mask), kwargs)
                logits = lens.lm_head.output[0, -1].save()
            differences[row, column] = logits[right] - logits[wrong]
    with torch.no_grad(), lens.trace(tokens):
        logits = lens.lm_head.output[0, -1].save()
    return {"difference": logits[right] - logits[wrong], "differences": differences}


if __name__ == "__main__":
    run(eager_smollm, answer, 64)
