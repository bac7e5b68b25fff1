"""A text from what was typed on a command line: the words themselves, the file that they name, or standard input.

Decides what is a file's name and which encodings are read; what the text means is decided elsewhere.
"""

import codecs
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from clearhead.errors import FileError

LARGEST = 1 << 28  # bytes of a text
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_NAMED = re.compile(r"\S+\.(txt|text|md|rst)|\.{0,2}/\S*", re.IGNORECASE)  # what can only be meant as a file's name


def read_text(words: Sequence[str]) -> str:
    """The text of a file if the only word is the name of one, of standard input for "-", else the words themselves.

    Raises FileError for what cannot be read, and for the name of a text file that is not there.

    >>> read_text(["the", "river"])
    'the river'
    """
    text = " ".join(words)
    if text == "-":
        return _decoded(sys.stdin.buffer, "Standard input")
    if len(words) != 1:
        return as_typed(text)
    path = Path(text)
    try:
        if path.exists() and not path.is_dir():
            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # a pipe without a writer is empty
                os.set_blocking(file.fileno(), True)
                return _decoded(file, text)
    except (OSError, ValueError) as error:  # a sentence may be too long for a name, or hold a character that none has
        if isinstance(error, FileError):
            raise
        if _NAMED.fullmatch(text):
            raise FileError(f"{text} cannot be read ({getattr(error, 'strerror', error)}): check the path.") from None
        return as_typed(text)
    if _NAMED.fullmatch(text):
        what = "is a folder" if path.is_dir() else "is not there"
        raise FileError(f"{text} {what}: check the path, or give the text through standard input, as -.")
    return as_typed(text)


def as_typed(text: str) -> str:
    """What was typed as UTF-8, also where the locale does not know it and Python kept the bytes as surrogates.

    >>> as_typed("river")
    'river'
    """
    if not any("\udc80" <= c <= "\udcff" for c in text):
        return text
    return text.encode(sys.getfilesystemencoding(), "surrogateescape").decode("utf-8", "replace")


def _decoded(file: BinaryIO, name: str) -> str:
    held = file.read(LARGEST + 1)
    if len(held) > LARGEST:
        raise FileError(f"{name} is larger than {LARGEST >> 20} MiB: give a part of it.")
    encoding = next((encoding for mark, encoding in _MARKS if held.startswith(mark)), "utf-8")
    try:
        text = held.decode(encoding)
    except UnicodeDecodeError:
        raise FileError(f"{name} is not UTF-8 text: convert it first, as by iconv -f LATIN1 -t UTF-8.") from None
    if "\0" in text:
        raise FileError(f"{name} is not a text, for it holds bytes of 0: give a text file.")
    if not text.strip():
        raise FileError(f"{name} holds no text: write at least one word.")
    return text
