"""Direct logit attribution (TransformerLens): what each head's output adds to one name's logit over the other's."""

from transformer_lens.model_bridge import TransformerBridge

from bench.research.models import SMOLLM, eager_smollm, run
from bench.research.prompts import names


def answer(loaded, length):
    """Fold the norms' weights, without which the parts do not add up to the logits."""
    tokenizer, model = loaded
    bridge = TransformerBridge.boot_transformers(SMOLLM, hf_model=model, tokenizer=tokenizer)
    bridge.enable_compatibility_mode()
    tokens, _, right, wrong = names(tokenizer, length)
    logits, cache = bridge.run_with_cache(tokens)
    heads = cache.stack_head_results(layer=-1, pos_slice=-1)
    shares = cache.logit_attrs(heads, tokens=right, incorrect_tokens=wrong, pos_slice=-1)
    return {
        "difference": (logits[0, -1, right] - logits[0, -1, wrong]).detach(),
        "heads": shares.detach().reshape(bridge.cfg.n_layers, -1),
    }


if __name__ == "__main__":
    run(eager_smollm, answer, 64)
