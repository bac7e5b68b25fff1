"""clearhead's own small language model as a transformers model: four trained layers of four heads, in milliseconds.

Its last layer copies names, which the examples look for:
after "My mother spoke of Elizabeth. My father spoke of" it says " Elizabeth".
"""

import torch

import clearhead.model
from clearhead.adapters.transformers import small_model

own = clearhead.model.load()
LAYERS, HEADS = len(own.parameters.layers), own.parameters.heads
TEXT = "My mother spoke of {}. My father spoke of"


def load():
    """The model, in evaluation."""
    return small_model()


def prompt(name, text=TEXT):
    """A text about somebody, as tokens (1, n)."""
    return torch.tensor([own.tokenizer.encode(text.format(name))])


def token(name):
    """The number of a word that is one token, as it stands after a space."""
    numbers = own.tokenizer.encode(f" {name}")[1:]
    if len(numbers) != 1:
        raise ValueError(f"{name!r} is {len(numbers)} tokens of this model: choose a word that is one.")
    return numbers[0]


def words(tokens):
    """The tokens of a prompt as text."""
    return own.tokenizer.names(tokens[0].tolist())


def preference(model, tokens, name, other):
    """How much more likely one name is than another as the next word: the difference of their logits."""
    logits = model(tokens).logits[0, -1]
    return logits[token(name)] - logits[token(other)]
