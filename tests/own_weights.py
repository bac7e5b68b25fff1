"""The attention weights of a running PyTorch model by other means than a watch's, and a comparison with what it shows.

A transformers model gives them on eager attention. Where a model calls torch's functions, these are replaced by their
documentation's formulas.
"""

from collections import Counter
from contextlib import ExitStack, contextmanager
from unittest import mock

import numpy as np
import torch
from torch.nn import functional
from torch.nn.attention import flex_attention as flex
from torch.nn.attention.bias import CausalBias

from clearhead.adapters.torch.attention_layers import attention_layers


@contextmanager
def own_weights(model, layers=None):
    """Collect the weights of each pass, {(part, number): [(batch, heads, queries, keys), …]}."""
    layers = found if (found := list(layers or ())) else attention_layers(model)
    known, running, taken = {layer.module: layer for layer in layers}, [], {}
    counts = Counter(layer.part for layer in layers)
    calls = Counter()

    def begins(module, *_):
        running.append([module, None])

    def ends(module, args, output):
        _, weights = running.pop()
        if isinstance(output, tuple):
            given = [x for x in output if isinstance(x, torch.Tensor) and x.dim() == 4 and rows_are_shares(x)]
            parts = given and len({x.shape[:-1] for x in given}) == 1 and rows_are_shares(torch.cat(given, -1))
            weights = weights or ([torch.cat(given, -1)] if parts else given[:1])
        layer = known[module]
        for one in weights or ():
            place = layer.part, layer.number + calls[module] * counts[layer.part]
            taken.setdefault(place, []).append(one.detach().clone())
            calls[module] += 1

    def passes(module, _):
        for layer in set(module.modules()) & set(known):
            calls[layer] = 0

    def take(weights):
        running[-1][1] = [*(running[-1][1] or ()), weights]

    with ExitStack() as stack:
        for module in model.modules():
            if module is model or hasattr(module, "main_input_name"):
                stack.callback(module.register_forward_pre_hook(passes).remove)
        for module in known:
            stack.callback(module.register_forward_pre_hook(begins).remove)
            stack.callback(module.register_forward_hook(ends).remove)
        for namespace, name, formula in (
            (functional, "scaled_dot_product_attention", sdpa(take)),
            (functional, "multi_head_attention_forward", multihead(take)),
            (flex, "flex_attention", flexible(take)),
        ):
            stack.enter_context(mock.patch.object(namespace, name, formula))
        fast = torch.backends.mha.get_fastpath_enabled()
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        torch.backends.mha.set_fastpath_enabled(False)
        yield taken


def rows_are_shares(x):
    """Whether the rows of a tensor sum to at most 1, as weights do, and some to more than 0."""
    sums = x.detach().double().sum(-1)
    return bool((x >= 0).all() and (sums < 1 + 1e-2).all() and (sums > 0).any())


def sdpa(take):
    """`scaled_dot_product_attention` by the formula of its documentation."""

    def formula(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        scores = query.double() @ grouped(key, query, enable_gqa).double().mT
        scores = scores * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -torch.inf)
        if isinstance(attn_mask, CausalBias):  # queries are the last
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril(scores.shape[-1] - scores.shape[-2])
        if attn_mask is not None and attn_mask.dtype is torch.bool:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        weights = scores.softmax(-1).nan_to_num()
        take(weights[:, None] if weights.dim() == 3 else weights.reshape(-1, *weights.shape[-3:]))
        return (weights @ grouped(value, query, enable_gqa).double()).to(query.dtype)

    return formula


def grouped(x, query, enabled):
    """Key heads repeated for the query heads that share them."""
    return x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) if enabled else x


def multihead(take, original=functional.multi_head_attention_forward):
    """`multi_head_attention_forward`, asked for each head's weights."""

    def formula(*args, need_weights=True, average_attn_weights=True, is_causal=False, **options):
        output, weights = original(*args, **options, need_weights=True, average_attn_weights=False)
        take(weights if weights.dim() == 4 else weights[None])
        shown = weights.mean(-3) if average_attn_weights else weights
        return output, shown if need_weights else None

    return formula


def flexible(take):
    """`flex_attention`, pair by pair."""

    def formula(query, key, value, score_mod=None, block_mask=None, scale=None, enable_gqa=False, **options):
        scores = query.double() @ grouped(key, query, enable_gqa).double().mT
        scores = scores * (query.shape[-1] ** -0.5 if scale is None else scale)
        b, h, q, k = (
            torch.arange(size).reshape([-1 if axis == own else 1 for own in range(4)])
            for axis, size in enumerate(scores.shape)
        )
        if score_mod is not None:
            scores = score_mod(scores, b, h, q, k)
        if block_mask is not None:
            scores = scores.masked_fill(~block_mask.mask_mod(b, h, q, k), -torch.inf)
        weights = scores.softmax(-1).nan_to_num()
        take(weights)
        return (weights @ grouped(value, query, enable_gqa).double()).to(query.dtype)

    return formula


def difference(a, b):
    """The largest difference between two arrays."""
    return float(np.abs(a - b).max(initial=0))


def apart(seen, expected, pads=None, run=-1, unlike=difference):
    """The largest difference between all that a watch shows and the weights expected, pass by pass.

    `pads` are masks of padding (batch, length) of what the first pass was given, by part; "" stands for other parts.
    """
    recorded = {(part, number) for part, numbers in seen.parts(run).items() for number in numbers}
    assert recorded and recorded >= set(expected), f"recorded {sorted(recorded)}, expected {sorted(expected)}"
    worst = 0.0
    for part, number in sorted(recorded):
        for sequence in range(seen.runs[run].records[part, number].sequences):
            shown = np.asarray(seen.layer(number, sequence=sequence, run=run, part=part).weights)
            if (part, number) not in expected:  # the watch's own check of outputs is the judge
                continue
            passes = [x[sequence].double().numpy() for x in expected[part, number]]
            pad = (pads or {}).get(part, (pads or {}).get(""))
            pad = np.ones(0, bool) if pad is None else np.asarray(pad[sequence], bool)
            want = joined(passes, pad, part == "cross")
            assert shown.shape == want.shape, f"layer {number} of {part}: {shown.shape}, expected {want.shape}"
            worst = max(worst, unlike(shown, want))
    return worst


def joined(passes, pad, crosses):
    """The weights of several passes (heads, queries, keys) as those of one text, without its padding."""
    queries, keys = (np.ones(n, bool) for n in passes[0].shape[1:])
    if len(pad) == len(keys):
        queries, keys = queries if crosses or len(pad) != len(queries) else pad, pad
    if len(passes) > 1 and not crosses:  # each pass adds keys
        keys = np.concatenate([queries, np.ones(sum(x.shape[1] for x in passes[1:]), bool)])
    number, rows, known = np.cumsum(keys) - 1, [], 0
    for weights in passes:
        known = len(keys) if crosses or len(passes) == 1 else known + weights.shape[1]
        weights = weights[..., :known]  # a static cache has room for more
        own = np.arange(known - weights.shape[2], known)  # a sliding one holds the last
        row = np.zeros((*weights.shape[:2], int(keys.sum())))
        row[..., number[own[keys[own]]]] = weights[..., keys[own]]
        rows.append(row if rows else row[:, queries])
    return np.concatenate(rows, 1)
