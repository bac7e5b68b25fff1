"""Which heads carry a piece of information? Their outputs in a clean run are put into a corrupted one.

pip install 'clearhead[transformers]'
python examples/interventions/activation_patching.py

The clean prompt names Elizabeth, the corrupted one Jane. A head whose clean output brings Elizabeth back carries her
name (Meng et al. 2022). 1 is the clean run's preference, 0 the corrupted one's.
"""

import small_model
import torch

import clearhead


@torch.no_grad()
def main():
    """Print what each head's clean output brings back."""
    model = small_model.load()
    clean, corrupted = small_model.prompt("Elizabeth"), small_model.prompt("Jane")
    with clearhead.watch(model) as seen:
        best = small_model.preference(model, clean, "Elizabeth", "Jane")
    worst = small_model.preference(model, corrupted, "Elizabeth", "Jane")
    print(f"'Elizabeth' rather than 'Jane': {best:.2f} nats clean, {worst:.2f} corrupted. With one clean head:")
    print("layer  head 0  head 1  head 2  head 3")
    back = torch.zeros(small_model.LAYERS, small_model.HEADS)
    for layer in range(small_model.LAYERS):
        for head in range(small_model.HEADS):
            with clearhead.intervene(model) as change:
                change.patch(layer, head, seen, values=True)  # weights and values: the head's output
                got = small_model.preference(model, corrupted, "Elizabeth", "Jane")
                back[layer, head] = (got - worst) / (best - worst)
        print(f"{layer:5}", *(f"{x:7.2f}" for x in back[layer]))
    layer, head = divmod(int(back.argmax()), small_model.HEADS)
    print(f"Head {head} of layer {layer} brings back most.")


if __name__ == "__main__":
    main()
