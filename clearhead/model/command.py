"""What `clearhead generate` prints: the text, and behind it what the model adds, as it comes."""

from collections.abc import Sequence
from itertools import chain

from clearhead.files.text import read_text
from clearhead.model.generate import stream
from clearhead.model.model import load


def write(words: Sequence[str], tokens: int, temperature: float, top_p: float, seed: int) -> None:
    """Go on with what was typed, with the text of a file, or with standard input.

    Raises InputError or FileError, and then nothing has been printed.
    """
    text = read_text(words).rstrip()  # to the model a blank belongs to the word behind it
    reply = stream(load(), text, tokens, temperature=temperature, top_p=top_p, seed=seed)
    for piece in chain([text], reply):
        print(piece, end="", flush=True)
    print()
