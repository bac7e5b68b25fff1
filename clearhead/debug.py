"""CLEARHEAD_DEBUG: levels of messages on standard error."""

import sys

from clearhead import settings


def level() -> int:
    """The current level; 0 unless the setting is a number.

    >>> level()
    0
    """
    text = settings.DEBUG.read()
    return int(text) if text.isdecimal() else 0


def say(threshold: int, message: str) -> None:
    """Print a message if the level is at least `threshold`."""
    if level() >= threshold:
        print(f"clearhead: {message}", file=sys.stderr)
