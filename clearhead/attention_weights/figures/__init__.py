"""The figures of `clearhead.plot`, with matplotlib (`pip install 'clearhead[plot]'`).

Responsible for how weights look. All numbers come from `weights`; `Weights.map` pools large matrices and never
samples them.
"""

from clearhead.attention_weights.figures.canvas import COLOURS, KINDS, Colours, Theme, picture_of, save
from clearhead.attention_weights.figures.maps import heads, heat
from clearhead.attention_weights.figures.profiles import profile
from clearhead.attention_weights.figures.rows import row
from clearhead.attention_weights.figures.totals import received

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
