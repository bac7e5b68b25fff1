"""The prompts of the jobs, all of a length asked for."""

from pathlib import Path

import numpy as np
import torch

TEXT = Path(__file__).parents[2] / "examples" / "moby_dick.txt"
CLEAN = "When Mary and John went to the store, John gave a drink to"
CORRUPTED = "When Mary and John went to the store, Mary gave a drink to"
GIVEN = {"Mary": -13, "John": -11}  # where the names are in both, from the end
GENERATED = {"max_new_tokens": 16, "do_sample": False, "repetition_penalty": 1.0}
FOLLOWING = 64  # tokens behind a compressed prompt, whose loss is taken
HEAD = (20, 6)  # a head that reads out what is said next
LAYERS = (17, 18, 20)  # where SmolLM2's induction heads are


def tokens_of(tokenizer, text):
    """A text's tokens, (1, n), without a token that some versions of transformers put before them."""
    return tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]


def book(tokenizer, length):
    """The first tokens of Moby Dick, (1, length)."""
    tokens = tokens_of(tokenizer, TEXT.read_text(encoding="utf-8"))
    if length > tokens.shape[1]:
        raise SystemExit(f"{TEXT.name} has {tokens.shape[1]} tokens, fewer than {length}")
    return tokens[:, :length]


def repeated(length):
    """Random tokens that come twice, (1, length) with an even length."""
    once = np.random.default_rng(0).integers(1000, 20000, length // 2)
    return torch.from_numpy(np.concatenate([once, once]))[None]


def names(tokenizer, length):
    """The clean and the corrupted prompt behind a piece of the book, and the tokens of the right and the wrong name.

    Nine tokens from the end on, they differ in one: who gave the drink.
    """
    clean, corrupted = (tokens_of(tokenizer, text) for text in (CLEAN, CORRUPTED))
    before = book(tokenizer, max(length - clean.shape[1], 0))
    prompts = (torch.cat([before, prompt], dim=1) for prompt in (clean, corrupted))
    right, wrong = (int(tokens_of(tokenizer, name)) for name in (" Mary", " John"))
    return *prompts, right, wrong


def pair(length):
    """Random tokens for an encoder-decoder: a source (1, length), and a target half as long."""
    tokens = np.random.default_rng(0).integers(10, 1000, length + length // 2)
    return torch.from_numpy(tokens[:length])[None], torch.from_numpy(tokens[length:])[None]


def opening(tokenizer, length):
    """The book as a text of so many tokens, the first written out, which inseq would put before any text."""
    return tokenizer.bos_token + tokenizer.decode(book(tokenizer, length - 1)[0])
