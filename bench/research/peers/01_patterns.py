"""What all heads look at (TransformerLens): entropy, the first token's share and the last token's row of each."""

import torch
from transformer_lens.model_bridge import TransformerBridge

from bench.research.models import SMOLLM, eager_smollm, run
from bench.research.prompts import book


def answer(loaded, length):
    """Cache every pattern, and ask the patterns."""
    tokenizer, model = loaded
    bridge = TransformerBridge.boot_transformers(SMOLLM, hf_model=model, tokenizer=tokenizer)
    tokens = book(tokenizer, length)
    _, cache = bridge.run_with_cache(tokens, names_filter=lambda name: name.endswith("hook_pattern"))
    patterns = torch.stack([cache["pattern", layer][0] for layer in range(bridge.cfg.n_layers)])
    entropy = -torch.xlogy(patterns, patterns).sum(-1)
    return {"entropy": entropy.mean(-1), "first": patterns[..., 0].mean(-1), "last": patterns[..., -1, :]}


if __name__ == "__main__":
    run(eager_smollm, answer, 256)
