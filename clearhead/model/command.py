"""`clearhead generate`: prints the text, then the model's continuation as it is drawn."""

from collections.abc import Sequence
from itertools import chain

from clearhead.files.text import read_text
from clearhead.model.generate import stream
from clearhead.model.model import load


def print_reply(words: Sequence[str], tokens: int, temperature: float, top_p: float, seed: int) -> None:
    """Print a text, from the arguments, a file or standard input, and its continuation.

    Raises InputError or FileError before anything is printed.
    """
    text = read_text(words).rstrip()  # a token begins with the blank before its word, so none may be left at the end
    reply = stream(load(), text, tokens, temperature=temperature, top_p=top_p, seed=seed)
    for piece in chain([text], reply):
        print(piece, end="", flush=True)
    print()
