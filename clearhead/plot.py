"""Figures of attention weights, with matplotlib (`pip install 'clearhead[plot]'`)."""

from clearhead.attention_weights.figures import (
    COLOURS,
    KINDS,
    Colours,
    Theme,
    heads,
    heat,
    picture_of,
    profile,
    received,
    row,
    save,
)

__all__ = [
    "COLOURS",
    "KINDS",
    "Colours",
    "Theme",
    "heads",
    "heat",
    "picture_of",
    "profile",
    "received",
    "row",
    "save",
]
