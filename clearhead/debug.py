"""CLEARHEAD_DEBUG: one ladder of what is told on standard error while calls run."""

import sys

from clearhead import settings


def level() -> int:
    """The rung in force; anything but a number means silence.

    >>> level()
    0
    """
    text = settings.DEBUG.read()
    return int(text) if text.isdecimal() else 0


def say(rung: int, message: str) -> None:
    """Tell a message if the ladder reaches its rung."""
    if level() >= rung:
        print(f"clearhead: {message}", file=sys.stderr)
