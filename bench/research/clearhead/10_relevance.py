"""Gradient × attention (Chefer, Gur & Wolf 2021): how much each token spoke for the right name."""

import clearhead
from bench.research.models import run, smollm
from bench.research.prompts import names


def answer(loaded, length):
    """Record queries, keys, values and the gradients of the attention's outputs: weights are looked at part by part."""
    tokenizer, model = loaded
    model.get_input_embeddings().requires_grad_(True)  # or nothing has a gradient
    tokens, _, right, wrong = names(tokenizer, length)
    with clearhead.watch(model) as seen, clearhead.output_gradients(model) as gradients:
        logits = model(tokens, logits_to_keep=1).logits[0, -1]
        (logits[right] - logits[wrong]).backward()
    return {"relevance": clearhead.relevance(seen, gradients.by_weights(seen), -1)}


if __name__ == "__main__":
    run(smollm, answer, 64)
