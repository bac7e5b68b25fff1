"""Which weights does an answer rest on? One backward pass estimates what each would be missed by.

pip install 'clearhead[transformers]'
python examples/interventions/edge_attribution.py

Every weight of the last query is multiplied by a factor of 1. What the preference gains by a factor's growing is what
it would lose, to first order, by the weight's going: attribution patching of edges (Syed et al. 2023), without a
matrix. The largest are then really removed.
"""

import small_model
import torch

import clearhead


def main():
    """Print the largest attributions, and what removing those weights does."""
    model, tokens = small_model.load(), small_model.prompt("Elizabeth")
    model.requires_grad_(False)
    factors = [torch.ones(small_model.HEADS, 1, tokens.shape[1], requires_grad=True) for _ in range(small_model.LAYERS)]
    with clearhead.intervene(model) as change:
        for layer, factor in enumerate(factors):
            change.scale(layer, None, factor, queries=[-1])
        plain = small_model.preference(model, tokens, "Elizabeth", "Jane")
        plain.backward()
    attributions = torch.stack([factor.grad[:, 0] for factor in factors])  # (layers, heads, keys)
    print(f"'Elizabeth' rather than 'Jane' by {plain:.2f} nats. The last token's weights that matter most:")
    print("layer head key          estimated  removed")
    for n in attributions.abs().flatten().topk(6).indices.tolist():
        layer, rest = divmod(n, attributions[0].numel())
        head, key = divmod(rest, tokens.shape[1])
        with torch.no_grad(), clearhead.intervene(model) as change:
            change.scale(layer, head, 0, queries=-1, keys=key)
            lost = plain - small_model.preference(model, tokens, "Elizabeth", "Jane")
        word, estimated = small_model.words(tokens)[key], attributions[layer, head, key]
        print(f"{layer:5} {head:4} {word!r:12} {estimated:9.2f} {lost:8.2f}")


if __name__ == "__main__":
    main()
