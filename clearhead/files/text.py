"""A text from command-line arguments: the words themselves, a file that they name, or standard input.

Responsible for recognising file names and for encodings, not for the meaning of the text.
"""

import codecs
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from clearhead.errors import FileError

MAX_TEXT_BYTES = 1 << 28  # maximum bytes of a text
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_NAMED = re.compile(r"\S+\.(txt|text|md|rst)|\.{0,2}/\S*", re.IGNORECASE)  # words that can only be a file name


def read_text(words: Sequence[str]) -> str:
    """The text of a file if the only word names one, of standard input for "-", else the words themselves.

    Raises FileError for a file that cannot be read, and for the name of a text file that does not exist.

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
            with open(
                os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb"
            ) as file:  # a pipe without a writer reads as empty
                os.set_blocking(file.fileno(), True)
                return _decoded(file, text)
    except (OSError, ValueError) as error:  # a sentence may be too long for a file name or contain invalid characters
        if isinstance(error, FileError):
            raise
        if _NAMED.fullmatch(text):
            raise FileError(f"{text} cannot be read ({getattr(error, 'strerror', error)}): check the path.") from None
        return as_typed(text)
    if _NAMED.fullmatch(text):
        what = "is a folder" if path.is_dir() else "does not exist"
        raise FileError(f"{text} {what}: check the path, or give the text through standard input, as -.")
    return as_typed(text)


def as_typed(text: str) -> str:
    """Decode a typed text as UTF-8, even if the locale is not UTF-8 and Python kept its bytes as surrogates.

    >>> as_typed("river")
    'river'
    """
    if not any("\udc80" <= c <= "\udcff" for c in text):
        return text
    return text.encode(sys.getfilesystemencoding(), "surrogateescape").decode("utf-8", "replace")


def _decoded(file: BinaryIO, name: str) -> str:
    content = file.read(MAX_TEXT_BYTES + 1)
    if len(content) > MAX_TEXT_BYTES:
        raise FileError(f"{name} is larger than {MAX_TEXT_BYTES >> 20} MiB: give only a part of it.")
    encoding = next((encoding for mark, encoding in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        raise FileError(
            f"{name} is not UTF-8 text: convert it first, for instance with iconv -f LATIN1 -t UTF-8."
        ) from None
    if "\0" in text:
        raise FileError(f"{name} is not a text, since it contains zero bytes: give a text file.")
    if not text.strip():
        raise FileError(f"{name} holds no text: write at least one word.")
    return text
