"""Induction scores on random tokens that come twice (TransformerLens): how much looks one behind the same token."""

import torch
from transformer_lens.model_bridge import TransformerBridge

from bench.research.models import SMOLLM, eager_smollm, run
from bench.research.prompts import repeated


def answer(loaded, length):
    """Read each pattern's diagonal in a hook, so that no pattern is kept."""
    tokenizer, model = loaded
    bridge = TransformerBridge.boot_transformers(SMOLLM, hf_model=model, tokenizer=tokenizer)
    scores = torch.zeros(bridge.cfg.n_layers, bridge.cfg.n_heads)

    def score(pattern, hook):
        scores[hook.layer()] = pattern[0].diagonal(1 - length // 2, dim1=-2, dim2=-1).mean(-1)

    hooks = [(lambda name: name.endswith("hook_pattern"), score)]
    bridge.run_with_hooks(repeated(length), return_type=None, fwd_hooks=hooks)
    return {"scores": scores}


if __name__ == "__main__":
    run(eager_smollm, answer, 200)
