"""A cache cut to half: which keys SnapKV and observed attention keep, and the loss on the text behind."""

import numpy as np
import torch
from transformers import DynamicCache

import clearhead
from bench.research.models import run, smollm
from bench.research.prompts import FOLLOWING, book
from clearhead.adapters.transformers.eviction import keep
from clearhead.eviction import h2o, most, snapkv


def observed(weights):
    """What each key receives, on average over the queries that see it."""
    return h2o(weights) / np.arange(weights.shape[-1], 0, -1)


@torch.no_grad()
def answer(loaded, length):
    """Watch the prompt, keep the best keys of each key head, and go on from the smaller cache."""
    tokenizer, model = loaded
    tokens = book(tokenizer, length + FOLLOWING)
    context, following = tokens[:, :length], tokens[:, length:]
    answers = {}
    for way, score in (("snapkv", lambda w: snapkv(w, kernel=5, pool="mean")), ("observed", observed)):
        cache = DynamicCache()
        with clearhead.watch(model) as seen:
            model.model(context, past_key_values=cache)
        kept = [most(score(layer.weights), share=0.5) for layer in seen]
        keep(cache, kept)
        logits = model(following, past_key_values=cache).logits
        answers[f"{way}_kept"] = np.stack(kept)
        answers[f"{way}_loss"] = torch.nn.functional.cross_entropy(logits[0, :-1], following[0, 1:])
    return answers


if __name__ == "__main__":
    run(smollm, answer, 512)
