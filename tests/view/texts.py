"""Made-up texts for the Read screen: `python -m tests.view.texts` serves a needle, odd tokens, a generation."""

from collections.abc import Sequence

import numpy as np

from clearhead import weights, window
from clearhead.attention_weights.matrix import Weights
from clearhead.reading.readings import Agreement, Reading, Sees, Stack, StackLayer
from clearhead.reading.sources import from_small_model
from tests.view.made_up import alignment_reading
from tests.view.needle import needle_reading

NEEDLE = (1900, 700)
SENTENCE = "The river was wide. The boat crossed the river."
ODD = [
    "<s>", "<script>document.title='bad'</script>", "", "\n", "\n\n", "\t", " ", "   ", "\u202eevil", "שלום", " עולם",
    "👩\u200d👩\u200d👧", "\u200b", "\x00", "\x1b[31m", "a" * 10_000, " \u0301", "�", "&amp;", "\r\n",
    "__proto__", " 漢字",
]  # fmt: skip
PROMPT = [" the", " lamp", " burned", " clear", "."] * 8
MADE = [" and", " so", " on"]
DIM = 16


def layer_of(number: int, heads: int, key_heads: int, size: int, sees: Sees, agreement: Agreement) -> StackLayer:
    """A layer of random weights, whose query heads share key heads."""
    w = random_weights(number, heads, key_heads, size, sees)
    shared = tuple(head * key_heads // heads for head in range(heads))
    return StackLayer(
        number, tuple(range(heads)), shared, size, size, sees, lambda: w, find_agreement=lambda: agreement
    )


def random_weights(seed: int, heads: int, key_heads: int, size: int, sees: Sees) -> Weights:
    """Weights (heads, size, size) of random queries and keys."""
    random = np.random.default_rng(seed)
    q = 1.5 * random.standard_normal((heads, size, DIM)).astype(np.float32)
    k = random.standard_normal((key_heads, size, DIM)).astype(np.float32)
    return weights(q, k) if sees.low is None else weights(q, k, mask=window(-sees.low))


def odd_reading() -> Reading:
    """Tokens that a page could stumble over, seen through a window; the layer disagrees with its model."""
    names = ODD * 5
    failed = Agreement(said="The output differs from the model's by 0.3.")
    layer = layer_of(0, 4, 2, len(names), Sees(-30, 0, 0), failed)
    return Reading("odd", {"odd": Stack("odd", {0: layer}, lambda layer, side: names)}, "odd tokens")


def generated_reading() -> Reading:
    """Three tokens that were generated one by one, in two layers."""
    names = [*PROMPT, *MADE]
    layers = {
        number: layer_of(number, 6, 2, len(names), Sees(None, 0, 0), Agreement(len(names), 3e-6, 1e-4))
        for number in (4, 5)
    }
    steps = (len(PROMPT), *(1 for _ in MADE))
    return Reading("generator", {"decoder": Stack("decoder", layers, lambda layer, side: names, steps)}, "a generation")


def readings() -> list[Reading]:
    """All of them; the tests count on their order."""
    needle = needle_reading(2048, NEEDLE)
    return [needle, odd_reading(), generated_reading(), alignment_reading(), from_small_model(SENTENCE)]


def main(arguments: Sequence[str] = ()) -> None:
    """Serve them."""
    from clearhead.reading.answers import Reader
    from clearhead.view.command import ViewOptions, serve_page

    found = readings()
    serve_page(lambda: Reader(found), "read", "", ViewOptions(browser=False))


if __name__ == "__main__":
    main()
