"""Gradient × attention (TransformerLens; Chefer, Gur & Wolf 2021): how much each token spoke for the right name."""

import torch
from transformer_lens.model_bridge import TransformerBridge

from bench.research.models import SMOLLM, eager_smollm, run
from bench.research.prompts import names


def answer(loaded, length):
    """Keep patterns and their gradients in hooks, then R = R + mean over heads of max(A · dA, 0) R."""
    tokenizer, model = loaded
    model.get_input_embeddings().requires_grad_(True)  # or nothing has a gradient
    bridge = TransformerBridge.boot_transformers(SMOLLM, hf_model=model, tokenizer=tokenizer)
    tokens, _, right, wrong = names(tokenizer, length)
    patterns, gradients = {}, {}

    def forward(pattern, hook):
        patterns[hook.layer()] = pattern[0].detach()

    def backward(gradient, hook):
        gradients[hook.layer()] = gradient[0]

    def wanted(name):
        return name.endswith("hook_pattern")

    with bridge.hooks(fwd_hooks=[(wanted, forward)], bwd_hooks=[(wanted, backward)]):
        logits = bridge(tokens)[0, -1]
        (logits[right] - logits[wrong]).backward()
    relevance = torch.eye(tokens.shape[1])
    for layer in range(bridge.cfg.n_layers):
        relevance = relevance + (patterns[layer] * gradients[layer]).clamp(min=0).mean(0) @ relevance
    return {"relevance": relevance[-1]}


if __name__ == "__main__":
    run(eager_smollm, answer, 64)
