"""Which heads does an answer need? Each head's output is replaced by its mean, one head at a time.

pip install 'clearhead[transformers]'
python examples/interventions/head_ablation.py

A head that matters takes the preference for the right name with it. Its mean over the text's tokens, rather than 0,
keeps what it says everywhere (Wang et al. 2023).
"""

import small_model
import torch

import clearhead


@torch.no_grad()
def main():
    """Print what the preference loses by each head."""
    model, tokens = small_model.load(), small_model.prompt("Elizabeth")
    plain = small_model.preference(model, tokens, "Elizabeth", "Jane")
    print(
        f"'Elizabeth' rather than 'Jane' by {plain:.2f} nats. Without one head:\nlayer  head 0  head 1  head 2  head 3"
    )
    lost = torch.zeros(small_model.LAYERS, small_model.HEADS)
    for layer in range(small_model.LAYERS):
        for head in range(small_model.HEADS):
            with clearhead.intervene(model) as change:
                change.ablate(layer, head, to="mean")
                lost[layer, head] = small_model.preference(model, tokens, "Elizabeth", "Jane") - plain
        print(f"{layer:5}", *(f"{x:7.2f}" for x in lost[layer]))
    layer, head = divmod(int(lost.argmin()), small_model.HEADS)
    print(f"The answer needs head {head} of layer {layer} most.")


if __name__ == "__main__":
    main()
