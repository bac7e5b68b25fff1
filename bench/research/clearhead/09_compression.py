"""A cache cut to half: which keys SnapKV and observed attention keep, and the loss on the text behind."""

import numpy as np
import torch
from transformers import DynamicCache

import clearhead
from bench.research.models import run, smollm
from bench.research.prompts import FOLLOWING, book


def snapkv(weights, window=32):
    """What the last queries give each key on average, smoothed over five keys; those queries' own keys stay."""
    given = weights.summary("received_sum", queries=slice(-window, None)).received_sum[:, :-window] / window
    smooth = np.apply_along_axis(np.convolve, -1, given, np.full(5, 0.2, given.dtype), "same")
    return np.pad(smooth, ((0, 0), (0, window)), constant_values=2)


def observed(weights):
    """What each key receives, on average over the queries that see it."""
    received = weights.summary("received_sum").received_sum
    return received / np.arange(received.shape[-1], 0, -1)


def answer(loaded, length):
    """Watch the prompt, keep the best keys of each key head, and go on from the smaller cache."""
    tokenizer, model = loaded
    tokens = book(tokenizer, length + FOLLOWING)
    context, following = tokens[:, :length], tokens[:, length:]
    full = DynamicCache()
    with torch.no_grad(), clearhead.watch(model) as seen:
        model.model(context, past_key_values=full)
    answers = {}
    for score in (snapkv, observed):
        cache, kept = DynamicCache(), []
        for number, layer in enumerate(full.layers):
            _, heads, _, dim = layer.keys.shape
            scores = score(seen.layer(number).weights).reshape(heads, -1, length).mean(1)
            kept.append(np.sort(np.argsort(-scores, axis=-1, kind="stable")[:, : length // 2]))
            at = torch.from_numpy(kept[-1])[None, :, :, None].expand(-1, -1, -1, dim)
            cache.update(layer.keys.gather(2, at), layer.values.gather(2, at), number)
        with torch.no_grad():
            places = torch.arange(length, length + FOLLOWING)[None]
            logits = model(following, past_key_values=cache, position_ids=places).logits
        answers[f"{score.__name__}_kept"] = np.stack(kept)
        answers[f"{score.__name__}_loss"] = torch.nn.functional.cross_entropy(logits[0, :-1], following[0, 1:])
    return answers


if __name__ == "__main__":
    run(smollm, answer, 512)
