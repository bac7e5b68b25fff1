"""By which way does a head act? All heads are frozen as in the corrupted run, but for the ends of one path.

pip install 'clearhead[transformers]'
python examples/interventions/path_patching.py

The corrupted text has other words between the two names' places, so that the head that copies does not find the name:
it looks for what came after "spoke of" before. One head's clean weights act directly on the answer, or through the
weights of the head that copies, which alone is not frozen (Goldowsky-Dill et al. 2023).
"""

import small_model
import torch

import clearhead

OTHER = "My mother heard to {}. My father spoke of"


def copying_head(seen):
    """The head that looks from the last token to the name, most of all."""
    name = small_model.words(small_model.prompt("Elizabeth")).index(" Elizabeth")
    weights = torch.tensor([seen.layer(layer).weights[:, -1, name].tolist() for layer in range(small_model.LAYERS)])
    return divmod(int(weights.argmax()), small_model.HEADS)


@torch.no_grad()
def main():
    model = small_model.load()
    clean, corrupted = small_model.prompt("Elizabeth"), small_model.prompt("Elizabeth", OTHER)
    with clearhead.watch(model) as seen_clean:
        best = small_model.preference(model, clean, "Elizabeth", "Jane")
    with clearhead.watch(model) as seen_corrupted:
        worst = small_model.preference(model, corrupted, "Elizabeth", "Jane")
    last, copying = copying_head(seen_clean)
    print(f"Head {copying} of layer {last} copies: {best:.2f} nats clean, {worst:.2f} corrupted.")
    print("Weights of one head from the clean run, the others frozen:\nlayer head  directly  by the copying head")
    for layer in range(last):
        for head in range(small_model.HEADS):
            with clearhead.intervene(model) as change:
                change.patch(None, None, seen_corrupted)
                change.patch(layer, head, seen_clean)
                directly = small_model.preference(model, corrupted, "Elizabeth", "Jane")
            others = [other for other in range(small_model.HEADS) if other != copying]
            with clearhead.intervene(model) as change:
                change.patch(list(range(last)), None, seen_corrupted)
                change.patch(last, others, seen_corrupted)
                change.patch(layer, head, seen_clean)
                through = small_model.preference(model, corrupted, "Elizabeth", "Jane")
            print(f"{layer:5} {head:4} {directly - worst:9.2f} {through - worst:20.2f}")


if __name__ == "__main__":
    main()
