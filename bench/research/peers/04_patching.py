"""Which heads carry the name (TransformerLens): heads of a clean run put into a corrupted one, outputs and patterns."""

from itertools import product

import pandas as pd
import torch
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge

from bench.research.models import SMOLLM, eager_smollm, run
from bench.research.prompts import LAYERS, names


def answer(loaded, length):
    """Two passes for each head of three layers; 1 is the clean difference of the names' logits, 0 the corrupted one."""
    tokenizer, model = loaded
    bridge = TransformerBridge.boot_transformers(SMOLLM, hf_model=model, tokenizer=tokenizer)
    clean, corrupted, right, wrong = names(tokenizer, length)
    needed = [f"blocks.{layer}.attn.hook_{what}" for layer in LAYERS for what in ("z", "pattern")]
    clean_logits, cache = bridge.run_with_cache(clean, names_filter=needed)

    def difference(logits):
        return logits[0, -1, right] - logits[0, -1, wrong]

    top, bottom = difference(clean_logits), difference(bridge(corrupted))
    heads = pd.DataFrame(product(LAYERS, range(bridge.cfg.n_heads)), columns=["layer", "head"])
    ways = {
        "outputs": ("z", patching.layer_head_vector_patch_setter),
        "patterns": ("pattern", patching.layer_head_pattern_patch_setter),
    }
    answers = {}
    for way, (activation, setter) in ways.items():
        moved = patching.generic_activation_patch(
            bridge, corrupted, cache, lambda logits: (difference(logits) - bottom) / (top - bottom), setter,
            activation, index_df=heads,
        )  # fmt: skip
        answers[way] = torch.as_tensor(moved).reshape(len(LAYERS), -1)
    return answers


if __name__ == "__main__":
    run(eager_smollm, answer, 64)
