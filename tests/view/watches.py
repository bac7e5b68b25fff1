"""A small model's attention over a text and what it made of it, watched and saved: as it is, and changed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import clearhead
from tests.tiny_models import SIZES, model_of

PROMPT, MADE = 40, 6  # tokens of the text, and those that the model adds
CUT = {"layer": 0, "heads": [1, 2], "keys": slice(20)}  # hidden from the second watch's model, so that layer 1 differs
SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "wu")


class Syllables:
    """A tokenizer: every token is a word of two syllables."""

    def decode(self, numbers: Sequence[int]) -> str:
        """The text of tokens."""
        return "".join(f" {SYLLABLES[n % 15]}{SYLLABLES[n // 15]}" for n in map(int, numbers))


@torch.no_grad()
def save_watches(folder: Path) -> tuple[Path, Path]:
    """Watch a model go on with a text, then once more while it may not see a key; both are saved."""
    model = model_of("llama")
    torch.manual_seed(1)
    ids = torch.randint(2, SIZES["vocab_size"], (1, PROMPT))
    made = {"max_new_tokens": MADE, "do_sample": False}
    before, after = folder / "before.safetensors", folder / "after.safetensors"
    with clearhead.watch(model, tokenizer=Syllables()) as seen:
        model.generate(ids, attention_mask=torch.ones_like(ids), **made)
    seen.save(before)
    with clearhead.watch(model, tokenizer=Syllables()) as seen, clearhead.intervene(model) as change:
        change.cut(**CUT)
        model.generate(ids, attention_mask=torch.ones_like(ids), **made)
    seen.save(after)
    return before, after


@torch.no_grad()
def exact_weights(text: Sequence[str]) -> np.ndarray:
    """The unchanged model's own weights over a text, (layers, heads, queries, keys), in float64, by its own code."""
    numbers = {Syllables().decode([n]): n for n in range(SIZES["vocab_size"])}
    done = model_of("llama").double()(torch.tensor([[numbers[token] for token in text]]), output_attentions=True)
    return torch.cat(done.attentions).numpy()
