"""A cache cut to half (kvpress): which keys SnapKV and observed attention keep, and the loss on the text behind."""

import torch
from kvpress import ObservedAttentionPress, SnapKVPress
from transformers import DynamicCache

from bench.research.models import eager_smollm, run
from bench.research.prompts import FOLLOWING, book


def answer(loaded, length):
    """Presses do not tell what they keep: their scores are looked at on the way."""
    tokenizer, model = loaded
    tokens = book(tokenizer, length + FOLLOWING)
    context, following = tokens[:, :length], tokens[:, length:]
    answers = {}
    for way, attention, press in (
        ("snapkv", "sdpa", SnapKVPress(0.5, window_size=32)),
        ("observed", "eager", ObservedAttentionPress(0.5)),
    ):
        kept, score = [], press.score

        def watched(*args, score=score, kept=kept):
            scores = score(*args)
            kept.append(scores[0].topk(length // 2).indices.sort().values)
            return scores

        press.score = watched
        model.set_attn_implementation(attention)
        cache = DynamicCache()
        with torch.no_grad(), press(model):
            model.model(context, past_key_values=cache)
        model.set_attn_implementation("sdpa")
        with torch.no_grad():
            places = torch.arange(length, length + FOLLOWING)[None]
            logits = model(following, past_key_values=cache, position_ids=places).logits
        answers[f"{way}_kept"] = torch.stack(kept)
        answers[f"{way}_loss"] = torch.nn.functional.cross_entropy(logits[0, :-1], following[0, 1:])
    return answers


if __name__ == "__main__":
    run(eager_smollm, answer, 512)
