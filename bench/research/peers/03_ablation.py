"""What each head is worth (TransformerLens): the loss on tokens that come twice, with one head's output set to 0."""

import torch
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.utilities import get_act_name

from bench.research.models import SMOLLM, eager_smollm, run
from bench.research.prompts import LAYERS, repeated


def answer(loaded, length):
    """One pass for each head of three layers."""
    tokenizer, model = loaded
    bridge = TransformerBridge.boot_transformers(SMOLLM, hf_model=model, tokenizer=tokenizer)
    tokens = repeated(length)
    losses = torch.zeros(len(LAYERS), bridge.cfg.n_heads)
    for row, layer in enumerate(LAYERS):
        for head in range(bridge.cfg.n_heads):

            def ablate(z, hook, head=head):
                z[:, :, head] = 0
                return z

            hooks = [(get_act_name("z", layer), ablate)]
            losses[row, head] = bridge.run_with_hooks(tokens, return_type="loss", fwd_hooks=hooks)
    return {"loss": bridge(tokens, return_type="loss"), "losses": losses}


if __name__ == "__main__":
    run(eager_smollm, answer, 200)
