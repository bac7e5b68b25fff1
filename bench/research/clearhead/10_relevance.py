"""Gradient × attention (Chefer, Gur & Wolf 2021): how much each token spoke for the right name."""

import torch

import clearhead.adapters.transformers  # noqa: F401
from bench.research.models import run, smollm
from bench.research.prompts import names


def answer(loaded, length):
    """Keep the gradients of the lazy weights, then R = R + mean over heads of max(A · dA, 0) R."""
    tokenizer, model = loaded
    model.get_input_embeddings().requires_grad_(True)  # or nothing has a gradient
    model.set_attn_implementation("clearhead")
    tokens, _, right, wrong = names(tokenizer, length)
    outputs = model(tokens, output_attentions=True, logits_to_keep=1)
    for weights in outputs.attentions:
        weights.retain_grad()
    (outputs.logits[0, -1, right] - outputs.logits[0, -1, wrong]).backward()
    relevance = torch.eye(tokens.shape[1])
    for weights in outputs.attentions:
        relevance = relevance + (weights.detach() * weights.grad)[0].clamp(min=0).mean(0) @ relevance
    return {"relevance": relevance[-1]}


if __name__ == "__main__":
    run(smollm, answer, 64)
