"""By which way does a head act? All heads are frozen as in the corrupted run, but for the ends of one path.

pip install 'clearhead[transformers]'
python examples/interventions/path_patching.py

The clean prompt names Elizabeth, the corrupted one Jane. One head's clean output acts directly on the answer, or
through the heads that copy the name, which alone are not frozen (Goldowsky-Dill et al. 2023).
"""

import small_model
import torch

import clearhead


def copying_heads(seen):
    """The heads of the last layer that look from the last token to the name."""
    name = small_model.words(small_model.prompt("Elizabeth")).index(" Elizabeth")
    weights = seen.layer(small_model.LAYERS - 1).weights[:, -1, name]
    return [head for head in range(small_model.HEADS) if weights[head] > 0.25]


@torch.no_grad()
def main():
    """Print what each head does directly, and through the heads that copy."""
    model = small_model.load()
    clean, corrupted = small_model.prompt("Elizabeth"), small_model.prompt("Jane")
    with clearhead.watch(model) as seen_clean:
        best = small_model.preference(model, clean, "Elizabeth", "Jane")
    with clearhead.watch(model) as seen_corrupted:
        worst = small_model.preference(model, corrupted, "Elizabeth", "Jane")
    last, copying = small_model.LAYERS - 1, copying_heads(seen_clean)
    frozen = [head for head in range(small_model.HEADS) if head not in copying]
    print(f"Heads {copying} of layer {last} copy: {best:.2f} nats clean, {worst:.2f} corrupted.")
    print("What one head's clean output brings back, the others frozen:\nlayer head  directly  by the heads that copy")
    for layer in range(last):
        for head in range(small_model.HEADS):
            with clearhead.intervene(model) as change:
                change.patch(None, None, seen_corrupted, values=True)
                change.patch(layer, head, seen_clean, values=True)
                directly = small_model.preference(model, corrupted, "Elizabeth", "Jane") - worst
            with clearhead.intervene(model) as change:
                change.patch(list(range(last)), None, seen_corrupted, values=True)
                change.patch(last, frozen, seen_corrupted, values=True)
                change.patch(layer, head, seen_clean, values=True)
                through = small_model.preference(model, corrupted, "Elizabeth", "Jane") - worst
            print(f"{layer:5} {head:4} {directly:9.2f} {through - directly:24.2f}")


if __name__ == "__main__":
    main()
